"""Copies that the micro-kernels read: panels whose every step of the depth is one short run, and padded images."""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import scratch
from minigrad.kernels.cpu.simd import (
    FREE_MASKS,
    PIXELS,
    VECTOR_BYTES,
    copy_block,
    copy_even,
    copy_vector,
    copy_window,
    copy_windows,
    keep_scalar,
    lanes_of,
    transpose_block,
    transpose_whole,
    zero_vector,
)

LINE = 16  # elements of a cache line, of float32
SQUARE = 8 if VECTOR_BYTES == 64 else 4
_transpose = transpose_block(SQUARE)
_whole = transpose_whole()
_copy = copy_block(SQUARE)
_copy_window = copy_window()
_copy_windows = copy_windows()
_copy_vector = copy_vector()
_copy_even = copy_even()
_zero = zero_vector()


def whole_lines(count):
    """So many elements of scratch memory and a few more, so that what comes behind begins at a line of the cache.

    With vectors that lay across two lines Winograd's convolutions took 1.07 to 1.2 times as long (AVX-512).
    """
    return (count + LINE - 1) // LINE * LINE


whole_lines_compiled = inline(whole_lines)


@inline
def count_taps(work, kernel, phase, pad, stride, dilation):
    """Taps of the kernel that reach the output's `phase`."""
    count = 0
    for k in range(kernel):
        keep_scalar(work)
        count += (phase + pad - k * dilation) % stride == 0
    return count


@inline
def pack_panel(x, at, step, depth_step, valid, depth, out, out_at, width):
    """``out[k, i] = x[at + i * step + k * depth_step]`` for a panel (depth, width); zeros for i >= valid.

    One of the two steps is 1.
    """
    if width % SQUARE:  # a single vector of two doubles
        for k in range(depth):
            for i in range(width):
                keep_scalar(out)
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
def pad_rows(x, x_at, height, width, first, rows, step_h, step_w, phase_h, phase_w, top, left, columns, pitch,
             out, out_at):
    """Copy one phase of rows of an image plane, padded.

    ``out[i * pitch + j] = x[(first + i) * step_h + phase_h - top, j * step_w + phase_w - left]``, zero outside, for
    i < rows and j < columns. Writes up to a vector beyond `columns`, in ascending order.
    """
    lanes = lanes_of(out)
    if step_h == 1 and step_w == 1 and left == 0 and columns == width == pitch and top <= first <= height + top - rows:
        # Nothing is padded (no caller has phases without steps): neighbouring rows are one. The gradient by the weight
        # of 1x1 convolutions takes 0.91 to 0.97 of the time (two Zen 3 cores, 7 to 32 pixels).
        x_at += (first - top) * width
        height, first, rows, top, width = 1, 0, 1, 0, rows * width
        columns, pitch = width, width
    for i in range(rows):
        source = (first + i) * step_h + phase_h - top
        inside = 0 <= source < height
        if step_w == 1 and lanes <= width and left <= lanes and phase_w == 0 and columns >= left + lanes:
            # Zeros, whole vectors of the image (the last ones overlap), zeros: no masks.
            line, inner = out_at + i * pitch, min(width, columns - left)
            _zero(out, line)
            if inside:
                for j in range(0, inner, lanes):
                    j = min(j, inner - lanes)
                    _copy_vector(x, x_at + source * width + j, out, line + left + j)
            for j in range(left + inner if inside else 0, columns, lanes):
                _zero(out, line + j)
        elif step_w == 1:
            for j in range(0, columns, lanes):
                shift = j + phase_w - left
                _copy_window(x, x_at + source * width + shift, -shift if inside else lanes, width - shift,
                             out, out_at + i * pitch + j)
        elif step_w == 2 and width >= 2 * lanes:
            # The columns from the first to the last that lie in the image; whole vectors of them, the last overlaps.
            low, high = (left - phase_w + 1) // 2, min(columns, (width + left - phase_w + 1) // 2)
            for j in range(0, columns, lanes):
                _zero(out, out_at + i * pitch + j)
            for j in range(low, high if inside else low, lanes):
                j = max(low, min(j, high - lanes))
                if j + lanes <= high:
                    _copy_even(x, x_at + source * width + 2 * j + phase_w - left, out, out_at + i * pitch + j)
                else:
                    for k in range(j, high):
                        keep_scalar(out)
                        out[out_at + i * pitch + k] = x[x_at + source * width + 2 * k + phase_w - left]
        else:
            for j in range(columns):
                keep_scalar(out)
                column = j * step_w + phase_w - left
                value = out.dtype.type(0)
                if inside and 0 <= column < width:
                    value = x[x_at + source * width + column]
                out[out_at + i * pitch + j] = value


