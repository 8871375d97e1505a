"""Sine and cosine."""

import numpy as np

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import PARALLEL_COSTLY, blocks, span
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
from minigrad.kernels.cpu.vector_math import CIRCLE32, CIRCLE64, strict


def circular(name, f, exact):
    """The kernel out[i] = f(x[i]), and where |x[i]| is too large for that out[i] = exact(x[i]), of the C library."""
    f, exact = strict(f), strict(exact)

    @inline
    def one_block(block, x, out):
        start, stop = span(block, out.size)
        source, target = x[start:stop], out[start:stop]
        limit = x.dtype.type(CIRCLE32 if x.itemsize == 4 else CIRCLE64)
        beyond = 0
        for i in range(target.size):
            beyond += np.abs(source[i]) > limit
        if beyond == 0:
            for i in range(target.size):
                target[i] = f(source[i])
        else:
            for i in range(target.size):
                target[i] = exact(np.float64(source[i])) if np.abs(source[i]) > limit else f(source[i])

    @parallel_kernel(name=name)
    def body(x, out):
        parallel_for(one_block, blocks(out.size), out.size >= PARALLEL_COSTLY, (x, out))

    return body


sin = circular("sin", lambda x: vector_math.sin(x), lambda x: np.sin(x))
cos = circular("cos", lambda x: vector_math.cos(x), lambda x: np.cos(x))
