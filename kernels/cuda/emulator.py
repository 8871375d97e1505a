"""The CUDA kernels without a GPU: every CUDA thread is a Python thread of its own (a greenlet), in this process.

It is slow and strict. Fresh memory is full of NaN, threads and blocks run in an order that a seed shuffles, and these
are errors:

* reading or writing outside an array (`OutOfBounds`);
* reading memory, global, shared or local, that nobody has written (`Unwritten`);
* two threads that use the same element, at least one of them writing, without a barrier in between (`Race`);
* a barrier or warp operation that not all threads reach, or that they reach in different places (`Divergence`);
* `load4` or `store4` at an address that wide instructions cannot use (`Misaligned`);
* a launch of no blocks, of more of them along y or z than a GPU has numbers for, or of too many threads.

It cannot see what comes from the hardware: memory that becomes visible late, bank conflicts, int32 overflow.
A debugger can step through a kernel here.
"""

import contextvars
import operator
import random
from typing import NamedTuple

import greenlet
import numpy as np

from minigrad.kernels.cuda import parts
from minigrad.kernels.cuda.emulated_words import WARP, translate, waits
from minigrad.kernels.cuda.watched import (
    DLPACK_DEVICE,
    REAL,
    Accesses,
    Divergence,
    KernelError,
    Memory,
    Misaligned,
    Moment,
    OutOfBounds,
    Pointer,
    Race,
    Unwritten,
    adopt,
    copy,
    from_host,
    hand_over,
    name,
    state,
    stream_number,
    synchronize,
    timed,
    to_host,
    wait_for_all,
)

allocate = Memory


class Dim3(NamedTuple):
    """An index or extent in three dimensions."""

    x: int
    y: int = 1
    z: int = 1


class Thread(greenlet.greenlet):
    """A CUDA thread."""

    def begin(self, block, index, number):
        """Set who it is; `number` counts the threads of a block."""
        self.index, self.block, self.number = index, block, number
        self.moment = Moment(block, number // WARP, number)
        self.request = None  # what it waits for: (kind, place, value)
        return self


class Lone:
    """A CUDA thread of a kernel in which nobody waits: it needs no stack of its own, which takes half of the time."""

    __slots__ = ("index", "moment")

    def __init__(self, block, index, number):
        self.index, self.moment = index, Moment(block, number // WARP, number)


def recorded(run):
    """A function that repeats the launches that ``run()`` makes: here, by making them again."""
    return run


def set_seed(seed):
    """Choose the order in which threads and blocks run from now on."""
    state.seed = seed


def prepare(kernel, key):
    """A kernel for arrays of some types, as a function of grid, block and arguments."""
    dtype = kernel.element_type(key)
    body = translate(kernel.function, dtype)
    run_block = _run_block if waits(kernel.function) else _run_one_by_one

    def launch(grid, block, arguments):
        watched, pointers = {}, []
        for (argument, kind), value in zip(kernel.parameters, arguments, strict=True):
            pointers.append(_argument(argument, kind, value, dtype, watched))
        with np.errstate(all="ignore"):
            run(kernel.__name__, run_block, body, _dim3(grid), _dim3(block), pointers)

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


def run(name, run_block, body, grid, block, arguments):
    """Run a kernel's function by every thread of a grid."""
    if not _launchable(grid, block):
        raise KernelError(f"{name}: no GPU launches a grid of {tuple(grid)} blocks of {tuple(block)} threads")
    order = random.Random(state.seed)
    numbers = list(range(grid.x * grid.y * grid.z))
    order.shuffle(numbers)
    saved = state.thread, state.shared
    state.grid, state.extent = grid, block
    for number in numbers:
        index = Dim3(number % grid.x, number // grid.x % grid.y, number // (grid.x * grid.y))
        try:
            run_block(body, number, index, block, arguments, order)
        except KernelError as error:
            raise type(error)(f"{name}: {error} (block {tuple(index)})") from error.__cause__
    state.thread, state.shared = saved


def _launchable(grid, block):
    """Whether the extents of a launch are within the limits of every GPU."""
    return (1 <= min(*grid, *block) and grid.x < 2**31 and max(grid.y, grid.z) < 2**16
            and block.x * block.y * block.z <= 1024 and block.z <= 64)


def _places(block, order):
    """The threads of a block in the order in which they begin: number and index."""
    numbers = list(range(block.x * block.y * block.z))
    order.shuffle(numbers)
    return [(n, Dim3(n % block.x, n // block.x % block.y, n // (block.x * block.y))) for n in numbers]


def _run_one_by_one(body, number, index, block, arguments, order):
    state.block, state.shared = index, {}
    for n, place in _places(block, order):
        state.thread = Lone(number, place, n)
        body(*arguments)


def _run_block(body, number, index, block, arguments, order):
    state.block, state.shared = index, {}
    threads, parent, context = [], greenlet.getcurrent(), contextvars.copy_context()
    for n, place in _places(block, order):
        threads.append(Thread(body, parent).begin(number, place, n))
        threads[-1].gr_context = context  # NumPy's error handling among others
    for thread in threads:
        state.thread = thread
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


__all__ = [
    "DLPACK_DEVICE",
    "REAL",
    "Divergence",
    "KernelError",
    "Memory",
    "Misaligned",
    "OutOfBounds",
    "Race",
    "Unwritten",
    "adopt",
    "allocate",
    "copy",
    "from_host",
    "hand_over",
    "name",
    "prepare",
    "recorded",
    "set_seed",
    "stream_number",
    "synchronize",
    "timed",
    "to_host",
    "wait_for_all",
]
