"""Matrix products: both operands are packed into panels once, then tiles of the output are independent.

`a` is packed into panels of ROWS rows, `b` into panels of VECTORS vectors of columns (single vectors at the ragged
end), each panel with the depth as its outer index, zeros beyond the edge. Packing reads any layout, so that transposed
products cost the same. A block of the output walks the depth in slices that keep one panel of `b` in the L1 cache and
the block's panels of `a` in L2; every element of the output is summed in the same order on any number of threads.
"""

from numba import prange

from minigrad.kernels.cpu.compile import inline, kernel
from minigrad.kernels.cpu.simd import ROWS, VECTOR_BYTES, VECTORS, copy_block, lanes_of, panel_tile, transpose_block

DEPTH = 192  # depth of a slice
BLOCK_ROWS = 64  # of the output, per task
BLOCK_PANELS = 4
PARALLEL_WORK = 250_000  # multiply-adds; below it, waking the threads costs more than it saves
PACKING_TASKS = 16

_wide_tile = panel_tile(ROWS, VECTORS)
_narrow_tile = panel_tile(ROWS, 1)
SQUARE = 8 if VECTOR_BYTES == 64 else 4
_transpose = transpose_block(SQUARE)
_copy = copy_block(SQUARE)


@inline
def _pack_panel(x, at, step, depth_step, valid, depth, out, out_at, width):
    """``out[k, i] = x[at + i * step + k * depth_step]`` for a panel (depth, width); zeros for i >= valid."""
    if width % SQUARE:  # a single vector of two doubles
        for k in range(depth):
            for i in range(width):
                out[out_at + k * width + i] = x[at + k * depth_step + i * step] if i < valid else x.dtype.type(0)
    elif depth_step == 1:
        for i in range(0, width, SQUARE):
            for k in range(0, depth, SQUARE):
                _transpose(x, at + i * step + k, step, valid - i, depth - k, out, out_at + k * width + i, width)
    else:
        for k in range(depth):
            for i in range(0, width, SQUARE):
                _copy(x, at + k * depth_step + i, valid - i, out, out_at + k * width + i)


@inline
def _panel_width(column, n, lanes):
    """Width of the panel of `b` that starts at `column`: wide ones first, then single vectors."""
    wide = VECTORS * lanes
    return wide if n - column > wide - lanes else lanes


