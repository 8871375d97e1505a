"""The recorded graph: what backward will walk, as nodes and edges to be read, counted and drawn."""

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from minigrad.function import Function, Pick
from minigrad.ops.common import product
from minigrad.study.collapse import collapse
from minigrad.study.module_names import joined
from minigrad.tensor import Tensor

DRAWN = 400  # nodes: a notebook shows the picture of a graph up to that size


@dataclass(frozen=True)
class Node:
    """An op, or a tensor that no op made.

    Attributes
    ----------
    key : int
        Its index in `Graph.nodes`.
    kind : str
        ``"op"``; ``"parameter"``, a leaf that the model names; ``"leaf"``, another tensor that requires grad;
        ``"constant"``, an input without gradient that an op has saved; ``"module"``, several nodes as one.
    op : str
        The op's name, ``"linear"``; of a module the names of its ops, or how many they are; "" of a leaf.
    name : str
        A parameter's or buffer's path in the model, ``"2.weight"``.
    module : str
        The path of the module that the node belongs to, "" if none is known.
    shape : tuple of int
    dtype, device : str
    requires_grad : bool
    memory : int
        Bytes of the value; of a module, of all values in it, parameters included.
    saved : int
        Bytes that the node keeps for backward, beside parameters and other leaves: inputs, output, statistics.
    formula : str
        The first line of the Function's docstring.
    settings : dict
        What the op was told, as far as it noted it: ``{"stride_h": 2, ...}``, ``{"dims": (0,)}``.
    parameters : int
        Number of elements of the parameters: its own, or those of a module.
    source : Function, Tensor or None
        The engine's object.
    members : tuple of Node
        Of a module: the nodes in it.
    calls : tuple
        Which calls of modules it ran in, if it was recorded under `names`: ``((path, number), ...)``, and a number that
        changes whenever a call begins or ends.
    """

    key: int
    kind: str
    op: str = ""
    name: str = ""
    module: str = ""
    shape: tuple = ()
    dtype: str = ""
    device: str = ""
    requires_grad: bool = True
    memory: int = 0
    saved: int = 0
    formula: str = ""
    settings: dict = field(default_factory=dict, repr=False, compare=False)
    parameters: int = 0
    source: object = field(default=None, repr=False, compare=False)
    members: tuple = field(default=(), repr=False)
    calls: tuple = field(default=(), repr=False, compare=False)

    @property
    def label(self):
        """What to call it: ``linear``, ``2.weight``, ``leaf``."""
        return self.op or self.name or self.kind


@dataclass(frozen=True)
class Edge:
    """A value's way into an op: from node `source` to node `target`, where it is input number `position`."""

    source: int
    target: int
    position: int


class Graph:
    """What `graph` returns.

    Attributes
    ----------
    nodes : list of Node
        Inputs before the ops that use them.
    edges : list of Edge
    outputs : list of int
        The keys of the nodes that the graph was asked for.
    saved : int
        Bytes that the whole graph keeps for backward, beside leaves: less than the nodes' sum, for what several nodes
        keep counts once.
    """

    def __init__(self, nodes, edges, outputs, saved):
        self.nodes, self.edges, self.outputs, self.saved = nodes, edges, outputs, saved

    def __len__(self):
        return len(self.nodes)

    def __iter__(self):
        return iter(self.nodes)

    def __getitem__(self, key):
        return self.nodes[key]

    def collapse(self, depth=None):
        """The graph with one node per call of a module, parameters in it; ops outside of modules stay.

        Parameters of a module that is called several times are in its first node; those that different modules use
        stay nodes of their own. Calls are told apart if they were recorded under `names`; if not, neighbours of one
        module become one node.

        Parameters
        ----------
        depth : int, optional
            How many names of a path are kept: 1 makes one node of each child of the model. All of them by default.
        """
        if depth is not None and (not isinstance(depth, int) or depth < 1):
            raise ValueError(f"collapse: expected depth to be an int >= 1, got {depth!r}")
        return collapse(self, depth)

    def layout(self):
        """Where to draw what, a `minigrad.study.layout.Layout`: inputs at the top, by igraph."""
        from minigrad.study.layout import lay_out

        return lay_out(self)

    def to_dot(self):
        """The graph in Graphviz's language, a cluster per module."""
        from minigrad.study.formats import to_dot

        return to_dot(self)

    def to_mermaid(self):
        """The graph as a Mermaid flowchart, which GitHub and many editors draw; a subgraph per module.

        Mermaid draws up to 500 edges unless it is told to draw more (``maxEdges``).
        """
        from minigrad.study.formats import to_mermaid

        return to_mermaid(self)

    def to_svg(self):
        """The graph as a picture, for light and dark pages; needs igraph, but no Graphviz."""
        from minigrad.study.svg import to_svg

        return to_svg(self)

    def save(self, path):
        """Write the graph to a file: ``.svg``, ``.dot`` or ``.mmd`` (Mermaid)."""
        writers = {".svg": self.to_svg, ".dot": self.to_dot, ".gv": self.to_dot, ".mmd": self.to_mermaid}
        path = Path(path)
        if path.suffix not in writers:
            raise ValueError(f"save: expected a name that ends in {', '.join(writers)}, got {path.name!r}")
        path.write_text(writers[path.suffix](), encoding="utf-8")

    def _repr_html_(self):
        """In a notebook: the picture, collapsed if need be; of a very large graph, or without igraph, the listing."""
        for shown in (self, self.collapse()):
            if len(shown) <= DRAWN:
                try:
                    return f'<div style="overflow:auto">{shown.to_svg()}</div>'
                except ImportError:
                    break
        return f"<pre>{escape(str(self))}</pre>"

    def __repr__(self):
        ops = sum(node.kind == "op" for node in self.nodes)
        return f"<Graph of {len(self.nodes):,} nodes, {ops:,} of them ops, and {len(self.edges):,} edges>"

    def __str__(self):
        from minigrad.study.formats import to_text

        return to_text(self)


