"""Matrix products: tiles of the output that stay in registers, on operands that are packed only where it pays.

Three kinds of ways (`product_plan` chooses). Rows times rows (a small batch through Linear, and matrix-vector products)
are dot products of the operands as they lie, if that takes less than to transpose one; one or two rows times a matrix
walk through its rows once. Else `a` is read by broadcast and `b` in vectors of neighbouring columns. What is large, and
a `b` whose columns are no neighbours, is packed: each share of the output packs what it needs, when it needs it, into a
piece of scratch memory of its own. Ragged columns are covered by a vector that starts early and writes the same values
once more. Every element of the output is summed in the same order on any number of threads.
"""

import numba
import numpy as np

from minigrad.kernels.cpu.compile import chosen, inline
from minigrad.kernels.cpu.emitter import MOST_LANES
from minigrad.kernels.cpu.gemm_tiles import (
    BIAS,
    DOT_COLUMNS,
    DOT_ROWS,
    FEW_DOT_ROWS,
    HALF_ROWS,
    NARROW_ROWS,
    SUM,
    TILE_ROWS,
    TILE_VECTORS,
    ZERO,
    broadcast_tile,
    dot_tile,
    line_tile,
    line_update,
    narrow_tile,
)
from minigrad.kernels.cpu.parallel import flat, merged, parallel_for, parallel_kernel, scratch, thread_count
from minigrad.kernels.cpu.product_plan import (
    BLOCK,
    DEPTH,
    LINE,
    MEETING,
    MULTIPLYING,
    MULTIPLYING_HALF,
    NARROW,
    ONE_BLOCK,
    PACKING,
    TILES,
    TRANSPOSING,
    VECTOR,
    WIDE,
    planning,
)
from minigrad.kernels.cpu.simd import VECTOR_BYTES, copy_block, copy_vector, keep_scalar, lanes_of, transpose_whole

# Bytes between the rows of b from which on the columns of the next panel are asked for while the first tile of a panel
# is multiplied: rows on a page each are more than the processor would follow.
FAR = 2048
TOGETHER = 4  # panels of b that are packed at a time
PARALLEL_WORK = 400_000  # multiply-adds: 60 x 100 x 100 takes 16 us on one thread, 9.4 on two that are awake
LINE_DEPTH = 8  # rows of b that are multiplied in one pass over the row of the output
LINE_VECTORS = 2  # of a row of the output that stays in registers instead: 1 x 2048 x 10 in 3.3 us, not 8
LINE_COLUMNS = 2048  # of that row: they stay in the first cache
DOT_BYTES = 262_144 if DOT_ROWS > DOT_COLUMNS else 0  # of columns that rows go through together
NOTHING = {4: np.empty(0, np.float32), 8: np.empty(0, np.float64)}  # the bias of a product without one, by itemsize
THREADS = numba.config.NUMBA_NUM_THREADS  # there are never more

_vectors, _pitch, _way, _packing, _area = planning(inline)
_, _, way, packing, area = planning(lambda function: function)  # for Python

_wide_tile, _half_tile = broadcast_tile(TILE_ROWS, TILE_VECTORS), broadcast_tile(HALF_ROWS, TILE_VECTORS)
_later_tile = broadcast_tile(TILE_ROWS, TILE_VECTORS, late=True)
_asking_tile = broadcast_tile(TILE_ROWS, TILE_VECTORS, asking=True)
_narrow_tile = narrow_tile(NARROW_ROWS, 2)
_dot_tile, _few_dots = dot_tile(DOT_ROWS, DOT_COLUMNS), dot_tile(FEW_DOT_ROWS, DOT_COLUMNS)
_lines, _line = line_update(LINE_DEPTH), line_update(1)  # 1 x 784 x 100: 5.6 us, in columns of tiles 7
_short_line = line_tile(4, LINE_VECTORS)
_copy_some = copy_block(0)
_copy_vector = copy_vector()
_transpose = transpose_whole()


