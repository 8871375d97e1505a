"""Strided views made contiguous, and rows picked by number."""

from minigrad.kernels.cuda import maps
from minigrad.kernels.cuda.elementwise import fill
from minigrad.kernels.cuda.language import (
    THREADS,
    WARP,
    Int,
    Pointer,
    T,
    blocks,
    cuda,
    device_function,
    div32,
    int32,
    kernel,
    load4,
    store4,
    thread_index,
)
from minigrad.kernels.cuda.maps import named, quad

Longs = Pointer["int64"]
TYPES = (("float32", "float32"), ("int64", "int64"), ("bool", "bool"))


@device_function
def _place(j, axes, offset, n1, n2, n3, n4, s0, s1, s2, s3, s4):
    """Where a view has what belongs to element j of the dense array; the last `axes` axes alone are longer than 1.

    Each axis costs a division of some twenty instructions, so those of length 1 are left out.
    """
    row = div32(j, n4)
    at = int32(offset + int32(j - row * n4) * s4)
    if axes > 2:
        outer = div32(row, n3)
        at, row = int32(at + int32(row - outer * n3) * s3), outer
        if axes > 3:
            outer = div32(row, n2)
            at, row = int32(at + int32(row - outer * n2) * s2), outer
            if axes > 4:
                outer = div32(row, n1)
                return int32(at + int32(row - outer * n1) * s1 + outer * s0)
            return int32(at + row * s1)
        return int32(at + row * s2)
    return int32(at + row * s3)


@kernel(examples=TYPES, promises=("LDG.E", "STG.E"))
def _gather(view: Pointer, dense: Pointer, n: Int, width: Int, axes: Int, offset: Int, n1: Int, n2: Int, n3: Int,
            n4: Int, s0: Int, s1: Int, s2: Int, s3: Int, s4: Int):  # fmt: skip
    j = int32(width * thread_index())
    if j < n:
        at = _place(j, axes, offset, n1, n2, n3, n4, s0, s1, s2, s3, s4)
        if width == 4:
            a, b, c, d = quad(view, at, s4)
            store4(dense, j, a, b, c, d)
        else:
            dense[j] = view[at]


@kernel(examples=TYPES, promises=("LDG.E", "STG.E"))
def _scatter(view: Pointer, dense: Pointer, n: Int, width: Int, axes: Int, offset: Int, n1: Int, n2: Int, n3: Int,
             n4: Int, s0: Int, s1: Int, s2: Int, s3: Int, s4: Int):  # fmt: skip
    j = int32(width * thread_index())
    if j < n:
        at = _place(j, axes, offset, n1, n2, n3, n4, s0, s1, s2, s3, s4)
        if width == 4:
            a, b, c, d = load4(dense, j)
            store4(view, at, a, b, c, d)
        else:
            view[at] = dense[j]


# -- transposes --------------------------------------------------------------------------------------------------

TILE = 32
PADDED = TILE + 1
ROWS = 8  # of a tile that a block of TILE x ROWS threads moves at once