def graph(tensor, model=None, *, constants=True):
    """The graph behind a tensor: every op that backward will visit, and what it started from.

    Parameters
    ----------
    tensor : Tensor, or list or tuple of Tensor
        A loss, or several outputs.
    model : Module, optional
        Names its parameters and buffers, and the modules of the ops that use them; other ops know their module if they
        were recorded inside of ``with names(model)``.
    constants : bool
        Whether inputs that need no gradient are shown too (the data, the labels), where an op has saved them.

    Returns
    -------
    Graph

    Raises
    ------
    ValueError
        If there is no graph behind a tensor, or backward has freed it.

    Examples
    --------
    >>> x = mg.tensor([1.0, 2.0], requires_grad=True)
    >>> print(mg.study.graph((x * x).sum()))
    """
    roots = list(tensor) if isinstance(tensor, (list, tuple)) else [tensor]
    return recorded("graph", roots, model, constants)


def recorded(op, roots, model, constants=True):
    """The `Graph` behind some tensors; `op` is who asks, for the errors."""
    for root in roots:
        if not isinstance(root, Tensor):
            raise TypeError(f"{op}: expected a Tensor or several, got {type(root).__name__}")
        if not root.requires_grad:
            raise ValueError(f"{op}: the tensor of shape {root.shape} has no graph: no input of its required grad, or "
                             "it was computed under no_grad()")
    if not roots:
        raise ValueError(f"{op}: expected at least one tensor")
    if model is not None and not hasattr(model, "named_parameters"):
        raise TypeError(f"{op}: expected model to be a Module, got {type(model).__name__}")
    return _Builder(model, constants, op).build(roots)


def _made_by(tensor):
    """The node behind a tensor; that of a Function with several outputs is the Function."""
    return _without_pick(tensor.fn or tensor)


def _without_pick(node):
    """The Function behind a `Pick`; a node that stands for several becomes the last of them."""
    if isinstance(node, Function) and node.folded is not None:
        node.unfold()
    return node.parents[0] if type(node) is Pick and node.parents else node


