"""What holds in the current context (thread or task): whether ops are recorded, whether results are checked."""

from contextlib import ContextDecorator, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Mode:
    """What holds in the current context (thread or task)."""

    grad: bool = True
    anomaly: bool = False


current = ContextVar("minigrad_mode", default=Mode())  # noqa: B039 - it is frozen


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


class _ModeSwitch(ContextDecorator):
    """Sets some fields of the mode inside a ``with`` block or a decorated function."""

    change: dict = {}

    def __init__(self):
        self._tokens = []

    def __enter__(self):
        self._tokens.append(current.set(replace(current.get(), **self.change)))
        return self

    def __exit__(self, *exception):
        current.reset(self._tokens.pop())

    def _recreate_cm(self):
        return type(self)()


class no_grad(_ModeSwitch):
    """Inside, ops are not recorded. A context manager and a decorator."""

    change = {"grad": False}


class enable_grad(_ModeSwitch):
    """Inside, ops are recorded again, whatever surrounds the block. A context manager and a decorator."""

    change = {"grad": True}


class detect_anomaly(_ModeSwitch):
    """Inside, the first NaN that an op's forward or backward produces raises an error that names the op.

    Every result is read back for it, so use it to look for a fault, not to train.
    """

    change = {"anomaly": True}


def is_grad_enabled():
    """Whether ops are being recorded in this context."""
    return current.get().grad
