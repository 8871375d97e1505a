"""What threads need to talk to each other: atomic words in memory, a clock, Linux's futex.

A word is named by its address, an int64. All operations are sequentially consistent.
"""

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INTEGER, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
ORDER = "seq_cst"
_WAIT, _WAKE = 137, 138  # FUTEX_WAIT_BITSET and FUTEX_WAKE_BITSET with FUTEX_PRIVATE_FLAG (linux/futex.h)
ANYBODY = 0xFFFFFFFF
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform.startswith("linux") else None
_CLOCK_MONOTONIC = 1  # linux/time.h
HAS_FUTEX = _FUTEX is not None and sys.maxsize > 2**32


def _on_words(count, emit, result=types.int64):
    """An intrinsic of `count` int64, the first of them an address that `emit` gets as a pointer."""

    def emitted(context, builder, signature, arguments):
        return emit(builder, builder.inttoptr(arguments[0], INTEGER.as_pointer()), *arguments[1:])

    return result(*[types.int64] * count), emitted


@intrinsic
def load(typingctx, address):
    """Read a word."""
    return _on_words(1, lambda builder, p: builder.load_atomic(p, ORDER, 8))


@intrinsic
def store(typingctx, address, value):
    """Write a word."""

    def emit(builder, p, value):
        builder.store_atomic(value, p, ORDER, 8)

    return _on_words(2, emit, types.void)


@intrinsic
def add(typingctx, address, value):
    """Add to a word; returns what it was before."""
    return _on_words(2, lambda builder, p, value: builder.atomic_rmw("add", p, value, ORDER))


@intrinsic
def replace(typingctx, address, old, new):
    """Write `new` if the word is `old`; returns whether it was."""

    def emit(builder, p, old, new):
        return builder.extract_value(builder.cmpxchg(p, old, new, ORDER, ORDER), 1)

    return _on_words(3, emit, types.boolean)


@intrinsic
def now(typingctx):
    """A clock that never goes back, in nanoseconds. A look at it takes about 30."""

    def emit(context, builder, signature, arguments):
        # A timespec: seconds, nanoseconds. Once in the function, not at every look, which would use up the stack.
        time = cgutils.alloca_once(builder, INTEGER, size=2)
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), time.type])
        clock = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(clock, [ir.IntType(32)(_CLOCK_MONOTONIC), time])
        seconds, rest = builder.load(time), builder.load(builder.gep(time, [INTEGER(1)]))
        return builder.add(builder.mul(seconds, INTEGER(1_000_000_000)), rest)

    return types.int64(), emit


def _futex(builder, p, operation, value, mask):
    kind = ir.FunctionType(INTEGER, [INTEGER], var_arg=True)
    syscall = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    address = builder.ptrtoint(p, INTEGER)
    builder.call(syscall, [INTEGER(_FUTEX), address, INTEGER(operation), value, INTEGER(0), INTEGER(0), mask])


@intrinsic
def sleep(typingctx, address, value, mask):
    """Sleep until `wake` is called for the address, unless the 32 bits there are no longer those of `value`.

    The masks of the two calls, 32 bits each, must have one in common. It may also return for no reason.
    """
    return _on_words(3, lambda builder, p, value, mask: _futex(builder, p, _WAIT, value, mask), types.void)


@intrinsic
def wake(typingctx, address, count, mask):
    """Wake at most `count` threads that sleep at an address."""
    return _on_words(3, lambda builder, p, count, mask: _futex(builder, p, _WAKE, count, mask), types.void)


@intrinsic
def call_blocks(typingctx, function, first, count, data):
    """Call the function at an address for the blocks `first` ... ``first + count - 1``: see `parallel_for`."""

    def emit(context, builder, signature, arguments):
        function, first, count, data = arguments
        pointers = [POINTER.as_pointer(), INTEGER.as_pointer(), INTEGER.as_pointer(), POINTER]
        kind = ir.FunctionType(ir.VoidType(), pointers)
        base = cgutils.alloca_once_value(builder, builder.inttoptr(first, POINTER))
        number = cgutils.alloca_once_value(builder, count)
        step = cgutils.alloca_once_value(builder, INTEGER(1))
        called = builder.inttoptr(function, kind.as_pointer())
        builder.call(called, [base, number, step, builder.inttoptr(data, POINTER)])

    return types.void(types.int64, types.int64, types.int64, types.int64), emit
