"""The kernels on a GPU: compiled by Numba, linked and launched through cuda.core.

Numba's own launcher takes 40 us of Python for three arrays; a launch here hands over one word per array. Everything
runs on one stream of ours, memory comes from CUDA's stream-ordered pool, and nothing waits for it but copies to the
host, large ones from there, and memory shared with other libraries when it goes back.
"""

import ctypes
import gc
import threading

import numpy as np
from cuda.bindings import driver as api
from cuda.core import Device, EventOptions, LaunchConfig, ObjectCode, Stream, launch

from minigrad.kernels.cuda.compile import compile_kernel

device = Device()
device.set_current()
stream, recording_stream = device.create_stream(), device.create_stream()
ARCHITECTURE = device.compute_capability  # of this GPU: (major, minor)


class _Here(threading.local):
    """What every Python thread has for itself; CUDA keeps for each of them which GPU is the current one."""

    def __init__(self):
        self.device, self.stream = Device(device.device_id), stream
        self.device.set_current()
        self.queue = [stream]  # where launches go: the stream, or the graph that is being recorded


_here = _Here()


class Memory:
    """A piece of the GPU's memory; it goes back to the pool, in stream order, when nothing refers to it."""

    __slots__ = ("buffer", "address", "size", "__weakref__")

    def __init__(self, buffer):
        self.buffer, self.address, self.size = buffer, int(buffer.handle), buffer.size


def allocate(nbytes):
    """A `Memory` of that size.

    Raises
    ------
    MemoryError
        If there is none left, even after unused memory has been collected and the pool has given back what it keeps.
    """
    nbytes = max(nbytes, 1)
    try:
        return Memory(device.memory_resource.allocate(nbytes, stream=_here.stream))
    except Exception:  # cuda.core's error for a full memory; anything else comes again below
        gc.collect()
        stream.sync()
        _check(api.cuMemPoolTrimTo(device.memory_resource.handle, 0))
    try:
        return Memory(device.memory_resource.allocate(nbytes, stream=_here.stream))
    except Exception as error:
        free, total = _check(api.cuMemGetInfo())
        raise MemoryError(
            f"cuda: out of memory: {_size(nbytes)} were asked for, {_size(free)} of {_size(total)} are free on "
            f"{device.name}"
        ) from error


def _size(nbytes):
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024


def _check(results):
    """The results of a call of the driver, after its error code has been looked at."""
    error, *values = results
    if error != api.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"cuda: {error.name}")
    return values[0] if len(values) == 1 else values


def _handle():
    return int(_here.stream.handle)


class _Stage:
    """Pinned memory that values are copied from while Python goes on: a few pieces in turn, free when copied."""

    PIECES, LARGEST = 4, 8 << 20

    def __init__(self):
        self.lock, self.turn = threading.Lock(), 0
        self.pieces = [(0, 0, None)] * self.PIECES  # address, bytes, the event after the last copy

    def send(self, array, values):
        """Start to overwrite a device array; `values` are copied when this returns."""
        with self.lock:
            self.turn = (self.turn + 1) % self.PIECES
            address, size, copied = self.pieces[self.turn]
            if copied is not None:
                copied.sync()
            if size < values.nbytes:
                if address:
                    _check(api.cuMemFreeHost(address))
                size = 1 << max(16, (values.nbytes - 1).bit_length())
                address, copied = int(_check(api.cuMemHostAlloc(size, 0))), device.create_event()
                self.pieces[self.turn] = address, size, copied
            ctypes.memmove(address, values.ctypes.data, values.nbytes)
            _check(api.cuMemcpyHtoDAsync(array.address, address, values.nbytes, _handle()))
            _here.stream.record(copied)


_stage = _Stage()


def from_host(array, values):
    """Overwrite a device array; `values` may change when this returns."""
    values = np.ascontiguousarray(values, array.dtype)
    if 0 < values.nbytes <= _stage.LARGEST:
        _stage.send(array, values)
    elif array.size:
        _check(api.cuMemcpyHtoDAsync(array.address, values.ctypes.data, array.nbytes, _handle()))
        stream.sync()


