"""The gradient of a convolution by its weight: per tap and output channel, a sum over all pixels.

`grad` is transposed to (pixels, output channels), so that the lanes of a vector are output channels and no sum across
lanes is needed; the padded image is read one pixel at a time at ``tap offset + pixel offset``. The work is cut into
blocks of images, which write partial sums that are added in order, and into splits of the input channels, which need
no sums: fixed numbers of both, hence the same bits on any number of threads. The gradient by the bias is the sum of
what is transposed anyway.
"""

from numba import config

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import pack_panel, pad_narrow_rows, transpose, whole_lines, whole_lines_compiled
from minigrad.kernels.cpu.parallel import flat, merged, only_float32, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduce_tiles import SUM, row_tile
from minigrad.kernels.cpu.simd import PIXELS, VECTOR_BYTES, channels_tile, keep_scalar, lanes_of, put_integer
from minigrad.kernels.cpu.winograd import wants_winograd, wants_winograd_compiled
from minigrad.kernels.cpu.winograd_grad import winograd_grad_weight, winograd_grad_weight_workspace

TASKS = 8
BLOCK_PIXELS = 2048  # at least, per block of images, so that its partial sums are few next to it (estimated)
BAND_PIXELS = 384  # whose packed gradients stay in the L1 cache
BUFFER = 65_536  # elements of a padded copy: half an L2 cache of 512 KB
PARALLEL_WORK = 1_000_000  # multiply-adds, about 10 us
PARALLEL_SUMS = 50_000  # elements
SLACK = 64
HALF = VECTOR_BYTES // 8  # lanes of half a vector of float32

_wide_tile = channels_tile(PIXELS, 2)
_narrow_tile = channels_tile(PIXELS, 1)
_sum_row = row_tile(SUM)
_half_tile = channels_tile(PIXELS, 1, HALF)


