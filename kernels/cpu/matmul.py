"""Matrix products: tiles of the output that stay in registers, on operands that are packed only where it pays.

Three ways. Few rows times rows (a small batch through Linear, and matrix-vector products) are dot products of the
operands as they lie. Else `a` is read by broadcast and `b` in vectors of neighbouring columns, as they lie if they are
small; a `b` whose columns are no neighbours, and what is large, is packed first. Ragged columns are covered by a vector
that starts early and writes the same values once more. Every element of the output is summed in the same order on any
number of threads.
"""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.gemm_tiles import (
    BIAS,
    DOT_COLUMNS,
    DOT_ROWS,
    SUM,
    TILE_ROWS,
    TILE_VECTORS,
    ZERO,
    broadcast_tile,
    dot_tile,
)
from minigrad.kernels.cpu.packing import pack_panel
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel, scratch, thread_count
from minigrad.kernels.cpu.simd import VECTOR_BYTES, copy_block, lanes_of

DEPTH = 512  # of a slice: two vectors of columns of b, 32 KiB; 256 and 384 are within 5 %, none of them always ahead
BLOCK = 16  # row tiles of a block: its slice of a, 192 KiB, stays in the second cache
PARALLEL_WORK = 400_000  # multiply-adds: 60 x 100 x 100 takes 16 us on one thread, 9.4 on two that are awake
PARALLEL_PACKING = 50_000  # elements: 60 x 784 x 100, transposed, 90 us; packed on one thread 118
PACKING_TASKS = 16
LARGE_A = 10_000  # elements of a transposed a from which on packing it pays; 1024 cubed: 45 as it lies, 62 packed
LARGE_B = 40_000  # elements of b from which on packing pays with many rows; 256 cubed: 76 as it lies, 89 packed
MANY = 100  # rows of the output; with 64 (64 x 1568 x 128) 84 GFLOP/s as it lies, 70 packed
DOT_MAX = 32  # rows or columns of the output up to which no packing is repaid
LINE_VECTORS = 4  # of a tile of one row: 32 bytes of b a cycle, all that the second cache delivers
LINES = 2  # rows of the output up to which rows are multiplied one at a time
TILE = TILE_ROWS * VECTOR_BYTES // 4

_wide_tile = broadcast_tile(TILE_ROWS, TILE_VECTORS)
_narrow_tile = broadcast_tile(TILE_ROWS, 1)
_dot_tile = dot_tile(DOT_ROWS, DOT_COLUMNS)
_line_tile = broadcast_tile(1, LINE_VECTORS)
_copy_vector = copy_block(0)


@inline
def _column(v, n, lanes):
    """First column of vector v: the last one starts early, but not before 0."""
    return max(min(v * lanes, n - lanes), 0)


@inline
def _vectors(n, lanes):
    return (n + lanes - 1) // lanes


@inline
def _tiles(m):
    return (m + TILE_ROWS - 1) // TILE_ROWS


@inline
def _panel_size(k, lanes):
    """Elements of a packed tile of rows of a: the copies write some beyond the last."""
    return k * TILE_ROWS + lanes


