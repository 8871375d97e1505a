"""The CUDA kernels without a GPU: every CUDA thread is a Python thread of its own (a greenlet), in this process.

It is slow and strict. Fresh memory is full of NaN, threads and blocks run in an order that a seed shuffles, and these
are errors:

* reading or writing outside an array (`OutOfBounds`);
* reading memory, global, shared or local, that nobody has written (`Unwritten`);
* two threads that use the same element, at least one of them writing, without a barrier in between (`Race`);
* a barrier or warp operation that not all threads reach, or that they reach in different places (`Divergence`).

It cannot see what comes from the hardware: memory that becomes visible late, bank conflicts, int32 overflow.
A debugger can step through a kernel here.
"""

import contextvars
import math
import operator
import random
import sys
from typing import NamedTuple

import greenlet
import numpy as np
from numba import types

from minigrad.kernels.cuda import parts
from minigrad.kernels.cuda.intrinsics import TWINS, thread_index
from minigrad.kernels.cuda.specialise import specialise
from minigrad.kernels.cuda.words import cuda as compiled_cuda

WARP = 32


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


class Dim3(NamedTuple):
    """An index or extent in three dimensions."""

    x: int
    y: int = 1
    z: int = 1


# -- memory ------------------------------------------------------------------------------------------------------


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


allocate = Memory


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


def stream_number():
    """The stream that arrays are ready on, for `__cuda_array_interface__`: nobody else can read these."""
    return None


def synchronize():
    """Wait until everything launched is done: it always is."""


# -- threads -----------------------------------------------------------------------------------------------------


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