@inline
def _column(v, n, lanes):
    """First column of vector v: the last one starts early, but not before 0."""
    return max(min(v * lanes, n - lanes), 0)


@inline
def _units(n, lanes):
    """Pairs of vectors of columns, as shares are cut from them.

    A last vector that starts early writes columns of the pair before it again, which in a deep product is added to pass
    by pass: both are one thread's, else what came of these columns would depend on who was there first.
    """
    return max(n // (TILE_VECTORS * lanes), 1) if n % lanes else (_vectors(n, lanes) + 1) // TILE_VECTORS


@inline
def _halves(m):
    """Half tiles of rows, as shares are cut from them."""
    return (m + HALF_ROWS - 1) // HALF_ROWS


@inline
def _whole_rows(n, k, lanes):
    """Rows of a matrix of k rows, n apart, at which a vector ends inside of it."""
    return k if n >= lanes else max(k - (lanes - 1) // n, 0)


def _workspace(sizes, steps, itemsize):
    """Elements of scratch memory for a product: a piece for every thread that there may be."""
    batch_a, batch_b, m, n, k = sizes
    lanes = VECTOR_BYTES // itemsize
    if way(sizes, steps, lanes) != TILES:
        return 0
    shares = THREADS if max(batch_a, batch_b) * m * n * k >= PARALLEL_WORK else 1
    return shares * area(sizes, packing(sizes, steps, lanes), lanes)[1]


@inline
def _pack_rows(a, at, a_row, a_depth, rows, depth, work, out, pitch):
    """Pack a block of a: rows as they are, `pitch` apart, or tiles of columns, row after row of TILE_ROWS elements."""
    lanes = lanes_of(work)
    if a_depth == 1:
        for row in range(rows):
            for i in range(0, depth, lanes):
                if i + lanes <= depth:
                    _copy_vector(a, at + row * a_row + i, work, out + row * pitch + i)
                else:
                    _copy_some(a, at + row * a_row + i, depth - i, work, out + row * pitch + i)
    else:
        for i in range(depth):
            for row in range(0, rows, TILE_ROWS):
                for r in range(0, TILE_ROWS, lanes):
                    source, target = at + i * a_depth + row + r, out + row * pitch + i * TILE_ROWS + r
                    if rows - row - r >= lanes:
                        _copy_vector(a, source, work, target)
                    else:
                        _copy_some(a, source, rows - row - r, work, target)


@inline
def _pack_columns(b, at, b_column, b_depth, apart, depth, work, out, width, count):
    """Pack `count` neighbouring panels of b, one of vectors that begin `apart` columns from each other.

    A panel is row after row of `width` elements. Rows of b are read several panels at a time: those of a matrix 1,024
    wide share one set of the cache.
    """
    lanes, size = lanes_of(work), depth * width
    if b_column == 1:
        for i in range(depth):
            for p in range(count):
                for v in range(0, width, lanes):
                    column = p * width + (apart if v else 0)
                    _copy_vector(b, at + i * b_depth + column, work, out + p * size + i * width + v)
    elif depth >= lanes:
        for p in range(count):
            for v in range(0, width, lanes):
                column = p * width + (apart if v else 0)
                for i in range(0, depth, lanes):
                    i = min(i, depth - lanes)
                    _transpose(b, at + column * b_column + i, b_column, work, out + p * size + i * width + v, width)
    else:
        for p in range(count):
            for i in range(depth):
                for v in range(width):
                    keep_scalar(work)
                    column = p * width + (v if v < lanes else v - lanes + apart)
                    work[out + p * size + i * width + v] = b[at + column * b_column + i]


@inline
def _pack_few(b, at, b_column, b_depth, n, depth, work, out):
    """Pack fewer columns than a vector has lanes: row after row, without a gap."""
    for i in range(depth):
        for c in range(n):
            keep_scalar(work)
            work[out + i * n + c] = b[at + c * b_column + i * b_depth]


@merged
def _multiply_pairs(a, a_at, b, b_at, bias, out, out_at, work, work_at, sizes, steps, packed, part):
    """The part of an output that whole pairs of vectors of columns cover."""
    batch_a, batch_b, m, n, k = sizes
    a_row, a_depth, b_column, b_depth = steps
    packed_a, packed_b = packed
    top, bottom, left, right = part
    lanes = lanes_of(out)
    width, pitch, first = TILE_VECTORS * lanes, _pitch(k, lanes), BIAS if bias.size else ZERO
    panels = work_at + _area(sizes, packed, lanes)[0]
    x, y = work if packed_a else a, work if packed_b else b
    x_row, x_depth = (pitch if a_depth == 1 else 1, 1 if a_depth == 1 else TILE_ROWS) if packed_a else (a_row, a_depth)
    x_tile, y_step = TILE_ROWS * (pitch if packed_a else a_row), width if packed_b else b_depth
    height = (BLOCK if packed_a or bottom - top > ONE_BLOCK * TILE_ROWS else ONE_BLOCK) * TILE_ROWS
    far = not packed_b and y_step * out.itemsize >= FAR
    for wide in range(left, right, WIDE):
        for start in range(0, max(k, 1), DEPTH):
            depth = min(DEPTH, k - start)
            for block in range(top, bottom, height):
                end = min(block + height, bottom)
                x_at = a_at + block * a_row + start * a_depth
                if packed_a:
                    _pack_rows(a, x_at, a_row, a_depth, end - block, depth, work, work_at, pitch)
                    x_at = work_at
                for pair in range(wide, min(wide + WIDE, right)):
                    column = pair * width
                    y_at = b_at + column * b_column + start * b_depth
                    if packed_b:
                        panel = panels + (pair - wide) * depth * width
                        if block == top and (pair - wide) % TOGETHER == 0:
                            count = min(TOGETHER, min(wide + WIDE, right) - pair)
                            _pack_columns(b, y_at, b_column, b_depth, lanes, depth, work, panel, width, count)
                        y_at = panel
                    for row in range(block, end, TILE_ROWS):
                        at, x_from = out_at + row * n + column, x_at + (row - block) // TILE_ROWS * x_tile
                        if start > 0:
                            _later_tile(x, x_from, x_row, x_depth, y, y_at, y_step, lanes, depth,
                                        bias, column, SUM, out, at, n, lanes, end - row)
                        elif end - row <= HALF_ROWS:
                            _half_tile(x, x_from, x_row, x_depth, y, y_at, y_step, lanes, depth,
                                       bias, column, first, out, at, n, lanes, end - row)
                        elif far and row == top and pair + 1 < right:
                            _asking_tile(x, x_from, x_row, x_depth, y, y_at, y_step, lanes, depth,
                                         bias, column, first, out, at, n, lanes, end - row)
                        else:
                            _wide_tile(x, x_from, x_row, x_depth, y, y_at, y_step, lanes, depth,
                                       bias, column, first, out, at, n, lanes, end - row)


@merged
def _multiply_ragged(a, a_at, b, b_at, bias, out, out_at, work, work_at, sizes, steps, packed, part):
    """The columns behind the last pair. Vectors write columns of the pair again: after it, with the whole depth."""
    batch_a, batch_b, m, n, k = sizes
    a_row, a_depth, b_column, b_depth = steps
    top, bottom = part
    lanes = lanes_of(out)
    vector, first = n // (TILE_VECTORS * lanes) * TILE_VECTORS, BIAS if bias.size else ZERO
    rest, column = _vectors(n, lanes) - vector, _column(vector, n, lanes)
    apart = _column(vector + 1, n, lanes) - column
    y, y_at, y_step, y_apart = b, b_at + column * b_column, b_depth, apart
    if packed[1]:
        panel = work_at + _area(sizes, packed, lanes)[0]
        if n < lanes:
            _pack_few(b, y_at, b_column, b_depth, n, k, work, panel)
        else:
            _pack_columns(b, y_at, b_column, b_depth, apart, k, work, panel, rest * lanes, 1)
        y, y_at, y_step, y_apart = work, panel, n if n < lanes else rest * lanes, lanes
    if rest == TILE_VECTORS:
        for row in range(top, bottom, TILE_ROWS):
            if bottom - row <= HALF_ROWS:
                _half_tile(a, a_at + row * a_row, a_row, a_depth, y, y_at, y_step, y_apart, k, bias, column, first,
                           out, out_at + row * n + column, n, apart, bottom - row)
            else:
                _wide_tile(a, a_at + row * a_row, a_row, a_depth, y, y_at, y_step, y_apart, k, bias, column, first,
                           out, out_at + row * n + column, n, apart, bottom - row)
    else:
        whole = _whole_rows(n, k, lanes)
        for row in range(top, bottom, NARROW_ROWS):
            _narrow_tile(a, a_at + row * a_row, a_row, a_depth, y, y_at, y_step, whole, k, bias, column, first,
                         out, out_at + row * n + column, n, n, bottom - row)


@inline
def _multiply_shares(task, tasks, a, b, bias, out, work, batch, sizes, steps, packed, grid):
    """One of `tasks` equal runs of shares: each some tiles of rows by some pairs of vectors of one product."""
    batch_a, batch_b, m, n, k = sizes
    down, across = grid
    lanes = lanes_of(out)
    halves, whole, units = _halves(m), n // (TILE_VECTORS * lanes), _units(n, lanes)
    work_at, shares = task * _area(sizes, packed, lanes)[1], batch * down * across
    for share in range(task * shares // tasks, (task + 1) * shares // tasks):
        number, i, j = share // (down * across), share // across % down, share % across
        top, bottom = halves * i // down * HALF_ROWS, min(halves * (i + 1) // down * HALF_ROWS, m)
        left, right = units * j // across, units * (j + 1) // across
        a_at, b_at = (number if batch_a > 1 else 0) * m * k, (number if batch_b > 1 else 0) * n * k
        _multiply_pairs(a, a_at, b, b_at, bias, out, number * m * n, work, work_at, sizes, steps, packed,
                        (top, bottom, left, min(right, whole)))
        if right == units and n > whole * TILE_VECTORS * lanes:
            _multiply_ragged(a, a_at, b, b_at, bias, out, number * m * n, work, work_at, sizes, steps, packed,
                             (top, bottom))


@inline
def _grid(sizes, steps, packed, lanes, threads):
    """Into how many shares, down and across, a product is cut: those whose largest takes least, packing included.

    Lines of memory in which the columns of two shares meet go to and fro between the cores, row by row. On two Zen 4
    cores 300 x 64 x 64 took 14 or, by where `out` lay, 22 us if cut across, 1568 x 64 x 128 125 or 200; cut down always
    13 and 122.
    """
    batch_a, batch_b, m, n, k = sizes
    halves, units = _halves(m), _units(n, lanes)
    pack_a = PACKING if packed[0] else 0
    pack_b = (PACKING if steps[2] == 1 else TRANSPOSING) if packed[1] else 0
    best, grid = -1, (1, 1)
    for down in range(1, min(threads, halves) + 1):
        across = min(threads // down, units)
        rows, columns = (halves + down - 1) // down, (units + across - 1) // across
        multiplying = rows // 2 * MULTIPLYING + rows % 2 * (MULTIPLYING_HALF if k <= DEPTH else MULTIPLYING)
        cost = (multiplying * columns + columns * pack_b + rows * pack_a // 2) * k
        if across > 1:
            cost += rows * HALF_ROWS * MEETING
        if best < 0 or cost <= best:
            best, grid = cost, (down, across)
    return grid


@inline
def _dot_share(task, tasks, a, b, bias, out, sizes):
    """One share of the tiles of one product of rows by rows: those of neighbouring columns, as `out` is used next.

    A tile's rows stay in the first cache while the columns of a block, which stay in the second, go past; if a tile has
    no more rows than columns, its columns stay while the rows do.
    """
    batch_a, batch_b, m, n, k = sizes
    batch, share = task // tasks, task % tasks
    a_at, b_at, out_at = (batch if batch_a > 1 else 0) * m * k, (batch if batch_b > 1 else 0) * n * k, batch * m * n
    down, across = (m + DOT_ROWS - 1) // DOT_ROWS, (n + DOT_COLUMNS - 1) // DOT_COLUMNS
    begin, end = share * down * across // tasks, (share + 1) * down * across // tasks
    start = BIAS if bias.size else ZERO
    block = max(1, DOT_BYTES // max(1, k * DOT_COLUMNS * a.itemsize))
    for left in range(begin // down, (end + down - 1) // down, block):
        for i in range(down):  # tile j * down + i lies in column j of the tiles; from begin to end they are ours
            row = i * DOT_ROWS
            first, last = max(left, (begin - i + down - 1) // down), min(left + block, (end - i + down - 1) // down)
            for j in range(first, last):
                column = min(j * DOT_COLUMNS, n - DOT_COLUMNS)
                if DOT_ROWS == FEW_DOT_ROWS or m - row > FEW_DOT_ROWS:
                    _dot_tile(a, a_at + row * k, k, b, b_at + column * k, k, k, bias, column, start,
                              out, out_at + row * n + column, n, m - row)
                else:
                    _few_dots(a, a_at + row * k, k, b, b_at + column * k, k, k, bias, column, start,
                              out, out_at + row * n + column, n, m - row)


@inline
def _line_share(task, tasks, a, b, bias, out, sizes, a_depth):
    """One share of the columns of one product of few rows, `b` as it lies."""
    batch_a, batch_b, m, n, k = sizes
    lanes = lanes_of(out)
    batch, share = task // tasks, task % tasks
    a_at, b_at, out_at = (batch if batch_a > 1 else 0) * m * k, (batch if batch_b > 1 else 0) * n * k, batch * m * n
    vectors = n // lanes
    left = vectors * share // tasks * lanes
    right = n if share == tasks - 1 else vectors * (share + 1) // tasks * lanes
    for column in range(left, right, LINE_COLUMNS):
        column = max(min(column, right - lanes), left)
        columns = min(LINE_COLUMNS, right - column)
        for row in range(m):
            at, line = a_at + row * (k if a_depth == 1 else 1), out_at + row * n + column
            for j in range(columns):
                out[line + j] = bias[column + j] if bias.size else out.dtype.type(0)
            whole = k // LINE_DEPTH * LINE_DEPTH
            short = n <= LINE_VECTORS * lanes  # not of the share: its width depends on the number of threads
            if short:
                _short_line(a, at, a_depth, b, b_at + column, n, columns - lanes, whole, out, line)
            for i in range(0, 0 if short else whole, LINE_DEPTH):
                _lines(a, at + i * a_depth, a_depth, b, b_at + i * n + column, n, columns, out, line)
            for i in range(whole, k):
                _line(a, at + i * a_depth, a_depth, b, b_at + i * n + column, n, columns, out, line)


@inline
def _narrow(batch, a, b, bias, out, sizes, a_depth):
    """One product of few rows and fewer columns than a vector has lanes: whole vectors of `b` are read, so the lanes
    beyond a row's end compute what nobody wants. 1 x 2048 x 10 with 16 lanes: 1.9 us; packed for a tile 31."""
    batch_a, batch_b, m, n, k = sizes
    lanes = lanes_of(out)
    a_at, b_at, out_at = (batch if batch_a > 1 else 0) * m * k, (batch if batch_b > 1 else 0) * n * k, batch * m * n
    whole = _whole_rows(n, k, lanes) // LINE_DEPTH * LINE_DEPTH
    sums = scratch(out[0], MOST_LANES)
    for row in range(m):
        at = a_at + row * (k if a_depth == 1 else 1)
        for j in range(lanes):
            sums[j] = bias[j] if bias.size and j < n else out.dtype.type(0)
        _short_line(a, at, a_depth, b, b_at, n, 0, whole, sums, 0)
        for i in range(whole, k):
            for j in range(n):
                sums[j] += a[at + i * a_depth] * b[b_at + i * n + j]
        for j in range(n):
            out[out_at + row * n + j] = sums[j]


@parallel_kernel
def product(a, b, bias, out, work, transpose_a, transpose_b):
    """``out = a @ b + bias``: `matmul` and `linear_forward`, compiled once: apart they took 9 s instead of 3.3.

    `bias` is (N,) or (0,).
    """
    m, n = out.shape[-2], out.shape[-1]
    k = a.shape[-2] if transpose_a else a.shape[-1]
    a_row, a_depth = (1, m) if transpose_a and m > 1 else (k, 1)
    b_column, b_depth = (k, 1) if transpose_b and n > 1 else (1, n)
    batch_a, batch_b, batch = (a.shape[0], b.shape[0], out.shape[0]) if out.ndim == 3 else (1, 1, 1)
    sizes, steps = (batch_a, batch_b, m, n, k), (a_row, a_depth, b_column, b_depth)
    a, b, out, work = flat(a), flat(b), flat(out), flat(work)
    lanes = lanes_of(out)
    parallel = batch * m * n * k >= PARALLEL_WORK
    threads = thread_count() if parallel else 1
    way = _way(sizes, steps, lanes)
    if out.size == 0:
        return
    if way == TILES:
        packed = _packing(sizes, steps, lanes)
        grid = (1, 1) if batch % threads == 0 else _grid(sizes, steps, packed, lanes, threads)
        each, tasks = _area(sizes, packed, lanes)[1], min(threads, batch * grid[0] * grid[1])
        if each:
            tasks = min(tasks, work.size // each)
        parallel_for(_multiply_shares, tasks, parallel,
                     (tasks, a, b, bias, out, work, batch, sizes, steps, packed, grid))
    elif way == NARROW:
        parallel_for(_narrow, batch, parallel, (a, b, bias, out, sizes, a_depth))
    elif way == LINE:
        threads = min(threads, n // lanes)
        parallel_for(_line_share, batch * threads, parallel, (threads, a, b, bias, out, sizes, a_depth))
    else:
        first, second, start = a, b, bias
        if way == VECTOR:  # the vector by the matrix's rows
            first, second, start, sizes = b, a, bias[:0], (batch_b, batch_a, 1, m, k)
        parallel_for(_dot_share, batch * threads, parallel, (threads, first, second, start, out, sizes))
        if way == VECTOR and bias.size:
            for i in range(out.size):
                out[i] += bias[0]


@chosen
def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b``, of matrices or over a batch.

    `a` is (M, K), or (K, M) if `transpose_a`; `b` (K, N), or (N, K) if `transpose_b`; `out` (M, N); with a batch in
    front, of B for `out` and of B or 1 for `a` and `b`. `work` has the same number of dimensions; any array will do
    where `matmul_workspace` is 0. K = 0 gives zeros.
    """
    return product, (a, b, NOTHING[a.itemsize], out, work, transpose_a, transpose_b)


@chosen
def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O).

    `work` is a matrix; any will do where `linear_forward_workspace` is 0.
    """
    return product, (x, weight, bias, out, work, 0, 1)


def matmul_workspace(a, b, transpose_a, transpose_b, itemsize):
    """Elements of scratch memory that `matmul` wants, given the shapes of `a` and `b`."""
    k, m = a[-2:] if transpose_a else a[:-3:-1]
    n = b[-2] if transpose_b else b[-1]
    a_row, a_depth = (1, m) if transpose_a and m > 1 else (k, 1)
    b_column, b_depth = (k, 1) if transpose_b and n > 1 else (1, n)
    batch_a, batch_b = (a[0], b[0]) if len(a) == 3 else (1, 1)
    return _workspace((batch_a, batch_b, m, n, k), (a_row, a_depth, b_column, b_depth), itemsize)


def linear_forward_workspace(x, weight, itemsize):
    """Elements of scratch memory that `linear_forward` wants, given the shapes of `x` and `weight`."""
    return matmul_workspace(x, weight, 0, 1, itemsize)
