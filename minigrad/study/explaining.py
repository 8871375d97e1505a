"""Backward told step by step: what each op gets, its formula, what it hands to whom."""

import math
import sys
from typing import NamedTuple

import numpy as np

from minigrad import autograd
from minigrad.function import Pick
from minigrad.study.graphs import graph as recorded_graph
from minigrad.tensor import Tensor
from minigrad.watching import Watcher, watch

SMALL = 8  # elements of a tensor that is shown with its numbers


class Gradient(NamedTuple):
    """What is told of a gradient.

    Attributes
    ----------
    shape : tuple of int
    norm : float
        The square root of the sum of the squares.
    zeros, not_finite : int
        Numbers of elements that are 0, and that are NaN or infinite.
    values : list, float or None
        The numbers, if there are few.
    to : str
        Who gets it, "" for one that arrived.
    summed_to : tuple of int or None
        The shape to which the engine sums it, where an input was broadcast.
    """

    shape: tuple
    norm: float
    zeros: int
    not_finite: int
    values: object = None
    to: str = ""
    summed_to: tuple | None = None

    @classmethod
    def of(cls, tensor, to="", wanted=None):
        array = tensor.numpy()
        finite = np.isfinite(array)
        return cls(
            array.shape, float(np.linalg.norm(array.ravel().astype(np.float64))), int((array == 0).sum()),
            int(array.size - finite.sum()), array.tolist() if array.size <= SMALL else None, to,
            wanted if wanted is not None and wanted != array.shape else None,
        )  # fmt: skip

    def __str__(self):
        text, size = f"{self.shape!s:<15} norm {_number(self.norm):<9}", math.prod(self.shape)
        if self.to:
            text += f" to {self.to}"
        if self.summed_to is not None:
            text += f", summed to {self.summed_to}, for it was broadcast"
        if self.values is not None:
            text += f" = {_numbers(self.values)}"
        if self.not_finite:
            text += f"  !! {self.not_finite:,} of {size:,} not finite"
        elif self.zeros == size:
            text += "  !! all zero"
        elif self.zeros and self.values is None:
            text += f"  ({self.zeros / size:.0%} zero)"
        return text.rstrip()


class Step(NamedTuple):
    """One node's turn.

    Attributes
    ----------
    label : str
        The op or the leaf, with its key in the graph's listing.
    formula : str
        The first line of the Function's docstring, "" for a leaf.
    arrived : list of (Gradient or None)
        The gradient of each output; of a leaf the complete gradient.
    handed : list of Gradient
    leaf : bool
    """

    label: str
    formula: str
    arrived: list
    handed: list
    leaf: bool


class Explanation:
    """The steps of a walk back; its str is the text that `explain` prints.

    Attributes
    ----------
    steps : list of Step
        In the engine's order.
    """

    def __init__(self, head, steps, most):
        self.head, self.steps, self.most = head, steps, most

    def __repr__(self):
        return f"<Explanation of {len(self.steps):,} steps>"

    def __str__(self):
        steps, gap = list(enumerate(self.steps, 1)), None
        if self.most is not None and len(steps) > self.most:
            kept = self.most - self.most // 3
            gap, steps = len(steps) - self.most, steps[:kept] + steps[len(steps) - self.most + kept :]
        lines = [self.head]
        for position, (number, step) in enumerate(steps):
            if gap and position == kept:
                lines += ["", f"... {gap:,} steps more ..."]
            lines += ["", *_told(number, step)]
        return "\n".join(lines)


def _told(number, step):
    if step.leaf:
        return [f"{number:>3}. {step.label} is complete", *[f"       has   {g}" for g in step.arrived]]
    lines = [f"{number:>3}. {step.label}", f"       {step.formula}" if step.formula else ""]
    many = len(step.arrived) > 1
    for position, gradient in enumerate(step.arrived):
        which = f" output {position}" if many else ""
        lines.append(f"       gets {which} {gradient}" if gradient else f"       gets {which} nothing")
    lines += [f"       hands {gradient}" for gradient in step.handed]
    return [line for line in lines if line]


class _Listener(Watcher):
    def __init__(self, labels):
        self.labels, self.steps = labels, []

    def answered(self, node, grad, answers):
        if type(node) is Pick:
            return
        label = self.labels[id(node)]
        arrived = [None if g is None else Gradient.of(g) for g in (grad if isinstance(grad, list) else [grad])]
        if isinstance(node, Tensor):
            self.steps.append(Step(label, "", arrived, [], True))
            return
        handed = []
        for parent, answer in zip(node.parents, answers or (), strict=False):
            if parent is not None and answer is not None:
                target = parent.parents[0] if type(parent) is Pick else parent
                handed.append(Gradient.of(answer, self.labels[id(target)], parent.shape))
        formula = (type(node).__doc__ or "").strip().split("\n")[0]
        self.steps.append(Step(label, formula, arrived, handed, False))


def explain(tensor, model=None, *, gradient=None, most=60, file=None):
    """Print the walk back from a tensor, op by op: the formula, the gradient that arrives, what is handed to whom.

    The graph stays, and ``.grad`` is not touched: what is shown is a walk of its own. Hooks run in it as in every walk.

    Parameters
    ----------
    tensor : Tensor
        Usually a loss.
    model : Module, optional
        Names parameters and modules, see `minigrad.study.graph`.
    gradient : Tensor, optional
        The gradient to start from, of the tensor's shape. Needed unless the tensor is a scalar.
    most : int or None
        Steps to print: of a longer walk the first ones and the last ones. None prints all.
    file : file object, optional
        Where to print, in place of standard output.

    Returns
    -------
    Explanation
        The same as data: its `steps`.

    Raises
    ------
    ValueError
        If there is no graph behind the tensor, or it has been freed.
    RuntimeError
        If the tensor is not a scalar and no gradient is given.

    Examples
    --------
    >>> w = mg.tensor([1.0, 2.0], requires_grad=True)
    >>> mg.study.explain((w * w).sum())
    """
    if isinstance(tensor, (list, tuple)):
        raise TypeError("explain: expected one Tensor, got several; explain them one by one")
    recorded = recorded_graph(tensor, model)
    labels = {id(node.source): _label(node) for node in recorded}
    leaves = [node.source for node in recorded if isinstance(node.source, Tensor) and node.source.requires_grad]
    listener = _Listener(labels)
    with watch(listener):
        autograd.grad(tensor, leaves, gradient, retain_graph=True, allow_unused=True)
    seed = "1" if gradient is None else f"a gradient of norm {_number(Gradient.of(gradient).norm)}"
    start = labels[id(recorded[recorded.outputs[0]].source)]
    head = f"backward from {start}, shape {tensor.shape}, started with {seed}"
    explanation = Explanation(head, listener.steps, most)
    print(explanation, file=file or sys.stdout)
    return explanation


def _label(node):
    if node.kind != "op":
        return f"{node.name or 'leaf'} [{node.key}]"
    return f"{node.op} [{node.key}]" + (f" of module {node.module}" if node.module else "")


def _number(x):
    return f"{x:.4g}"


def _numbers(values):
    if isinstance(values, list):
        return "[" + ", ".join(map(_numbers, values)) + "]"
    return _number(values)
