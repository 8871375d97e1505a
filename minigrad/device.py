"""Where arrays live and which kernels compute on them.

Everything that a training step computes goes through ``device.kernels``, into arrays that come from
``device.empty``: one seam, at which a step can later be recorded and replayed.
"""

import functools
import importlib

import numpy as np

from minigrad import extension
from minigrad.compiling import show_compilations
from minigrad.modes import on_host

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
LEAST = 1 << 16  # bytes of an array that is aligned: by aligned_alloc, arrays of 4 and 40 KB cost more than they saved

class Device:
    """A place for arrays with the kernels that work there.

    Attributes
    ----------
    name : str
        ``"cpu"`` or ``"cuda"``; what ``str(device)`` shows and `get_device` takes.
    kernels : module
        ``minigrad.kernels.cpu`` or ``minigrad.kernels.cuda``, imported at the first use, since that brings in Numba;
        in it also what `minigrad.register_kernel` was given.
    empty : callable
        ``empty(shape, dtype)``: an uninitialised C-contiguous array. On the CPU found at the first use too.
    """

    compiler = "compile"  # the module of the kernels that compiles them

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        # Reached only while the attribute is missing, so the seam costs a plain attribute look-up later.
        if attribute in ("empty", "_new"):
            found = importlib.import_module(f"minigrad.kernels.{self.name}.memory").allocator(ALIGNMENT, LEAST)
            return vars(self).setdefault(attribute, found)  # a recorder's, if it was first
        if attribute == "kernels":
            kernels = importlib.import_module(f"minigrad.kernels.{self.name}")
            with extension.lock:
                if "kernels" not in vars(self):  # or another thread was first
                    extension.attach(self.name, kernels)
                    self.kernels = kernels
                    show_compilations(self.compile_listeners)
            return self.kernels
        raise AttributeError(attribute)

    @property
    def compile_listeners(self):
        """The functions that are told of every compilation of a kernel, see `minigrad.compiling`."""
        return importlib.import_module(f"minigrad.kernels.{self.name}.{self.compiler}").compile_listeners

    def __repr__(self):
        return f"device({self.name!r})"

    def __str__(self):
        return self.name

    def __eq__(self, other):
        return self.name == other or (isinstance(other, Device) and self.name == other.name)

    def __hash__(self):
        return hash(self.name)

    def __reduce__(self):
        return get_device, (self.name,)

    def full(self, shape, value, dtype):
        """A new array with every element set to `value`."""
        out = self.empty(shape, dtype)
        self.kernels.fill(out.ravel(), value)
        return out

    def workspace(self, kernel, dtype, *arguments):
        """The scratch array that ``kernels.<kernel>`` asks for, given its inputs and numbers."""
        return self.empty(getattr(self.kernels, kernel + "_workspace")(*arguments), dtype)

    def from_numpy(self, array):
        """The device's array with the values of a NumPy array; the same memory where that is possible."""
        if array.flags.c_contiguous and array.flags.writeable and array.flags.aligned:
            return array
        return self.copy_of(array, array.dtype)

    def copy_of(self, array, dtype):
        """A new array of the device with the values of a NumPy array, converted to another type of elements."""
        if array.size * np.dtype(dtype).itemsize < LEAST:  # Numba can wait until something is computed
            return np.array(array, dtype, order="C")
        out = self._new(array.shape, dtype)  # not of the memory that a step, if one is recorded, has every time
        np.copyto(out, array, casting="unsafe")
        return out

    @staticmethod
    def to_numpy(array):
        """The values as a NumPy array; the same memory where that is possible."""
        return array

    @staticmethod
    def write(array, values):
        """Overwrite an array of the device with values from the host: numbers, or an array of the same shape."""
        np.copyto(array, values)

    @staticmethod
    def to_dlpack(array, **options):
        """A DLPack capsule with the array, see `numpy.ndarray.__dlpack__`."""
        return array.__dlpack__(**options)

    def synchronize(self):
        """Wait until all that was launched is done; on the CPU it is when the launch returns."""

    dlpack_device = 1, 0  # the host

    def check_range(self, bounds, error, op, count):
        """Raise ``error`` with a sentence unless some integers lie from 0 to ``count - 1``.

        In every replay of a recorded step too. On a GPU nothing waits for that: the next read of a value does it.

        Parameters
        ----------
        bounds : array of shape (2,)
            int64: their smallest and largest, as ``kernels.target_range`` finds them.
        error : class of exception
        op : str
            What the integers are for.
        count : int
        """
        on_host(lambda: _check_range(self.to_numpy(bounds), error, op, count))

    # -- for recorded steps: see minigrad.recording ------------------------------------------------------------

    @staticmethod
    def owner_of(array):
        """The array that owns the memory of an array."""
        base = array.base
        return base if isinstance(base, np.ndarray) else array

    def offset_of(self, array):
        """How many bytes behind the start of its owner an array begins."""
        return self.address(array) - self.address(self.owner_of(array))

    @staticmethod
    def memory(size):
        """A piece of memory of `size` bytes, and the offset in it at which an aligned buffer may begin."""
        array = np.empty(size + ALIGNMENT, np.uint8)
        return array, -array.__array_interface__["data"][0] % ALIGNMENT

    @staticmethod
    def view(owner, offset, shape, dtype):
        """An array of some shape and dtype in the memory of another, from a number of bytes on."""
        return np.ndarray(shape, dtype, owner, offset)

    def sequence(self, launches):
        """A function that repeats launches, given as (name, kernel, arguments), in order and without the engine."""
        return importlib.import_module(f"minigrad.kernels.{self.name}.sequence").sequence(launches)

    relocates = True
    """Whether there is `relocatable`."""

    @staticmethod
    def address(array):
        """Where an array begins."""
        return array.__array_interface__["data"][0]

    def relocatable(self, launches, pieces):
        """`sequence` as a function of some arrays: what lies in one of them is found in its successor later on.

        Parameters
        ----------
        launches : list of (str, kernel, sequence)
        pieces : list of (array, int)
            Each is used from the next multiple of so many bytes on.

        Returns
        -------
        callable or None
            Takes the successors; None where there can be no such function.
        """
        return importlib.import_module(f"minigrad.kernels.{self.name}.sequence").relocatable(launches, pieces)


