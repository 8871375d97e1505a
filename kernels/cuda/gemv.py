"""A matrix times few vectors: products in which one operand has at most four rows or columns.

A tile of `gemm_tiles` would be mostly empty, and there is nothing to reuse: every element of the matrix is multiplied
by as many numbers as there are vectors, so that the time is that of reading the matrix once, by 128-bit loads. Each
thread has a share of the depth; warps add theirs by shuffles, blocks through shared memory, in a fixed order. Tensor
cores would not read faster, so float32 it is whatever precision is allowed (`minigrad.kernels.precision`).

``out[row, v] = Σ over k of matrix[row, k] * vectors[v, k]``, whichever operand of the product is the matrix. `deep`
operands have neighbours in k side by side, the others (`wide`) neighbouring rows or vectors.
"""

from typing import NamedTuple

from minigrad.kernels.cuda import memory
from minigrad.kernels.cuda.gemm_tiles import PROCESSORS
from minigrad.kernels.cuda.language import (
    THREADS,
    WARP,
    Int,
    Pointer,
    T,
    cuda,
    device_function,
    div32,
    int32,
    kernel,
    load4,
    rem32,
    store4,
)
from minigrad.kernels.cuda.slices import add_slices

MOST = 4  # vectors; a tile computes 32 rows and columns at least
LEAST = 128  # depth from which on a warp has 128 bits for each lane
WARPS = THREADS // WARP
QUADS = 8  # of rows that a block of the wide kernel has: 128 bytes side by side
ROWS = 4 * QUADS
LANES = THREADS // QUADS  # threads that share the depth there
RESIDENT = 64 * PROCESSORS  # warps that an H100 holds


def loader(count):
    """``fetch(vectors, base, at, k, deep, loaded)``: four steps of the depth of all vectors, loaded[4 * v + step]."""

    @device_function
    def fetch(vectors, base, at, k, deep, loaded):
        if deep:
            for v in range(count):
                x = load4(vectors, int32(base + v * k + at))
                loaded[4 * v], loaded[4 * v + 1], loaded[4 * v + 2], loaded[4 * v + 3] = x
        else:  # (step, vector) in one row
            for q in range(count):
                x0, x1, x2, x3 = load4(vectors, int32(base + at * count + 4 * q))
                f = 4 * q
                loaded[4 * rem32(f, count) + div32(f, count)] = x0
                loaded[4 * rem32(f + 1, count) + div32(f + 1, count)] = x1
                loaded[4 * rem32(f + 2, count) + div32(f + 2, count)] = x2
                loaded[4 * rem32(f + 3, count) + div32(f + 3, count)] = x3

    return fetch


def examples(count):
    """Types to look at: float64 as well where most registers are taken."""
    return tuple([(name,) * 4 for name in (("float32", "float64") if count == MOST else ("float32",))])


def _deep(count):
    """The kernel for a deep matrix: some warps for each row, their lanes side by side in the depth."""
    fetch, four, size = loader(count), 4 * count, WARPS * count

    @kernel(promises=("LDG.E.128",), examples=examples(count))
    def rows_by_warps(matrix: Pointer, vectors: Pointer, bias: Pointer, out: Pointer, rows: Int, k: Int, across: Int,
                      share: Int, shift: Int, batch: Int, stride_matrix: Int, stride_vectors: Int, deep: Int,
                      out_row: Int, out_vector: Int, bias_row: Int, bias_vector: Int, biased: Int):
        partial = cuda.shared.array(size, T)
        loaded, sums = cuda.local.array(four, T), cuda.local.array(count, T)
        for v in range(count):
            sums[v] = T(0)
        warp, lane = int32(cuda.threadIdx.x >> 5), int32(cuda.threadIdx.x & 31)
        team = int32(1 << shift)  # warps that share a row
        item = div32(cuda.blockIdx.x, across)
        row = int32((cuda.blockIdx.x - item * across) * (WARPS >> shift) + (warp >> shift))
        start = int32(cuda.blockIdx.y * share)
        stop = int32(min(start + share, k))
        if row >= rows:
            stop = start
        base, first = int32(item * stride_vectors), int32(item * stride_matrix + row * k)
        at = int32(start + (((warp & (team - 1)) << 5) + lane) * 4)
        while at < stop:
            x0, x1, x2, x3 = load4(matrix, int32(first + at))
            fetch(vectors, base, at, k, deep, loaded)
            for v in range(count):
                sums[v] += x0 * loaded[4 * v]
                sums[v] += x1 * loaded[4 * v + 1]
                sums[v] += x2 * loaded[4 * v + 2]
                sums[v] += x3 * loaded[4 * v + 3]
            at = int32(at + (team << 7))
        for v in range(count):
            value = sums[v]
            for d in (16, 8, 4, 2, 1):
                value += cuda.shfl_down_sync(0xFFFFFFFF, value, d)
            if lane == 0:
                partial[warp * count + v] = value
        cuda.syncthreads()
        if lane < count and warp & (team - 1) == 0 and row < rows:
            total = partial[warp * count + lane]
            for w in range(1, team):
                total += partial[(warp + w) * count + lane]
            if biased:
                total += bias[int32(row * bias_row + lane * bias_vector)]
            out[int32((cuda.blockIdx.y * batch + item) * rows * count + row * out_row + lane * out_vector)] = total

    return rows_by_warps


