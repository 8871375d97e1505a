"""One training step, recorded for the page: every value as it arrives, every gradient on its way back."""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from minigrad import autograd, modes
from minigrad.creation import from_numpy
from minigrad.device import cpu
from minigrad.function import Pick
from minigrad.modes import enable_grad, no_grad
from minigrad.random import default_generator
from minigrad.study.decomposing import decompose
from minigrad.study.graphs import Edge, Graph, Node, graph
from minigrad.study.module_names import names
from minigrad.tensor import Tensor
from minigrad.watching import Watcher, watch

GRID = 512  # elements of a tensor that is shown number by number
BINS = 32  # of the histogram of a larger one


def summary(array, limit=GRID):
    """What the page shows of an array: its numbers if there are few, else a histogram; and what they amount to.

    Parameters
    ----------
    array : numpy.ndarray
    limit : int
        Elements up to which the numbers are kept.

    Returns
    -------
    dict
        Numbers that JSON can hold: NaN and infinities are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    flat = np.asarray(array).ravel()
    wide = flat.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    found = {"shape": list(np.shape(array)), "size": flat.size, "zeros": int((wide == 0).sum()),
             "nan": int(np.isnan(wide).sum()), "inf": int(np.isinf(wide).sum())}
    if finite.size:
        found |= {"norm": rounded(np.linalg.norm(finite)), "mean": rounded(finite.mean()), "std": rounded(finite.std()),
                  "min": rounded(finite.min()), "max": rounded(finite.max())}
    if flat.size <= limit:
        found["values"] = [rounded(x) for x in wide]
    elif finite.size:
        found["counts"] = _counts(finite)
    return found


def _counts(numbers):
    """How many numbers lie in each of `BINS` parts of their range; `numpy.histogram` refuses very narrow ranges."""
    low, high = numbers.min(), numbers.max()
    if low == high:
        return [len(numbers) if part == BINS // 2 else 0 for part in range(BINS)]
    parts = np.minimum((numbers / (high - low) - low / (high - low)) * BINS, BINS - 1).astype(int)
    return np.bincount(np.maximum(parts, 0), minlength=BINS).tolist()


def rounded(x, digits=6):
    """A number for JSON, rounded to some digits."""
    return float(f"{x:.{digits}g}") if np.isfinite(x) else f"{x}"


@dataclass
class Step:
    """One op's turn.

    Attributes
    ----------
    phase : str
        ``"forward"`` or ``"backward"``.
    key : int
        The op's node.
    handed : dict
        Backward: the index of an edge to the `summary` of what is handed along it, before a broadcast is undone.
    completed : list of int
        Backward: leaves whose gradient is complete with it.
    """

    phase: str
    key: int
    handed: dict = field(default_factory=dict)
    completed: list = field(default_factory=list)


@dataclass
class Recording:
    """A training step.

    Attributes
    ----------
    graph : Graph
        With the ops that needed no gradient too.
    loss : float
    values, gradients : dict
        A node's key to its arrays, one per output: NumPy arrays, or None where no gradient came.
    steps : list of Step
        Forward in the order in which the ops ran, then backward in the order of the walk.
    ran : list of int or None
        For each op that ran its key in the graph, None if the loss does not depend on it.
    """

    graph: Graph
    loss: float
    values: dict
    gradients: dict
    steps: list
    ran: list


class Forward(Watcher):
    """Keeps a copy of each op's results."""

    def __init__(self):
        self.ops, self.made_by, self.inputs_of = [], {}, {}

    def computed(self, fn, inputs, results):
        copies = [result.numpy().copy() for result in results]
        self.ops.append((fn, inputs, results, copies))  # holds on to them, so that an id stays theirs
        self.inputs_of[id(fn)] = inputs
        self.made_by.update({id(result): fn for result in results})


class _Backward(Watcher):
    def __init__(self):
        self.turns = []

    def answered(self, node, grad, answers):
        if type(node) is Pick:
            return
        grads = [None if g is None else g.numpy().copy() for g in (grad if isinstance(grad, list) else [grad])]
        answered = [None if a is None else a.numpy().copy() for a in answers or ()]
        self.turns.append((node, grads, answered))


def random_states(model):
    """The default generator's state on each device that the model uses, and on the CPU."""
    devices = dict.fromkeys([cpu, *[tensor.device for tensor in (*model.parameters(), *model.buffers())]])
    return {device: device.to_numpy(default_generator.state(device)).copy() for device in devices}


@contextmanager
def state_kept(model, fuse=None):
    """Leave buffers, random numbers, `training` and `fuse` of the modules as they were; `fuse` sets it inside."""
    buffers = [(buffer, buffer.numpy().copy()) for buffer in model.buffers()]
    flags = [(module, dict(module.__dict__)) for module in model.modules()]
    random = random_states(model)
    try:
        if fuse is not None:
            for module in model.modules():
                if hasattr(type(module), "fuse"):
                    module.fuse = fuse
        yield
    finally:
        for device, numbers in random.items():
            device.write(default_generator.state(device), numbers)
        for module, attributes in flags:
            for name in [name for name in module.__dict__ if name not in attributes]:
                del module.__dict__[name]
            module.__dict__.update(attributes)
        modes.modules_changed[0] = object()  # what is written past __setattr__ is not told
        for buffer, values in buffers:
            if not np.array_equal(buffer.numpy(), values, equal_nan=True):
                with no_grad():
                    buffer.copy_(from_numpy(values, buffer.device))