class CudaDevice(Device):
    """A GPU, or the emulator of one. Arrays are `minigrad.kernels.cuda.array.DeviceArray`; reading one waits for it."""

    compiler = "kernel"
    relocates = False  # the addresses in a CUDA graph are fixed

    def __init__(self):
        super().__init__("cuda")
        importlib.import_module("minigrad.kernels.cuda")  # raises if there is no GPU
        self._arrays = importlib.import_module("minigrad.kernels.cuda.array")
        self._memory = importlib.import_module("minigrad.kernels.cuda.memory")
        self._ranges = {}  # (exception, op, count) to the range of all integers since the last read

    def empty(self, shape, dtype):
        """An uninitialised C-contiguous array."""
        return self._arrays.empty(shape, dtype)

    def from_numpy(self, array):
        """A new array with the values of a NumPy array."""
        if array.size == 1 and array.dtype.kind != "u":  # without the host's memory, so that a step can be recorded
            out = self.empty(array.shape, array.dtype)
            self.kernels.fill(out.ravel(), array.item())
            return out
        return self._arrays.from_host(array)

    def copy_of(self, array, dtype):
        """A new array of the device with the values of a NumPy array, converted to another type of elements."""
        return self.from_numpy(np.asarray(array, dtype, order="C"))

    def to_numpy(self, array):
        """A copy of the values as a NumPy array, once all that was launched is done."""
        for what, kept in list(self._ranges.items()):
            try:
                _check_range(kept.numpy(), *what)
            except Exception:
                self._memory.from_host(kept, NOTHING)
                raise
        return array.numpy()

    def check_range(self, bounds, error, op, count):
        """Have the next read of a value raise ``error`` unless integers lie from 0 to ``count - 1``, see `Device`."""
        what = error, op, count
        if what not in self._ranges:
            self._ranges[what] = self._arrays.from_host(np.array(NOTHING, np.int64))
        self.kernels.widen_range(bounds, self._ranges[what])

    def write(self, array, values):
        """Overwrite an array of the device with values from the host: numbers, or an array of the same shape."""
        self._memory.from_host(array, np.broadcast_to(np.asarray(values, array.dtype), array.shape))

    def synchronize(self):
        """Wait until all that was launched is done."""
        self._memory.synchronize()

    def to_dlpack(self, array, stream=None, copy=None, dl_device=None, max_version=None):
        """A DLPack capsule with the array, ready on another library's stream; of the first version of the protocol."""
        if copy:
            raise BufferError("dlpack: expected to share memory, got copy=True; hand over a clone()")
        if dl_device not in (None, self.dlpack_device):
            raise BufferError(f"dlpack: expected to share memory on device {self.dlpack_device}, got dl_device "
                              f"{dl_device}; move the tensor to another device first")
        return importlib.import_module("minigrad.kernels.cuda.dlpack").export(array, stream)

    def from_dlpack(self, foreign):
        """The array of another library's object with ``__dlpack__``, in the same memory."""
        taken = importlib.import_module("minigrad.kernels.cuda.dlpack")
        return taken.take(foreign.__dlpack__(stream=self._memory.stream_number()))

    @property
    def dlpack_device(self):
        """The kind and the number of the device, as DLPack counts them."""
        return self._memory.backend.DLPACK_DEVICE

    @staticmethod
    def owner_of(array):
        """The array that owns the memory of an array."""
        return array if array.base is None else array.base

    def offset_of(self, array):
        """How many bytes behind the start of its owner an array begins."""
        return array.offset - self.owner_of(array).offset

    def memory(self, size):
        """A piece of memory of `size` bytes, and the offset in it at which an aligned buffer may begin."""
        return self._arrays.DeviceArray((size,), np.dtype(np.uint8), self._memory.allocate(size)), 0

    def view(self, owner, offset, shape, dtype):
        """An array of some shape and dtype in the memory of another, from a number of bytes on."""
        return self._arrays.DeviceArray(shape, np.dtype(dtype), owner.memory, owner.offset + offset, owner)


def _check_range(bounds, error, op, count):
    smallest, largest = bounds.tolist()
    if smallest < 0 or largest >= count:
        wrong = smallest if smallest < 0 else largest
        raise error(f"{op} from 0 to {count - 1}, got {wrong}")


NOTHING = 0, -1  # the range of no integers

cpu = Device("cpu")


@functools.cache
def _cuda():
    return CudaDevice()


def devices():
    """The devices that are in use so far."""
    return [cpu, _cuda()] if _cuda.cache_info().currsize else [cpu]


def get_device(device):
    """The `Device` of a name, or the device itself.

    Raises
    ------
    ValueError
        If there is no device of that name.
    RuntimeError
        If it is ``"cuda"``, and the packages or the GPU are missing.
    """
    if isinstance(device, Device):
        return device
    if device is None or device == "cpu":
        return cpu
    if device in ("cuda", "cuda:0"):
        return _cuda()
    raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}")