@inline
def _padded_columns(n, lanes):
    """Columns of all panels of `b`, their padding included."""
    wide = VECTORS * lanes
    full = n // wide * wide
    rest = n - full
    return full + (wide if rest > wide - lanes else (rest + lanes - 1) // lanes * lanes)


@inline
def _pack_share(a, b, work, task, tasks, batch_a, batch_b, m, n, k, a_row, a_depth, b_column, b_depth):
    """Pack one of `tasks` equal shares of the panels of `a` and of those of `b`."""
    lanes = lanes_of(work)
    wide = VECTORS * lanes
    panels = (m + ROWS - 1) // ROWS
    b_at = batch_a * panels * ROWS * k
    total = batch_a * panels
    for p in range(task * total // tasks, (task + 1) * total // tasks):
        row = p % panels * ROWS
        _pack_panel(a, p // panels * m * k + row * a_row, a_row, a_depth, min(ROWS, m - row), k,
                    work, p * ROWS * k, ROWS)
    padded = _padded_columns(n, lanes)
    steps = (padded + wide - 1) // wide
    total = batch_b * steps
    for p in range(task * total // tasks, (task + 1) * total // tasks):
        start, base = p % steps * wide, b_at + p // steps * padded * k
        column = start
        while column < min(start + wide, padded):
            width = _panel_width(column, n, lanes)
            _pack_panel(b, p // steps * n * k + column * b_column, b_column, b_depth, min(width, n - column), k,
                        work, base + column * k, width)
            column += width


@inline
def _multiply_block(bias, out, work, task, batch_a, batch_b, m, n, k):
    """One block of the output, from the packed panels."""
    lanes = lanes_of(work)
    wide = VECTORS * lanes
    padded = _padded_columns(n, lanes)
    panels = (m + ROWS - 1) // ROWS
    down, across = (m + BLOCK_ROWS - 1) // BLOCK_ROWS, (padded + BLOCK_PANELS * wide - 1) // (BLOCK_PANELS * wide)
    batch, block = task // (down * across), task % (down * across)
    top, left = block // across * BLOCK_ROWS, block % across * BLOCK_PANELS * wide
    bottom, right = min(top + BLOCK_ROWS, m), min(left + BLOCK_PANELS * wide, padded)
    a_at = (batch if batch_a > 1 else 0) * panels * ROWS * k
    b_at = batch_a * panels * ROWS * k + (batch if batch_b > 1 else 0) * padded * k
    out_at = batch * m * n
    if bias.size or k == 0:
        for i in range(top, bottom):
            for j in range(left, min(right, n)):
                out[out_at + i * n + j] = bias[j] if bias.size else out.dtype.type(0)
    for start in range(0, k, DEPTH):
        depth = min(DEPTH, k - start)
        add = start > 0 or bias.size > 0
        column = left
        while column < right:
            width = _panel_width(column, n, lanes)
            panel = b_at + column * k + start * width
            for row in range(top, bottom, ROWS):
                if width == wide:
                    _wide_tile(work, a_at + row * k + start * ROWS, work, panel, width, depth,
                               out, out_at + row * n + column, n, add, bottom - row, n - column)
                else:
                    _narrow_tile(work, a_at + row * k + start * ROWS, work, panel, width, depth,
                                 out, out_at + row * n + column, n, add, bottom - row, n - column)
            column += width


@inline
def _blocks(m, n, lanes):
    wide = BLOCK_PANELS * VECTORS * lanes
    return (m + BLOCK_ROWS - 1) // BLOCK_ROWS * ((_padded_columns(n, lanes) + wide - 1) // wide)


@kernel(parallel=True)
def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b`` over a batch.

    `a` is (Ba, M, K), or (Ba, K, M) if `transpose_a`; `b` (Bb, K, N), or (Bb, N, K) if `transpose_b`; `out` (B, M, N);
    Ba and Bb are B or 1. K = 0 gives zeros.
    """
    m, n = out.shape[1], out.shape[2]
    k = a.shape[1] if transpose_a else a.shape[2]
    a_row, a_depth = (1, m) if transpose_a else (k, 1)
    b_column, b_depth = (k, 1) if transpose_b else (1, n)
    batch_a, batch_b, batch = a.shape[0], b.shape[0], out.shape[0]
    x, y, z, bias = a.reshape(a.size), b.reshape(b.size), out.reshape(out.size), work[:0]
    tasks = batch * _blocks(m, n, lanes_of(work))
    if batch * m * n * k < PARALLEL_WORK:
        _pack_share(x, y, work, 0, 1, batch_a, batch_b, m, n, k, a_row, a_depth, b_column, b_depth)
        for task in range(tasks):
            _multiply_block(bias, z, work, task, batch_a, batch_b, m, n, k)
    else:
        for task in prange(PACKING_TASKS):
            _pack_share(x, y, work, task, PACKING_TASKS, batch_a, batch_b, m, n, k, a_row, a_depth, b_column, b_depth)
        for task in prange(tasks):
            _multiply_block(bias, z, work, task, batch_a, batch_b, m, n, k)


@kernel(parallel=True)
def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O)."""
    m, n, k = out.shape[0], out.shape[1], x.shape[1]
    a, b, z = x.reshape(x.size), weight.reshape(weight.size), out.reshape(out.size)
    tasks = _blocks(m, n, lanes_of(work))
    if m * n * k < PARALLEL_WORK:
        _pack_share(a, b, work, 0, 1, 1, 1, m, n, k, k, 1, k, 1)
        for task in range(tasks):
            _multiply_block(bias, z, work, task, 1, 1, m, n, k)
    else:
        for task in prange(PACKING_TASKS):
            _pack_share(a, b, work, task, PACKING_TASKS, 1, 1, m, n, k, k, 1, k, 1)
        for task in prange(tasks):
            _multiply_block(bias, z, work, task, 1, 1, m, n, k)


def _packed_size(batch_a, batch_b, m, n, k, itemsize):
    lanes = VECTOR_BYTES // itemsize
    rows, columns = -(-m // ROWS) * ROWS, -(-n // lanes) * lanes + (VECTORS - 1) * lanes
    return k * (batch_a * rows + batch_b * columns)


def matmul_workspace(a, b, transpose_a, transpose_b):
    """Elements of scratch memory that `matmul` wants: both operands, packed."""
    k, m = a.shape[1:] if transpose_a else a.shape[:0:-1]
    n = b.shape[1] if transpose_b else b.shape[2]
    return _packed_size(a.shape[0], b.shape[0], m, n, k, a.itemsize)


def linear_forward_workspace(x, weight, bias):
    """Elements of scratch memory that `linear_forward` wants: both operands, packed."""
    return _packed_size(1, 1, x.shape[0], weight.shape[0], x.shape[1], x.itemsize)
