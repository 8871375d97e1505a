"""Winograd's convolution F(4x4, 3x3), forward and by its input: a quarter of the direct kernel's multiplications.

The output is cut into 4x4 tiles, and these into blocks of whole rows of tiles. Per block, everything stays in the L2
cache: the padded rows are copied with the channels in the lanes, transformed into 36 matrices (tiles, channels), each
multiplied by its matrix of transformed weights, and the products transformed back and sent to the output. The
gradient by the input is the same with the weights turned around.

The transforms spread a NaN over its tile, and infinities meet in differences. So every output is checked on the way;
if one is not finite, the caller does it all again by the direct kernel, which has the right answer.
"""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import pack_panel
from minigrad.kernels.cpu.parallel import flat, merged, parallel_for, scratch
from minigrad.kernels.cpu.simd import ROWS, VECTOR_BYTES, lanes_of
from minigrad.kernels.cpu.winograd_tiles import (
    FREQUENCIES,
    INPUT,
    OUTPUT,
    PATCH,
    WEIGHT,
    channels_to_lanes,
    lanes_to_channels,
    patch_transform,
    product_tile,
    result_transform,
)

FEWEST = 16  # channels that are worth it
TILES = 32 if ROWS == 8 else 48  # of a block, at most: with 16 up to 1.1, with 44 up to 1.04 times as long (AVX-512)
ACROSS = 32  # tiles of a row, at most; wider images are cut into strips
HEIGHT, REST = (12, 4) if ROWS == 8 else (6, 6)  # tiles of a product: rows x 2 sums fill the registers; what is left
LINE = 16  # elements of a cache line, between matrices whose sizes are often multiples of a page

_transform_input = patch_transform(INPUT)
_transform_weight = patch_transform(WEIGHT)
_transform_result = result_transform()
_to_lanes = channels_to_lanes()
_to_channels = lanes_to_channels()


def panel_product(rows):
    """A function of ``(work, a_at, a_row, a_depth, b_at, columns, depth, c_at, c_step, add)``: `rows` rows by a panel
    of b, one vector wide if no more than that of the `columns` are left, else two, as ``product_tile`` has it."""
    wide, narrow = product_tile(rows, 2), product_tile(rows, 1)

    @merged
    def multiply(work, a_at, a_row, a_depth, b_at, columns, depth, c_at, c_step, add):
        lanes = lanes_of(work)
        if columns > lanes:
            wide(work, a_at, a_row, a_depth, work, b_at, 2 * lanes, depth, work, c_at, c_step, add)
        else:
            narrow(work, a_at, a_row, a_depth, work, b_at, lanes, depth, work, c_at, c_step, add)

    return multiply


_multiply, _multiply_rest = panel_product(HEIGHT), panel_product(REST)


def wants_winograd(images, channels, c_out, rows, columns, kernel_h, kernel_w, stride_h, stride_w, dilation_h,
                   dilation_w, groups):
    """Whether a convolution with `channels` and `c_out` channels and an output (rows, columns) is faster this way."""
    square = kernel_h == 3 and kernel_w == 3 and stride_h == 1 and stride_w == 1
    return (square and dilation_h == 1 and dilation_w == 1 and groups == 1 and channels >= FEWEST and c_out >= FEWEST
            and images * rows * columns >= 256)


wants_winograd_compiled = merged(wants_winograd)


