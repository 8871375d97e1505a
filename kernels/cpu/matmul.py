"""Matrix products: both operands are packed into panels once, then tiles of the output are independent.

`a` is packed into panels of ROWS rows, `b` into panels of VECTORS vectors of columns (single vectors at the ragged
end), each panel with the depth as its outer index, zeros beyond the edge. Packing reads any layout, so that transposed
products cost the same. A block of the output walks the depth in slices whose panels stay in the L2 cache; every element
of the output is summed in the same order on any number of threads.
"""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import pack_panel
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
from minigrad.kernels.cpu.simd import ROWS, VECTOR_BYTES, VECTORS, lanes_of, panel_tile

DEPTH = 512  # of a slice; measured at 512 x 512 x 512 on one core: 237 GFLOP/s with 512, 210 with 192 and taller blocks
BLOCK_ROWS = 32  # of the output, per task
BLOCK_PANELS = 8
ENOUGH_BLOCKS = 8
PARALLEL_WORK = 1_500_000  # multiply-adds; below it, about 15 us, waking the threads costs more than it saves
PARALLEL_PACKING = 150_000  # elements: 15 us as well
PACKING_TASKS = 16

_wide_tile = panel_tile(ROWS, VECTORS)
_narrow_tile = panel_tile(ROWS, 1)


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
def _block_size(m, n, lanes):
    """Rows and columns of the output's blocks: of thin products small ones, so that there are some to share out."""
    rows, columns, padded = BLOCK_ROWS, BLOCK_PANELS * VECTORS * lanes, _padded_columns(n, lanes)
    while rows > ROWS and (m + rows - 1) // rows * ((padded + columns - 1) // columns) < ENOUGH_BLOCKS:
        rows //= 2
    return rows, columns


@inline
def _blocks(m, n, lanes):
    rows, columns = _block_size(m, n, lanes)
    return (m + rows - 1) // rows * ((_padded_columns(n, lanes) + columns - 1) // columns)


@inline
def _pack_share(task, tasks, a, b, work, sizes, steps):
    """Pack one of `tasks` equal shares of the panels of `a` and of those of `b`."""
    batch_a, batch_b, m, n, k = sizes
    a_row, a_depth, b_column, b_depth = steps
    lanes = lanes_of(work)
    wide = VECTORS * lanes
    panels = (m + ROWS - 1) // ROWS
    b_at = batch_a * panels * ROWS * k
    total = batch_a * panels
    for p in range(task * total // tasks, (task + 1) * total // tasks):
        row = p % panels * ROWS
        pack_panel(a, p // panels * m * k + row * a_row, a_row, a_depth, min(ROWS, m - row), k,
                    work, p * ROWS * k, ROWS)
    padded = _padded_columns(n, lanes)
    steps = (padded + wide - 1) // wide
    total = batch_b * steps
    for p in range(task * total // tasks, (task + 1) * total // tasks):
        start, base = p % steps * wide, b_at + p // steps * padded * k
        column = start
        while column < min(start + wide, padded):
            width = _panel_width(column, n, lanes)
            pack_panel(b, p // steps * n * k + column * b_column, b_column, b_depth, min(width, n - column), k,
                        work, base + column * k, width)
            column += width


@inline
def _multiply_block(task, bias, out, work, sizes):
    """One block of the output, from the packed panels."""
    batch_a, batch_b, m, n, k = sizes
    lanes = lanes_of(work)
    wide = VECTORS * lanes
    padded = _padded_columns(n, lanes)
    panels = (m + ROWS - 1) // ROWS
    height, width = _block_size(m, n, lanes)
    down, across = (m + height - 1) // height, (padded + width - 1) // width
    batch, block = task // (down * across), task % (down * across)
    top, left = block // across * height, block % across * width
    bottom, right = min(top + height, m), min(left + width, padded)
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
def _product(a, b, bias, out, work, batch, sizes, steps):
    batch_a, batch_b, m, n, k = sizes
    apart = k * (batch_a * m + batch_b * n) >= PARALLEL_PACKING
    shares = PACKING_TASKS if apart else 1
    parallel_for(_pack_share, shares, apart, (shares, a, b, work, sizes, steps))
    blocks = batch * _blocks(m, n, lanes_of(work))
    parallel_for(_multiply_block, blocks, batch * m * n * k >= PARALLEL_WORK, (bias, out, work, sizes))


@parallel_kernel
def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b`` over a batch.

    `a` is (Ba, M, K), or (Ba, K, M) if `transpose_a`; `b` (Bb, K, N), or (Bb, N, K) if `transpose_b`; `out` (B, M, N);
    Ba and Bb are B or 1. K = 0 gives zeros.
    """
    m, n = out.shape[1], out.shape[2]
    k = a.shape[1] if transpose_a else a.shape[2]
    a_row, a_depth = (1, m) if transpose_a else (k, 1)
    b_column, b_depth = (k, 1) if transpose_b else (1, n)
    _product(a.reshape(a.size), b.reshape(b.size), work[:0], out.reshape(out.size), work, out.shape[0],
             (a.shape[0], b.shape[0], m, n, k), (a_row, a_depth, b_column, b_depth))


@parallel_kernel
def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O)."""
    k = x.shape[1]
    _product(x.reshape(x.size), weight.reshape(weight.size), bias, out.reshape(out.size), work, 1,
             (1, 1, out.shape[0], out.shape[1], k), (k, 1, k, 1))


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
