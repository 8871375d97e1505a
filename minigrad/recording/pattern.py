"""A graph as a pattern: the nodes that one pass has recorded, from which those of a later pass can be made.

The pattern holds no array of that pass. Where a node has saved one, it says in which piece of the later pass's memory
it lies; tensors from outside (the input, parameters) are known by their number.
"""

from typing import NamedTuple

from minigrad.function import Function, _version
from minigrad.tensor import Tensor

INPUT, SAVED, OUTPUT = 0, 1, 2
"""The pieces of memory of a forward pass: its input, what it allocates, its result."""


class Strange(Exception):
    """A pass, or its graph, that can't be repeated."""


class Place(NamedTuple):
    """An array in a piece of memory: which piece, how many bytes from its start, its shape and dtype."""

    piece: int
    offset: int
    shape: tuple
    dtype: object


class Outside(NamedTuple):
    """A tensor from outside the graph, or the node that made it."""

    number: int


class Inside(NamedTuple):
    """A tensor that a node of the graph has made; `node` is None if it needs no gradient."""

    place: Place
    node: int | None


class Pattern:
    """The graph behind a tensor.

    Parameters
    ----------
    end : Tensor
    outside : list of Tensor
        Where the graph begins.
    place : callable
        From an array to its `Place`, None if it always stays where it is.

    Attributes
    ----------
    needs : list of bool
        Of each tensor outside, whether the graph leads to it.
    saves : list of bool
        Of each tensor outside and of the end, whether it may not be changed in place before the gradient is computed.

    Raises
    ------
    Strange
        If the graph begins anywhere else too.
    """

    def __init__(self, end, outside, place):
        begins = {t.fn or t: Outside(n) for n, t in enumerate(outside)}
        order = _in_order(end.fn, begins)
        frozen = _Freezing({id(t): Outside(n) for n, t in enumerate(outside)},
                           {**begins, **{node: n for n, node in enumerate(order)}}, place)
        self._entries = [frozen.entry(node) for node in order]
        parents = {parent for node in order for parent in node.parents}
        self.needs = [node in parents for node in begins]
        versions = [x.version for node in order for x in node.inputs or () if isinstance(x, Tensor)]
        versions = {id(v) for v in versions + [node.saved_output[1] for node in order if node.saved_output]}
        self.saves = [id(t.version) in versions for t in (*outside, end)]

    def nodes(self, device, array, outside, output):
        """Make the nodes anew; returns the last one.

        Parameters
        ----------
        array : callable
            From a `Place` to the array.
        outside : list of Tensor
        output : tuple or None
            What a node notes as `saved_output` that has saved the end.
        """
        made = []

        def node_of(number):
            begin = outside[number.number] if type(number) is Outside else None
            return made[number] if begin is None else begin.fn or begin

        def thawed(value):
            kind = type(value)
            if kind is Place:
                return array(value)
            if kind is Outside:
                return outside[value.number]
            if kind is Inside:
                tensor = Tensor(array(value.place), device)
                if value.node is not None:
                    tensor.requires_grad, tensor.fn = True, node_of(value.node)
                return tensor
            return kind([thawed(item) for item in value]) if kind in (tuple, list) else value

        for cls, parents, inputs, kept, shape, needs, attributes in self._entries:
            node = cls()
            node.device, node.shape, node.needs_input_grad, node.hooks = device, shape, needs, None
            node.parents = tuple([None if p is None else node_of(p) for p in parents])
            node.inputs = thawed(inputs)
            node.saved_version = None if inputs is None else _version(node.inputs)
            node.saved_output = None
            if kept is not None:
                node.saved_output = thawed(kept), *(output[1:] if kept.piece == OUTPUT else ([0], 0))
            vars(node).update({name: thawed(value) for name, value in attributes.items()})
            made.append(node)
        return made[-1]


class _Freezing:
    """Takes nodes apart.

    Parameters
    ----------
    tensors : dict
        From the identity of a tensor outside to it.
    numbers : dict
        From a node to its number.
    place : callable
    """

    def __init__(self, tensors, numbers, place):
        self.tensors, self.numbers, self.place = tensors, numbers, place

    def entry(self, node):
        parents = [None if p is None else self.numbers[p] for p in node.parents]
        inputs = None if node.inputs is None else self.value(tuple(node.inputs))
        kept = None if node.saved_output is None else self.value(node.saved_output[0])
        attributes = {name: self.value(value) for name, value in vars(node).items()}
        return type(node), parents, inputs, kept, node.shape, node.needs_input_grad, attributes

    def value(self, value):
        """What a node refers to, without the pass's own arrays."""
        if isinstance(value, Tensor):
            if id(value) in self.tensors:
                return self.tensors[id(value)]
            place = self.place(value.data)
            return value if place is None else Inside(place, self.numbers.get(value.fn))
        if type(value) in (tuple, list):
            return type(value)([self.value(item) for item in value])
        if hasattr(value, "dtype") and hasattr(value, "ravel"):
            return self.place(value) or value
        return value


def _in_order(end, begins):
    """The nodes behind one, each after those that it depends on, up to where the graph begins."""
    order, seen, stack = [], set(), [(end, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen and node not in begins:
            if not isinstance(node, Function) or node.parents is None:
                raise Strange
            seen.add(node)
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents if parent is not None]
    return order