def _layout(lanes, images, channels, c_out, rows, columns):
    """How outputs are cut into tiles and blocks, and the sizes of a block's buffers.

    (rows of tiles per strip, tiles across a strip, strips per image, rows of tiles per block, lanes of input and of
    output channels, elements between the matrices of inputs and of products, elements of the padded rows)
    """
    down, wide = (rows + OUTPUT - 1) // OUTPUT, (columns + OUTPUT - 1) // OUTPUT
    strips = (wide + ACROSS - 1) // ACROSS
    across = (wide + strips - 1) // strips
    total = images * strips * down
    most = max(1, min(TILES // across, (total + 3) // 4))
    block, waste = most, 1e9
    for height in range(max(1, most * 2 // 3), most + 1):
        tiles = height * across
        lost = ((tiles + REST - 1) // REST * REST - tiles) / tiles
        if lost <= waste:
            block, waste = height, lost
    tiles = (block * across + REST - 1) // REST * REST
    c_lanes, o_lanes = (channels + lanes - 1) // lanes * lanes, (c_out + lanes - 1) // lanes * lanes
    lines = min(block, down) * OUTPUT + 2
    buffer = (lines * (across * OUTPUT + 2) + lanes) * lanes
    return down, across, strips, block, c_lanes, o_lanes, tiles * c_lanes + LINE, tiles * o_lanes + LINE, buffer


_layout_compiled = inline(_layout)


@inline
def _transform_weights(group, weight, work, weights_at, weights_step, sizes, steps):
    """The transformed weights of one vector of output channels, into panels (channels, 1 or 2 vectors)."""
    channels, c_out, o_lanes = sizes
    o_step, c_step, flipped = steps
    lanes = lanes_of(work)
    taps = scratch(work.dtype.type(0), 144)
    panel = group // 2 * 2 * lanes
    width = min(2 * lanes, o_lanes - panel)
    target = weights_at + panel * channels + group % 2 * lanes
    first, step = (8 * lanes, -lanes) if flipped else (0, lanes)
    for c in range(channels):
        pack_panel(weight, group * lanes * o_step + c * c_step, o_step, 1, min(lanes, c_out - group * lanes), 9,
                   taps, 0, lanes)
        _transform_weight(taps, first, 3 * step, step, work, target + c * width, weights_step)


@inline
def clear_border(work, buffer_at, lines, reach, height, width, row, column):
    """Zeros where lines of `reach` columns, from `row` and `column` of an image on, are outside of it.

    Zeros everywhere took a sixth of the time of 16 channels to 32, 14 x 14.
    """
    lanes = lanes_of(work)
    left = min(max(0, -column), reach)
    right = max(left, min(reach, width - column))
    for line in range(lines):
        at = buffer_at + line * reach * lanes
        inside = 0 <= row + line < height
        for i in range((left if inside else reach) * lanes):
            work[at + i] = 0
        for i in range((right if inside else reach) * lanes, reach * lanes):
            work[at + i] = 0


@merged
def load_rows(x, work, plane_at, channels, height, width, lines, row, column, reach, buffer_at):
    """Copy lines of an image into the lanes, from `row` and `column` of it, negative in the padding; zeros stand there.

    The buffer is (lines, reach, lanes); only what lies inside the image is written.
    """
    lanes = lanes_of(work)
    left, right = max(0, -column), min(reach, width - column)
    for line in range(max(0, -row), min(lines, height - row)):
        start = left
        while start < right:
            if right - left >= lanes:
                start = min(start, right - lanes)  # the last square overlaps its neighbour
            _to_lanes(x, plane_at + (row + line) * width + column + start, height * width, channels, right - start,
                      work, buffer_at + (line * reach + start) * lanes)
            start += lanes


@inline
def _correlate(chunk, chunks, chunk_size, x, out, work, sizes, source, tiles, steps, places):
    """One chunk of the blocks: transform the inputs, multiply, transform back."""
    channels, c_out, c_lanes, o_lanes, blocks = sizes
    height, width, top, left, rows, columns = source
    down, across, strips, size, total = tiles
    weights_step, inputs_step, products_step = steps
    weights_at, bias_at, chunks_at, buffer_size = places
    lanes = lanes_of(work)
    check_at = chunks_at + chunk * chunk_size
    buffer_at = check_at + LINE
    inputs_at = buffer_at + buffer_size
    products_at = inputs_at + FREQUENCIES * inputs_step
    reach = across * OUTPUT + PATCH - OUTPUT
    for i in range(lanes):
        work[check_at + i] = 0
    for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
        first, last = block * size, min((block + 1) * size, total)
        row, many = first, (last - first) * across
        while row < last:
            strip, tile_row = row // down, row % down
            count = min(down - tile_row, last - row)
            lines = count * OUTPUT + PATCH - OUTPUT
            image_row, image_column = tile_row * OUTPUT - top, strip % strips * across * OUTPUT - left
            clear_border(work, buffer_at, lines, reach, height, width, image_row, image_column)
            for c in range(0, channels, lanes):
                load_rows(x, work, (strip // strips * channels + c) * height * width, channels - c, height, width,
                          lines, image_row, image_column, reach, buffer_at)
                for i in range(count):
                    for j in range(across):
                        _transform_input(work, buffer_at + OUTPUT * (i * reach + j) * lanes, reach * lanes, lanes,
                                         work, inputs_at + ((row - first + i) * across + j) * c_lanes + c, inputs_step)
            row += count
        for k in range(FREQUENCIES):
            for o in range(0, o_lanes, 2 * lanes):
                panel = weights_at + k * weights_step + o * channels
                source_at, target_at = inputs_at + k * inputs_step, products_at + k * products_step + o
                whole = many // HEIGHT * HEIGHT
                for t in range(0, whole, HEIGHT):
                    _multiply(work, source_at + t * c_lanes, c_lanes, 1, panel, o_lanes - o, channels,
                              target_at + t * o_lanes, o_lanes, 0)
                for t in range(whole, many, REST):
                    _multiply_rest(work, source_at + t * c_lanes, c_lanes, 1, panel, o_lanes - o, channels,
                                   target_at + t * o_lanes, o_lanes, 0)
        row = first
        while row < last:
            strip, tile_row = row // down, row % down
            count = min(down - tile_row, last - row)
            column = strip % strips * across * OUTPUT
            valid = min(across * OUTPUT, columns - column)
            pitch = across * OUTPUT * lanes
            for o in range(0, c_out, lanes):
                for i in range(count):
                    for j in range(across):
                        _transform_result(
                            work, products_at + ((row - first + i) * across + j) * o_lanes + o, products_step,
                            work, bias_at + o, work, buffer_at + OUTPUT * (i * pitch + j * lanes), pitch, check_at)
                for i in range(min(count * OUTPUT, rows - tile_row * OUTPUT)):
                    target_at = (((strip // strips * c_out + o) * rows + tile_row * OUTPUT + i) * columns + column)
                    start = 0
                    while start < valid:
                        if valid >= lanes:
                            start = min(start, valid - lanes)
                        _to_channels(work, buffer_at + i * pitch + start * lanes, c_out - o, valid - start,
                                     out, target_at + start, rows * columns)
                        start += lanes
            row += count
    for i in range(1, lanes):
        if work[check_at + i] != 0:
            work[check_at] = 1


@inline
def winograd_correlate(x, weight, bias, out, work, backward, pad_top, pad_left):
    """`conv2d_forward`, or `conv2d_grad_input` if `backward`; False if not all is finite, and `out` not valid.

    Only for float32: a transposition knows quarters of four numbers, and float64 is for checking gradients, not speed.
    The gradient is a convolution too: of the gradient, with weights turned by half a turn, the channels' roles swapped.
    """
    images, channels, height, width = x.shape
    c_out, rows, columns = out.shape[1], out.shape[2], out.shape[3]
    top, left = (2 - pad_top, 2 - pad_left) if backward else (pad_top, pad_left)
    o_step, c_step = (9, 9 * c_out) if backward else (9 * channels, 9)
    lanes = lanes_of(work)
    down, across, strips, size, c_lanes, o_lanes, inputs_step, products_step, buffer = _layout_compiled(
        lanes, images, channels, c_out, rows, columns)
    total = images * strips * down
    blocks = (total + size - 1) // size
    weights_step = channels * o_lanes + LINE
    chunk_size = LINE + buffer + FREQUENCIES * (inputs_step + products_step)
    bias_at = 0
    weights_at = bias_at + o_lanes
    chunks_at = weights_at + FREQUENCIES * weights_step
    chunks = min(blocks, (work.size - chunks_at) // chunk_size)
    for o in range(o_lanes):
        work[bias_at + o] = bias[o] if o < bias.size else work.dtype.type(0)
    groups = o_lanes // lanes
    parallel_for(_transform_weights, groups, channels * c_out >= 4096, (
        flat(weight), work, weights_at, weights_step, (channels, c_out, o_lanes),
        (o_step, c_step, backward)))
    parallel_for(_correlate, chunks, True, (
        chunks, chunk_size, flat(x), flat(out), work,
        (channels, c_out, c_lanes, o_lanes, blocks), (height, width, top, left, rows, columns),
        (down, across, strips, size, total), (weights_step, inputs_step, products_step),
        (weights_at, bias_at, chunks_at, buffer)))
    finite = True
    for chunk in range(chunks):
        finite &= work[chunks_at + chunk * chunk_size] == 0
    return finite


def winograd_workspace(images, channels, c_out, rows, columns, threads):
    """Elements of scratch memory that `winograd_correlate` wants."""
    lanes = VECTOR_BYTES // 4
    down, _, strips, size, _, o_lanes, inputs_step, products_step, buffer = _layout(
        lanes, images, channels, c_out, rows, columns)
    chunk_size = LINE + buffer + FREQUENCIES * (inputs_step + products_step)
    blocks = -(-images * strips * down // size)
    return o_lanes + FREQUENCIES * (channels * o_lanes + LINE) + min(blocks, threads) * chunk_size
