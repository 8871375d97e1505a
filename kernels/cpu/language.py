"""The words that fast CPU kernels are written in; for kernels of your own, `minigrad.register_kernel` takes them.

A plain loop over ``x.size`` elements is a kernel already, and LLVM turns it into vector instructions as long as nothing
in it is a call. ``math.exp`` is one; the functions here are not::

    def swish(x, out):
        for i in range(x.size):
            out[i] = x[i] * sigmoid(x[i])

For large arrays a loop can run on several threads, in blocks that are the same on any number of them, so that the
result is too::

    @inline
    def _block(block, x, out):
        start, stop = span(block, out.size)
        source, target = x[start:stop], out[start:stop]  # an index from 0 on cannot be Python's x[-1]
        for i in range(target.size):
            target[i] = source[i] * sigmoid(source[i])

    @parallel_kernel
    def swish(x, out):
        parallel_for(_block, blocks(out.size), out.size >= PARALLEL, (x, out))

``prange`` works too, but compiles longer, and Numba's plainest thread pool ends the process when two Python threads use
it at once. The compiler's options are those of the project: ``error_model="numpy"``, and ``fastmath`` without the flags
that would delete NaN and infinity. A kernel allocates nothing.
"""

from minigrad.kernels.cpu.compile import inline, kernel
from minigrad.kernels.cpu.elementwise import PARALLEL, blocks, span
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
from minigrad.kernels.cpu.vector_math import exp, log, log1p, pow, sigmoid, tanh

__all__ = [
    "PARALLEL",
    "blocks",
    "exp",
    "inline",
    "kernel",
    "log",
    "log1p",
    "parallel_for",
    "parallel_kernel",
    "pow",
    "sigmoid",
    "span",
    "tanh",
]