class Thread(greenlet.greenlet):
    """A CUDA thread."""

    def begin(self, block, index, number):
        """Set who it is; `number` counts the threads of a block."""
        self.index, self.block, self.number = index, block, number
        self.moment = Moment(block, number // WARP, number)
        self.request = None  # what it waits for: (kind, place, value)
        self.gr_context = contextvars.copy_context()  # a greenlet of its own has none of NumPy's errstate
        return self


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
        self.accesses.read(byte, _state.thread.moment)
        return self.values[index]

    def __setitem__(self, index, value):
        if not 0 <= index < self.size:
            raise OutOfBounds(f"{self.name}[{index}] is written, the array has {self.size} element(s)")
        byte = self.offset + index * self.step
        self.accesses.write(byte, _state.thread.moment)
        self.values[index] = value
        self.written[byte] = 1


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
            raise Unwritten(f"{self.name}{list(np.atleast_1d(index))} is read, but nobody has written it")
        self.accesses.read(place, _state.thread.moment)
        return self.values[place]

    def __setitem__(self, index, value):
        place = self._place(index)
        self.accesses.write(place, _state.thread.moment)
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
            raise Unwritten(f"{self.name}{list(np.atleast_1d(index))} is read, but nobody has written it")
        return value

    def __setitem__(self, index, value):
        place = self._place(index) if isinstance(index, tuple) or not 0 <= index < self.line else index
        self.values[place] = self.kind(value)


def _wait(kind, value=None):
    """Stop the running thread at a barrier; returns what the barrier hands out."""
    frame = sys._getframe(2)
    thread = _state.thread
    thread.request = kind, (frame.f_code, frame.f_lasti), value
    answer = thread.parent.switch()
    _state.thread = thread
    return answer


class _State:
    """The thread that runs, and what its block shares."""

    thread = None
    shared = None
    seed = 0


_state = _State()


def set_seed(seed):
    """Choose the order in which threads and blocks run from now on."""
    _state.seed = seed


def _lane(lanes, number):
    if number not in lanes:
        raise Divergence(f"a warp operation reads lane {number}, which does not take part")
    return lanes[number]


class _Shared:
    """``cuda.shared``."""

    @staticmethod
    def array(shape, dtype, alignment=None):
        """The block's array that belongs to this line of the kernel."""
        frame = sys._getframe(1)
        key = frame.f_code, frame.f_lasti
        if key not in _state.shared:
            _state.shared[key] = BlockArray(shape, _numpy_type(dtype), f"shared array of line {frame.f_lineno}")
        return _state.shared[key]


class _Local:
    """``cuda.local``."""

    @staticmethod
    def array(shape, dtype, alignment=None):
        """A new array."""
        return LocalArray(shape, _numpy_type(dtype), f"local array of line {sys._getframe(1).f_lineno}")


def _numpy_type(dtype):
    return np.dtype(getattr(dtype, "name", dtype))


class Cuda:
    """`numba.cuda` as kernels see it."""

    shared, local, warpsize = _Shared, _Local, WARP

    @property
    def threadIdx(self):
        return _state.thread.index

    @property
    def blockIdx(self):
        return _state.block

    @property
    def blockDim(self):
        return _state.extent

    @property
    def gridDim(self):
        return _state.grid

    @property
    def laneid(self):
        return _state.thread.number % WARP

    def syncthreads(self):
        _wait("syncthreads")

    def syncwarp(self, mask=0xFFFFFFFF):
        _wait("syncwarp")

    def shfl_sync(self, mask, value, lane):
        return _wait("shuffle", (value, lambda me, lanes: _lane(lanes, lane)))

    def shfl_xor_sync(self, mask, value, other):
        return _wait("shuffle", (value, lambda me, lanes: _lane(lanes, me ^ other)))

    def shfl_down_sync(self, mask, value, delta):
        return _wait("shuffle", (value, lambda me, lanes: lanes[me + delta if me + delta in lanes else me]))

    def shfl_up_sync(self, mask, value, delta):
        return _wait("shuffle", (value, lambda me, lanes: lanes[me - delta if me - delta in lanes else me]))

    def ballot_sync(self, mask, predicate):
        return _wait("shuffle", (predicate, lambda me, lanes: sum([1 << i for i, value in lanes.items() if value])))

    def match_any_sync(self, mask, value):
        def equal(me, lanes):
            return _int32(sum([1 << i for i, other in lanes.items() if other == lanes[me]]))

        return _wait("shuffle", (value, equal))

    def popc(self, value):
        return bin(int(value) & 0xFFFFFFFF).count("1")

    def any_sync(self, mask, predicate):
        return self.ballot_sync(mask, predicate) != 0


cuda = Cuda()


def _rounded(function):
    """A function of a number that keeps its type, as CUDA's do."""

    def apply(x, *more):
        return type(x)(function(x, *more)) if isinstance(x, np.floating) else function(x, *more)

    return apply


def _quiet(function):
    """Of Python's math module: NaN and infinity instead of exceptions."""

    def apply(x):
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return apply


class Math:
    """`math` as kernels see it: of the argument's type, without exceptions."""

    inf, nan, pi, e = math.inf, math.nan, math.pi, math.e
    exp, log, log1p, expm1 = _rounded(np.exp), _rounded(np.log), _rounded(np.log1p), _rounded(np.expm1)
    exp2, log2, sqrt, tanh = _rounded(np.exp2), _rounded(np.log2), _rounded(np.sqrt), _rounded(np.tanh)
    sin, cos, floor, ceil, trunc = [_rounded(f) for f in (np.sin, np.cos, np.floor, np.ceil, np.trunc)]
    pow, fmod, fabs, copysign = _rounded(np.power), _rounded(np.fmod), _rounded(np.fabs), _rounded(np.copysign)
    erf, erfc = _rounded(_quiet(math.erf)), _rounded(_quiet(math.erfc))
    fmax, fmin = _rounded(np.fmax), _rounded(np.fmin)
    isnan, isinf, isfinite = np.isnan, np.isinf, np.isfinite


def _unsigned(bits):
    # In Numba uint32 plus uint32 is uint64, so both are 64-bit here, and cut where they are made.
    return lambda value: np.uint64(int(value) & ((1 << bits) - 1))


def _int32(value):
    return (int(value) + 2**31) % 2**32 - 2**31


_int32.name = "int32"  # as the type of a shared or local array


def _thread_index():
    return _state.block.x * _state.extent.x + _state.thread.index.x


WORDS = {
    **TWINS, thread_index: _thread_index, compiled_cuda: cuda, math: Math,
    types.int32: _int32, types.int64: int, types.uint32: _unsigned(32), types.uint64: _unsigned(64),
    types.float32: np.float32, types.float64: np.float64,
}  # fmt: skip
"""What the words of a kernel mean here."""


def translate(function, dtype):
    """A kernel's function with this module's meanings of its words, T being a NumPy type."""

    def substitute(thing):
        if thing is parts.T:
            return dtype.type
        if isinstance(thing, parts.DeviceFunction):
            return translate(thing.function, dtype)
        try:
            return WORDS.get(thing, thing)
        except TypeError:  # not hashable, so not a word of the language
            return thing

    return specialise(function, substitute)


# -- launching ---------------------------------------------------------------------------------------------------


def prepare(kernel, key):
    """A kernel for arrays of some types, as a function of grid, block and arguments."""
    dtype = kernel.element_type(key)
    body = translate(kernel.function, dtype)

    def launch(grid, block, arguments):
        watched, pointers = {}, []
        for (name, kind), value in zip(kernel.parameters, arguments, strict=True):
            pointers.append(_argument(name, kind, value, dtype, watched))
        with np.errstate(all="ignore"):
            run(kernel.__name__, body, _dim3(grid), _dim3(block), pointers)

    return launch


def _dim3(extents):
    return Dim3(*extents) if isinstance(extents, tuple) else Dim3(extents)


def _argument(name, kind, value, dtype, watched):
    if isinstance(kind, parts.Pointer):
        if kind.dtype is not None and value.dtype != kind.dtype:
            raise TypeError(f"{name}: expected an array of {kind.dtype}, got {value.dtype}")
        accesses = watched.setdefault(id(value.memory), Accesses(name))
        return Pointer(value, name, accesses)
    if kind is parts.Float:
        return dtype.type(value)
    low, high = (0, 2**32) if kind is parts.Unsigned else (-(2**31), 2**31)
    number = operator.index(value)
    if not low <= number < high:
        raise OverflowError(f"{name}: {value} does not fit into 32 bits")
    return number


def run(name, body, grid, block, arguments):
    """Run a kernel's function by every thread of a grid."""
    order = random.Random(_state.seed)
    numbers = list(range(grid.x * grid.y * grid.z))
    order.shuffle(numbers)
    saved = _state.thread, _state.shared
    _state.grid, _state.extent = grid, block
    for number in numbers:
        index = Dim3(number % grid.x, number // grid.x % grid.y, number // (grid.x * grid.y))
        try:
            _run_block(body, number, index, block, arguments, order)
        except KernelError as error:
            raise type(error)(f"{name}: {error} (block {tuple(index)})") from error.__cause__
    _state.thread, _state.shared = saved


def _run_block(body, number, index, block, arguments, order):
    _state.block, _state.shared = index, {}
    threads, parent = [], greenlet.getcurrent()
    for n in range(block.x * block.y * block.z):
        place = Dim3(n % block.x, n // block.x % block.y, n // (block.x * block.y))
        threads.append(Thread(body, parent).begin(number, place, n))
    order.shuffle(threads)
    for thread in threads:
        _state.thread = thread
        thread.switch(*arguments)
    threads.sort(key=operator.attrgetter("number"))
    released = _release(threads)
    while released:
        runners = list(released.items())
        order.shuffle(runners)
        for thread, answer in runners:
            thread.switch(answer)
        released = _release(threads)


def _release(threads):
    """Whose barrier is complete, with what each of them is handed. Raises if nobody can go on."""
    waiting = [thread for thread in threads if not thread.dead]
    if not waiting:
        return {}
    released = {}
    for first in range(0, len(threads), WARP):
        warp = threads[first : first + WARP]
        kinds = {thread.request[:2] for thread in warp if not thread.dead}
        if any(kind == "syncthreads" for kind, _ in kinds) or not kinds:
            continue
        if len(kinds) > 1 or any(thread.dead for thread in warp):
            raise Divergence(_whereabouts("a warp operation", warp))
        lanes = {thread.number % WARP: thread for thread in warp}
        values = {lane: thread.request[2][0] for lane, thread in lanes.items() if thread.request[2] is not None}
        for lane, thread in lanes.items():
            value = thread.request[2]
            released[thread] = None if value is None else value[1](lane, values)
            m = thread.moment
            thread.moment = Moment(m.block, m.warp, m.thread, m.barriers, m.warp_barriers + 1)
    if released:
        return released
    places = {thread.request[:2] for thread in waiting}
    if len(places) > 1 or len(waiting) < len(threads):
        raise Divergence(_whereabouts("a barrier", threads))
    for thread in waiting:
        m = thread.moment
        thread.moment = Moment(m.block, m.warp, m.thread, m.barriers + 1, m.warp_barriers + 1)
        released[thread] = None
    return released


def _whereabouts(what, threads):
    dead = [thread.number for thread in threads if thread.dead]
    places = {}
    for thread in threads:
        if not thread.dead:
            kind, (code, _), _ = thread.request
            places.setdefault(f"{kind} in {code.co_name}", []).append(thread.number)
    parts = [f"thread(s) {_some(numbers)} at {place}" for place, numbers in places.items()]
    if dead:
        parts.append(f"thread(s) {_some(dead)} at the end of the kernel")
    return f"{what} is not reached by all threads: " + ", ".join(parts)


def _some(numbers):
    return ", ".join(map(str, numbers[:3])) + (", ..." if len(numbers) > 3 else "")
