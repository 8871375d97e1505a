"""A correlation with pixels in the lanes: forward and gradient by the input of layers with few output channels, and
with AVX-512 of most that Winograd's method is not for.

Each image is copied once into a padded buffer that fits in the L2 cache. The micro-kernel then walks the taps over a
table of offsets: at every step it loads a few vectors of neighbouring pixels at ``pixel + table[k]`` and multiplies
them by ROWS packed weights, one per output channel. With a stride, the copy sorts the pixels by phase, and each phase
is dense again.

Where masks cost nothing and a row fills its vectors well, tiles are parts of a row and stored where they belong; an
image without padding is one row. Else output rows are treated as one long line with the padded width as its pitch, so
that the lanes are busy whatever the width; the few pixels that fall between two rows are computed and dropped, and
what a tile holds is sent to its rows piece by piece. By rows (64, 1, 28, 28) -> 16 takes 0.63 of the time that it took
as one long line, (64, 3, 32, 32) -> 32 0.71 (two Emerald Rapids cores).

A single output channel per group (depthwise) has tiles of eight rows instead, which are stored where they belong:
with that, 3.4 times as fast as before at 64 channels, 28 x 28, when one of ROWS rows of weights counted and the sums
were written one by one.

The gradient by the input is the same correlation: the padded gradient with flipped weights, and with a stride one
correlation per phase of the input, each with the taps that reach it.
"""

from numba import config

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import count_taps, pack_panel, pad_narrow_rows
from minigrad.kernels.cpu.parallel import flat, merged, parallel_for, parallel_kernel
from minigrad.kernels.cpu.simd import (
    FREE_MASKS,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    add_constant,
    filter_tile,
    gather_tile,
    keep_scalar,
    lanes_of,
    put_integer,
    row_tile,
    vectors_for,
)

BUFFER = 131_072  # elements of a padded copy that is worth splitting: half the L2 cache
PARALLEL_WORK = 1_000_000  # multiply-adds; below it, about 10 us, waking the threads costs more than it saves
TALL = 8  # rows of a tile of a single output channel
SINGLE = 8  # vectors of a tile for a single output channel
PACKING, PACKING_BACK = 1, 4  # cycles to pack a weight, which one thread does; the gradient's one by one
SLACK = 128  # elements read or written beyond the end of a buffer by the last vector

_wide_tile = gather_tile(ROWS, VECTORS)
_middle_tile = gather_tile(ROWS, 2)
_narrow_tile = gather_tile(ROWS, 1)
_single_tile = gather_tile(1, SINGLE)
_wide_row, _middle_row, _narrow_row = row_tile(ROWS, VECTORS), row_tile(ROWS, 2), row_tile(ROWS, 1)
_filter_tile = filter_tile(TALL)
_part_of_filter_tile = filter_tile(TALL, whole=False)
_add_constant = add_constant()
_add_constant_to_part = add_constant(whole=False)


