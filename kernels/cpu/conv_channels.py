"""A correlation with output channels in the lanes: forward and gradient by the input of layers with many of them.

Some images, or a band of one, are copied once into a padded buffer that fits in the L2 cache. A tile is a few pixels
times two vectors of output channels: at every step of the depth, an input channel and a tap, it loads two vectors of
packed weights and broadcasts one number per pixel. A table says where each pixel lies, so that the pixels of a tile
may straddle rows and images, no lane is ever wasted on the width of an image, and a stride costs nothing. The sums
are kept as (pixels, channels) and transposed in registers into the output's rows.

A convolution of one tap without padding would read another line of such a copy at every step of the depth, for
channels are a plane apart: its pixels are copied as the tiles read them. (32, 256, 7, 7) -> 256 takes 0.66 of the time
that it took padded row by row, layers of 16 to 512 channels and 7 to 56 pixels 0.6 to 0.98, a stride of 2 0.6 to 0.95
(two Zen 3 cores).

With pixels in the lanes instead, loads cross cache lines and without cheap masks the columns between two rows are
computed for nothing: this is 1.05 to 1.3 times as fast at 32 channels and more with AVX2 (two cores, both in turn,
medians of ratios). With AVX-512 it is what is left: deep sums, narrow images, a stride in the gradient.
"""

from numba import config

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import (
    LINE,
    count_taps,
    pack_pixels,
    pad_rows,
    transpose,
    whole_lines,
    whole_lines_compiled,
)
from minigrad.kernels.cpu.parallel import flat, merged, only_float32, parallel_for, parallel_kernel
from minigrad.kernels.cpu.simd import PIXELS, VECTOR_BYTES, channels_tile, keep_scalar, lanes_of, put_integer
from minigrad.kernels.cpu.winograd import (
    wants_winograd,
    wants_winograd_compiled,
    winograd_correlate,
    winograd_workspace,
)

BUFFER = 65_536  # elements of a copy, about: half an L2 cache of 512 KB
BAND_PIXELS = 384  # of the output, per task; its sums for two vectors of channels stay in the L1 cache
LEAST_PIXELS = 48  # for which packed weights are worth reading once more
TASKS = 8  # at least, if the images allow it
DEPTH = 1024  # of a slice of packed weights
PARALLEL_WORK = 1_000_000  # multiply-adds; below it, about 10 us, waking the threads costs more than it saves
PARALLEL_PACKING = 50_000  # elements: 10 us as well
SPACE = 16  # elements between the tiles of packed pixels: a vector ends there, and no set of the cache is always hit
SLACK = 64  # elements read or written beyond the end of a buffer by the last vector

_wide_tile = channels_tile(PIXELS, 2)
_narrow_tile = channels_tile(PIXELS, 1)