def to_host(array):
    """The values as a new NumPy array, once everything launched before is done."""
    values = np.empty(array.shape, array.dtype)
    if array.size:
        _check(api.cuMemcpyDtoHAsync(values.ctypes.data, array.address, array.nbytes, _handle()))
    stream.sync()
    return values


REAL = True


def name():
    """The card's name."""
    return device.name


def copy(source, target):
    """Copy an array to another of its size."""
    _check(api.cuMemcpyDtoDAsync(target.address, source.address, source.nbytes, _handle()))


def timed(run):
    """The seconds that the launches of ``run()`` take, by events in the stream."""
    begin, end = [device.create_event(EventOptions(timing_enabled=True)) for _ in range(2)]
    stream.record(begin)
    run()
    stream.record(end)
    end.sync()
    return (end - begin) / 1e3


DLPACK_DEVICE = (2, device.device_id)  # kDLCUDA


def hand_over(other):
    """Have another library's stream (its number, None for the default, -1 for none) wait for what was launched here."""
    if other != -1:
        Stream.from_handle(other or 1).wait(_here.stream)  # 1 is the legacy default stream


def adopt(foreign):
    """Give memory of another library what `Memory` has: its address and size are all that is needed."""


def stream_number():
    """The stream that arrays are ready on, for `__cuda_array_interface__`."""
    return _handle()


def synchronize():
    """Wait until everything launched is done."""
    stream.sync()


def wait_for_all():
    """Wait until everything launched is done, by other libraries too: they share the device's primary context."""
    _here.device.sync()


def recorded(run):
    """A function that repeats the launches that ``run()`` makes, as one launch of a CUDA graph.

    Recorded on a stream of its own: arrays that go meanwhile are given back to the pool in our stream, which could not
    do that while it records.
    """
    builder = recording_stream.create_graph_builder()
    builder.begin_building()
    _here.queue.append(builder)
    try:
        run()
    finally:
        _here.queue.pop()
        builder.end_building()
    graph = builder.complete()

    def repeat(keep_alive=run):
        graph.launch(_here.stream)

    return repeat


NUMBERS = {"Int": ctypes.c_int32, "Unsigned": ctypes.c_uint32, np.dtype(np.float32): ctypes.c_float,
           np.dtype(np.float64): ctypes.c_double}
INTEGERS = {np.dtype(np.int64): ctypes.c_int64, np.dtype(np.uint64): ctypes.c_uint64,
            np.dtype(np.int32): ctypes.c_int32, np.dtype(np.uint8): ctypes.c_uint8}


def _converter(kind, dtype):
    """How an argument of a kernel is handed to cuda.core: an address as an int, a number as its C type."""
    name = getattr(kind, "__name__", None)
    if name is None:  # a Pointer
        return lambda array: array.address
    if name != "Float":
        return NUMBERS[name]
    if dtype == np.bool_:
        return lambda value: ctypes.c_uint8(bool(value))
    if dtype in INTEGERS:
        word = INTEGERS[dtype]
        return lambda value: word(int(value))
    return NUMBERS[dtype]


def prepare(kernel, key):
    """A kernel for arrays of some types, as a function of grid, block and arguments."""
    code = compile_kernel(kernel, key, ARCHITECTURE)
    loaded = ObjectCode.from_cubin(code.cubin).get_kernel(code.name)
    converters = [_converter(kind, kernel.element_type(key)) for _, kind in kernel.parameters]
    configurations = {}

    def run(grid, block, arguments):
        shape = grid, block
        config = configurations.get(shape)
        if config is None:
            config = configurations[shape] = LaunchConfig(grid=grid, block=block)
        launch(_here.queue[-1], config, loaded, *[convert(a) for convert, a in zip(converters, arguments, strict=True)])

    return run
