"""A graph as a pattern: the nodes that one pass has recorded, from which those of a later pass can be made.

The pattern holds no array of that pass. Where a node has saved one, it says in which piece of the later pass's memory
it lies; tensors from outside (the input, parameters) are known by their number.
"""

from collections import Counter
from typing import NamedTuple

from minigrad.function import Function
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
    """A tensor that a node of the graph has made: its `Place`, or the array if that is part of a parameter; whose
    changes in place are its own, if it is a view of something that stays; the node, None if it needs no gradient."""

    array: object
    version: list | None
    node: int | None


class Memory(NamedTuple):
    """What a pass knows, for its nodes to be made: its arrays, and the tensors whose changes in place count.

    Attributes
    ----------
    array : callable
        From a `Place` to the array.
    outside : list of Tensor
    versions : list of (list, int)
        Counters of changes in place that a node looks at, with their numbers after the pass.
    output : tuple or None
        What a node notes as `saved_output` that has saved the result.
    """

    array: object
    outside: list
    versions: list
    output: tuple | None


class Pattern:
    """The graph behind a tensor.

    Parameters
    ----------
    end : Tensor
    outside : list of Tensor
        Where the graph begins; the first is the input of the pass.
    place : callable
        From an array to its `Place`, None if it always stays where it is.

    Attributes
    ----------
    needs : list of bool
        Of each tensor outside, whether the graph leads to it.
    versions : set of int
        Identities of the counters of changes in place that some node looks at.
    uses_input : bool
        Whether a node has saved the input, or a part of it.
    last : class
        Of the node behind the end.

    Raises
    ------
    Strange
        If the graph begins anywhere else too, or if its gradients would be added up in another order than by a walk
        that does not stop: a tensor outside is used twice.
    """

    def __init__(self, end, outside, place):
        begins = {t.fn or t: Outside(n) for n, t in enumerate(outside)}
        order = _in_order(end.fn, begins)
        uses = Counter([parent for node in order for parent in node.parents])
        if any([uses[node] > 1 for node in begins]):
            raise Strange
        frozen = _Freezing({id(t): Outside(n) for n, t in enumerate(outside)},
                           {**begins, **{node: n for n, node in enumerate(order)}}, place)
        self._entries = [frozen.entry(node) for node in order]
        self.needs, self.uses_input, self.last = [node in uses for node in begins], frozen.uses_input, type(order[-1])
        versions = [x.version for node in order for x in node.inputs or () if isinstance(x, Tensor)]
        self.versions = {id(v) for v in versions + [node.saved_output[1] for node in order if node.saved_output]}

    def nodes(self, device, memory):
        """Make the nodes anew, from a `Memory`; returns the last one."""
        made, numbers = [], {id(version): number for version, number in memory.versions}

        def node_of(number):
            begin = memory.outside[number.number] if type(number) is Outside else None
            return made[number] if begin is None else begin.fn or begin

        def version_at(place):
            """The counter of an array, and its number after the pass."""
            if place.piece == OUTPUT and memory.output:
                return memory.output[1:]
            if place.piece == INPUT:
                version = memory.outside[INPUT].version
                return version, numbers.get(id(version), version[0])
            return [0], 0

        def thawed(value):
            kind = type(value)
            if kind is Place:
                return memory.array(value)
            if kind is Outside:
                return memory.outside[value.number]
            if kind is Inside:
                tensor = Tensor(memory.array(value.array) if type(value.array) is Place else value.array, device)
                tensor.version = value.version or version_at(value.array)[0]
                if value.node is not None:
                    tensor.requires_grad, tensor.fn = True, node_of(value.node)
                return tensor
            return kind([thawed(item) for item in value]) if kind in (tuple, list) else value

        for cls, parents, inputs, kept, shape, needs, attributes in self._entries:
            node = cls()
            node.device, node.shape, node.needs_input_grad, node.hooks = device, shape, needs, None
            node.parents = tuple([None if p is None else node_of(p) for p in parents])
            node.inputs = thawed(inputs)
            node.saved_version = None if inputs is None else sum([
                numbers.get(id(x.version), 0) for x in node.inputs if isinstance(x, Tensor)])
            node.saved_output = None if kept is None else (thawed(kept), *version_at(kept))
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
        self.tensors, self.numbers, self.place, self.uses_input = tensors, numbers, place, False

    def entry(self, node):
        """All of a node."""
        parents = [None if p is None else self.numbers[p] for p in node.parents]
        inputs = None if node.inputs is None else self.value(tuple(node.inputs))
        kept = None if node.saved_output is None else self.value(node.saved_output[0])
        if kept is not None and type(kept) is not Place:
            raise Strange
        attributes = {name: self.value(value) for name, value in vars(node).items()}
        return type(node), parents, inputs, kept, node.shape, node.needs_input_grad, attributes

    def value(self, value):
        """What a node refers to, without the pass's own arrays."""
        if isinstance(value, Tensor):
            if id(value) in self.tensors:
                self.uses_input |= self.tensors[id(value)].number == INPUT
                return self.tensors[id(value)]
            found = self.value(value.data)
            if value.fn is None and type(found) is not Place:  # a buffer, say
                return value
            if value.fn is not None and value.fn not in self.numbers:
                raise Strange
            version = None if type(found) is Place else value.version
            return Inside(found, version, None if value.fn is None else self.numbers[value.fn])
        if type(value) in (tuple, list):
            return type(value)([self.value(item) for item in value])
        place = self.place(value) if hasattr(value, "dtype") and hasattr(value, "ravel") else None
        if place is not None:
            self.uses_input |= place.piece == INPUT
        return value if place is None else place


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
