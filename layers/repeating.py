"""A Sequential that is called again and again with inputs of one shape repeats its kernel launches.

A net that computes for 0.3 ms spends as much time again in the Python between its kernels: layers, ops, nodes of the
graph. What happens there is the same in every step, so from some call on the launches of a pass are made by one native
function, and those of its gradient by another (`minigrad.recording.passes`). Results are the same to the last bit.
Whether a setting has changed, a hook, or the array of a parameter, is asked at every call.
"""

import importlib
import operator

from minigrad import modes
from minigrad.layers.activation import (
    ELU,
    GELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from minigrad.layers.conv import Conv2d
from minigrad.layers.dropout import Dropout
from minigrad.layers.linear import Flatten, Identity, Linear, Unflatten
from minigrad.layers.module import Module
from minigrad.layers.norm import BatchNorm1d, BatchNorm2d, Folded, GroupNorm, LayerNorm
from minigrad.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minigrad.tensor import Tensor

OFTEN = 32  # calls before a pass is recorded: that takes some 20 ms, forward and back
MOST_KINDS = 16  # shapes and dtypes of inputs that are counted
MOST_PASSES = 4  # of one kind of input, the latest ones

LAYERS: tuple[type[Module], ...] = (
    Linear, Conv2d, BatchNorm1d, BatchNorm2d, Folded, LayerNorm, GroupNorm, Dropout,
    MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Unflatten, Identity,
    ReLU, LeakyReLU, ELU, Sigmoid, Tanh, GELU, SiLU, Softplus, Softmax, LogSoftmax,
)  # fmt: skip
# Those that do nothing but launch kernels, by exact type, for a subclass may do anything; and how they do it.
PLAIN = {cls: cls.forward for cls in LAYERS}


class Passes:
    """The passes that a Sequential has recorded."""

    def __init__(self):
        self._kinds = {}

    def run(self, module, x):
        """The module's result: by a recorded pass, or by its children."""
        mode = modes.current.get()
        if (mode.watchers or mode.decompositions or modes.recorder.get() or not isinstance(x, Tensor)
                or not x.device.relocates or not x.data.flags.c_contiguous):
            return module._run(x)
        key = mode.grad, x.requires_grad, x.data.shape, x.data.dtype
        kind = self._kinds.get(key) or self._kind(key, module)
        for known in kind.passes:
            if known.holds(module):
                return known.taken.repeat(x)
        return kind.run(module, x, self._kinds)

    def _kind(self, key, module):
        """A new kind of input; if there are too many, the one that was met least often without a pass makes room."""
        if len(self._kinds) >= MOST_KINDS:
            _forget(self._kinds, _children(module))
            others = [(kind.calls, other) for other, kind in list(self._kinds.items()) if not kind.passes]
            if len(self._kinds) >= MOST_KINDS and others:
                self._kinds.pop(min(others, key=operator.itemgetter(0))[1], None)
        return self._kinds.setdefault(key, _Kind()) if len(self._kinds) < MOST_KINDS else _Kind()


class _Kind:
    """Inputs of one shape and dtype.

    Attributes
    ----------
    passes : list of _Known
        One for each combination of settings met so far.
    calls : int
        How many there were since one was recorded.
    """

    def __init__(self):
        self.passes, self.calls, self._wanted = [], 0, OFTEN

    def run(self, module, x, kinds):
        """The module's result by its children. After so many calls it is recorded."""
        self.calls += 1
        if self.calls < self._wanted:
            return module._run(x)
        self.calls, self._wanted = 0, 2 * self._wanted  # if it can't be recorded, or doesn't hold for long
        before = modes.modules_changed[0]
        if not _may_be_repeated(module):
            return module._run(x)
        children = _children(module)
        taken, y = importlib.import_module("minigrad.recording.passes").record(module._run, children, x)
        if taken is not None and modes.modules_changed[0] is before:  # or another thread has set something
            _forget(kinds, children)
            self.passes = [_Known(taken, children), *self.passes[: MOST_PASSES - 1]]
        return y


class _Known:
    """A pass, and the children that it went through.

    The Sequential itself is not held on to: it would have to wait for the garbage collector.
    """

    def __init__(self, taken, children):
        self.taken, self.children, self._seen = taken, children, None
        self._classes = list({type(part) for child in children for part in child.modules()})
        self._attributes = self._of_classes()

    def _of_classes(self):
        return [(cls.forward, cls.training) for cls in self._classes]

    def holds(self, module):
        """Whether the module would do the same now."""
        if not self.taken.holds() or self._of_classes() != self._attributes:
            return False
        now = modes.modules_changed[0]
        if self._seen is not now:
            if _children(module) != self.children:
                return False
            self._seen = now
        return True


def _forget(kinds, children):
    """Drop the passes that can't hold again, with what they hold on to: the Sequential has other children now, or a
    parameter another array."""
    for kind in list(kinds.values()):
        kind.passes = [known for known in kind.passes
                       if known.children == children and known.taken.guards.arrays_hold() and not known.taken.useless]


def _children(module):
    """In the order in which they are called, one that comes twice twice."""
    return [child for _, child in module._items()]


def _may_be_repeated(module):
    """Whether all that is below a Sequential are layers whose forward nobody has changed, with settings that can't be
    changed unnoticed."""
    from minigrad.layers.container import Sequential

    if type(module)._run is not Sequential._run:
        return False
    for part in module.modules():
        if part is module:
            continue
        cls = type(part)
        nested = cls.forward is Sequential.forward and cls._run is Sequential._run
        if not nested and PLAIN.get(cls) is not cls.forward or part._forward_hooks or "forward" in part.__dict__:
            return False
        if any([type(value) in (list, dict, set) for value in part.__dict__.values()]):
            return False
    return True
