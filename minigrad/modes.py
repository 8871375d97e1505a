"""What holds in the current context (thread or task): whether ops are recorded, who watches, what is decomposed.

And, for all of them, whether a module has changed.
"""

from contextlib import ContextDecorator, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Mode:
    """What holds in the current context (thread or task)."""

    grad: bool = True
    watchers: tuple = ()  # of Watcher
    decompositions: dict | None = field(default=None, hash=False)  # see `Function.apply`

    @property
    def anomaly(self):
        """Whether somebody reads every value, so that each op has to be run by itself."""
        return bool(self.watchers) and any(watcher.reads_values for watcher in self.watchers)

    def recording(self, grad):
        """The same with ops recorded or not; `dataclasses.replace` takes twice as long."""
        return Mode(grad=grad, watchers=self.watchers, decompositions=self.decompositions)


current = ContextVar("minigrad_mode", default=Mode())  # noqa: B039 - it is frozen


modules_changed = [object()]
"""Another object whenever a member of any module was set or deleted, or a hook registered or removed: while it is the
same, every module computes what it did. A number that is counted up would not do: two threads can set it back."""

recorder: ContextVar = ContextVar("minigrad_recorder", default=None)
"""The `minigrad.recording.recorder.Recorder` of the step that is being recorded, or None."""


def off_record():
    """A context for what a step sets up once and for all: no recorder takes note of it, so it is not repeated."""
    listening = recorder.get()
    return listening.paused() if listening else nullcontext()


def on_host(function):
    """Run Python that reads values of tensors: now, and at this place in every replay of a step being recorded."""
    listening = recorder.get()
    return listening.host(function) if listening else function()


class ModeSwitch(ContextDecorator):
    """Sets some fields of the mode inside a ``with`` block or a decorated function."""

    def __init__(self):
        self._tokens = []

    def change(self, mode):
        """The mode inside, given that around the block."""
        raise TypeError(f"{type(self).__name__} changes nothing")

    def __enter__(self):
        self._tokens.append(current.set(self.change(current.get())))
        return self

    def __exit__(self, *exception):
        current.reset(self._tokens.pop())

    def _recreate_cm(self):
        return type(self)()


class no_grad(ModeSwitch):
    """Inside, ops are not recorded. A context manager and a decorator."""

    def change(self, mode):
        return mode.recording(False)


class enable_grad(ModeSwitch):
    """Inside, ops are recorded again, whatever surrounds the block. A context manager and a decorator."""

    def change(self, mode):
        return mode.recording(True)


class set_grad_enabled(ModeSwitch):
    """Record ops or not, from now on; as a context manager until the block ends, as a decorator inside the function.

    Parameters
    ----------
    mode : bool
    """

    def __init__(self, mode):
        super().__init__()
        self.mode = bool(mode)
        self._before = current.get()
        current.set(self.change(self._before))

    def change(self, mode):
        return mode.recording(self.mode)

    def __enter__(self):
        current.set(self.change(current.get()))  # it holds already, unless this block is not the first
        return self

    def __exit__(self, *exception):
        current.set(self._before)

    def __call__(self, function):
        current.set(self._before)  # only inside the function
        return super().__call__(function)

    def _recreate_cm(self):
        return type(self)(self.mode)


def is_grad_enabled():
    """Whether ops are being recorded in this context."""
    return current.get().grad
