"""Backward told step by step: what each op gets, its formula, what it hands to whom."""

import math
import sys
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from minigrad import autograd
from minigrad.creation import full
from minigrad.function import Pick
from minigrad.study.graphs import recorded as recorded_graph
from minigrad.tensor import Tensor
from minigrad.watching import Watcher, watch

WIDE = 100
SMALL = 8  # elements of a tensor that is shown with its numbers
VANISHING, EXPLODING = 1e-6, 1e4  # norms pointed out, relative to that of the gradient with which the walk starts


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
    start : float
        The norm of the gradient with which the walk started.
    """

    shape: tuple
    norm: float
    zeros: int
    not_finite: int
    values: object = None
    to: str = ""
    summed_to: tuple | None = None
    start: float = 1.0

    @classmethod
    def of(cls, tensor, to="", wanted=None, start=1.0):
        array = tensor.numpy()
        finite = np.isfinite(array)
        return cls(
            array.shape, float(np.linalg.norm(array.ravel().astype(np.float64))), int((array == 0).sum()),
            int(array.size - finite.sum()), array.tolist() if array.size <= SMALL else None, to,
            wanted if wanted is not None and wanted != array.shape else None, start,
        )  # fmt: skip

    @property
    def warning(self):
        """What is wrong with it: "3 of 10 not finite", "all zero", "vanishing", "exploding", or ""."""
        size = math.prod(self.shape)
        if self.not_finite:
            return f"{self.not_finite:,} of {size:,} not finite"
        if self.zeros == size:
            return "all zero" if size else ""
        if self.norm < VANISHING * self.start:
            return "vanishing"
        return "exploding" if self.norm > EXPLODING * self.start else ""

    def told(self, parts=1):
        """One line about it, if it is the sum of so many others."""
        text, size = f"{self.shape!s:<15} norm {_number(self.norm):<9}", math.prod(self.shape)
        if self.to:
            text += f" to {self.to}"
        if self.summed_to is not None:
            text += f", summed to {self.summed_to}, for it was broadcast"
        if parts > 1:
            text += f" (sum of {parts})"
        if self.values is not None:
            text += f" = {_numbers(self.values)}"
        if self.zeros and self.zeros < size and self.values is None:
            text += f"  ({self.zeros / size:.0%} zero)"
        return text.rstrip() + (f"  !! {self.warning}" if self.warning else "")


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
    parts : list of int
        How many gradients were summed to what arrived, one per use: of each output.
    hooks : int
        How many hooks it has.
    """

    label: str
    formula: str
    arrived: list
    handed: list
    leaf: bool
    parts: list
    hooks: int = 0


class Explanation:
    """The steps of a walk back; its str is the text that `explain` prints.

    Attributes
    ----------
    steps : list of Step
        In the engine's order.
    hooks : bool
        Whether hooks were called.
    """

    def __init__(self, head, steps, most, hooks):
        self.head, self.steps, self.most, self.hooks = head, steps, most, hooks

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
            lines += ["", *self._told(number, step)]
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    @property
    def notes(self):
        """Sentences about the whole: where NaN or infinity began, what gets no gradient, the extremes of the leaves."""
        notes = []
        for number, step in enumerate(self.steps, 1):
            bad = [g for g in (*step.arrived, *step.handed) if g and g.not_finite]
            if bad:
                verb = "gets it" if bad[0] in step.arrived else "hands it out"
                notes.append(f"!! NaN or infinity first in step {number}: {step.label} {verb}")
                break
        leaves = [step for step in self.steps if step.leaf]
        without = [step.label for step in leaves if step.arrived[0] is None]
        if without:
            notes.append(f"no gradient reaches {_listed(without)}")
        zero = [step.label for step in leaves if step.arrived[0] and step.arrived[0].warning == "all zero"]
        if zero:
            notes.append(f"!! all zero in {_listed(zero)}")
        finite = [step for step in leaves if step.arrived[0] and not step.arrived[0].not_finite]
        if len(finite) > 1:
            least, most = (f(finite, key=lambda step: step.arrived[0].norm) for f in (min, max))
            notes.append(f"leaves: norms from {_number(least.arrived[0].norm)} ({least.label}) to "
                         f"{_number(most.arrived[0].norm)} ({most.label})")
        return notes

    def _told(self, number, step):
        if step.leaf:
            (gradient,) = step.arrived
            if gradient is None:
                return [f"{number:>3}. {step.label} gets no gradient"]
            lines = [f"{number:>3}. {step.label} is complete", f"       has   {gradient.told(*step.parts)}"]
        else:
            lines = [f"{number:>3}. {step.label}", *([f"       {step.formula}"] if step.formula else [])]
            many = len(step.arrived) > 1
            for position, gradient in enumerate(step.arrived):
                which = f" output {position}" if many else ""
                lines.append(f"       gets {which} " + (gradient.told(step.parts[position]) if gradient else "nothing"))
        if step.hooks:
            called = "called; shown is what came of it" if self.hooks else "not called here (pass hooks=True)"
            lines.append(f"       {step.hooks} hook{'s' if step.hooks > 1 else ''}, {called}")
        lines += [f"       hands {gradient.told()}" for gradient in step.handed]
        return [piece for line in lines for piece in _broken(line)]


def _broken(line):
    """A line as one or two: the numbers of a gradient go below where they would make it too long."""
    start, equals, numbers = line.partition(" = [")
    return [start.rstrip(), f"{'':<12} = [{numbers}"] if equals and len(line) > WIDE else [line]


def _listed(labels):
    return ", ".join(labels[:8]) + (f" and {len(labels) - 8:,} more" if len(labels) > 8 else "")


