"""Memory on the device, wherever that is: on a GPU (`driver`) or in the emulator."""

import threading
from contextlib import contextmanager

from minigrad.kernels.cuda import toolkit

if toolkit.EMULATED:
    from minigrad.kernels.cuda import emulator as backend
else:
    from minigrad.kernels.cuda import driver as backend

allocate = backend.allocate
"""``allocate(nbytes)``: a `Memory` of that size, aligned to 256 bytes."""

from_host, to_host = backend.from_host, backend.to_host
"""``from_host(array, values)`` overwrites a device array, ``to_host(array)`` returns a NumPy copy and waits for it."""

stream_number, synchronize = backend.stream_number, backend.synchronize


class _Scratch(threading.local):
    """Each Python thread's: launches of another may come between two that hand something over."""

    memory = None


_scratch = _Scratch()


def scratch(count, dtype):
    """An array of at least `count` elements for a kernel's intermediate results.

    One piece of memory serves all kernels, since they run one after the other on one stream; whoever is launched next
    may overwrite it. It only grows, by doubling.
    """
    from minigrad.kernels.cuda.array import DeviceArray, np

    dtype = np.dtype(dtype)
    nbytes = max(1 << 16, count * dtype.itemsize)
    if _scratch.memory is None or _scratch.memory.size < nbytes:
        _scratch.memory = allocate(1 << (nbytes - 1).bit_length())
    return DeviceArray((count,), dtype, _scratch.memory)


@contextmanager
def own_scratch():
    """Inside, scratch memory is another piece of the size that this thread's has reached: for a recording.

    Another thread may replay it between two launches of this one. Yields the `Memory` (None if there was none): it has
    to be kept as long as the recording.
    """
    before = _scratch.memory
    _scratch.memory = before and allocate(before.size)
    try:
        yield _scratch.memory
    finally:
        _scratch.memory = before
