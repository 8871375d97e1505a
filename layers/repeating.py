"""A Sequential that is called again and again with inputs of one shape repeats its kernel launches.

A net that computes for 0.3 ms spends as much time again in the Python between its kernels: layers, ops, nodes of the
graph. What happens there is the same in every step, so from some call on the launches of a pass are made by one native
function, and those of its gradient by another (`minigrad.recording.passes`). Results are the same to the last bit.
Whatever could make a difference (a setting, a hook, a parameter that is frozen) is asked at every call.
"""

import importlib

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
    """The passes that a Sequential has recorded. They are no part of its state: copies and pickles have none.

    Parameters
    ----------
    module : Sequential
    """

    def __init__(self, module=None):
        self.module, self._kinds = module, {}

    def __reduce__(self):
        return Passes, ()

    def run(self, x):
        """The module's result: by a recorded pass, or by ``module.run(x)``."""
        mode, module = modes.current.get(), self.module
        if (mode.watchers or mode.decompositions or modes.recorder.get() or not isinstance(x, Tensor)
                or not x.device.relocates):
            return module.run(x)
        key = mode.grad, x.requires_grad, x.data.shape, x.data.dtype
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) == MOST_KINDS:
                return module.run(x)
            kind = self._kinds[key] = _Kind()
        for taken in kind.passes:
            if taken.holds() and [cls.forward for cls in kind.classes] == kind.forwards:
                return taken.repeat(x)
        return kind.run(module, x)

    def __len__(self):
        return sum([len(kind.passes) for kind in self._kinds.values()])


class _Kind:
    """Inputs of one shape and dtype.

    Attributes
    ----------
    passes : list of Pass
        One for each combination of settings met so far.
    classes, forwards : list
        The layers' classes, and their forward when the latest pass was recorded: somebody may put another there.
    """

    def __init__(self):
        self.passes, self.classes, self.forwards = [], [], []
        self._calls, self._wanted = 0, OFTEN

    def run(self, module, x):
        """The module's result by ``module.run(x)``, which is recorded if there were enough calls."""
        self._calls += 1
        if self._calls < self._wanted or not _may_be_repeated(module):
            return module.run(x)
        self._calls, self._wanted = 0, 2 * self._wanted  # if it can't be recorded, or doesn't hold for long
        taken, y = importlib.import_module("minigrad.recording.passes").record(module.run, module, x)
        if taken is not None:
            self.classes = list({type(part): True for part in module.modules() if part is not module})
            self.forwards = [cls.forward for cls in self.classes]
            self.passes = [taken, *self.passes[: MOST_PASSES - 1]]
        return y


def _may_be_repeated(module):
    """Whether all that is below a Sequential are layers whose forward nobody has changed."""
    from minigrad.layers.container import Sequential

    for part in module.modules():
        if part is module:
            continue
        cls = type(part)
        plain = PLAIN.get(cls) is cls.forward or cls.forward is Sequential.forward and cls.run is Sequential.run
        if not plain or part._forward_hooks or "forward" in part.__dict__:
            return False
    return True