def _layout(images, channels, width, rows, columns, left, extra_h, extra_w, step_h, step_w, phases, panels,
            pointwise):
    """How the work is cut: (band, together, splits, reach, pitch, plane, size, pixels).

    Rows of a band, images together, splits of the panels; width of a padded row; elements of the copy from row to row,
    or if `pointwise` from tile to tile, from channel to channel, and altogether; pixels of a task.

    `rows` and `columns` are the output's (of its largest phase), `extra_h` and `extra_w` how much further the taps
    reach. A row's right padding serves as the next row's left padding where both are zeros.
    """
    if pointwise:  # only what the output's pixels read is copied
        step_h, step_w = 1, 1
    reach = max(1, (columns - 1) * step_w + extra_w + 1)
    shared = max(0, min(left, reach - left - width))
    pitch = reach - shared
    row = max(1, columns * phases)
    bands = max(min(TASKS // max(1, images), rows * row // LEAST_PIXELS), rows * row // BAND_PIXELS, 1)
    fitting = (BUFFER // max(1, channels * pitch) - extra_h) // step_h
    band = max(1, min(-(-rows // bands), fitting))
    plane = ((band - 1) * step_h + extra_h + 1) * pitch + shared
    together = 1
    if band >= rows:
        together = max(1, min(images // TASKS, BAND_PIXELS // max(1, rows * row), BUFFER // max(1, channels * plane)))
    parts = max(1, -(-images // together) * -(-rows // band))
    splits = max(1, min(panels, TASKS // parts))
    size = together * channels * plane
    if pointwise:
        tiles, pitch, plane = (together * plane + PIXELS - 1) // PIXELS, PIXELS * channels + SPACE, PIXELS
        size = tiles * pitch
    size = (size + LINE - 1) // LINE * LINE
    return band, together, splits, reach, pitch, plane, size, together * band * row + phases * PIXELS


_layout_compiled = inline(_layout)


def _is_pointwise(height, width, rows, columns, top, left, extra_h, extra_w, step_h, step_w, phases):
    """Whether every pixel of the result is a sum over the channels of one pixel of the image."""
    return (phases == 1 and top == left == extra_h == extra_w == 0
            and (rows - 1) * step_h < height and (columns - 1) * step_w < width)


_is_pointwise_compiled = inline(_is_pointwise)


@merged
def _phase_size(phase, phases, total, first, last):
    """How many of the rows (or columns) first ... last - 1 of a phase are inside the output."""
    return max(0, min(last, (total - phase + phases - 1) // phases) - first)


def _sum_pitch(c_out, lanes):
    """Elements from the sums of a pixel to those of the next. If a second vector's place stayed empty between them,
    they would share half of the first cache's sets: (64, 1, 28, 28) to 16 channels took 1.4 times as long (AVX-512)."""
    return lanes if c_out <= lanes else 2 * lanes


_sum_pitch_compiled = merged(_sum_pitch)


@merged
def _up(count):
    return (count + PIXELS - 1) // PIXELS * PIXELS


@inline
def _pack_share(share, shares, weight, work, numbers, target, kernel, weights_at, backward):
    """Pack one share of the panels of weights: (depth, a vector or two of output channels) each."""
    groups, c_in, c_out = numbers
    phases_h, phases_w, pad_h, pad_w = target[2:]
    kernel_h, kernel_w, dilation_h, dilation_w = kernel
    lanes = lanes_of(work)
    wide = 2 * lanes
    taps_2d = kernel_h * kernel_w
    taps, panels = c_in * taps_2d, (c_out + wide - 1) // wide
    for panel in range(share * groups * panels // shares, (share + 1) * groups * panels // shares):
        group, channel = panel // panels, panel % panels * wide
        valid = min(wide, c_out - channel)
        width = wide if valid > lanes else lanes
        at = weights_at + panel * taps * wide
        if valid < width:
            for i in range(taps * width):
                work[at + i] = work.dtype.type(0)
        if phases_h * phases_w == 1:
            # Forward: one matrix (outputs, depth). Backward: per channel of the depth a matrix (outputs, taps).
            matrices, columns = (c_in, taps_2d) if backward else (1, taps)
            source, step = (group * c_in * c_out + channel, c_out) if backward else (group * c_out + channel, 0)
            for c in range(matrices):
                transpose(weight, (source + c * step) * columns, columns, valid, columns,
                          work, at + c * columns * width, width)
        else:
            for phase in range(phases_h * phases_w):
                row, column = phase // phases_w + pad_h, phase % phases_w + pad_w
                for c in range(c_in):
                    source = ((group * c_in + c) * c_out + channel) * taps_2d
                    for i in range(kernel_h):
                        for j in range(kernel_w):
                            if (row - i * dilation_h) % phases_h == 0 and (column - j * dilation_w) % phases_w == 0:
                                for r in range(valid):
                                    keep_scalar(work)
                                    work[at + r] = weight[source + r * taps_2d + i * kernel_w + j]
                                at += width


@inline
def _place_pixels(work, at, sum_pitch, count, band, image_size, pitch, step_h, step_w, target, pointwise):
    """The tables of where every pixel of a task lies in the copy and in the sums, phase by phase."""
    out_height, out_width, phases_h, phases_w = target[:4]
    for phase in range(phases_h * phases_w):
        row, column = phase // phases_w, phase % phases_w
        height = _phase_size(row, phases_h, out_height, 0, band)
        width = _phase_size(column, phases_w, out_width, 0, out_width)
        pixels = count * height * width
        for p in range(_up(pixels)):
            keep_scalar(work)
            image, i, j = p // (height * width), p // width % height, p % width
            if p >= pixels:
                image, i, j = count - 1, height - 1, width - 1
            if pointwise:
                place = p // PIXELS * pitch + p % PIXELS
            else:
                place = image * image_size + i * step_h * pitch + j * step_w
            put_integer(work, at + p, place)
            put_integer(work, at + _up(pixels) + p,
                        ((image * out_height + i * phases_h + row) * out_width + j * phases_w + column) * sum_pitch)
        at += 2 * _up(pixels)


@inline
def _correlate(chunk, chunks, chunk_size, x, out, work, numbers, source, padding, target, kernel, places, pointwise):
    """One chunk of the tasks: copy, then correlate every panel and output phase, tile by tile."""
    images, groups, c_in, c_out, rows, band, together, splits = numbers
    height, width, top, left, step_h, step_w, extra_h = source
    reach, pitch, plane, size = padding
    out_height, out_width, phases_h, phases_w, pad_h, pad_w = target
    kernel_h, kernel_w, dilation_h, dilation_w = kernel
    weights_at, bias_at, table_at, pixels_at, buffers_at = places
    lanes = lanes_of(work)
    wide = 2 * lanes
    channels, taps, panels = groups * c_in, c_in * kernel_h * kernel_w, (c_out + wide - 1) // wide
    bands, out_size = (rows + band - 1) // band, out_height * out_width
    sum_pitch = _sum_pitch_compiled(c_out, lanes)
    tasks = (images + together - 1) // together * bands * splits
    buffer_at = buffers_at + chunk * chunk_size
    sums_at = buffer_at + size + SLACK
    copied = -1
    for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
        part, split = task // splits, task % splits
        image, first = part // bands * together, part % bands * band
        count, last = min(together, images - image), min(first + band, rows)
        if part != copied:
            copied = part
            if pointwise:
                pack_pixels(x, image * channels * height * width + first * step_h * width, count,
                            channels * height * width, channels, height * width, last - first, out_width,
                            step_h * width, step_w, work, buffer_at, pitch)
            else:
                for c in range(count * channels):
                    pad_rows(x, (image * channels + c) * height * width, height, width, first * step_h,
                             (last - first - 1) * step_h + extra_h + 1, 1, 1, 0, 0, top, left, reach, pitch,
                             work, buffer_at + c * plane)
        for panel in range(split * groups * panels // splits, (split + 1) * groups * panels // splits):
            group, channel = panel // panels, panel % panels * wide
            valid = min(wide, c_out - channel)
            base = buffer_at + group * c_in * plane
            start, pixel_at = 0, pixels_at
            for phase in range(phases_h * phases_w):
                row, column = phase // phases_w, phase % phases_w
                depth = (c_in * count_taps(work, kernel_h, row, pad_h, phases_h, dilation_h)
                         * count_taps(work, kernel_w, column, pad_w, phases_w, dilation_w))
                columns = _phase_size(column, phases_w, out_width, 0, out_width)
                pixels = count * columns * _phase_size(row, phases_h, out_height, first, last)
                all_pixels = _up(together * columns * _phase_size(row, phases_h, out_height, 0, band))
                for k in range(0, max(1, depth), DEPTH):
                    deep = min(DEPTH, depth - k)
                    for p in range(0, pixels, PIXELS):
                        if valid > lanes:
                            _wide_tile(work, base, work, pixel_at + p, pixel_at + all_pixels + p, table_at + start + k,
                                       work, weights_at + panel * taps * wide + (start + k) * wide, deep, k,
                                       work, bias_at + panel * wide, work, sums_at)
                        else:
                            _narrow_tile(work, base, work, pixel_at + p, pixel_at + all_pixels + p,
                                         table_at + start + k,
                                         work, weights_at + panel * taps * wide + (start + k) * lanes, deep, k,
                                         work, bias_at + panel * wide, work, sums_at)
                start += depth
                pixel_at += 2 * all_pixels
            above = first * phases_h * out_width
            below = min(last * phases_h, out_height) * out_width
            for i in range(count):
                channel_at = (image + i) * groups * c_out + group * c_out + channel
                transpose(work, sums_at + i * out_size * sum_pitch, sum_pitch, below - above, valid,
                          out, channel_at * out_size + above, out_size)


@parallel_kernel
def correlate(
    x, weight, bias, out, work, backward, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """`conv2d_forward`, or `conv2d_grad_input` if `backward` (`x` is the gradient, `bias` has size 0).

    The gradient is the padded gradient correlated with the flipped weights; with a stride there is one correlation
    per phase of the input, each with the taps that reach it.
    """
    images, channels, height, width = x.shape
    kernel_h, kernel_w = weight.shape[2], weight.shape[3]
    c_in, c_out, taps_2d = channels // groups, out.shape[1] // groups, weight.shape[2] * weight.shape[3]
    rows, columns, top, left = out.shape[2], out.shape[3], pad_top, pad_left
    step_h, step_w, phases_h, phases_w = stride_h, stride_w, 1, 1
    extra_h, extra_w = (kernel_h - 1) * dilation_h, (kernel_w - 1) * dilation_w
    if backward:
        step_h, step_w, phases_h, phases_w = 1, 1, stride_h, stride_w
        rows, columns = (rows + stride_h - 1) // stride_h, (columns + stride_w - 1) // stride_w
        top = (max(0, extra_h - pad_top) + stride_h - 1) // stride_h
        left = (max(0, extra_w - pad_left) + stride_w - 1) // stride_w
        extra_h, extra_w = top + (stride_h - 1 + pad_top) // stride_h, left + (stride_w - 1 + pad_left) // stride_w
    if wants_winograd_compiled(
        images, channels, c_out, out.shape[2], out.shape[3], kernel_h, kernel_w, stride_h, stride_w, dilation_h,
        dilation_w, groups
    ) and only_float32(winograd_correlate, (x, weight, bias, out, work, backward, pad_top, pad_left)):
        return
    lanes = lanes_of(work)
    wide = 2 * lanes
    panels = (c_out + wide - 1) // wide
    pointwise = _is_pointwise_compiled(height, width, rows, columns, top, left, extra_h, extra_w, step_h, step_w,
                                       phases_h * phases_w)
    band, together, splits, reach, pitch, plane, size, pixels = _layout_compiled(
        images, channels, width, rows, columns, left, extra_h, extra_w, step_h, step_w, phases_h * phases_w,
        groups * panels, pointwise)
    taps = c_in * taps_2d
    table_at = 0
    pixels_at = table_at + taps
    bias_at = whole_lines_compiled(pixels_at + 2 * pixels)
    weights_at = bias_at + groups * panels * wide
    buffers_at = weights_at + groups * panels * taps * wide
    sum_pitch = _sum_pitch_compiled(c_out, lanes)
    chunk_size = size + 2 * SLACK + pixels * sum_pitch
    k = table_at
    for phase in range(phases_h * phases_w):
        row, column = phase // phases_w + pad_top, phase % phases_w + pad_left
        for c in range(c_in):
            for i in range(kernel_h):
                for j in range(kernel_w):
                    down, right = row - i * dilation_h, column - j * dilation_w
                    if down % phases_h == 0 and right % phases_w == 0:
                        down = top + down // phases_h if backward else i * dilation_h
                        right = left + right // phases_w if backward else j * dilation_w
                        put_integer(work, k, c * plane + down * pitch + right)
                        k += 1
    for panel in range(groups * panels):
        for r in range(wide):
            keep_scalar(work)
            channel = panel % panels * wide + r
            work[bias_at + panel * wide + r] = (bias[panel // panels * c_out + channel] if bias.size and channel < c_out
                                                else work.dtype.type(0))
    target = (out.shape[2], out.shape[3], phases_h, phases_w, pad_top, pad_left)
    _place_pixels(work, pixels_at, sum_pitch, together, band, channels * plane, pitch, step_h, step_w,
                  target, pointwise)
    numbers, kernel = (images, groups, c_in, c_out, rows, band, together, splits), (
        kernel_h, kernel_w, dilation_h, dilation_w)
    apart = weight.size >= PARALLEL_PACKING
    shares = TASKS if apart else 1
    parallel_for(_pack_share, shares, apart, (
        shares, flat(weight), work, (groups, c_in, c_out), target, kernel, weights_at, backward))
    chunks = (work.size - buffers_at) // chunk_size
    parallel_for(_correlate, chunks, out.size * taps // (phases_h * phases_w) >= PARALLEL_WORK, (
        chunks, chunk_size, flat(x), flat(out), work, numbers, (height, width, top, left, step_h, step_w, extra_h),
        (reach, pitch, plane, size), target, kernel, (weights_at, bias_at, table_at, pixels_at, buffers_at), pointwise))


def correlate_workspace(
    x, weight, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups, backward
):
    """Elements of scratch memory that `correlate` wants for an output (n0, n1, n2, n3): tables, biases, packed
    weights, and for each of its chunks a copy and sums."""
    (images, channels, height, width), (kernel_h, kernel_w) = x.shape, weight.shape[2:]
    rows, columns, top, left = n2, n3, pad_top, pad_left
    step_h, step_w, phases, taps = stride_h, stride_w, 1, channels // groups * kernel_h * kernel_w
    extra_h, extra_w = (kernel_h - 1) * dilation_h, (kernel_w - 1) * dilation_w
    if backward:
        step_h, step_w, phases, rows, columns = 1, 1, stride_h * stride_w, -(-n2 // stride_h), -(-n3 // stride_w)
        top, left = -(-max(0, extra_h - pad_top) // stride_h), -(-max(0, extra_w - pad_left) // stride_w)
        extra_h, extra_w = top + (stride_h - 1 + pad_top) // stride_h, left + (stride_w - 1 + pad_left) // stride_w
    wide = 2 * (VECTOR_BYTES // x.itemsize)
    panels = groups * -(-(n1 // groups) // wide)
    pointwise = _is_pointwise(height, width, rows, columns, top, left, extra_h, extra_w, step_h, step_w, phases)
    band, together, splits, _, _, _, copied, pixels = _layout(
        images, channels, width, rows, columns, left, extra_h, extra_w, step_h, step_w, phases, panels, pointwise)
    chunks = min(-(-images // together) * -(-rows // band) * splits, config.NUMBA_NUM_THREADS)
    size = (whole_lines(taps + 2 * pixels) + panels * wide * (taps + 1)
            + chunks * (copied + 2 * SLACK + pixels * _sum_pitch(n1 // groups, wide // 2)))
    if x.itemsize == 4 and wants_winograd(images, channels, n1, n2, n3, kernel_h, kernel_w, stride_h, stride_w,
                                          dilation_h, dilation_w, groups):
        return max(size, winograd_workspace(images, channels, n1, n2, n3, config.NUMBA_NUM_THREADS))
    return size