class _Listener(Watcher):
    def __init__(self, labels, start, hooks):
        self.labels, self.start, self.hooks = labels, start, hooks
        self.steps, self.parts = [], {}

    def answered(self, node, grad, answers):
        if type(node) is Pick:  # it hands on what it got
            self.parts[id(node.parents[0]), node.index] = self.parts.pop(id(node), 1)
            return
        label, parts = self.labels[id(node)], [self.parts.pop(id(node), 1)]
        if isinstance(grad, list):
            parts = [self.parts.pop((id(node), index), 0) for index in range(len(grad))]
        arrived = [self.gradient(g) for g in (grad if isinstance(grad, list) else [grad])]
        hooks = len(self.hooks.get(id(node), ()))
        if isinstance(node, Tensor):
            self.steps.append(Step(label, "", arrived, [], True, parts, hooks))
            return
        handed = []
        for parent, answer in zip(node.parents, answers or (), strict=False):
            if parent is not None and answer is not None:
                target = parent.parents[0] if type(parent) is Pick else parent
                handed.append(self.gradient(answer, self.labels[id(target)], parent.shape))
                self.parts[id(parent)] = self.parts.get(id(parent), 0) + 1
        formula = (type(node).__doc__ or "").strip().split("\n")[0]
        self.steps.append(Step(label, formula, arrived, handed, False, parts, hooks))

    def gradient(self, tensor, to="", wanted=None):
        return None if tensor is None else Gradient.of(tensor, to, wanted, self.start)


def explain(tensor, model=None, *, gradient=None, hooks=False, most=60, file=None):
    """Print the walk back from a tensor, op by op: the formula, the gradient that arrives, what is handed to whom.

    It is a walk of its own, in the engine's order: the graph stays, ``.grad`` is not touched, and hooks are not called
    unless you say so. ``mul [3]`` is node 3 of `minigrad.study.graph`. Gradients of at most 8 elements are shown with
    their numbers. Marked with ``!!`` are NaN and infinity, gradients that are all zero, and norms below 1e-6
    (vanishing) or above 1e4 (exploding) of that of the gradient at the start.

    Parameters
    ----------
    tensor : Tensor
        Usually a loss.
    model : Module, optional
        Names parameters and modules, see `minigrad.study.graph`; within ``with names(model)`` ops without parameters
        are named too.
    gradient : Tensor, optional
        The gradient to start from, of the tensor's shape. Ones by default, so that of a tensor that is no scalar the
        sum of its elements is explained.
    hooks : bool
        Whether to call the hooks of tensors (`Tensor.register_hook`), which may change a gradient, and may have other
        effects each time. By default it is only said where there are some.
    most : int or None
        Steps to print: of a longer walk the first ones and the last ones. None prints all.
    file : file object, optional
        Where to print, in place of standard output.

    Returns
    -------
    Explanation
        The same as data: its `steps`. Its str is the text that has been printed.

    Raises
    ------
    ValueError
        If there is no graph behind the tensor, or it has been freed.

    Examples
    --------
    >>> w = mg.tensor([1.0, 2.0], requires_grad=True)
    >>> mg.study.explain((w * w).sum())
    """
    if isinstance(tensor, (list, tuple)):
        raise TypeError("explain: expected one Tensor, got several; explain them one by one")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise ValueError(f"explain: expected most to be an int >= 1 or None, got {most!r}")
    recorded = recorded_graph("explain", [tensor], model)
    if gradient is not None and (not isinstance(gradient, Tensor) or gradient.shape != tensor.shape):
        raise ValueError(f"explain: expected gradient to be a Tensor of shape {tensor.shape}, got "
                         f"{gradient.shape if isinstance(gradient, Tensor) else type(gradient).__name__}")
    labels = {id(node.source): _label(node) for node in recorded}
    leaves = [node.source for node in recorded if isinstance(node.source, Tensor) and node.source.requires_grad]
    seed = "1"
    if gradient is not None:
        seed = f"a gradient of norm {_number(Gradient.of(gradient).norm)}"
    elif tensor.shape != ():
        gradient = full(tensor.shape, 1.0, dtype=tensor.dtype, device=tensor.device)
        seed = "ones, as if its elements were summed"
    start = 1.0 if gradient is None else Gradient.of(gradient).norm
    with _hooks_of(recorded, tensor, call=hooks) as known:
        listener = _Listener(labels, start, known)
        with watch(listener):
            autograd.grad(tensor, leaves, gradient, retain_graph=True, allow_unused=True)
    first = labels[id(recorded[recorded.outputs[0]].source)]
    head = f"backward from {first}, shape {tensor.shape}, started with {seed}"
    explanation = Explanation(head, listener.steps, most, hooks)
    print(explanation, file=file or sys.stdout)
    return explanation


@contextmanager
def _hooks_of(recorded, tensor, call):
    """The hooks of all nodes, by the identity of the node; inside of the block they are off, unless to be called."""
    nodes = {id(node.source): node.source for node in recorded if node.source is not None}
    for node in [*nodes.values(), tensor.fn]:
        for parent in getattr(node, "parents", None) or ():
            if type(parent) is Pick:
                nodes[id(parent)] = parent
    if tensor.fn is not None:
        nodes[id(tensor.fn)] = tensor.fn
    found = {key: node.hooks for key, node in nodes.items() if node.hooks}
    try:
        if not call:
            for key in found:
                nodes[key].hooks = None
        yield found
    finally:
        for key, hooks in found.items():
            nodes[key].hooks = hooks


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