class _Builder:
    def __init__(self, model, constants, op):
        self.constants, self.op = constants, op
        self.paths, self.order = {}, {}
        if model is not None:
            self.order = {path: number for number, (path, _) in enumerate(model.named_modules())}
            self.paths = {id(p): path for path, p in [*model.named_buffers(), *model.named_parameters()]}
        self.keys, self.nodes, self.edges = {}, [], []  # id of an engine's object to its key
        self.types = {}  # id of an engine's object to the dtype and the device of its value
        self.kept = {}  # id of an array to its bytes

    def build(self, roots):
        ends = [_made_by(root) for root in roots]
        for root, end in zip(roots, ends, strict=True):
            self.types[id(end)] = root.dtype, root.device
        for end in ends:
            self._walk(end)
        return Graph(self.nodes, self.edges, [self.keys[id(end)] for end in ends], sum(self.kept.values()))

    def _walk(self, end):
        """Add what is behind a node, inputs first, without recursion."""
        stack = [(end, False)]
        while stack:
            item, inputs_done = stack.pop()
            if id(item) in self.keys:
                continue
            if isinstance(item, Tensor):
                self._add_leaf(item)
            elif inputs_done:
                self._add_op(item)
            else:
                inputs = self._inputs(item)
                stack.append((item, True))
                stack += [(source, False) for _, source in reversed(inputs)]

    def _inputs(self, fn):
        """Pairs of position and engine's object; types of the inputs are noted on the way."""
        if fn.parents is None:
            raise ValueError(f"{self.op}: the graph behind {fn.name} was freed by a backward; look at it before, or "
                             "pass retain_graph=True to that backward")
        dtype, _ = self.types[id(fn)]
        dtype = getattr(fn, "source", dtype) if fn.name == "cast" else dtype
        found, saved = [], fn.inputs or (None,) * len(fn.parents)
        for position, (parent, value) in enumerate(zip(fn.parents, saved, strict=True)):
            if parent is not None:
                parent = _without_pick(parent)
                kind = value.dtype if isinstance(value, Tensor) else dtype
                self.types.setdefault(id(parent), (kind, fn.device))
                found.append((position, parent))
            elif isinstance(value, Tensor) and self.constants:
                found.append((position, value))
        return found

    def _add_leaf(self, x):
        path = self.paths.get(id(x), "")
        kind = "constant" if not x.requires_grad else "parameter" if path else "leaf"
        self._add(x, Node(
            len(self.nodes), kind, name=path, module=path.rpartition(".")[0], shape=x.shape, dtype=str(x.dtype),
            device=str(x.device), requires_grad=x.requires_grad, memory=x.data.nbytes,
            parameters=product(x.shape) if kind == "parameter" else 0, source=x,
        ))  # fmt: skip

    def _add_op(self, fn):
        dtype, device = self.types[id(fn)]
        kept = _kept(fn)
        self.kept.update(kept)
        inputs = [(position, self.keys[id(source)]) for position, source in self._inputs(fn)]
        self._add(fn, Node(
            len(self.nodes), "op", op=fn.name, module=self._module(fn, [key for _, key in inputs]), shape=fn.shape,
            dtype=str(dtype), device=str(device), memory=product(fn.shape) * dtype.itemsize, saved=sum(kept.values()),
            formula=(type(fn).__doc__ or "").strip().split("\n")[0], source=fn, calls=getattr(fn, "module_calls", ()),
            settings=_settings(fn),
        ))  # fmt: skip
        self.edges += [Edge(key, len(self.nodes) - 1, position) for position, key in inputs]

    def _add(self, source, node):
        self.keys[id(source)] = node.key
        self.nodes.append(node)

    def _module(self, fn, inputs):
        """The path noted by `names`, or that of the modules whose parameters the op uses."""
        noted = getattr(fn, "module_path", None)
        if noted is not None:
            return noted
        paths = sorted({self.nodes[key].module for key in inputs if self.nodes[key].name}, key=self.order.get)
        return joined(paths) if paths else ""


def _kept(fn):
    """The distinct arrays that a node keeps alive, leaves that require grad left out: their ids with their bytes."""
    arrays, leaves = [], set()
    for x in fn.inputs or ():
        if isinstance(x, Tensor):
            if x.requires_grad and x.fn is None:
                leaves.add(id(_owner(x.data)))
            arrays.append(x.data)
    if fn.saved_output is not None:
        arrays.append(fn.saved_output[0])
    for value in fn.__dict__.values():
        for part in value if isinstance(value, (list, tuple)) else (value,):
            arrays.append(part.data if isinstance(part, Tensor) else part)
    owners = {id(_owner(array)): _owner(array) for array in arrays if hasattr(array, "nbytes")}
    return {key: owner.nbytes for key, owner in owners.items() if key not in leaves}


def _settings(fn):
    """Numbers and words among a node's attributes; shapes that it needs to go back are left out."""
    found = {}
    for name, value in fn.__dict__.items():
        if hasattr(value, "_asdict"):
            found.update(value._asdict())
        elif isinstance(value, dict):
            found.update(value)
        elif name not in ("source", "kept", "module_path", "module_calls"):
            found[name] = value
    return {name: value for name, value in found.items() if _plain(value)}


def _plain(value):
    return all(map(_plain, value)) if isinstance(value, tuple) else isinstance(value, (bool, int, float, str))


def _owner(array):
    """The array whose memory a view looks into."""
    base = getattr(array, "base", None)
    return base if hasattr(base, "nbytes") else array