def _wide(count):
    """The kernel for a wide matrix: a thread has four rows, a block 32 of them, and 32 threads share the depth."""
    fetch, four, width, size = loader(count), 4 * count, ROWS * count, WARPS * ROWS * count

    @kernel(promises=("LDG.E.128",), examples=examples(count))
    def rows_by_quads(matrix: Pointer, vectors: Pointer, bias: Pointer, out: Pointer, rows: Int, k: Int, across: Int,
                      share: Int, batch: Int, stride_matrix: Int, stride_vectors: Int, deep: Int, out_row: Int,
                      out_vector: Int, bias_row: Int, bias_vector: Int, biased: Int):
        partial = cuda.shared.array(size, T, alignment=16)
        loaded, sums = cuda.local.array(four, T), cuda.local.array(four, T)
        for f in range(four):
            sums[f] = T(0)
        t = int32(cuda.threadIdx.x)
        quad = int32(t & (QUADS - 1))
        item = div32(cuda.blockIdx.x, across)
        first = int32((cuda.blockIdx.x - item * across) * ROWS)
        start = int32(cuda.blockIdx.y * share)
        stop = int32(min(start + share, k))
        if first + 4 * quad >= rows:
            stop = start
        base, corner = int32(item * stride_vectors), int32(item * stride_matrix + first + 4 * quad)
        at = int32(start + 4 * div32(t, QUADS))
        while at < stop:
            fetch(vectors, base, at, k, deep, loaded)
            for step in range(4):
                x0, x1, x2, x3 = load4(matrix, int32(corner + (at + step) * rows))
                for v in range(count):
                    factor = loaded[4 * v + step]
                    sums[4 * v] += x0 * factor
                    sums[4 * v + 1] += x1 * factor
                    sums[4 * v + 2] += x2 * factor
                    sums[4 * v + 3] += x3 * factor
            at = int32(at + 4 * LANES)
        for f in range(four):  # the lanes of a warp that have the same rows
            value = sums[f]
            value += cuda.shfl_down_sync(0xFFFFFFFF, value, 16)
            value += cuda.shfl_down_sync(0xFFFFFFFF, value, 8)
            sums[f] = value
        if t & 31 < QUADS:
            for v in range(count):
                store4(partial, int32((t >> 5) * width + v * ROWS + 4 * quad), sums[4 * v], sums[4 * v + 1],
                       sums[4 * v + 2], sums[4 * v + 3])
        cuda.syncthreads()
        v, row = int32(t >> 5), int32(first + (t & 31))
        if v < count and row < rows:
            total = partial[t]
            for w in range(1, WARPS):
                total += partial[int32(w * width + t)]
            if biased:
                total += bias[int32(row * bias_row + v * bias_vector)]
            out[int32((cuda.blockIdx.y * batch + item) * rows * count + row * out_row + v * out_vector)] = total

    return rows_by_quads


_DEEP, _WIDE = {}, {}
for _count in range(1, MOST + 1):
    _DEEP[_count], _WIDE[_count] = _deep(_count), _wide(_count)
    _DEEP[_count].__name__, _WIDE[_count].__name__ = f"_gemv_deep_{_count}", f"_gemv_wide_{_count}"


class Plan(NamedTuple):
    """How the work is shared."""

    across: int  # blocks for the rows of a matrix
    splits: int  # slices of the depth, blocks of their own
    share: int  # steps of the depth in a slice
    shift: int  # 2**shift warps share a row of a deep matrix


def suits(m, n, k, deep_a, deep_b, aligned):
    """Whether the kernels here can read a product's operands, and one of them is narrow and deep enough for them."""
    deep, rows = (deep_b, n) if m <= n else (deep_a, m)
    return min(m, n) <= MOST and k >= LEAST and k % 4 == 0 and aligned and (deep or rows % 4 == 0)


def plan(rows, k, batch, deep):
    """Twice as many blocks as there are processors, where the depth is enough for four turns of each thread."""
    shift = 0
    if deep:
        while 1 << shift < WARPS and rows * batch << shift < RESIDENT and k >> shift > 2 * LEAST:
            shift += 1
    across = -(-rows // (WARPS >> shift if deep else ROWS))
    turn = (4 * WARP << shift) if deep else 4 * LANES  # steps of the depth that a row's threads take at once
    splits = max(1, min(k // (4 * turn), -(-2 * PROCESSORS // (across * batch))))
    share = -(-k // (splits * turn)) * turn
    return Plan(across, -(-k // share), share, shift)


def multiply(a, b, bias, out, batch, m, n, k, stride_a, stride_b, deep_a, deep_b):
    """The product of operands that suit; the narrow one has the vectors. Arguments as of `matmul.launch`."""
    if m <= n:
        operands, rows, count, strides, deep, deep_vectors = (b, a), n, m, (stride_b, stride_a), deep_b, deep_a
        steps = 1, n, 1, 0
    else:
        operands, rows, count, strides, deep, deep_vectors = (a, b), m, n, (stride_a, stride_b), deep_a, deep_b
        steps = n, 1, 0, 1
    across, splits, share, shift = plan(rows, k, batch, deep)
    target = out if splits == 1 else memory.scratch(splits * out.size, out.dtype)
    biased = splits == 1 and bias is not None and bias.size > 0
    kernels, shifts = (_DEEP, (shift,)) if deep else (_WIDE, ())
    kernels[count][(across * batch, splits), THREADS](
        *operands, bias if biased else a, target, rows, k, across, share, *shifts, batch, *strides, int(deep_vectors),
        *steps, int(biased))
    if splits > 1:
        add_slices(target, bias, out, splits)