def _layout(channels, height, width, rows, columns, top, left, step_h, step_w, phases, extra_h, extra_w, images):
    """How images are cut into bands of rows and padded: (band rows, lines of a phase, pitch, elements of a channel).

    `rows` and `columns` are the output's (of its largest phase), `extra_h` and `extra_w` how much further the taps
    reach. A row's right padding serves as the next row's left padding where both are zeros.
    """
    reach = columns + extra_w
    shared = max(0, min(left, reach - left - width, extra_w)) if step_w == 1 else 0
    pitch = reach - shared
    fitting = BUFFER // max(1, channels * phases * pitch) - extra_h
    wanted = -(-rows // max(1, 8 // max(1, images)))  # few images: bands are what runs in parallel
    band = max(1, min(rows, max(fitting, 1), max(wanted, 4)))
    lines = band + extra_h
    return band, lines, pitch, phases * lines * pitch + shared


_layout_compiled = inline(_layout)


def rows_pay(columns, column_step, lanes):
    """Whether rows go through one by one, the last vector of each masked, and not as one long line."""
    return FREE_MASKS and column_step == 1 and 10 * columns >= 7 * ((columns + lanes - 1) // lanes * lanes)


_rows_pay = merged(rows_pay)


def pixels_pay(images, c_in, c_out, taps, rows, columns, whole, column_step, backward, lanes):
    """Whether pixels in the lanes take less time than channels, for `c_out` channels of every group from `c_in`.

    `whole` says that the rows of a band are one. By cycles of a tile, so many a step of the depth (multiply-adds, or of
    a single vector loads) and others besides, fitted to 90 shapes on two Emerald Rapids cores.
    """
    if whole:
        band = min(rows, max(-(-rows // max(1, 8 // images)), 4))  # as in `_layout`, but for the cache
        rows, columns = -(-rows // band), band * columns
    if not rows_pay(columns, column_step, lanes):
        return False
    vectors, depth, pixels = -(-columns // lanes), c_in * taps, 0
    while vectors > 0:
        tile = 2 if vectors == 4 else min(vectors, VECTORS)  # as `vectors_for`
        pixels += depth * max(ROWS // 2 * tile, (ROWS + tile + 1) // 2) + (60 if tile > 1 else 120)
        vectors -= tile
    channels = columns * (0.54 * depth * -(-c_out // lanes) + 1.3 * c_out)
    packing = (PACKING_BACK if backward else PACKING) * c_out * depth / (images * rows)
    return -(-c_out // ROWS) * pixels + packing < channels


@inline
def _write_tile(work, tile_at, width, first, last, pitch, columns, bias_at, channel, valid, plane_size,
                out, out_at, row_step, column_step):
    """Send a tile of ROWS x `width` sums, which starts at position `first` of the long line, to the output's rows."""
    position, end = first, min(first + width, last)
    while position < end:
        row = position // pitch
        column = position - row * pitch
        count = min(columns - column, end - position)
        if count > 0:
            target = out_at + row * row_step + column * column_step
            source = tile_at + position - first
            lanes = lanes_of(work)
            if column_step == 1 and count >= lanes:
                for r in range(valid):
                    for j in range(0, count, lanes):
                        j = min(j, count - lanes)  # the last vector overlaps the one before
                        _add_constant(work, source + r * width + j, work, bias_at + channel + r, lanes,
                                      out, target + r * plane_size + j)
            elif column_step == 1 and FREE_MASKS:
                for r in range(valid):
                    keep_scalar(work)
                    _add_constant_to_part(work, source + r * width, work, bias_at + channel + r, count,
                                          out, target + r * plane_size)
            else:
                for r in range(valid):
                    for j in range(count):
                        keep_scalar(work)
                        out[target + r * plane_size + j * column_step] = (
                            work[source + r * width + j] + work[bias_at + channel + r])
        position = (row + 1) * pitch


@inline
def _correlate(chunk, chunks, chunk_size, x, out, work, numbers, source, padding, target, kernel, places):
    """One chunk of the images' bands: pad, then correlate every group, panel and output phase, tile by tile."""
    images, groups, c_in, c_out, rows, band = numbers
    height, width, top, left, step_h, step_w, phases_h, phases_w = source
    lines, pitch, plane, extra_h, extra_w = padding
    out_height, out_width, out_step_h, out_step_w, pad_h, pad_w = target
    kernel_h, kernel_w, dilation_h, dilation_w = kernel
    weights_at, bias_at, table_at, buffers_at = places
    buffer_at = buffers_at + chunk * chunk_size
    lanes = lanes_of(work)
    columns_in = (out_width + out_step_w - 1) // out_step_w + extra_w
    bands = (rows + band - 1) // band
    taps = c_in * kernel_h * kernel_w
    panels = (c_out + ROWS - 1) // ROWS
    across = 1 if c_out == 1 else ROWS
    channels = groups * c_in
    tile_at = buffer_at + channels * plane + SLACK
    tasks = images * bands
    for task in range(chunk * tasks // chunks, (chunk + 1) * tasks // chunks):
        image, first = task // bands, task % bands * band
        last = min(first + band, rows)
        for c in range(channels):
            for phase in range(phases_h * phases_w):
                pad_narrow_rows(x, (image * channels + c) * height * width, height, width, first,
                                last - first + extra_h, step_h, step_w, phase // phases_w, phase % phases_w, top, left,
                                columns_in, pitch, work, buffer_at + c * plane + phase * lines * pitch)
        start = 0
        for phase in range(out_step_h * out_step_w):
            row_phase, column_phase = phase // out_step_w, phase % out_step_w
            depth = (c_in * count_taps(work, kernel_h, row_phase, pad_h, out_step_h, dilation_h)
                     * count_taps(work, kernel_w, column_phase, pad_w, out_step_w, dilation_w))
            columns = (out_width - column_phase + out_step_w - 1) // out_step_w
            bottom = min(last, (out_height - row_phase + out_step_h - 1) // out_step_h)
            line = (bottom - first - 1) * pitch + columns if bottom > first and columns > 0 else 0
            for panel in range(groups * panels):
                group, channel = panel // panels, panel % panels * ROWS
                weights = weights_at + (panel * taps + start) * across
                base = buffer_at + group * c_in * plane
                out_channel = group * c_out + channel
                out_at = (((image * groups * c_out + out_channel) * out_height + first * out_step_h + row_phase)
                          * out_width + column_phase)
                if c_out == 1 and out_step_w == 1 and (columns >= lanes or FREE_MASKS) and bottom - first >= TALL:
                    for upper in range(first, bottom, TALL):
                        i = min(upper, bottom - TALL) - first  # the last tiles overlap those before
                        target_at = out_at + i * out_step_h * out_width
                        if columns < lanes:
                            _part_of_filter_tile(work, weights, work, base + i * pitch, pitch, work, table_at + start,
                                                 depth, work, bias_at + out_channel, columns, out, target_at,
                                                 out_step_h * out_width)
                        for j in range(0, columns if columns >= lanes else 0, lanes):
                            j = min(j, columns - lanes)
                            _filter_tile(work, weights, work, base + i * pitch + j, pitch, work, table_at + start,
                                         depth, work, bias_at + out_channel, lanes, out, target_at + j,
                                         out_step_h * out_width)
                    continue
                # Without padding an image is one row. (Phases that no output has are 0 rows.)
                whole = pitch == columns and out_step_h == 1
                width_of_rows = line if whole else columns
                if c_out > 1 and _rows_pay(width_of_rows, out_step_w, lanes):
                    for i in range(min(line, 1) if whole else bottom - first):
                        j = 0
                        while j < width_of_rows:
                            vectors = vectors_for(width_of_rows - j, lanes)
                            target_at = out_at + i * out_step_h * out_width + j
                            tile = (work, weights, work, base + i * pitch + j, work, table_at + start, depth,
                                    work, bias_at + out_channel, min(ROWS, c_out - channel), width_of_rows - j,
                                    out, target_at, out_height * out_width)
                            if vectors == 3:
                                _wide_row(*tile)
                            elif vectors == 2:
                                _middle_row(*tile)
                            else:
                                _narrow_row(*tile)
                            j += vectors * lanes
                    continue
                position = 0
                while position < line:
                    vectors = SINGLE if c_out == 1 else vectors_for(line - position, lanes)
                    size = vectors * lanes
                    if vectors == SINGLE:
                        _single_tile(work, weights, work, base + position, work, table_at + start, depth, work, tile_at)
                    elif vectors == 3:
                        _wide_tile(work, weights, work, base + position, work, table_at + start, depth, work, tile_at)
                    elif vectors == 2:
                        _middle_tile(work, weights, work, base + position, work, table_at + start, depth, work, tile_at)
                    else:
                        _narrow_tile(work, weights, work, base + position, work, table_at + start, depth, work, tile_at)
                    _write_tile(work, tile_at, size, position, line, pitch, columns, bias_at, out_channel,
                                min(ROWS, c_out - channel), out_height * out_width, out, out_at,
                                out_step_h * out_width, out_step_w)
                    position += size
            start += depth


@parallel_kernel
def correlate_lines_forward(
    x, weight, bias, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """`conv2d_forward` with pixels in the lanes."""
    images, channels, height, width = x.shape
    c_in, kernel_h, kernel_w = weight.shape[1], weight.shape[2], weight.shape[3]
    c_out, rows, columns = out.shape[1] // groups, out.shape[2], out.shape[3]
    phases_h, phases_w = 1 if kernel_h == 1 else stride_h, 1 if kernel_w == 1 else stride_w
    extra_h, extra_w = (kernel_h - 1) * dilation_h // stride_h, (kernel_w - 1) * dilation_w // stride_w
    band, lines, pitch, plane = _layout_compiled(
        channels, height, width, rows, columns, pad_top, pad_left, stride_h, stride_w, phases_h * phases_w,
        extra_h, extra_w, images)
    taps, panels = c_in * kernel_h * kernel_w, (c_out + ROWS - 1) // ROWS
    table_at = 0
    bias_at = table_at + taps
    weights_at = bias_at + groups * c_out
    buffers_at = weights_at + groups * panels * taps * ROWS
    k = 0
    for c in range(c_in):
        for i in range(kernel_h):
            for j in range(kernel_w):
                down, right = i * dilation_h, j * dilation_w
                phase = down % stride_h * phases_w + right % stride_w
                put_integer(work, table_at + k,
                            c * plane + (phase * lines + down // stride_h) * pitch + right // stride_w)
                k += 1
    for o in range(groups * c_out):
        keep_scalar(work)
        work[bias_at + o] = bias[o] if bias.size else work.dtype.type(0)
    flat_weight = flat(weight)
    if c_out == 1:
        for i in range(groups * taps):
            work[weights_at + i] = flat_weight[i]
    else:
        for panel in range(groups * panels):
            channel = panel % panels * ROWS
            pack_panel(flat_weight, (panel // panels * c_out + channel) * taps, taps, 1, min(ROWS, c_out - channel),
                       taps, work, weights_at + panel * taps * ROWS, ROWS)
    chunk_size = channels * plane + 2 * SLACK + ROWS * VECTORS * lanes_of(work)
    chunks = (work.size - buffers_at) // chunk_size
    work_done = images * groups * c_out * rows * columns * taps
    parallel_for(_correlate, chunks, work_done >= PARALLEL_WORK, (
        chunks, chunk_size, flat(x), flat(out), work, (images, groups, c_in, c_out, rows, band),
        (height, width, pad_top, pad_left, stride_h, stride_w, phases_h, phases_w),
        (lines, pitch, plane, extra_h, extra_w), (rows, columns, 1, 1, 0, 0),
        (kernel_h, kernel_w, 1, 1), (weights_at, bias_at, table_at, buffers_at)))


@parallel_kernel
def correlate_lines_grad_input(
    grad, weight, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """`conv2d_grad_input` with pixels in the lanes."""
    images, channels, height, width = grad.shape
    c_out, kernel_h, kernel_w = weight.shape[1], weight.shape[2], weight.shape[3]
    c_in, taps_2d = channels // groups, kernel_h * kernel_w
    rows, columns = (out.shape[2] + stride_h - 1) // stride_h, (out.shape[3] + stride_w - 1) // stride_w
    top = (max(0, (kernel_h - 1) * dilation_h - pad_top) + stride_h - 1) // stride_h
    left = (max(0, (kernel_w - 1) * dilation_w - pad_left) + stride_w - 1) // stride_w
    extra_h, extra_w = top + (stride_h - 1 + pad_top) // stride_h, left + (stride_w - 1 + pad_left) // stride_w
    band, lines, pitch, plane = _layout_compiled(
        channels, height, width, rows, columns, top, left, 1, 1, 1, extra_h, extra_w, images)
    taps, panels = c_in * taps_2d, (c_out + ROWS - 1) // ROWS
    table_at = 0
    bias_at = table_at + taps
    weights_at = bias_at + groups * c_out
    buffers_at = weights_at + groups * panels * taps * ROWS
    for o in range(groups * c_out):
        keep_scalar(work)
        work[bias_at + o] = work.dtype.type(0)
    flat_weight = flat(weight)
    across = 1 if c_out == 1 else ROWS
    k = 0
    for phase in range(stride_h * stride_w):
        row, column = phase // stride_w + pad_top, phase % stride_w + pad_left
        for c in range(c_in):
            for i in range(kernel_h):
                for j in range(kernel_w):
                    down, right = row - i * dilation_h, column - j * dilation_w
                    if down % stride_h == 0 and right % stride_w == 0:
                        put_integer(work, table_at + k,
                                    c * plane + (top + down // stride_h) * pitch + left + right // stride_w)
                        for panel in range(groups * panels):
                            channel = panel % panels * ROWS
                            source = ((panel // panels * c_in + c) * c_out + channel) * taps_2d + i * kernel_w + j
                            target = weights_at + (panel * taps + k) * across
                            for r in range(across):
                                keep_scalar(work)
                                work[target + r] = (flat_weight[source + r * taps_2d] if channel + r < c_out
                                                    else work.dtype.type(0))
                        k += 1
    chunk_size = channels * plane + 2 * SLACK + ROWS * VECTORS * lanes_of(work)
    chunks = (work.size - buffers_at) // chunk_size
    work_done = images * groups * c_out * rows * columns * taps
    parallel_for(_correlate, chunks, work_done >= PARALLEL_WORK, (
        chunks, chunk_size, flat(grad), flat(out), work, (images, groups, c_in, c_out, rows, band),
        (height, width, top, left, 1, 1, 1, 1), (lines, pitch, plane, extra_h, extra_w),
        (out.shape[2], out.shape[3], stride_h, stride_w, pad_top, pad_left),
        (kernel_h, kernel_w, dilation_h, dilation_w), (weights_at, bias_at, table_at, buffers_at)))


def _workspace(itemsize, images, channels, plane, band, rows, groups, c_in, c_out, taps_2d):
    """Scratch memory of a correlation: offsets, biases, packed weights, and a padded band and a tile per chunk."""
    taps = c_in * taps_2d
    fixed = taps + groups * c_out + groups * -(-c_out // ROWS) * taps * ROWS
    chunk_size = channels * plane + 2 * SLACK + ROWS * VECTORS * (VECTOR_BYTES // itemsize)
    chunks = min(images * -(-rows // band), config.NUMBA_NUM_THREADS)
    return fixed + chunks * chunk_size


def correlate_lines_forward_workspace(
    x, weight, bias, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_forward` wants for an output (n0, n1, n2, n3)."""
    (images, channels, height, width), (c_in, kernel_h, kernel_w) = x.shape, weight.shape[1:]
    phases = (1 if kernel_h == 1 else stride_h) * (1 if kernel_w == 1 else stride_w)
    extra_h, extra_w = (kernel_h - 1) * dilation_h // stride_h, (kernel_w - 1) * dilation_w // stride_w
    band, _, _, plane = _layout(channels, height, width, n2, n3, pad_top, pad_left, stride_h, stride_w, phases,
                                extra_h, extra_w, images)
    return _workspace(x.itemsize, images, channels, plane, band, n2, groups, c_in, n1 // groups, kernel_h * kernel_w)


def correlate_lines_grad_input_workspace(
    grad, weight, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_input` wants for an output (n0, n1, n2, n3)."""
    (images, channels, height, width), (c_out, kernel_h, kernel_w) = grad.shape, weight.shape[1:]
    top = -(-max(0, (kernel_h - 1) * dilation_h - pad_top) // stride_h)
    left = -(-max(0, (kernel_w - 1) * dilation_w - pad_left) // stride_w)
    extra_h, extra_w = top + (stride_h - 1 + pad_top) // stride_h, left + (stride_w - 1 + pad_left) // stride_w
    rows, columns = -(-n2 // stride_h), -(-n3 // stride_w)
    band, _, _, plane = _layout(channels, height, width, rows, columns, top, left, 1, 1, 1, extra_h, extra_w, images)
    return _workspace(grad.itemsize, images, channels, plane, band, rows, groups, channels // groups, c_out,
                      kernel_h * kernel_w)
