"""Strided views made contiguous, and rows picked by number."""

from numba import prange

from minigrad.kernels.cpu.compile import kernel


@kernel(parallel=True)
def strided_copy(x, out, offset, s0, s1, s2, s3, s4):
    n0, n1, n2, n3, n4 = out.shape
    for i in prange(n0):
        for j in range(n1):
            for k in range(n2):
                for l in range(n3):
                    base = offset + i * s0 + j * s1 + k * s2 + l * s3
                    for m in range(n4):
                        out[i, j, k, l, m] = x[base + m * s4]


@kernel(parallel=True)
def strided_scatter(x, out, offset, s0, s1, s2, s3, s4):
    n0, n1, n2, n3, n4 = x.shape
    for i in prange(n0):
        for j in range(n1):
            for k in range(n2):
                for l in range(n3):
                    base = offset + i * s0 + j * s1 + k * s2 + l * s3
                    for m in range(n4):
                        out[base + m * s4] = x[i, j, k, l, m]


@kernel
def take(x, indices, out):
    for i in range(indices.size):
        row = indices[i]
        for d in range(x.shape[1]):
            out[i, d] = x[row, d]


@kernel
def take_backward(grad, indices, out):
    for r in range(out.shape[0]):
        for d in range(out.shape[1]):
            out[r, d] = out.dtype.type(0)
    for i in range(indices.size):
        row = indices[i]
        for d in range(out.shape[1]):
            out[row, d] += grad[i, d]
