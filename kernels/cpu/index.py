"""Strided views made contiguous, and rows picked by number."""

import numpy as np

from minigrad.kernels.cpu.compile import inline, kernel
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL, blocks, span
from minigrad.kernels.cpu.parallel import merged, parallel_for, parallel_kernel

# Rows copied side by side where the neighbours of the source lie across rows (a transpose): half a cache line of
# float32 is read at a time; sixteen rows a power of two apart would evict one another from a cache of eight ways.
ROWS = 8


@inline
def _ordered(extents, strides):
    """(extent, dense stride, view stride) of five axes: trailing extents of 1 first, then an axis of view stride 1,
    if there is one before the last, made the last but one."""
    n0, n1, n2, n3, n4 = extents
    s0, s1, s2, s3, s4 = strides
    for _ in range(4):
        if n4 == 1:
            n0, n1, n2, n3, n4, s0, s1, s2, s3, s4 = 1, n0, n1, n2, n3, 0, s0, s1, s2, s3
    d3, d2, d1, d0 = n4, n4 * n3, n4 * n3 * n2, n4 * n3 * n2 * n1
    if s4 != 1:
        if s2 == 1 and n2 > 1:
            n2, n3, d2, d3, s2, s3 = n3, n2, d3, d2, s3, s2
        elif s1 == 1 and n1 > 1:
            n1, n3, d1, d3, s1, s3 = n3, n1, d3, d1, s3, s1
        elif s0 == 1 and n0 > 1:
            n0, n3, d0, d3, s0, s3 = n3, n0, d3, d0, s3, s0
    return (n0, n1, n2, n3, n4), (d0, d1, d2, d3), (s0, s1, s2, s3, s4)


def strided(write, gathers):
    """The body of strided_copy, or of strided_scatter: write(dense, d, view, v) copies one element.

    Indices are unsigned: Numba would ask of a signed one whether it counts from the end. Repeated elements are a case
    of their own, for they are the gradient of every sum: (100, 100, 1) to (100, 100, 100).
    """

    @inline
    def repeats(block, dense, view, offset):
        start, stop = span(block, dense.size)
        target, value = dense[start:stop], view[offset]
        for m in range(target.size):
            target[m] = value

    @inline
    def tiles(block, dense, view, offset, extents, places, strides, count):
        n0, n1, n2, n3, n4 = extents
        d0, d1, d2, d3 = places
        s0, s1, s2, s3, s4 = strides
        across = (n3 + ROWS - 1) // ROWS
        for tile in range(block * count, min((block + 1) * count, n0 * n1 * n2 * across)):
            outer, first = tile // across, tile % across * ROWS
            i, j, k = outer // (n1 * n2), outer // n2 % n1, outer % n2
            many = min(ROWS, n3 - first)
            start, base = i * d0 + j * d1 + k * d2 + first * d3, offset + i * s0 + j * s1 + k * s2 + first * s3
            if gathers and s4 == 0:
                for row in range(many):
                    target, value = dense[start + row * d3 : start + row * d3 + n4], view[base + row * s3]
                    for m in range(target.size):
                        target[m] = value
            elif s4 == 1:
                for row in range(many):
                    here, there = start + row * d3, base + row * s3
                    target, source = dense[here : here + n4], view[there : there + n4]
                    for m in range(target.size):
                        write(target, m, source, m)
            elif s3 == 1:
                for m in range(n4):
                    for row in range(many):
                        write(dense, np.uint64(start + row * d3 + m), view, np.uint64(base + m * s4 + row))
            else:
                for row in range(many):
                    for m in range(n4):
                        write(dense, np.uint64(start + row * d3 + m), view, np.uint64(base + row * s3 + m * s4))

    @merged
    def run(dense, view, offset, s0, s1, s2, s3, s4):
        extents, places, strides = _ordered(dense.shape, (s0, s1, s2, s3, s4))
        values, parallel = dense.reshape(dense.size), dense.size >= PARALLEL
        if gathers and strides[4] == 0 and extents[4] == dense.size:
            parallel_for(repeats, blocks(dense.size), parallel, (values, view, offset))
        else:
            count = max(1, BLOCK // max(1, ROWS * extents[4]))
            many = extents[0] * extents[1] * extents[2] * ((extents[3] + ROWS - 1) // ROWS)
            arguments = (values, view, offset, extents, places, strides, count)
            parallel_for(tiles, (many + count - 1) // count, parallel, arguments)

    return run


@inline
def _gather(dense, d, view, v):
    dense[d] = view[v]


@inline
def _scatter(dense, d, view, v):
    view[v] = dense[d]


_copy = strided(_gather, True)
_spread = strided(_scatter, False)


@parallel_kernel
def strided_copy(x, out, offset, s0, s1, s2, s3, s4):
    _copy(out, x, offset, s0, s1, s2, s3, s4)


@parallel_kernel
def strided_scatter(x, out, offset, s0, s1, s2, s3, s4):
    _spread(x, out, offset, s0, s1, s2, s3, s4)


@inline
def _take_rows(block, x, indices, out, count):
    for i in range(block * count, min((block + 1) * count, indices.size)):
        source, target = x[indices[i]], out[i]
        for d in range(target.size):
            target[d] = source[d]


@parallel_kernel
def take(x, indices, out):
    count = max(1, BLOCK // max(1, x.shape[1]))
    parallel_for(_take_rows, (indices.size + count - 1) // count, out.size >= PARALLEL, (x, indices, out, count))


@kernel
def take_backward(grad, indices, out):
    for r in range(out.shape[0]):
        for d in range(out.shape[1]):
            out[r, d] = 0
    for i in range(indices.size):  # one thread: rows repeat, and are to be added in order
        source, target = grad[i], out[indices[i]]
        for d in range(target.size):
            target[d] += source[d]
