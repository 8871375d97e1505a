"""The words that a CUDA kernel is written in; of the project, or your own (`minigrad.register_kernel`).

A kernel is a function of pointers and numbers that every CUDA thread runs::

    @kernel
    def _scale(x: Pointer, out: Pointer, n: Int, factor: Float):
        i = thread_index()
        if i < n:
            out[i] = x[i] * factor

    def scale(x, out, factor):
        _scale[blocks(out.size), THREADS](x, out, out.size, factor)

Its body is the subset of Python that ``numba.cuda`` compiles: ``cuda.threadIdx``, ``cuda.syncthreads()``,
``cuda.shared.array(256, T)``, ``math.exp`` and so on. The annotations say how an argument is passed. ``T`` is the
element type of the first plain `Pointer`: a kernel is compiled once for each combination of types that it meets.

What to keep in mind (each of these is checked by tests/kernels/test_cuda_code.py):

* a number is a float64 and makes the arithmetic around it float64: write ``T(0.5)``;
* ``//`` and ``%`` of ints are 64-bit and slow: write ``div32(i, n)``, ``rem32(i, n)``;
* ``/`` and ``math.sqrt`` of float32 call a routine: write ``divide(a, b)``, ``reciprocal_root(x)``;
* int32 plus int32 is int64 in Numba: wrap what is used often in ``int32(...)``.
"""

import math

from numba.types import boolean, float32, float64, int32, int64, uint8, uint32, uint64

from minigrad.kernels.cuda.intrinsics import (
    bits_of,
    div32,
    divide,
    load4,
    mma_bf16_sync,
    mma_tf32_sync,
    pack_bf16,
    reciprocal_root,
    rem32,
    round_tf32,
    store4,
    thread_index,
)
from minigrad.kernels.cuda.kernel import kernel
from minigrad.kernels.cuda.parts import Float, Int, Pointer, T, Unsigned, device_function
from minigrad.kernels.cuda.words import cuda

THREADS = 256  # of a block, where nothing speaks for another number
WARP = 32


def blocks(count, threads=THREADS):
    """How many blocks of `threads` make one thread for each of `count` things; at least one."""
    return max(1, -(-count // threads))


__all__ = [
    "THREADS",
    "WARP",
    "Float",
    "Int",
    "Pointer",
    "T",
    "Unsigned",
    "bits_of",
    "blocks",
    "boolean",
    "cuda",
    "device_function",
    "div32",
    "divide",
    "float32",
    "float64",
    "int32",
    "int64",
    "kernel",
    "load4",
    "math",
    "mma_bf16_sync",
    "mma_tf32_sync",
    "pack_bf16",
    "reciprocal_root",
    "rem32",
    "round_tf32",
    "store4",
    "thread_index",
    "uint8",
    "uint32",
    "uint64",
]
