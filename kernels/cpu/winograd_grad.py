"""The gradient of a 3x3 convolution by its weight, Winograd's way: the transposed map of `winograd`.

Both images are transformed tile by tile; per frequency, the gradient is a matrix product over all tiles, transformed
back once at the end. The tiles are walked in batches. Where the sums are small, every part of the images has its own,
added up at the end, and what has been transformed stays with the core that did it. Where they are large, tiles are
shared out among the threads, then frequencies. Every sum has one owner and one order on any number of threads.
"""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import flat, parallel_for, scratch
from minigrad.kernels.cpu.simd import ROWS, VECTOR_BYTES, lanes_of
from minigrad.kernels.cpu.winograd import (
    LINE,
    _layout,
    _layout_compiled,
    _to_channels,
    _transform_input,
    clear_border,
    load_rows,
    panel_product,
)
from minigrad.kernels.cpu.winograd_tiles import FREQUENCIES, OUTPUT, PATCH, RESULT, WEIGHT, patch_transform

BATCH = 500_000  # elements of a batch's transformed tiles: 2 MB; twice and half as many are no faster
# Frequencies shared out, half of what is transformed goes from one core to the other: two Zen 4 cores took 740 us for
# (64, 16, 14, 14) -> 32, one 1,010. In parts two take 505, one up to 1.08 times as long as before, for shorter sums.
PARTS = 8  # of the images, each with sums of its own: the most threads that share them
SMALL = 2048  # elements of a frequency's sums up to which there are parts: some 3 MB of sums in all
# Rows of a product's tile, and vectors of output channels that lie together, whole tiles at any width. Tiles of 12
# rows, which waste a third of 16 channels and a ninth of 32, and three vectors took 1.08 to 1.35 times as long, with
# blocks of 48 tiles instead of 32 (AVX-512).
HEIGHT, PANEL = (8, 2) if ROWS == 8 else (6, 3)
ONES = PATCH + 1  # the frequency (1, 1): interpolation at 1, where every output counts once

_panel_product = panel_product(HEIGHT)
_transform_grad = patch_transform(RESULT.T)
_transform_back = patch_transform(WEIGHT.T)


