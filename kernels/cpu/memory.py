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

import numpy as np

from minigrad.kernels.cpu.compile import machine_code

KEPT = 1 << 30  # bytes: more than that at the end of the heap goes back
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt (malloc.h)
MARK = 0x6D67 << 48  # no size of a block
_SET_HANDLER, _GET_HANDLER = 304, 305  # places in the table of NumPy's C interface: PyDataMem_SetHandler, _GetHandler

# An aligned array lies in a block of NumPy's, 16 to 64 bytes behind its start. How many is noted in the word before it,
# added to the array's address and MARK, which no other array has there: glibc keeps the size of its block in that word.
# (The C library's aligned_alloc does not use again what was freed until glibc 2.38: a step of net C took 120 MiB
# instead of 81.)
CODE = """
define i64 @behind(ptr %array) {{  ; how far behind the start of its block, 0 if it is not aligned
  %before = getelementptr i8, ptr %array, i64 -8
  %note = load i64, ptr %before
  %address = ptrtoint ptr %array to i64
  %key = xor i64 %address, {mark}
  %behind = sub i64 %note, %key
  %ours = icmp ule i64 %behind, {alignment}
  %result = select i1 %ours, i64 %behind, i64 0
  ret i64 %result
}}

define ptr @minigrad_malloc(ptr %context, i64 %size) {{
  %malloc = inttoptr i64 {malloc} to ptr
  %small = icmp ult i64 %size, {least}
  br i1 %small, label %plain, label %aligned
plain:
  %array = call ptr %malloc(ptr %context, i64 %size)
  ret ptr %array
aligned:
  %more = add i64 %size, {alignment}
  %block = call ptr %malloc(ptr %context, i64 %more)
  %none = icmp eq ptr %block, null
  br i1 %none, label %failed, label %found
failed:
  ret ptr null
found:
  %address = ptrtoint ptr %block to i64
  %beyond = urem i64 %address, {alignment}
  %behind = sub i64 {alignment}, %beyond  ; at least 16, as blocks begin at multiples of 16
  %line = getelementptr i8, ptr %block, i64 %behind
  %start = add i64 %address, %behind
  %key = xor i64 %start, {mark}
  %note = add i64 %key, %behind
  %before = getelementptr i8, ptr %line, i64 -8
  store i64 %note, ptr %before
  ret ptr %line
}}

define void @minigrad_free(ptr %context, ptr %array, i64 %size) {{
  %behind = call i64 @behind(ptr %array)
  %back = sub i64 0, %behind
  %block = getelementptr i8, ptr %array, i64 %back
  %free = inttoptr i64 {free} to ptr
  call void %free(ptr %context, ptr %block, i64 %size)
  ret void
}}

define ptr @minigrad_realloc(ptr %context, ptr %array, i64 %size) {{  ; what was aligned is not any more
  %behind = call i64 @behind(ptr %array)
  %plain = icmp eq i64 %behind, 0
  br i1 %plain, label %numpys, label %ours
numpys:
  %realloc = inttoptr i64 {realloc} to ptr
  %resized = call ptr %realloc(ptr %context, ptr %array, i64 %size)
  ret ptr %resized
ours:
  %back = sub i64 0, %behind
  %block = getelementptr i8, ptr %array, i64 %back
  %usable = inttoptr i64 {malloc_usable_size} to ptr
  %all = call i64 %usable(ptr %block)
  %old = sub i64 %all, %behind
  %shrinks = icmp ult i64 %size, %old
  %kept = select i1 %shrinks, i64 %size, i64 %old
  %malloc = inttoptr i64 {malloc} to ptr
  %new = call ptr %malloc(ptr %context, i64 %size)
  %none = icmp eq ptr %new, null
  br i1 %none, label %done, label %found
found:
  call void @llvm.memcpy.p0.p0.i64(ptr %new, ptr %array, i64 %kept, i1 false)
  %free = inttoptr i64 {free} to ptr
  call void %free(ptr %context, ptr %block, i64 %all)
  br label %done
done:
  ret ptr %new
}}

declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""


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


def _functions(alignment, least, plain):
    """NumPy's functions of an allocator in machine code: an engine, and addresses by name. `plain` is NumPy's own."""
    engine = machine_code(CODE.format(
        alignment=alignment, least=least, mark=MARK, malloc=plain.malloc, realloc=plain.realloc, free=plain.free,
        malloc_usable_size=ctypes.cast(ctypes.CDLL(None).malloc_usable_size, ctypes.c_void_p).value))
    return engine, {name: engine.get_function_address(f"minigrad_{name}") for name in ("malloc", "realloc", "free")}


def _is_glibc():
    """Whether memory is glibc's, of 64 bits, and nobody stands in for its malloc."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        found, glibc = [
            [ctypes.cast(getattr(library, name), ctypes.c_void_p).value
             for name in ("malloc", "free", "malloc_usable_size", "gnu_get_libc_version")]  # the last no other has
            for library in (ctypes.CDLL(None), ctypes.CDLL("libc.so.6"))]
    except (OSError, AttributeError):
        return False
    return found == glibc


@functools.cache
def _context(alignment, least):
    """A context in which NumPy's new arrays are aligned, None where there can't be one; see `allocator`.

    In other contexts NumPy does as before: its allocator is a context variable. An array knows by what to be freed.
    One context serves all threads, though it may not be entered twice at a time: given a tuple of ints, `np.empty` runs
    no Python and does not let go of the interpreter's lock, unless there is no memory.
    """
    if not _is_glibc() or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        umath = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:
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
    engine, functions = _functions(alignment, least, plain.allocator)
    handler = _Handler(b"minigrad", 1, plain.allocator)
    for name, address in functions.items():
        setattr(handler.allocator, name, address)
    for kept in (engine, handler, kind):  # arrays may outlive this module
        api.Py_IncRef(ctypes.py_object(kept))
    context.run(set_handler, capsule(ctypes.addressof(handler), ctypes.addressof(kind), None))
    return context


def allocator(alignment, least):
    """``empty(shape, dtype)``: `np.empty`, of memory that begins at a multiple of `alignment` bytes if it is at least
    `least` bytes, and the C library is glibc."""
    context = _context(alignment, least)
    return np.empty if context is None else functools.partial(context.run, np.empty)