@inline
def _pack_share(task, tasks, a, b, work, sizes, steps, packed):
    """Pack one of `tasks` equal shares of what is packed."""
    batch_a, batch_b, m, n, k = sizes
    a_depth, b_column, b_depth = steps
    packed_a, packed_b = packed
    lanes = lanes_of(work)
    each, b_at = _vectors(n, lanes), 0
    if packed_a:
        tiles, size = _tiles(m), _panel_size(k, lanes)
        b_at = batch_a * tiles * size
        for p in range(task * batch_a * tiles // tasks, (task + 1) * batch_a * tiles // tasks):
            row = p % tiles * TILE_ROWS
            at, out = p // tiles * m * k + row, p * size
            for i in range(k):
                for r in range(0, TILE_ROWS, lanes):
                    _copy_vector(a, at + i * a_depth + r, m - row - r, work, out + i * TILE_ROWS + r)
    if packed_b:
        for p in range(task * batch_b * each // tasks, (task + 1) * batch_b * each // tasks):
            column, at = _column(p % each, n, lanes), p // each * n * k
            if b_column == 1:
                for i in range(k):
                    _copy_vector(b, at + i * b_depth + column, n - column, work, b_at + (p * k + i) * lanes)
            else:
                pack_panel(b, at + column * b_column, b_column, b_depth, min(lanes, n - column), k,
                           work, b_at + p * k * lanes, lanes)


@inline
def _multiply_share(task, a, b, bias, out, sizes, steps, places, packed, shares):
    """One share of one product of the batch: some tiles of rows by some pairs of vectors of columns."""
    batch_a, batch_b, m, n, k = sizes
    a_row, a_depth, b_step = steps
    a_at, a_tile, b_at, b_vector = places
    packed_a, packed_b = packed
    down, across = shares
    lanes = lanes_of(out)
    tiles, pairs = _tiles(m), n // (TILE_VECTORS * lanes)
    batch, share = task // (down * across), task % (down * across)
    i, j = share // across, share % across
    top, bottom = tiles * i // down, tiles * (i + 1) // down
    left, right = pairs * j // across, pairs * (j + 1) // across
    a_at += (batch if batch_a > 1 else 0) * (tiles * a_tile if packed_a else m * k)
    b_at += (batch if batch_b > 1 else 0) * (_vectors(n, lanes) * b_vector if packed_b else n * k)
    out_at, first = batch * m * n, BIAS if bias.size else ZERO
    for block in range(top, bottom, BLOCK):
        for start in range(0, max(k, 1), DEPTH):
            depth = min(DEPTH, k - start)
            for pair in range(left, right):
                column = pair * TILE_VECTORS * lanes
                at = b_at + pair * TILE_VECTORS * b_vector + start * b_step
                for tile in range(block, min(block + BLOCK, bottom)):
                    row = tile * TILE_ROWS
                    _wide_tile(a, a_at + tile * a_tile + start * a_depth, a_row, a_depth,
                               b, at, b_step, b_vector, depth, bias, column, SUM if start > 0 else first,
                               out, out_at + row * n + column, n, lanes, m - row)
    if j == across - 1:
        vector = pairs * TILE_VECTORS
        rest = _vectors(n, lanes) - vector
        if rest:  # these write columns of the last pair again: after it, with the whole depth
            column, last = _column(vector, n, lanes), _column(vector + 1, n, lanes)
            at = b_at + (vector * b_vector if packed_b else column)
            b_apart = b_vector if packed_b else last - column
            for tile in range(top, bottom):
                row = tile * TILE_ROWS
                if n < lanes:
                    square = scratch(out[0], TILE)
                    _narrow_tile(a, a_at + tile * a_tile, a_row, a_depth, b, at, b_step, 0, k,
                                 bias, 0, ZERO, square, 0, lanes, 0, m - row)
                    for r in range(min(TILE_ROWS, m - row)):
                        for c in range(n):
                            value = square[r * lanes + c]
                            out[out_at + (row + r) * n + c] = value + bias[c] if bias.size else value
                elif rest == TILE_VECTORS:
                    _wide_tile(a, a_at + tile * a_tile, a_row, a_depth, b, at, b_step, b_apart, k,
                               bias, column, first, out, out_at + row * n + column, n, last - column, m - row)
                else:
                    _narrow_tile(a, a_at + tile * a_tile, a_row, a_depth, b, at, b_step, 0, k,
                                 bias, column, first, out, out_at + row * n + column, n, 0, m - row)


@inline
def _shares(m, n, lanes, threads):
    """Shares of a product's rows and columns: one per thread, of the dimension that divides with less waste."""
    tiles, pairs = _tiles(m), max(1, n // (TILE_VECTORS * lanes))
    if (tiles + threads - 1) // threads * pairs <= (pairs + threads - 1) // threads * tiles:
        return min(threads, tiles), 1
    return 1, min(threads, pairs)


@inline
def _dot_share(task, tasks, a, b, bias, out, sizes):
    """One share of the columns of one product of rows by rows."""
    batch_a, batch_b, m, n, k = sizes
    batch, share = task // tasks, task % tasks
    a_at, b_at, out_at = (batch if batch_a > 1 else 0) * m * k, (batch if batch_b > 1 else 0) * n * k, batch * m * n
    groups = (n + DOT_COLUMNS - 1) // DOT_COLUMNS
    for group in range(share * groups // tasks, (share + 1) * groups // tasks):
        column = min(group * DOT_COLUMNS, n - DOT_COLUMNS)
        for row in range(0, m, DOT_ROWS):
            _dot_tile(a, a_at + row * k, k, b, b_at + column * k, k, k, bias, column, BIAS if bias.size else ZERO,
                      out, out_at + row * n + column, n, m - row)


@inline
def _line_share(task, tasks, a, b, bias, out, sizes, a_depth):
    """One share of the columns of one product of few rows, `b` as it lies."""
    batch_a, batch_b, m, n, k = sizes
    lanes = lanes_of(out)
    width = LINE_VECTORS * lanes
    groups = (n + width - 1) // width
    batch, share = task // tasks, task % tasks
    a_at, b_at, out_at = (batch if batch_a > 1 else 0) * m * k, (batch if batch_b > 1 else 0) * n * k, batch * m * n
    for group in range(share * groups // tasks, (share + 1) * groups // tasks):
        column = min(group * width, n - width)
        for row in range(m):
            _line_tile(a, a_at + row * (k if a_depth == 1 else 1), 0, a_depth, b, b_at + column, n, lanes, k,
                       bias, column, BIAS if bias.size else ZERO, out, out_at + row * n + column, n, lanes, 1)


@inline
def _product(a, b, bias, out, work, batch, sizes, steps):
    batch_a, batch_b, m, n, k = sizes
    a_row, a_depth, b_column, b_depth = steps
    lanes = lanes_of(out)
    parallel = batch * m * n * k >= PARALLEL_WORK
    threads = thread_count() if parallel else 1
    if n == 1 and m >= DOT_COLUMNS and a_depth == 1:  # a matrix by a vector: the vector by the matrix's rows
        parallel_for(_dot_share, batch * threads, parallel, (threads, b, a, bias[:0], out, (batch_b, batch_a, 1, m, k)))
        if bias.size:
            for i in range(out.size):
                out[i] += bias[0]
        return
    if a_depth == 1 and b_depth == 1 and min(m, n) <= DOT_MAX and n >= DOT_COLUMNS:
        parallel_for(_dot_share, batch * threads, parallel, (threads, a, b, bias, out, sizes))
        return
    if m <= LINES and b_column == 1 and n >= LINE_VECTORS * lanes:
        parallel_for(_line_share, batch * threads, parallel, (threads, a, b, bias, out, sizes, a_depth))
        return
    packed_a = a_row == 1 and m * k >= LARGE_A
    packed_b = b_column != 1 or n < lanes or (n * k >= LARGE_B and m >= MANY)
    b_at = batch_a * _tiles(m) * _panel_size(k, lanes) if packed_a else 0
    if packed_a or packed_b:
        apart = (batch_a * m * k if packed_a else 0) + (batch_b * n * k if packed_b else 0) >= PARALLEL_PACKING
        shares = PACKING_TASKS if apart else 1
        parallel_for(_pack_share, shares, apart,
                     (shares, a, b, work, sizes, (a_depth, b_column, b_depth), (packed_a, packed_b)))
    down, across = _shares(m, n, lanes, threads)
    parallel_for(_multiply_share, batch * down * across, parallel,
                 (work if packed_a else a, work if packed_b else b, bias, out, sizes,
                  (1 if packed_a else a_row, TILE_ROWS if packed_a else a_depth, lanes if packed_b else b_depth),
                  (0, _panel_size(k, lanes) if packed_a else TILE_ROWS * a_row,
                   b_at if packed_b else 0, k * lanes if packed_b else lanes),
                  (packed_a, packed_b), (down, across)))


def _packed_size(sizes, steps, lanes):
    batch_a, batch_b, m, n, k = sizes
    a_row, a_depth, b_column, b_depth = steps
    packed_a = a_row == 1 and m * k >= LARGE_A
    packed_b = b_column != 1 or n < lanes or (n * k >= LARGE_B and m >= MANY)
    if not packed_a and not packed_b:
        return 0
    return batch_a * -(-m // TILE_ROWS) * (k * TILE_ROWS + lanes) + batch_b * -(-n // lanes) * lanes * k + lanes


@parallel_kernel
def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b``, of matrices or over a batch.

    `a` is (M, K), or (K, M) if `transpose_a`; `b` (K, N), or (N, K) if `transpose_b`; `out` (M, N); with a batch in
    front, of B for `out` and of B or 1 for `a` and `b`. `work` has the same number of dimensions; any array will do where
    `matmul_workspace` is 0. K = 0 gives zeros.
    """
    m, n = out.shape[-2], out.shape[-1]
    k = a.shape[-2] if transpose_a else a.shape[-1]
    a_row, a_depth = (1, m) if transpose_a and m > 1 else (k, 1)
    b_column, b_depth = (k, 1) if transpose_b and n > 1 else (1, n)
    batch_a, batch_b, batch = (a.shape[0], b.shape[0], out.shape[0]) if out.ndim == 3 else (1, 1, 1)
    _product(a.reshape(a.size), b.reshape(b.size), a.reshape(a.size)[:0], out.reshape(out.size), work.reshape(work.size),
             batch, (batch_a, batch_b, m, n, k), (a_row, a_depth, b_column, b_depth))


@parallel_kernel
def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O).

    `work` is a matrix; any will do where `linear_forward_workspace` is 0.
    """
    k = x.shape[1]
    _product(x.reshape(x.size), weight.reshape(weight.size), bias, out.reshape(out.size), work.reshape(work.size), 1,
             (1, 1, out.shape[0], out.shape[1], k), (k, 1, k, 1))


def matmul_workspace(a, b, transpose_a, transpose_b, itemsize):
    """Elements of scratch memory that `matmul` wants, given the shapes of `a` and `b`."""
    k, m = a[-2:] if transpose_a else a[:-3:-1]
    n = b[-2] if transpose_b else b[-1]
    a_row, a_depth = (1, m) if transpose_a and m > 1 else (k, 1)
    b_column, b_depth = (k, 1) if transpose_b and n > 1 else (1, n)
    batch_a, batch_b = (a[0], b[0]) if len(a) == 3 else (1, 1)
    return _packed_size((batch_a, batch_b, m, n, k), (a_row, a_depth, b_column, b_depth), VECTOR_BYTES // itemsize)


def linear_forward_workspace(x, weight, itemsize):
    """Elements of scratch memory that `linear_forward` wants, given the shapes of `x` and `weight`."""
    (m, k), n = x, weight[0]
    return _packed_size((1, 1, m, n, k), (k, 1, k, 1), VECTOR_BYTES // itemsize)
