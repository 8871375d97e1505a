"""The gradient of a convolution by its weight: per tap and output channel, a sum over all pixels.

`grad` is transposed to (pixels, output channels), so that the lanes of a vector are output channels and no sum across
lanes is needed; the padded image is read one pixel at a time at ``tap offset + pixel offset``. Fixed blocks of images
write partial sums, which are added in order: the same bits on any number of threads.
"""

from numba import config

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import pack_panel, pad_rows
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
from minigrad.kernels.cpu.simd import (
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    keep_scalar,
    lanes_of,
    put_integer,
    scatter_tile,
    vectors_for,
)

BLOCKS = 8  # of images, at most
BAND_PIXELS = 512  # whose packed gradients stay in the cache
PARALLEL_WORK = 1_000_000  # multiply-adds, about 10 us
SLACK = 128

_wide_tile = scatter_tile(ROWS, VECTORS)
_middle_tile = scatter_tile(ROWS, 2)
_narrow_tile = scatter_tile(ROWS, 1)


def _layout(itemsize, images, channels, height, width, rows, columns, c_out, kernel_h, kernel_w, stride_h, stride_w,
            pad_left, dilation_h, dilation_w):
    """(blocks, rows of a band, width and pitch of the padded image, elements of a channel, padded output channels)."""
    reach = (columns - 1) * stride_w + (kernel_w - 1) * dilation_w + 1
    shared = max(0, min(pad_left, reach - pad_left - width))
    pitch = reach - shared
    band = max(1, min(rows, BAND_PIXELS // max(1, columns)))
    lines = (band - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
    lanes = VECTOR_BYTES // itemsize
    padded = -(-c_out // lanes) * lanes
    return min(images, BLOCKS), band, reach, pitch, lines * pitch + shared, padded


_layout_compiled = inline(_layout)


@inline
def _sum_block(chunk, chunks, chunk_size, grad, x, work, numbers, source, layout, kernel, places):
    """One chunk of the blocks of images."""
    images, groups, channels, o_total, taps, blocks = numbers
    height, width, rows, columns, pad_top, pad_left = source
    band, reach, pitch, plane, padded = layout
    kernel_h, stride_h, stride_w, dilation_h = kernel
    row_at, depth_at, partials_at, buffers_at = places
    buffer_at = buffers_at + chunk * chunk_size
    lanes = lanes_of(work)
    c_in, c_out = channels // groups, o_total // groups
    taps_up = (taps + ROWS - 1) // ROWS * ROWS
    size = groups * taps_up * padded
    packed_at = buffer_at + channels * plane + SLACK
    for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
        partial = partials_at + block * size
        for i in range(size):
            work[partial + i] = work.dtype.type(0)
        for image in range(block * images // blocks, (block + 1) * images // blocks):
            for first in range(0, rows, band):
                count = min(band, rows - first)
                lines = (count - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
                for c in range(channels):
                    pad_rows(x, (image * channels + c) * height * width, height, width, first * stride_h, lines, 1, 1,
                             0, 0, pad_top, pad_left, reach, pitch,
                             work, buffer_at + c * plane)
                for group in range(groups):
                    channel = 0
                    while channel < c_out:
                        vectors = vectors_for(c_out - channel, lanes)
                        across = vectors * lanes
                        pack_panel(grad, ((image * o_total + group * c_out + channel) * rows + first) * columns,
                                   rows * columns, 1, min(across, c_out - channel), count * columns,
                                   work, packed_at, across)
                        for tap in range(0, taps, ROWS):
                            target = partial + (group * taps_up + tap) * padded + channel
                            if vectors == 3:
                                _wide_tile(work, buffer_at + group * c_in * plane, work, row_at + tap, depth_at,
                                           work, packed_at, count * columns, work, target, padded)
                            elif vectors == 2:
                                _middle_tile(work, buffer_at + group * c_in * plane, work, row_at + tap, depth_at,
                                             work, packed_at, count * columns, work, target, padded)
                            else:
                                _narrow_tile(work, buffer_at + group * c_in * plane, work, row_at + tap, depth_at,
                                             work, packed_at, count * columns, work, target, padded)
                        channel += across


@parallel_kernel
def conv2d_grad_weight(grad, x, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    """Gradient `out` (O, C/groups, KH, KW) of a convolution by its weight, from `grad` (N, O, OH, OW) and `x`."""
    images, channels, height, width = x.shape
    o_total, rows, columns = grad.shape[1], grad.shape[2], grad.shape[3]
    c_in, kernel_h, kernel_w = out.shape[1], out.shape[2], out.shape[3]
    c_out = o_total // groups
    blocks, band, reach, pitch, plane, padded = _layout_compiled(
        work.itemsize, images, channels, height, width, rows, columns, c_out, kernel_h, kernel_w, stride_h, stride_w,
        pad_left, dilation_h, dilation_w)
    taps = c_in * kernel_h * kernel_w
    taps_up = (taps + ROWS - 1) // ROWS * ROWS
    row_at, depth_at = 0, taps_up
    partials_at = depth_at + band * columns
    size = groups * taps_up * padded
    buffers_at = partials_at + blocks * size
    for tap in range(taps_up):
        c, i, j = tap // (kernel_h * kernel_w), tap // kernel_w % kernel_h, tap % kernel_w
        offset = c * plane + i * dilation_h * pitch + j * dilation_w if tap < taps else 0
        put_integer(work, row_at + tap, offset)
    for i in range(band):
        for j in range(columns):
            keep_scalar(work)
            put_integer(work, depth_at + i * columns + j, i * stride_h * pitch + j * stride_w)
    flat_grad, flat = grad.reshape(grad.size), x.reshape(x.size)
    chunk_size = channels * plane + 2 * SLACK + band * columns * VECTORS * lanes_of(work)
    chunks = (work.size - buffers_at) // chunk_size
    parallel_for(_sum_block, chunks, images * o_total * rows * columns * taps >= PARALLEL_WORK, (
        chunks, chunk_size, flat_grad, flat, work, (images, groups, channels, o_total, taps, blocks),
        (height, width, rows, columns, pad_top, pad_left), (band, reach, pitch, plane, padded),
        (kernel_h, stride_h, stride_w, dilation_h), (row_at, depth_at, partials_at, buffers_at)))
    for block in range(1, blocks):
        for i in range(size):
            work[partials_at + i] += work[partials_at + block * size + i]
    for o in range(o_total):
        for c in range(c_in):
            for i in range(kernel_h):
                for j in range(kernel_w):
                    keep_scalar(work)
                    tap = o // c_out * taps_up + (c * kernel_h + i) * kernel_w + j
                    out[o, c, i, j] = (work[partials_at + tap * padded + o % c_out] if blocks
                                       else work.dtype.type(0))


def conv2d_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_weight` wants for an output (n0, n1, n2, n3)."""
    (images, channels, height, width), (o_total, rows, columns) = x.shape, grad.shape[1:]
    blocks, band, _, _, plane, padded = _layout(
        x.itemsize, images, channels, height, width, rows, columns, o_total // groups, n2, n3, stride_h, stride_w,
        pad_left, dilation_h, dilation_w)
    taps_up = -(-n1 * n2 * n3 // ROWS) * ROWS
    chunk_size = channels * plane + 2 * SLACK + band * columns * VECTORS * (VECTOR_BYTES // x.itemsize)
    return (taps_up + band * columns + blocks * groups * taps_up * padded
            + min(blocks, config.NUMBA_NUM_THREADS) * chunk_size)