@inline
def pad_narrow_rows(x, x_at, height, width, first, rows, step_h, step_w, phase_h, phase_w, top, left, columns, pitch,
                    out, out_at):
    """`pad_rows`, for kernels that meet images narrower than a vector."""
    if FREE_MASKS and step_h == 1 and step_w == 1 and columns <= lanes_of(out):
        above = max(0, min(rows, top - first))
        inside = max(0, min(rows, height + top - first) - above)
        _copy_windows(x, x_at + (first + above - top) * width - left, width, left, left + width, above, inside, rows,
                      out, out_at, pitch)
    else:
        pad_rows(x, x_at, height, width, first, rows, step_h, step_w, phase_h, phase_w, top, left, columns, pitch,
                 out, out_at)


@inline
def pack_pixels(x, at, images, image_size, channels, plane_size, rows, columns, row_step, step, out, out_at,
                tile_step):
    """Pack the pixels (images, rows, columns) of a convolution of one tap as its tiles read them, PIXELS at a time.

    ``out[p // PIXELS * tile_step + c * PIXELS + p % PIXELS] = x[at + image * image_size + c * plane_size +
    i * row_step + j * step]`` for pixel p = (image * rows + i) * columns + j. The last pixel is repeated to the end of
    its tile. What the vectors of a channel write too much is the next channel's, which comes later; behind the last one
    a tile needs room for a vector.
    """
    lanes, size, places, following = lanes_of(out), rows * columns, scratch(at, PIXELS), 0
    for image in range(images):
        tile, following = following, ((image + 1) * size + PIXELS - 1) // PIXELS
        if step == 1 and row_step == columns:
            # Whole tiles of the image, channel by channel: memory is read as it lies.
            source = at + image * image_size - image * size
            readable = x.size - source - (channels - 1) * plane_size - -PIXELS % lanes  # of the last channel
            last = min((image + 1) * size, readable) // PIXELS
            for c in range(channels):
                for t in range(tile, last):
                    for v in range(0, PIXELS, lanes):
                        _copy_vector(x, source + c * plane_size + t * PIXELS + v,
                                     out, out_at + t * tile_step + c * PIXELS + v)
            tile = max(tile, last)
        for t in range(tile, following):
            for r in range(PIXELS):
                keep_scalar(out)
                p = min(t * PIXELS + r, images * size - 1)
                places[r] = at + p // size * image_size + p // columns % rows * row_step + p % columns * step
            for c in range(channels):
                for r in range(PIXELS):
                    keep_scalar(out)
                    out[out_at + t * tile_step + c * PIXELS + r] = x[places[r] + c * plane_size]


@inline
def transpose(x, at, step, rows, columns, out, out_at, out_step):
    """``out[out_at + j * out_step + i] = x[at + i * step + j]`` for i < rows and j < columns.

    Whole squares in registers; the last ones overlap those before them, so that no edge needs a mask.
    """
    lanes = lanes_of(out)
    if rows >= lanes and columns >= lanes:
        # The longer side is walked in the inner loop: planes a power of two apart share a set of the L1 cache, which
        # holds the lines of one square, but not of two.
        down, right = (rows + lanes - 1) // lanes, (columns + lanes - 1) // lanes
        wide = columns > rows
        for outer in range(down if wide else right):
            for inner in range(right if wide else down):
                i = min((outer if wide else inner) * lanes, rows - lanes)
                j = min((inner if wide else outer) * lanes, columns - lanes)
                _whole(x, at + i * step + j, step, out, out_at + j * out_step + i, out_step)
    else:
        for i in range(rows):
            for j in range(columns):
                keep_scalar(out)
                out[out_at + j * out_step + i] = x[at + i * step + j]
