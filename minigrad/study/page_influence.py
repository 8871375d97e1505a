"""How each weight of a small net moves every value behind it: central differences, on a float64 copy of the model."""

import base64
import copy
from dataclasses import dataclass

import numpy as np

from minigrad.creation import from_numpy
from minigrad.device import cpu
from minigrad.dtypes import float64
from minigrad.random import default_generator
from minigrad.study.decomposing import decompose
from minigrad.study.page_recording import GRID, Forward, checked_loss, random_states, rounded, state_kept
from minigrad.watching import watch

MOST = 300  # parameters
NUMBERS = 300_000  # derivatives on a page, 4 bytes each
STEP = 6e-6  # the third root of float64's rounding: the error is smallest there


@dataclass
class Influence:
    """Derivatives by every element of every parameter.

    Attributes
    ----------
    by : dict
        A parameter's key to a dict: the key of a node behind it to an array (elements of the parameter, elements of
        the node).
    why_not : str
        Why there is none, as a sentence.
    """

    by: dict
    why_not: str = ""


def influence(model, x, y, loss, recording, *, fuse=None, decomposed=False):
    """The derivative of every downstream value by each weight.

    Parameters
    ----------
    model, x, y, loss, fuse, decomposed
        As `record` got them; the random state must still be the one from which it started.
    recording : Recording

    Returns
    -------
    Influence
        Empty, with a reason, for a larger net or one that does not run in float64.
    """
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST:
        return Influence({}, f"The net has {count:,} parameters; influence is computed for up to {MOST}.")
    with state_kept(model):
        # The copy runs on the CPU, and draws what the model drew where it is.
        cpu.write(default_generator.state(cpu), random_states(model)[next(model.parameters()).device])
        return _influence(model, x, y, loss, recording, fuse, decomposed)


def _influence(model, x, y, loss, recording, fuse, decomposed):
    try:
        other = copy.deepcopy(model).to("cpu", float64)
        inputs = [_wide(tensor) for tensor in (x, y)]
        run = _Run(other, inputs, loss, recording, fuse, decomposed)
        run()
    except Exception as error:  # whatever a model of the user's says to another dtype
        return Influence({}, f"Influence is missing: the model does not run in float64 ({error}).")
    key_of = {node.name: node.key for node in recording.graph if node.kind == "parameter"}
    behind = _behind(recording.graph)
    found = {}
    for name, parameter in other.named_parameters():
        if name in key_of:
            found[key_of[name]] = _derivatives(run, parameter, behind[key_of[name]])
    return Influence(found)


class _Run:
    """Calling it gives the values of all ops, by key."""

    def __init__(self, model, inputs, loss, recording, fuse, decomposed):
        self.model, self.inputs, self.loss, self.recording = model, inputs, loss, recording
        self.fuse, self.decomposed = fuse, decomposed
        self.names = [None if key is None else recording.graph[key].op for key in recording.ran]

    def __call__(self):
        forward, (x, y) = Forward(), self.inputs
        with state_kept(self.model, self.fuse), watch(forward):
            if self.decomposed:
                with decompose():
                    checked_loss(self.loss(self.model(x), y))
            else:
                checked_loss(self.loss(self.model(x), y))
        ran = [fn.name for fn, _, _, _ in forward.ops]
        if len(ran) != len(self.names) or any(n not in (None, op) for n, op in zip(self.names, ran, strict=True)):
            raise RuntimeError("other ops ran than in float32")
        return {key: copies[0] for key, (_, _, _, copies) in zip(self.recording.ran, forward.ops, strict=True)
                if key is not None}


def _wide(tensor):
    array = tensor.numpy()
    return from_numpy(array.astype(np.float64) if array.dtype.kind == "f" else array.copy())


def _behind(graph):
    """For each node the keys of the ops that its value reaches, in order."""
    users = {}
    for edge in graph.edges:
        users.setdefault(edge.source, set()).add(edge.target)
    reached = {}
    for node in reversed(graph.nodes):
        direct = users.get(node.key, set())
        reached[node.key] = direct.union(*[reached[key] for key in direct])
    return {key: sorted(keys) for key, keys in reached.items()}


def _derivatives(run, parameter, behind):
    weights, rows = parameter.data.reshape(-1), {key: [] for key in behind}
    for index in range(weights.size):
        kept = weights[index]
        h = STEP * max(1.0, abs(kept))
        try:
            weights[index] = kept + h
            above, up = run(), weights[index]
            weights[index] = kept - h
            below, down = run(), weights[index]
        finally:
            weights[index] = kept
        for key in behind:
            with np.errstate(invalid="ignore"):  # what is infinite has no difference: NaN, and shown as that
                difference = (above[key].astype(np.float64) - below[key].astype(np.float64)).ravel()
            rows[key].append(difference / (up - down))
    return {key: np.array(row) for key, row in rows.items()}


def packed(found):
    """An `Influence` for JSON: norms of all derivatives, and the numbers of as many small nodes as the page can hold.

    Returns
    -------
    dict
        ``why_not``, and ``by``: parameter's key to ``{node's key: {"norms": [...], "numbers": base64 of float32}}``.
    """
    left, by = NUMBERS, {}
    for parameter, nodes in found.by.items():
        rows = by[str(parameter)] = {}
        for key, array in nodes.items():
            rows[str(key)] = entry = {"norms": [rounded(n) for n in np.linalg.norm(array, axis=1)]}
            if array.shape[1] <= GRID and array.size <= left:
                left -= array.size
                with np.errstate(over="ignore"):  # more than float32 holds is shown as infinite
                    entry["numbers"] = base64.b64encode(array.astype("<f4").tobytes()).decode()
    return {"why_not": found.why_not, "by": by}