def _batch(lanes, across, size, total, c_lanes, o_lanes):
    """(parts, blocks of a batch, tiles of a batch, output channels in whole panels)."""
    o_panels = (o_lanes + PANEL * lanes - 1) // (PANEL * lanes) * PANEL * lanes
    blocks = (total + size - 1) // size
    parts = PARTS if blocks >= PARTS and c_lanes * o_lanes <= SMALL else 1
    batch = min(max(4, BATCH // (FREQUENCIES * (c_lanes + o_panels) * size * across)), blocks) if parts == 1 else 1
    return parts, batch, batch * size * across, o_panels


_batch_compiled = inline(_batch)


@inline
def _transform_blocks(chunk, chunks, x, grad, work, batch, sizes, source, tiles, steps, places):
    """One chunk of a batch's blocks: both images into the lanes and transformed."""
    channels, c_out, c_lanes = sizes
    height, width, top, left, rows, columns = source
    down, across, strips, size, total, pitch = tiles
    inputs_step, grads_step = steps
    inputs_at, grads_at, chunks_at, buffer_size = places
    start, blocks = batch
    lanes = lanes_of(work)
    buffer_at = chunks_at + chunk * buffer_size
    for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
        row, last = (start + block) * size, min((start + block + 1) * size, total)
        while row < last:
            strip, tile_row = row // down, row % down
            image, column = strip // strips, strip % strips * across * OUTPUT
            count = min(down - tile_row, last - row)
            tile = (row - start * size) * across
            lines, reach = count * OUTPUT + PATCH - OUTPUT, across * OUTPUT + PATCH - OUTPUT
            clear_border(work, buffer_at, lines, reach, height, width, tile_row * OUTPUT - top, column - left)
            for c in range(0, channels, lanes):
                load_rows(x, work, (image * channels + c) * height * width, channels - c, height, width,
                          lines, tile_row * OUTPUT - top, column - left, reach, buffer_at)
                panel = c // (2 * lanes) * 2 * lanes
                panel_width = min(2 * lanes, c_lanes - panel)
                for i in range(count):
                    for j in range(across):
                        _transform_input(
                            work, buffer_at + OUTPUT * (i * reach + j) * lanes, reach * lanes, lanes, work,
                            inputs_at + panel * pitch + (tile + i * across + j) * panel_width + c - panel, inputs_step)
            lines, reach = count * OUTPUT, across * OUTPUT
            clear_border(work, buffer_at, lines, reach, rows, columns, tile_row * OUTPUT, column)
            for o in range(0, c_out, lanes):
                load_rows(grad, work, (image * c_out + o) * rows * columns, c_out - o, rows, columns,
                          lines, tile_row * OUTPUT, column, reach, buffer_at)
                panel = o // (PANEL * lanes) * PANEL * lanes
                for i in range(count):
                    for j in range(across):
                        _transform_grad(
                            work, buffer_at + OUTPUT * (i * reach + j) * lanes, reach * lanes, lanes, work,
                            grads_at + panel * pitch + (tile + i * across + j) * PANEL * lanes + o - panel, grads_step)
            row += count


@inline
def _multiply(task, work, tiles, add, sizes, steps, places):
    """One frequency of one panel of input channels: the sum over a batch's tiles, for all output channels."""
    c_out, c_lanes, pitch = sizes
    inputs_step, grads_step, sums_step = steps
    inputs_at, grads_at, sums_at = places
    lanes = lanes_of(work)
    panels = (c_lanes + 2 * lanes - 1) // (2 * lanes)
    k, c = task // panels, task % panels * 2 * lanes
    source_at = inputs_at + k * inputs_step + c * pitch
    for o in range(0, c_out, HEIGHT):
        panel = o // (PANEL * lanes) * PANEL * lanes
        grad_at = grads_at + k * grads_step + panel * pitch + o - panel
        target_at = sums_at + k * sums_step + o * c_lanes + c
        _panel_product(work, grad_at, 1, PANEL * lanes, source_at, c_lanes - c, tiles, target_at, c_lanes, add)


@inline
def _add_bias(work, grads_at, tiles, o_panels, pitch, bias_at, add):
    """The gradient by the bias: one of the frequencies, at `grads_at`, is the plain sum of each tile."""
    width, sums = PANEL * lanes_of(work), scratch(work.dtype.type(0), 48)
    for panel in range(0, o_panels, width):
        for i in range(width):
            sums[i] = 0
        for tile in range(tiles):
            for i in range(width):
                sums[i] += work[grads_at + panel * pitch + tile * width + i]
        for i in range(width):
            work[bias_at + panel + i] = work[bias_at + panel + i] + sums[i] if add else sums[i]


@inline
def _sum_parts(chunk, chunks, x, grad, work, sizes, source, tiles, numbers, steps, places):
    """One chunk of the parts: each block transformed and multiplied by the thread that then has it in its cache."""
    channels, c_out, c_lanes = sizes
    size, total = tiles[3:5]
    parts, blocks, o_panels, pitch, biases = numbers
    inputs_step, grads_step, sums_step = steps
    inputs_at, sums_at, bias_at, buffer_size, chunk_size = places
    lanes, across = lanes_of(work), tiles[1]
    inputs_at += chunk * chunk_size
    grads_at = inputs_at + FREQUENCIES * inputs_step
    panels = (c_lanes + 2 * lanes - 1) // (2 * lanes)
    for part in range(chunk * parts // chunks, (chunk + 1) * parts // chunks):
        first = part * blocks // parts
        for block in range(first, (part + 1) * blocks // parts):
            count = (min((block + 1) * size, total) - block * size) * across
            _transform_blocks(0, 1, x, grad, work, (block, 1), sizes, source, tiles, (inputs_step, grads_step),
                              (inputs_at, grads_at, grads_at + FREQUENCIES * grads_step, buffer_size))
            for task in range(FREQUENCIES * panels):
                _multiply(task, work, count, block > first, (c_out, c_lanes, pitch), steps,
                          (inputs_at, grads_at, sums_at + part * FREQUENCIES * sums_step))
            if biases:
                _add_bias(work, grads_at + ONES * grads_step, count, o_panels, pitch, bias_at + part * o_panels,
                          block > first)


@inline
def _finish(task, tasks, out, work, sizes, parts, sums_at, sums_step, flags_at):
    """Some output channels of the gradient: the parts' sums added up, transformed back and checked."""
    channels, c_out, c_lanes = sizes
    lanes = lanes_of(work)
    taps = scratch(work.dtype.type(0), 256)  # a whole square is read: of the widest vectors, 16 by 16
    check = work.dtype.type(0)
    for o in range(task * c_out // tasks, (task + 1) * c_out // tasks):
        for k in range(FREQUENCIES if parts > 1 else 0):
            at = sums_at + k * sums_step + o * c_lanes
            line = work[at : at + c_lanes]
            for part in range(1, parts):
                other = work[at + part * FREQUENCIES * sums_step : at + part * FREQUENCIES * sums_step + c_lanes]
                for c in range(c_lanes):
                    line[c] += other[c]
        for c in range(0, channels, lanes):
            _transform_back(work, sums_at + o * c_lanes + c, 6 * sums_step, sums_step, taps, 0, lanes)
            for i in range(9 * lanes):
                check += taps[i] * work.dtype.type(0)
            start = 0
            while start < 9:
                start = max(0, min(start, 9 - lanes))
                _to_channels(taps, start * lanes, channels - c, 9 - start, out, (o * channels + c) * 9 + start, 9)
                start += lanes
    work[flags_at + task] = 0 if check == 0 else 1


@inline
def winograd_grad_weight(grad, x, out, grad_bias, work, pad_top, pad_left):
    """`out` (O, C, 3, 3) and `grad_bias` (O,) or (0,) from `grad` (N, O, OH, OW) and `x`; False if not all is finite,
    and the outputs not valid."""
    images, channels, height, width = x.shape
    c_out, rows, columns = grad.shape[1], grad.shape[2], grad.shape[3]
    lanes = lanes_of(work)
    down, across, strips, size, c_lanes, o_lanes, _, _, buffer = _layout_compiled(
        lanes, images, channels, c_out, rows, columns)
    total = images * strips * down
    parts, batch, pitch, o_panels = _batch_compiled(lanes, across, size, total, c_lanes, o_lanes)
    blocks, tasks = (total + size - 1) // size, min(c_out, 16)
    inputs_step, grads_step = pitch * c_lanes + LINE, pitch * o_panels + LINE
    sums_step = (c_out + HEIGHT) * c_lanes + LINE
    bias_at = LINE  # behind a flag of each task
    sums_at = bias_at + parts * o_panels
    inputs_at = sums_at + parts * FREQUENCIES * sums_step
    transformed = FREQUENCIES * (inputs_step + grads_step)
    sizes, source = (channels, c_out, c_lanes), (height, width, pad_top, pad_left, rows, columns)
    tiles, steps = (down, across, strips, size, total, pitch), (inputs_step, grads_step, sums_step)
    if parts > 1:
        chunks = min(parts, (work.size - inputs_at) // (transformed + buffer))
        parallel_for(_sum_parts, chunks, True, (
            chunks, flat(x), flat(grad), work, sizes, source, tiles, (parts, blocks, o_panels, pitch, grad_bias.size),
            steps, (inputs_at, sums_at, bias_at, buffer, transformed + buffer)))
    else:
        grads_at, chunks_at = inputs_at + FREQUENCIES * inputs_step, inputs_at + transformed
        chunks = min(batch, (work.size - chunks_at) // buffer)
        panels = (c_lanes + 2 * lanes - 1) // (2 * lanes)
        for start in range(0, blocks, batch):
            count = min(batch, blocks - start)
            many = (min((start + count) * size, total) - start * size) * across
            parallel_for(_transform_blocks, chunks, True, (
                chunks, flat(x), flat(grad), work, (start, count), sizes, source, tiles, (inputs_step, grads_step),
                (inputs_at, grads_at, chunks_at, buffer)))
            parallel_for(_multiply, FREQUENCIES * panels, True, (
                work, many, start > 0, (c_out, c_lanes, pitch), steps, (inputs_at, grads_at, sums_at)))
            if grad_bias.size:
                _add_bias(work, grads_at + ONES * grads_step, many, o_panels, pitch, bias_at, start > 0)
    parallel_for(_finish, tasks, parts > 1 or channels * c_out >= 4096, (
        tasks, flat(out), work, sizes, parts, sums_at, sums_step, 0))
    finite = True
    for task in range(tasks):
        finite &= work[task] == 0
    for o in range(grad_bias.size):
        total_bias = work[bias_at + o]
        for part in range(1, parts):
            total_bias += work[bias_at + part * o_panels + o]
        grad_bias[o] = total_bias
        finite &= total_bias * work.dtype.type(0) == 0
    return finite


def winograd_grad_weight_workspace(images, channels, c_out, rows, columns, threads):
    """Elements of scratch memory that `winograd_grad_weight` wants."""
    lanes = VECTOR_BYTES // 4
    down, across, strips, size, c_lanes, o_lanes, _, _, buffer = _layout(lanes, images, channels, c_out, rows, columns)
    parts, batch, pitch, o_panels = _batch(lanes, across, size, images * strips * down, c_lanes, o_lanes)
    sums = (c_out + HEIGHT) * c_lanes + LINE
    transformed = FREQUENCIES * (pitch * (c_lanes + o_panels) + 2 * LINE)
    threads = min(parts if parts > 1 else batch, threads)
    return (LINE + parts * (o_panels + FREQUENCIES * sums)
            + (threads * (transformed + buffer) if parts > 1 else transformed + threads * buffer))
