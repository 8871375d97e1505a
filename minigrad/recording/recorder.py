"""The recorder: listens at a device's seam while a step runs for the first time.

In place of the device's kernels it puts stand-ins that launch the kernel and note the launch, in place of its
allocator one that notes every buffer. Nothing else has to know of it, except where Python decides something that may
differ in a later step: those places tell the recorder, found in ``modes.recorder``.
"""

import threading
import weakref
from typing import NamedTuple

from minigrad import modes
from minigrad.device import devices


class CaptureError(RuntimeError):
    """A step that cannot be recorded, or a recording that cannot be replayed."""


class Buffer(NamedTuple):
    """An argument that is memory of the step's own: a view of allocation number `number`."""

    number: int
    offset: int
    shape: tuple
    dtype: object


class Launch(NamedTuple):
    """One call of a kernel; arrays from outside the step are kept as they are, its own as `Buffer`."""

    name: str
    kernel: object
    arguments: tuple


class Allocation:
    """A buffer that the step asked the device for."""

    def __init__(self, array, position):
        self.array = weakref.ref(array)
        self.size = array.nbytes
        self.first = self.last = position  # the launches between which it is in use


class Recorder:
    """Records what one step does on one device.

    Attributes
    ----------
    tape : list of Launch or callable
        What the step did, in order; a callable is Python code that every replay has to run at its place.
    allocations : list of Allocation
    repeatable : bool
        Whether a later step does the same (a first one sometimes does something else).
    grads : dict
        The leaves whose gradient the step has set or cleared, as keys.
    kernels : module
        The device's kernels, for which it stands in.
    """

    def __init__(self, device, guards):
        self.device, self.guards = device, guards
        self.tape, self.allocations, self.repeatable = [], [], True
        self.grads = {}
        self._owners = {}  # id of an array to the number of its allocation
        self._thread = threading.get_ident()

    # -- at the seam -------------------------------------------------------------------------------------------

    def __enter__(self):
        device = self.device
        self.kernels, self._token = device.kernels, modes.recorder.set(self)
        self._make, self._read = device.empty, device.to_numpy
        self._others = [(other, other.kernels) for other in devices() if other is not device]
        device.kernels = Kernels(self.kernels, self)
        for other, kernels in self._others:
            other.kernels = Elsewhere(other, kernels, self)
        device.empty, device.to_numpy = self._empty, self._to_numpy
        return self

    def __exit__(self, *exception):
        for device, kernels in [(self.device, self.kernels), *self._others]:
            device.kernels = kernels
        del self.device.empty, self.device.to_numpy
        modes.recorder.reset(self._token)

    def listening(self):
        """Whether the caller is the step that is being recorded, and not another thread."""
        return threading.get_ident() == self._thread

    def _empty(self, shape, dtype):
        array = self._make(shape, dtype)
        if self.listening():
            self.own([array])
        return array

    def own(self, arrays):
        """Note arrays as memory of the step's own, from the next launch on."""
        for array in arrays:
            self._owners[id(array)] = len(self.allocations)
            self.allocations.append(Allocation(array, len(self.tape)))

    def _to_numpy(self, array):
        if self.listening():
            raise CaptureError(
                "capture: the step reads a value while it is being recorded (item(), numpy(), float(), bool(), print, "
                "an if on a tensor); later steps would go on with this step's value. Return the tensor and read it "
                "after the call"
            )
        return self._read(array)

    def launched(self, name, kernel, arguments):
        """Note a launch."""
        position = len(self.tape)
        self.tape.append(Launch(name, kernel, tuple([self._argument(a, position) for a in arguments])))

    def _argument(self, value, position):
        buffer = self.buffer(value) if hasattr(value, "dtype") else None
        if buffer is None:
            return value
        self.allocations[buffer.number].last = position
        return buffer

    def buffer(self, array):
        """The `Buffer` that an array of the step's own is; None for one from outside."""
        owner = self.device.owner_of(array)
        number = self._owners.get(id(owner))
        if number is None or self.allocations[number].array() is not owner:
            return None
        return Buffer(number, self.device.offset_of(array), array.shape, array.dtype)

    # -- from places where Python decides ----------------------------------------------------------------------

    def host(self, function):
        """Run ``function()`` now, and in every replay between the launches before it and those after it."""
        self.tape.append(function)
        with self.paused():
            return function()

    def paused(self):
        """A context in which nothing is noted."""
        return _Paused(self)

    def moves(self, source, target):
        """The step copies a tensor to another device, by way of the host."""
        raise CaptureError(f"capture: the step moves a tensor from {source} to {target} while it is being recorded; "
                           "move inputs before the call")

    def unrepeatable(self):
        """This step does something that no later one does: the next one has to be recorded anew."""
        self.repeatable = False

    def module(self, module):
        """A module is called: what it depends on must be the same in a replay."""
        self.guards.module(module)

    def grad_read(self, leaf):
        """The step is about to use ``leaf.grad``; unless it has written it itself, that is an input of the step."""
        if leaf not in self.grads:
            self.guards.grad(leaf)

    def grad_written(self, leaf):
        """The step has set or cleared ``leaf.grad``."""
        self.grads[leaf] = True
        self.guards.leaf(leaf)


class _Paused:
    """Lets the recorder's own thread pass the seam like any other."""

    def __init__(self, recorder):
        self.recorder = recorder

    def __enter__(self):
        self.thread, self.recorder._thread = self.recorder._thread, None
        self.token = modes.recorder.set(None)

    def __exit__(self, *exception):
        self.recorder._thread = self.thread
        modes.recorder.reset(self.token)


class Kernels:
    """Stands in for a device's module of kernels while a step is recorded."""

    def __init__(self, kernels, recorder):
        self._module, self._recorder = kernels, recorder

    def __getattr__(self, name):
        kernel, recorder = getattr(self._module, name), self._recorder
        if name.endswith("_workspace"):
            return kernel

        def launch(*arguments):
            kernel(*arguments)
            if recorder.listening():
                recorder.launched(name, kernel, arguments)

        setattr(self, name, launch)
        return launch


class Elsewhere:
    """Stands in for the kernels of another device: what they compute would be missing from every replay."""

    def __init__(self, device, kernels, recorder):
        self._device, self._module, self._recorder = device, kernels, recorder

    def __getattr__(self, name):
        kernel, device, recorder = getattr(self._module, name), self._device, self._recorder

        def launch(*arguments):
            if recorder.listening():
                raise CaptureError(
                    f"capture: the step computes on {device}, and what is recorded is its work on {recorder.device}, "
                    "the device of its inputs (cpu without any); give it an input on the device that it computes on"
                )
            return kernel(*arguments)

        return launch