def _layout(images, channels, width, rows, columns, groups, kernel_h, kernel_w, stride_h, stride_w, pad_left,
            dilation_h, dilation_w):
    """(blocks of images, splits of the channels of a group, channels of a split, rows of a band, images together,
    width and pitch of the padded image, elements of a padded channel)."""
    reach = max(1, (columns - 1) * stride_w + (kernel_w - 1) * dilation_w + 1)
    shared = max(0, min(pad_left, reach - pad_left - width))
    pitch = reach - shared
    blocks = max(1, min(images, TASKS, images * rows * columns // BLOCK_PIXELS))
    c_in = max(1, channels // groups)
    part = -(-c_in // min(c_in, -(-TASKS // blocks)))
    splits = -(-c_in // part)
    reach_h = (kernel_h - 1) * dilation_h
    fitting = (BUFFER // (groups * part * pitch) - reach_h) // stride_h
    band = max(1, min(rows, BAND_PIXELS // max(1, columns), fitting))
    plane = ((band - 1) * stride_h + reach_h + 1) * pitch + shared
    together = 1
    if band >= rows:
        together = max(1, min(-(-images // blocks), BAND_PIXELS // max(1, rows * columns),
                              BUFFER // (groups * part * plane)))
    return blocks, splits, part, band, together, reach, pitch, plane


_layout_compiled = inline(_layout)


@merged
def _up(count):
    return (count + PIXELS - 1) // PIXELS * PIXELS


@inline
def _sum_block(chunk, chunks, chunk_size, grad, x, work, with_bias, numbers, source, layout, kernel, places):
    """One chunk of the tasks: a block of images, a split of the channels of every group."""
    images, groups, channels, o_total, blocks, splits, part = numbers
    height, width, rows, columns, pad_top, pad_left = source
    band, together, reach, pitch, plane = layout
    taps_2d, extra_h, stride_h = kernel
    row_at, target_at, depth_at, zero_at, bias_at, partials_at, buffers_at = places
    lanes = lanes_of(work)
    wide = 2 * lanes
    c_in, c_out = channels // groups, o_total // groups
    panels = (c_out + wide - 1) // wide
    size = _up(part * taps_2d) * wide
    buffer_at = buffers_at + chunk * chunk_size
    packed_at = buffer_at + whole_lines_compiled(together * groups * part * plane) + SLACK
    tasks, total = blocks * splits, scratch(work.dtype.type(0), 1)
    for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
        block, split = task // splits, task % splits
        c_first = split * part
        c_count = min(part, c_in - c_first)
        begin, end = block * images // blocks, (block + 1) * images // blocks
        for image in range(begin, end, together):
            count = min(together, end - image)
            for first in range(0, rows, band):
                high = min(band, rows - first)
                pixels, old = high * columns, 1 if image > begin or first > 0 else 0
                for i in range(count * groups):
                    for c in range(c_count):
                        channel = (image + i // groups) * channels + i % groups * c_in + c_first + c
                        pad_narrow_rows(x, channel * height * width, height, width, first * stride_h,
                                        (high - 1) * stride_h + extra_h + 1, 1, 1, 0, 0, pad_top, pad_left, reach,
                                        pitch, work, buffer_at + (i * part + c) * plane)
                for panel in range(groups * panels):
                    group, channel = panel // panels, panel % panels * wide
                    valid = min(wide, c_out - channel)
                    across = wide if valid > lanes else HALF if valid <= HALF < lanes else lanes
                    if valid < across != HALF:  # half a vector is padded as it is packed
                        for i in range(count * pixels * across):
                            work[packed_at + i] = work.dtype.type(0)
                    for i in range(count):
                        at = (((image + i) * o_total + group * c_out + channel) * rows + first) * columns
                        if across == HALF:
                            pack_panel(grad, at, rows * columns, 1, valid, pixels, work,
                                       packed_at + i * pixels * across, across)
                        else:
                            transpose(grad, at, rows * columns, valid, pixels, work, packed_at + i * pixels * across,
                                      across)
                        if with_bias and split == 0:
                            bias = bias_at + block * o_total + group * c_out + channel
                            for o in range(valid):
                                _sum_row(grad, at + o * rows * columns, pixels, total, 0)
                                work[bias + o] = work[bias + o] + total[0] if old or i else total[0]
                    base = buffer_at + group * part * plane
                    at = partials_at + ((block * groups * panels + panel) * splits + split) * size
                    for tap in range(0, c_count * taps_2d, PIXELS):
                        if valid > lanes:
                            _wide_tile(work, base, work, row_at + tap, target_at, depth_at, work, packed_at,
                                       count * pixels, old, work, zero_at, work, at + tap * wide)
                        elif across == HALF:
                            _half_tile(work, base, work, row_at + tap, target_at, depth_at, work, packed_at,
                                       count * pixels, old, work, zero_at, work, at + tap * wide)
                        else:
                            _narrow_tile(work, base, work, row_at + tap, target_at, depth_at, work, packed_at,
                                         count * pixels, old, work, zero_at, work, at + tap * wide)


@inline
def _add_blocks(share, shares, out, work, numbers, partials_at, empty):
    """Add the blocks' sums in order, for one share of the panels, and turn them round."""
    groups, c_in, c_out, taps_2d, blocks, splits, part = numbers
    lanes = lanes_of(work)
    wide = 2 * lanes
    panels = (c_out + wide - 1) // wide
    size = _up(part * taps_2d) * wide
    for piece in range(share * groups * panels * splits // shares, (share + 1) * groups * panels * splits // shares):
        panel, split = piece // splits, piece % splits
        group, channel = panel // panels, panel % panels * wide
        at, step = partials_at + piece * size, groups * panels * splits * size
        if empty:
            for i in range(size):
                work[at + i] = work.dtype.type(0)
        else:
            for block in range(1, blocks):
                for i in range(size):
                    work[at + i] += work[at + block * step + i]
        transpose(work, at, wide, min(part, c_in - split * part) * taps_2d, min(wide, c_out - channel),
                  out, ((group * c_out + channel) * c_in + split * part) * taps_2d, c_in * taps_2d)


@parallel_kernel
def correlate_grad_weight(
    grad, x, out, grad_bias, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradients of a convolution by its weight, `out` (O, C/groups, KH, KW), and by its bias, `grad_bias` (O,) or (0,),
    from `grad` (N, O, OH, OW) and `x` (N, C, H, W)."""
    images, channels, height, width = x.shape
    o_total, rows, columns = grad.shape[1], grad.shape[2], grad.shape[3]
    c_in, kernel_h, kernel_w = out.shape[1], out.shape[2], out.shape[3]
    c_out, taps_2d = o_total // groups, kernel_h * kernel_w
    if wants_winograd_compiled(
        images, channels, o_total, rows, columns, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, groups
    ) and only_float32(winograd_grad_weight, (grad, x, out, grad_bias, work, pad_top, pad_left)):
        return
    blocks, splits, part, band, together, reach, pitch, plane = _layout_compiled(
        images, channels, width, rows, columns, groups, kernel_h, kernel_w, stride_h, stride_w, pad_left,
        dilation_h, dilation_w)
    lanes = lanes_of(work)
    wide = 2 * lanes
    pieces = groups * ((c_out + wide - 1) // wide) * splits
    taps, pixels = _up(part * taps_2d), together * band * columns
    row_at = 0
    target_at = row_at + taps
    depth_at = target_at + PIXELS
    zero_at = whole_lines_compiled(depth_at + pixels)
    bias_at = zero_at + wide
    partials_at = whole_lines_compiled(bias_at + blocks * o_total)
    buffers_at = partials_at + blocks * pieces * taps * wide
    for tap in range(taps):
        c, i, j = tap // taps_2d, tap // kernel_w % kernel_h, tap % kernel_w
        offset = c * plane + i * dilation_h * pitch + j * dilation_w if c < part else 0
        put_integer(work, row_at + tap, offset)
    for r in range(PIXELS):
        put_integer(work, target_at + r, r * wide)
    for r in range(wide):
        keep_scalar(work)
        work[zero_at + r] = work.dtype.type(0)
    k = depth_at
    for image in range(together):
        for i in range(band):
            for j in range(columns):
                put_integer(work, k, image * groups * part * plane + i * stride_h * pitch + j * stride_w)
                k += 1
    chunk_size = whole_lines_compiled(together * groups * part * plane) + 2 * SLACK + pixels * wide
    chunks = (work.size - buffers_at) // chunk_size
    parallel_for(_sum_block, chunks, grad.size * c_in * taps_2d >= PARALLEL_WORK, (
        chunks, chunk_size, flat(grad), flat(x), work, grad_bias.size > 0,
        (images, groups, channels, o_total, blocks, splits, part),
        (height, width, rows, columns, pad_top, pad_left), (band, together, reach, pitch, plane),
        (taps_2d, (kernel_h - 1) * dilation_h, stride_h),
        (row_at, target_at, depth_at, zero_at, bias_at, partials_at, buffers_at)))
    apart = blocks * out.size >= PARALLEL_SUMS
    shares = min(pieces, TASKS) if apart else 1
    parallel_for(_add_blocks, shares, apart, (
        shares, flat(out), work, (groups, c_in, c_out, taps_2d, blocks, splits, part), partials_at, grad.size == 0))
    for o in range(grad_bias.size):
        keep_scalar(work)
        total = work.dtype.type(0)
        if grad.size > 0:
            for block in range(blocks):
                total += work[bias_at + block * o_total + o]
        grad_bias[o] = total


def correlate_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `correlate_grad_weight` wants for an output (n0, n1, n2, n3)."""
    (images, channels, _, width), (o_total, rows, columns) = x.shape, grad.shape[1:]
    blocks, splits, part, band, together, _, _, plane = _layout(
        images, channels, width, rows, columns, groups, n2, n3, stride_h, stride_w, pad_left, dilation_h, dilation_w)
    wide = 2 * (VECTOR_BYTES // x.itemsize)
    taps, pixels = -(-part * n2 * n3 // PIXELS) * PIXELS, together * band * columns
    chunk_size = whole_lines(together * groups * part * plane) + 2 * SLACK + pixels * wide
    size = (whole_lines(whole_lines(taps + PIXELS + pixels) + wide + blocks * o_total)
            + blocks * groups * -(-(o_total // groups) // wide) * splits * taps * wide
            + min(blocks * splits, config.NUMBA_NUM_THREADS) * chunk_size)
    if x.itemsize == 4 and wants_winograd(images, channels, o_total, rows, columns, n2, n3, stride_h, stride_w,
                                          dilation_h, dilation_w, groups):
        return max(size, winograd_grad_weight_workspace(images, channels, o_total, rows, columns,
                                                        config.NUMBA_NUM_THREADS))
    return size
