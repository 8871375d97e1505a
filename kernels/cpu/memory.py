"""Memory of arrays: what a step frees is kept for the next one, and large arrays begin at lines of the cache.

A training step frees about as much as it allocates. The C library gives large blocks back at once, so that the next
step pays for them again, page by page: net B (two convolutions, batch 64) took 3,900 page faults and 26 to 28 ms a
step, 18.5 ms with this setting. A pool of our own would do the same for our arrays alone, but every array would then be
a view of a block, and neither NumPy nor the engine could tell by ``array.base`` whether it owns its memory.

NumPy's arrays begin at any multiple of 16 bytes: as a rule every vector of 64 bytes straddles two lines. Products then
take 1.05 to 2.0 times as long, SGD of 78,400 elements 1.3 times (two Emerald Rapids cores).
"""

import contextvars
import ctypes
import functools
import importlib
import os
import sys

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from minigrad.kernels.cpu.compile import machine_code

KEPT = 1 << 30  # bytes: more than that at the end of the heap goes back
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt (malloc.h)
MOST = 1 << 22  # bytes from which on NumPy asks the system for huge pages: left to it
_SET_HANDLER, _GET_HANDLER = 304, 305  # places in the table of NumPy's C interface: PyDataMem_SetHandler, _GetHandler


def keep_freed_memory():
    """Tell glibc's allocator to keep up to `KEPT` bytes, unless the environment has its own settings.

    Other C libraries are left as they are.
    """
    decided = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if decided or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, KEPT) and mallopt(_TRIM_THRESHOLD, KEPT))


class _Allocator(ctypes.Structure):
    """NumPy's PyDataMemAllocator."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")]


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler, version 1 (NEP 49)."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator)]


def _aligning(plain, aligned, alignment, least):
    """Machine code for NumPy's ``malloc(context, size)``, as an engine and an address: `aligned` of the C library for
    what is neither small nor very large, `plain` else."""
    size, pointer = ir.IntType(64), ir.IntType(8).as_pointer()
    module = ir.Module("minigrad_memory")
    module.triple = llvm.get_process_triple()
    function = ir.Function(module, ir.FunctionType(pointer, [pointer, size]), "minigrad_malloc")
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def call(address, kinds, arguments):
        target = builder.inttoptr(size(address), ir.FunctionType(pointer, kinds).as_pointer())
        builder.ret(builder.call(target, arguments))

    context, count = function.args
    inside = builder.icmp_unsigned("<", builder.sub(count, size(least)), size(MOST - least))
    with builder.if_then(inside):
        call(aligned, [size, size], [size(alignment), count])
    call(plain, [pointer, size], [context, count])
    engine = machine_code(module)
    return engine, engine.get_function_address(function.name)


@functools.cache
def _context(alignment, least):
    """A context in which NumPy's new arrays are aligned, None where there can't be one; see `allocator`.

    In other contexts NumPy does as before: its allocator is a context variable. An array knows by what to be freed.
    One context serves all threads, though it may not be entered twice at a time: `np.empty` does not let go of the
    interpreter's lock.
    """
    linux, locked = sys.platform.startswith("linux"), getattr(sys, "_is_gil_enabled", lambda: True)()
    if not linux or not locked:  # aligned_alloc is another function, or none, on other systems
        return None
    try:
        aligned = ctypes.CDLL(None).aligned_alloc
        umath = importlib.import_module("numpy._core._multiarray_umath")
    except (OSError, AttributeError, ImportError):
        return None
    api = ctypes.pythonapi
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
    capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        ("PyCapsule_New", api))
    table = ctypes.cast(pointer_of(umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(table[_GET_HANDLER])
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])
    kind = ctypes.create_string_buffer(b"mem_handler")
    context = contextvars.Context()
    plain = _Handler.from_address(pointer_of(context.run(get_handler), kind.value))
    if (plain.name, plain.version) != (b"default_allocator", 1):
        return None
    engine, malloc = _aligning(plain.allocator.malloc, ctypes.cast(aligned, ctypes.c_void_p).value, alignment, least)
    handler = _Handler(b"minigrad", 1, plain.allocator)
    handler.allocator.malloc = malloc  # what it returns may be freed and resized as anything of the C library's
    for kept in (engine, handler, kind):  # arrays may outlive this module
        api.Py_IncRef(ctypes.py_object(kept))
    context.run(set_handler, capsule(ctypes.addressof(handler), ctypes.addressof(kind), None))
    return context


def allocator(alignment, least):
    """``empty(shape, dtype)``: `np.empty`, of memory that begins at a multiple of `alignment` bytes if it is at least
    `least` and less than `MOST` bytes, and the system is Linux."""
    context = _context(alignment, least)
    return np.empty if context is None else functools.partial(context.run, np.empty)
