"""The emulated GPU's memory: every access is checked for bounds, for having been written, and for races."""

import ctypes
import math
import time

import numpy as np


class KernelError(RuntimeError):
    """Something that a kernel may not do."""


class OutOfBounds(KernelError):
    """A read or write outside an array."""


class Unwritten(KernelError):
    """A read of memory that nobody has written."""


class Race(KernelError):
    """Two threads use one element, at least one writes, and no barrier orders them."""


class Divergence(KernelError):
    """A barrier that not all threads reach."""


class Misaligned(KernelError):
    """`load4` or `store4` where a wide instruction cannot go."""


class Memory:
    """A piece of the device's memory. `written` has a byte for each byte, set at the first byte of each element."""

    __slots__ = ("bytes", "written", "size", "__weakref__")

    def __init__(self, nbytes):
        self.size = nbytes
        self.bytes = np.full(nbytes, 0xFF, np.uint8)  # NaN, -1 or True
        self.written = bytearray(nbytes)

    @property
    def address(self):
        """Where it is in the host's memory."""
        return self.bytes.__array_interface__["data"][0]


def _values(array):
    flat = array.memory.bytes[array.offset : array.offset + array.nbytes]
    return flat.view(array.dtype).reshape(array.shape)


def from_host(array, values):
    """Overwrite a device array."""
    np.copyto(_values(array), values)
    array.memory.written[array.offset : array.offset + array.nbytes] = b"\1" * array.nbytes


def to_host(array):
    """The values as a new NumPy array."""
    return _values(array).copy()


REAL = False


def name():
    """What to call the device."""
    return "the emulator"


def copy(source, target):
    """Copy an array to another of its size."""
    from_host(target, to_host(source))


def timed(run):
    """The seconds that the launches of ``run()`` take."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


DLPACK_DEVICE = (1, 0)  # the host's memory, which is what it is


def hand_over(stream):
    """Have another library's stream wait for what was launched here: all of it is done."""


def adopt(foreign):
    """Give memory of another library what `Memory` has."""
    buffer = (ctypes.c_uint8 * foreign.size).from_address(foreign.address) if foreign.size else b""
    foreign.bytes = np.frombuffer(buffer, np.uint8)
    foreign.written = bytearray(b"\1" * foreign.size)


def stream_number():
    """The stream that arrays are ready on, for `__cuda_array_interface__`: nobody else can read these."""
    return None


def synchronize():
    """Wait until everything launched is done: it always is."""


def wait_for_all():
    """Wait until everything launched is done, by other libraries too: NumPy does nothing behind one's back."""


class Moment:
    """Who runs, and after how many barriers: what tells whether two accesses are ordered."""

    __slots__ = ("block", "warp", "thread", "barriers", "warp_barriers")

    def __init__(self, block, warp, thread, barriers=0, warp_barriers=0):
        self.block, self.warp, self.thread = block, warp, thread
        self.barriers, self.warp_barriers = barriers, warp_barriers

    def races_with(self, other):
        """Whether nothing orders the two."""
        if self.block != other.block:
            return True
        if self.thread == other.thread or self.barriers != other.barriers:
            return False
        return self.warp != other.warp or self.warp_barriers == other.warp_barriers


class State:
    """The thread that runs, and what its block shares."""

    thread = None
    shared = None
    seed = 0


state = State()


class Accesses:
    """Who has used which element in this launch, to find races."""

    __slots__ = ("writes", "reads", "more_reads", "what")

    def __init__(self, what):
        self.writes, self.reads, self.more_reads, self.what = {}, {}, {}, what

    def read(self, place, moment):
        """Note a read."""
        write = self.writes.get(place)
        if write is not None and write is not moment and write.races_with(moment):
            raise Race(f"{self._element(place)} is read by {_name(moment)} and written by {_name(write)} "
                       "without a barrier in between")
        before = self.reads.get(place)
        if before is not moment:
            if before is not None and before.races_with(moment):
                self.more_reads[place] = before
            self.reads[place] = moment

    def write(self, place, moment):
        """Note a write."""
        for verb, known in (("written", self.writes), ("read", self.reads), ("read", self.more_reads)):
            other = known.get(place)
            if other is not None and other is not moment and other.races_with(moment):
                raise Race(f"{self._element(place)} is written by {_name(moment)} and {verb} by {_name(other)} "
                           "without a barrier in between")
        self.writes[place] = moment

    def _element(self, place):
        return f"element {place} of {self.what}"


def _name(moment):
    return f"thread {moment.thread} of block {moment.block}"


class Pointer:
    """The elements of an array in one row, watched."""

    def __init__(self, array, name, accesses):
        self.values = _values(array).reshape(-1)
        self.size, self.name = array.size, name
        self.memory, self.offset, self.step = array.memory, array.offset, array.dtype.itemsize
        self.written, self.accesses = array.memory.written, accesses

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise OutOfBounds(f"{self.name}[{index}] is read, the array has {self.size} element(s)")
        byte = self.offset + index * self.step
        if not self.written[byte]:
            raise Unwritten(f"{self.name}[{index}] is read, but nobody has written it")
        self.accesses.read(byte, state.thread.moment)
        return self.values[index]

    def __setitem__(self, index, value):
        if not 0 <= index < self.size:
            raise OutOfBounds(f"{self.name}[{index}] is written, the array has {self.size} element(s)")
        byte = self.offset + index * self.step
        self.accesses.write(byte, state.thread.moment)
        self.values[index] = value
        self.written[byte] = 1


def _brackets(index):
    return str(list(index) if isinstance(index, tuple) else [index])


class BlockArray:
    """Shared memory: an array of a block's."""

    def __init__(self, shape, dtype, name):
        self.shape = shape if isinstance(shape, tuple) else (shape,)
        self.values = np.empty(math.prod(self.shape), dtype)
        self.filled = bytearray(self.values.size)
        self.accesses = Accesses(name)
        self.name = name

    def _place(self, index):
        index = index if isinstance(index, tuple) else (index,)
        if len(index) != len(self.shape):
            raise OutOfBounds(f"{self.name} has {len(self.shape)} dimension(s), the index is {index}")
        place = 0
        for i, extent in zip(index, self.shape, strict=True):
            if not 0 <= i < extent:
                raise OutOfBounds(f"{self.name} of shape {self.shape} is used at {index}")
            place = place * extent + i
        return place

    def __getitem__(self, index):
        place = self._place(index)
        if not self.filled[place]:
            raise Unwritten(f"{self.name}{_brackets(index)} is read, but nobody has written it")
        self.accesses.read(place, state.thread.moment)
        return self.values[place]

    def __setitem__(self, index, value):
        place = self._place(index)
        self.accesses.write(place, state.thread.moment)
        self.values[place] = value
        self.filled[place] = 1


class LocalArray(BlockArray):
    """An array of one thread's own, which nobody can race for: None is what nobody has written."""

    def __init__(self, shape, dtype, name):
        self.shape, self.name, self.kind = shape if isinstance(shape, tuple) else (shape,), name, dtype.type
        self.values = [None] * math.prod(self.shape)
        self.line = len(self.values) if len(self.shape) == 1 else 0  # where an index is the place

    def __getitem__(self, index):
        value = self.values[self._place(index) if isinstance(index, tuple) or not 0 <= index < self.line else index]
        if value is None:
            raise Unwritten(f"{self.name}{_brackets(index)} is read, but nobody has written it")
        return value

    def __setitem__(self, index, value):
        place = self._place(index) if isinstance(index, tuple) or not 0 <= index < self.line else index
        self.values[place] = self.kind(value)