def record(model, x, y, loss, *, fuse=None, decomposed=False):
    """Run one step forward and backward, and leave everything as it was.

    Gradients are those of a walk of its own: ``.grad`` is not touched.

    Parameters
    ----------
    model : Module
    x, y : Tensor
    loss : callable
        ``loss(model(x), y)`` is a scalar.
    fuse : bool, optional
        Whether `Sequential` runs several layers as one op; as the model says by default.
    decomposed : bool
        Whether fused ops run as primitive ones, see `minigrad.study.decompose`.

    Returns
    -------
    Recording
    """
    forward, backward = Forward(), _Backward()
    with state_kept(model, fuse), ExitStack() as around:
        around.enter_context(enable_grad())
        if decomposed:
            around.enter_context(decompose())
        with names(model), watch(forward):
            result = checked_loss(loss(model(x), y))
        seen = with_all_inputs(graph(result, model), forward, {id(x): "x", id(y): "y"})
        leaves = [node.source for node in seen if isinstance(node.source, Tensor) and node.source.requires_grad]
        with watch(backward):
            autograd.grad(result, leaves, retain_graph=True, allow_unused=True)
    key_of = {id(node.source): node.key for node in seen}
    values = {node.key: [node.source.numpy().copy()] for node in seen if isinstance(node.source, Tensor)}
    ran = [key_of.get(id(fn)) for fn, _, _, _ in forward.ops]
    values.update({key: copies for key, (_, _, _, copies) in zip(ran, forward.ops, strict=True) if key is not None})
    gradients, steps = {}, [Step("forward", key) for key in ran if key is not None]
    edge_of = {(edge.target, edge.position): index for index, edge in enumerate(seen.edges)}
    for node, grads, answers in backward.turns:
        key = key_of[id(node)]
        if all(g is None for g in grads):
            continue
        gradients[key] = grads
        if isinstance(node, Tensor):
            steps[-1].completed.append(key)
            continue
        handed = {edge_of[key, position]: summary(answer, 0) for position, answer in enumerate(answers)
                  if answer is not None and (key, position) in edge_of}
        steps.append(Step("backward", key, handed))
    return Recording(seen, float(result.item()), values, gradients, steps, ran)


def checked_loss(result):
    """The loss, if backward can start from it."""
    if not isinstance(result, Tensor):
        raise TypeError(f"page: expected loss(model(x), y) to be a Tensor, got {type(result).__name__}")
    if result.shape != () and result.numel() != 1:
        raise ValueError(f"page: expected loss(model(x), y) to be a scalar, got shape {result.shape}")
    if not result.requires_grad:
        raise ValueError("page: the loss does not depend on anything that requires grad; nothing can be walked back")
    return result


def with_all_inputs(seen, forward, given):
    """The graph with every tensor that went into an op, and the ops without gradient that made it.

    The engine records what backward needs; a reader also wants to see where the data comes in.

    Parameters
    ----------
    seen : Graph
    forward : Forward
        What ran.
    given : dict
        The id of a tensor to a name for it.
    """
    nodes, edges, keys = [], [], {}  # keys: id of an engine's object to its new key
    old_inputs = {}
    for edge in seen.edges:
        old_inputs.setdefault(edge.target, {})[edge.position] = edge.source

    def add(node, source, inputs=()):
        keys[id(source)] = len(nodes)
        nodes.append(replace(node, key=len(nodes)))
        edges.extend(Edge(key, len(nodes) - 1, position) for position, key in inputs)
        return keys[id(source)]

    def constant(tensor):
        """The key of a tensor without gradient; what made it is added first."""
        stack = [(tensor, False)]
        while stack:
            item, ready = stack.pop()
            fn = forward.made_by.get(id(item))
            source = item if fn is None else fn
            if id(source) in keys:
                continue
            if fn is None:
                add(_constant(item, given.get(id(item), "")), item)
                continue
            tensors = [(p, t) for p, t in enumerate(forward.inputs_of[id(fn)]) if isinstance(t, Tensor)]
            if ready:
                add(_op(fn, item), fn, [(p, keys[id(forward.made_by.get(id(t), t))]) for p, t in tensors])
            else:
                stack.append((item, True))
                stack += [(t, False) for _, t in reversed(tensors)]
        return keys[id(forward.made_by.get(id(tensor), tensor))]

    for node in seen.nodes:
        if node.kind == "constant" and not node.name:
            constant(node.source)
        elif node.kind != "op":
            name = node.name or given.get(id(node.source), "")
            add(replace(node, name=name), node.source)
        else:
            inputs = {p: keys[id(forward.made_by.get(id(seen[key].source), seen[key].source))]
                      for p, key in old_inputs.get(node.key, {}).items()}
            for position, tensor in enumerate(forward.inputs_of.get(id(node.source), ())):
                if isinstance(tensor, Tensor) and position not in inputs:
                    inputs[position] = constant(tensor)
            add(node, node.source, sorted(inputs.items()))
    return Graph(nodes, edges, [keys[id(seen[key].source)] for key in seen.outputs], seen.saved)


def _constant(tensor, name):
    return Node(-1, "constant", name=name, shape=tensor.shape, dtype=str(tensor.dtype), device=str(tensor.device),
                requires_grad=False, memory=tensor.data.nbytes, source=tensor)


def _op(fn, result):
    formula = (type(fn).__doc__ or "").strip().split("\n")[0]
    return Node(-1, "op", op=fn.name, module=getattr(fn, "module_path", ""), shape=result.shape,
                dtype=str(result.dtype), device=str(result.device), requires_grad=False, memory=result.data.nbytes,
                formula=formula, source=fn, calls=getattr(fn, "module_calls", ()))
