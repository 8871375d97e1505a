"""Watchers: told of every op that runs, every gradient on its way, every module that is called.

What looks at a step without being part of it (the search for NaN here, the tools of `minigrad.study`) is a `Watcher`.
"""

from contextlib import contextmanager
from dataclasses import replace

from minigrad.modes import ModeSwitch


class Watcher:
    """Does nothing when it is told something; a subclass writes what it wants to hear.

    Attributes
    ----------
    reads_values : bool
        Whether it reads every result, so that no op may compute several layers at once and no step can be recorded.
    """

    reads_values = False

    def computed(self, fn, inputs, results):
        """An op has run forward.

        Parameters
        ----------
        fn : Function
            The instance that ran; the node of the graph if it is recorded (``results[0].fn is fn`` then, or a `Pick`'s
            parent if there are several results).
        inputs : tuple
            What it was applied to: tensors and other things.
        results : tuple of Tensor
        """

    def answered(self, node, grad, answers):
        """A node has got its gradient and answered with those of its parents. Told in the order of the walk back.

        Parameters
        ----------
        node : Function or Tensor
            A Tensor is a leaf: its gradient is complete.
        grad : Tensor, list of (Tensor or None), or None
            What had arrived, summed over all uses; a list for a Function with several outputs, None if nothing came.
        answers : tuple of (Tensor or None), or None
            One gradient for each of ``node.parents``, before a broadcast is undone, None for a parent that wants none;
            None for a leaf, or if none came.
            Copy what you keep: the engine adds to some of these arrays in place later.
        """

    def passed(self, node):
        """The engine has summed the answers of a node (not of a leaf) to those of others; the next node follows."""

    def entered(self, modules):
        """A module is about to run (or several as one op): a tuple of modules."""

    def left(self, modules):
        """They have returned or raised."""


@contextmanager
def entering(watchers, *modules):
    """Tell the watchers that modules run as one inside the block."""
    for watcher in watchers:
        watcher.entered(modules)
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.left(modules)


class watch(ModeSwitch):
    """Inside, a watcher is told what happens in this context. A context manager and a decorator.

    Parameters
    ----------
    watcher : Watcher
    """

    def __init__(self, watcher):
        super().__init__()
        self.watcher = watcher

    def change(self, mode):
        return replace(mode, watchers=(*mode.watchers, self.watcher))

    def _recreate_cm(self):
        return type(self)(self.watcher)


class _NaNFinder(Watcher):
    reads_values = True

    def computed(self, fn, inputs, results):
        for result in results:
            _check_finite(fn, result, "forward")

    def answered(self, node, grad, answers):
        for answer in answers or ():
            if answer is not None:
                _check_finite(node, answer, "backward")


def _check_finite(fn, tensor, where):
    if tensor.data.dtype.kind == "f" and bool((tensor.numpy() != tensor.numpy()).any()):
        raise FloatingPointError(f"anomaly: the {where} of {fn.name} produced NaN (result of shape {tensor.shape})")


class detect_anomaly(watch):
    """Inside, the first NaN that an op's forward or backward produces raises an error that names the op.

    Every result is read back for it, so use it to look for a fault, not to train.
    """

    def __init__(self):
        super().__init__(_NaNFinder())

    def _recreate_cm(self):
        return type(self)()