def _tiles(name, gathers):
    """The kernel for views whose neighbours lie along axis 3 and not along axis 4, as in a transpose.

    A block reads a tile of both axes along the one in which the source has neighbours, into shared memory, and writes
    it along the other: both in whole rows of 32 elements. The padding of a column keeps the columns of the tile out
    of one bank.
    """

    def body(view: Pointer, dense: Pointer, offset: Int, across3: Int, across4: Int, n1: Int, n2: Int, n3: Int, n4: Int,
             d0: Int, d1: Int, d2: Int, d3: Int, s0: Int, s1: Int, s2: Int, s4: Int):  # fmt: skip
        tile = cuda.shared.array((TILE, PADDED), T)
        x, y = int32(cuda.threadIdx.x), int32(cuda.threadIdx.y)
        rest = div32(cuda.blockIdx.x, across4)
        first4 = int32((cuda.blockIdx.x - rest * across4) * TILE)
        outer = div32(rest, across3)
        first3 = int32((rest - outer * across3) * TILE)
        row = div32(outer, n2)
        i, k = div32(row, n1), int32(outer - row * n2)
        j = int32(row - i * n1)
        here = int32(i * d0 + j * d1 + k * d2)
        there = int32(offset + i * s0 + j * s1 + k * s2)
        for part in range(TILE // ROWS):
            r = int32(y + part * ROWS)
            if gathers:
                if first4 + r < n4 and first3 + x < n3:
                    tile[r, x] = view[int32(there + int32(first4 + r) * s4 + first3 + x)]
            elif first3 + r < n3 and first4 + x < n4:
                tile[r, x] = dense[int32(here + int32(first3 + r) * d3 + first4 + x)]
        cuda.syncthreads()
        for part in range(TILE // ROWS):
            r = int32(y + part * ROWS)
            if gathers:
                if first3 + r < n3 and first4 + x < n4:
                    dense[int32(here + int32(first3 + r) * d3 + first4 + x)] = tile[x, r]
            elif first4 + r < n4 and first3 + x < n3:
                view[int32(there + int32(first4 + r) * s4 + first3 + x)] = tile[x, r]

    return named(name, body, examples=TYPES, promises=("LDS", "STS"))


_gather_tiles, _scatter_tiles = _tiles("_gather_tiles", 1), _tiles("_scatter_tiles", 0)


def _move(elements, tiles, view, dense, offset, strides):
    n, shape = dense.size, dense.shape
    if not n:
        return
    large = n >= maps.WAVE
    if large and strides[4] not in (0, 1):
        near = [i for i in range(4) if strides[i] == 1 and shape[i] >= ROWS]
        if near and shape[4] >= ROWS:
            return _move_tiles(tiles, near[0], view, dense, offset, strides)
    axes = 5
    while axes > 1 and shape[5 - axes] == 1:
        axes -= 1
    width = 1
    if large and shape[4] % 4 == 0 and strides[4] in (0, 1) and not (view.offset | dense.offset) & 15:
        starts = 0 if strides[4] == 0 else offset | strides[0] | strides[1] | strides[2] | strides[3]
        width = 4 if starts % 4 == 0 else 1
    elements[blocks(-(-n // width)), THREADS](view, dense, n, width, axes, offset, *shape[1:], *strides)


def _move_tiles(kernel, near, view, dense, offset, strides):
    """With axis `near`, along which the view has its neighbours, in the place of axis 3."""
    n0, n1, n2, n3, n4 = dense.shape
    steps = [n1 * n2 * n3 * n4, n2 * n3 * n4, n3 * n4, n4]
    shape, strides = list(dense.shape), list(strides)
    for values in (shape, strides, steps):
        values[near], values[3] = values[3], values[near]
    n0, n1, n2, n3, n4 = shape
    across3, across4 = -(-n3 // TILE), -(-n4 // TILE)
    kernel[n0 * n1 * n2 * across3 * across4, (TILE, ROWS)](
        view, dense, offset, across3, across4, n1, n2, n3, n4, *steps, *strides[:3], strides[4])  # fmt: skip


def strided_copy(x, out, offset, s0, s1, s2, s3, s4):
    """out[i, j, k, l, m] = x[offset + i s0 + j s1 + k s2 + l s3 + m s4] (x is 1-D); strides may be 0 or negative."""
    _move(_gather, _gather_tiles, x, out, offset, (s0, s1, s2, s3, s4))


def strided_scatter(x, out, offset, s0, s1, s2, s3, s4):
    """In place: out[offset + i s0 + j s1 + k s2 + l s3 + m s4] (1-D) = x[i, j, k, l, m]; the targets are distinct."""
    _move(_scatter, _scatter_tiles, out, x, offset, (s0, s1, s2, s3, s4))


# -- rows --------------------------------------------------------------------------------------------------------


@device_function
def _row(indices, i, rows):
    row = int32(indices[i])
    return int32(row + rows) if row < 0 else row


@kernel(examples=TYPES, promises=("LDG.E", "STG.E"))
def _take(x: Pointer, indices: Longs, out: Pointer, n: Int, columns: Int, rows: Int, width: Int):
    j = int32(width * thread_index())
    if j < n:
        i = div32(j, columns)
        row = int32(max(0, min(_row(indices, i, rows), rows - 1)))  # what is no row is found later, see `widen_range`
        at = int32(row * columns + int32(j - i * columns))
        if width == 4:
            a, b, c, d = load4(x, at)
            store4(out, j, a, b, c, d)
        else:
            out[j] = x[at]


def take(x, indices, out):
    """out (n, D) = the rows `indices` (int64, n) of x (R, D)."""
    n, (rows, columns) = out.size, x.shape
    if n and rows:
        width = 4 if n >= maps.WAVE and columns % 4 == 0 and not (x.offset | out.offset) & 15 else 1
        _take[blocks(-(-n // width)), THREADS](x, indices, out, n, columns, rows, width)


WARPS = THREADS // WARP
COLUMNS = 4 * WARP  # that a warp sums at once: four per thread, WARP apart


@device_function
def _is_row(indices, i, count, rows, row):
    return _row(indices, i, rows) == row if i < count else False


@device_function
def _value(grad, at, wanted):
    return grad[at] if wanted else T(0)


@kernel(promises=("VOTE", "FADD"))
def _sum_rows(grad: Pointer, indices: Longs, out: Pointer, count: Int, columns: Int, rows: Int):
    """A warp for each i. The first of those with one index sums the rows of all of them, the others find one before
    them and have nothing to do: no atomics, and the order is that of i. A row that is not wanted adds 0, which changes
    nothing, for a sum that began with 0 is never -0; so 16 loads are on their way at once."""
    lane, warp = int32(cuda.threadIdx.x % WARP), int32(cuda.threadIdx.x // WARP)
    i = int32(cuda.blockIdx.x * WARPS + warp)
    if i < count:
        row, start, seen = _row(indices, i, rows), int32(0), False
        while start < i and not seen:
            j = int32(start + lane)
            near = _is_row(indices, j, i, rows, row) | _is_row(indices, j + WARP, i, rows, row)
            far = _is_row(indices, j + 2 * WARP, i, rows, row) | _is_row(indices, j + 3 * WARP, i, rows, row)
            seen = cuda.any_sync(0xFFFFFFFF, near | far)
            start = int32(start + 4 * WARP)
        if not seen and 0 <= row < rows:
            c = int32(cuda.blockIdx.y * COLUMNS + lane)
            in0, in1, in2, in3 = c < columns, c + 32 < columns, c + 64 < columns, c + 96 < columns
            sum0, sum1, sum2, sum3 = T(0), T(0), T(0), T(0)
            start = i
            while start < count:
                found = cuda.ballot_sync(0xFFFFFFFF, _is_row(indices, start + lane, count, rows, row))
                for part in range(8):
                    bits = (found >> (4 * part)) & 15
                    if bits != 0:
                        at = int32(int32(start + 4 * part) * columns + c)
                        a, b, e, f = (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0
                        at1, at2 = int32(at + columns), int32(at + 2 * columns)
                        at3 = int32(at + 3 * columns)
                        a0, a1 = _value(grad, at, a & in0), _value(grad, at + 32, a & in1)
                        a2, a3 = _value(grad, at + 64, a & in2), _value(grad, at + 96, a & in3)
                        b0, b1 = _value(grad, at1, b & in0), _value(grad, at1 + 32, b & in1)
                        b2, b3 = _value(grad, at1 + 64, b & in2), _value(grad, at1 + 96, b & in3)
                        e0, e1 = _value(grad, at2, e & in0), _value(grad, at2 + 32, e & in1)
                        e2, e3 = _value(grad, at2 + 64, e & in2), _value(grad, at2 + 96, e & in3)
                        f0, f1 = _value(grad, at3, f & in0), _value(grad, at3 + 32, f & in1)
                        f2, f3 = _value(grad, at3 + 64, f & in2), _value(grad, at3 + 96, f & in3)
                        sum0, sum1 = (((sum0 + a0) + b0) + e0) + f0, (((sum1 + a1) + b1) + e1) + f1
                        sum2, sum3 = (((sum2 + a2) + b2) + e2) + f2, (((sum3 + a3) + b3) + e3) + f3
                start = int32(start + WARP)
            to = int32(row * columns + c)
            if in0:
                out[to] = sum0
            if in1:
                out[to + 32] = sum1
            if in2:
                out[to + 64] = sum2
            if in3:
                out[to + 96] = sum3


def take_backward(grad, indices, out):
    """out (R, D) = 0, then out[indices[i]] += grad[i] in order of i.

    Work grows with the number of indices times that of different ones among them.
    """
    count, (rows, columns) = indices.size, out.shape
    fill(out, 0.0)
    if count and columns:
        grid = blocks(count, WARPS), blocks(columns, COLUMNS)
        _sum_rows[grid, THREADS](grad, indices, out, count, columns, rows)
