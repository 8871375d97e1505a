"""The gradient of a 3x3 convolution by its weight, Winograd's way: the transposed map of `winograd`.

Both images are transformed tile by tile; per frequency, the gradient is a matrix product over all tiles, transformed
back once at the end. The tiles are walked in batches: first tiles are shared out among the threads, then frequencies,
so that every sum has one owner and one order on any number of threads.
"""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import flat, parallel_for, scratch
from minigrad.kernels.cpu.simd import VECTOR_BYTES, lanes_of
from minigrad.kernels.cpu.winograd import (
    HEIGHT,
    LINE,
    _layout,
    _layout_compiled,
    _narrow_tile,
    _to_channels,
    _transform_input,
    _wide_tile,
    load_rows,
)
from minigrad.kernels.cpu.winograd_tiles import FREQUENCIES, OUTPUT, PATCH, RESULT, WEIGHT, patch_transform

BATCH = 500_000  # elements of a batch's transformed tiles: 2 MB; twice and half as many are no faster
PANEL = 3  # vectors of output channels that lie together: a multiple of HEIGHT at any width
ONES = PATCH + 1  # the frequency (1, 1): interpolation at 1, where every output counts once

_transform_grad = patch_transform(RESULT.T)
_transform_back = patch_transform(WEIGHT.T)


def _batch(lanes, across, size, total, c_lanes, o_lanes):
    """(blocks of a batch, tiles of a batch, output channels in whole panels)."""
    o_panels = (o_lanes + PANEL * lanes - 1) // (PANEL * lanes) * PANEL * lanes
    blocks = max(4, BATCH // (FREQUENCIES * (c_lanes + o_panels) * size * across))
    blocks = min(blocks, (total + size - 1) // size)
    return blocks, blocks * size * across, o_panels


_batch_compiled = inline(_batch)


@inline
def _transform_blocks(chunk, chunks, x, grad, work, batch, sizes, source, tiles, steps, places):
    """One chunk of a batch's blocks: both images into the lanes and transformed."""
    channels, c_out, c_lanes = sizes
    height, width, top, left, rows, columns = source
    down, across, parts, size, total, pitch = tiles
    inputs_step, grads_step = steps
    inputs_at, grads_at, chunks_at, buffer_size = places
    start, blocks = batch
    lanes = lanes_of(work)
    buffer_at = chunks_at + chunk * buffer_size
    for block in range(chunk * blocks // chunks, (chunk + 1) * blocks // chunks):
        row, last = (start + block) * size, min((start + block + 1) * size, total)
        while row < last:
            strip, tile_row = row // down, row % down
            image, column = strip // parts, strip % parts * across * OUTPUT
            count = min(down - tile_row, last - row)
            tile = (row - start * size) * across
            lines, reach = count * OUTPUT + PATCH - OUTPUT, across * OUTPUT + PATCH - OUTPUT
            for i in range(lines * reach * lanes):
                work[buffer_at + i] = 0
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
            for i in range(lines * reach * lanes):
                work[buffer_at + i] = 0
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
        if c_lanes - c > lanes:
            _wide_tile(work, grad_at, 1, PANEL * lanes, work, source_at, 2 * lanes, tiles,
                       work, target_at, c_lanes, add)
        else:
            _narrow_tile(work, grad_at, 1, PANEL * lanes, work, source_at, lanes, tiles,
                         work, target_at, c_lanes, add)


@inline
def _add_sums(work, grads_at, tiles, grad_bias, first, add):
    """The gradient by the bias: one of the frequencies is the plain sum of each tile."""
    width = PANEL * lanes_of(work)
    sums = scratch(work.dtype.type(0), 48)
    for i in range(width):
        sums[i] = 0
    for tile in range(tiles):
        for i in range(width):
            sums[i] += work[grads_at + tile * width + i]
    for i in range(min(width, grad_bias.size - first)):
        grad_bias[first + i] = grad_bias[first + i] + sums[i] if add else sums[i]


@inline
def _finish(task, tasks, out, work, sizes, sums_at, sums_step, flags_at):
    """Some output channels of the gradient, transformed back and checked."""
    channels, c_out, c_lanes = sizes
    lanes = lanes_of(work)
    taps = scratch(work.dtype.type(0), 256)  # a whole square is read: of the widest vectors, 16 by 16
    check = work.dtype.type(0)
    for o in range(task * c_out // tasks, (task + 1) * c_out // tasks):
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
    down, across, parts, size, c_lanes, o_lanes, _, _, buffer = _layout_compiled(
        lanes, images, channels, c_out, rows, columns)
    total = images * parts * down
    batch, pitch, o_panels = _batch_compiled(lanes, across, size, total, c_lanes, o_lanes)
    blocks, tasks = (total + size - 1) // size, min(c_out, 16)
    inputs_step, grads_step = pitch * c_lanes + LINE, pitch * o_panels + LINE
    sums_step = (c_out + HEIGHT) * c_lanes + LINE
    inputs_at = tasks
    grads_at = inputs_at + FREQUENCIES * inputs_step
    sums_at = grads_at + FREQUENCIES * grads_step
    chunks_at = sums_at + FREQUENCIES * sums_step
    chunks = min(batch, (work.size - chunks_at) // buffer)
    panels = (c_lanes + 2 * lanes - 1) // (2 * lanes)
    for start in range(0, blocks, batch):
        count = min(batch, blocks - start)
        tiles = (min((start + count) * size, total) - start * size) * across
        parallel_for(_transform_blocks, chunks, True, (
            chunks, flat(x), flat(grad), work, (start, count), (channels, c_out, c_lanes),
            (height, width, pad_top, pad_left, rows, columns), (down, across, parts, size, total, pitch),
            (inputs_step, grads_step), (inputs_at, grads_at, chunks_at, buffer)))
        parallel_for(_multiply, FREQUENCIES * panels, True, (
            work, tiles, start > 0, (c_out, c_lanes, pitch), (inputs_step, grads_step, sums_step),
            (inputs_at, grads_at, sums_at)))
        for panel in range(0, min(o_panels, grad_bias.size), PANEL * lanes):
            _add_sums(work, grads_at + ONES * grads_step + panel * pitch, tiles, grad_bias, panel, start > 0)
    parallel_for(_finish, tasks, channels * c_out >= 4096, (
        tasks, flat(out), work, (channels, c_out, c_lanes), sums_at, sums_step, 0))
    finite = True
    for task in range(tasks):
        finite &= work[task] == 0
    for o in range(grad_bias.size):
        finite &= grad_bias[o] * work.dtype.type(0) == 0
    return finite


def winograd_grad_weight_workspace(images, channels, c_out, rows, columns, threads):
    """Elements of scratch memory that `winograd_grad_weight` wants."""
    lanes = VECTOR_BYTES // 4
    down, across, parts, size, c_lanes, o_lanes, _, _, buffer = _layout(lanes, images, channels, c_out, rows, columns)
    batch, pitch, o_panels = _batch(lanes, across, size, images * parts * down, c_lanes, o_lanes)
    steps = pitch * (c_lanes + o_panels) + (c_out + HEIGHT) * c_lanes + 3 * LINE
    return min(c_out, 16) + FREQUENCIES * steps + min(batch, threads) * buffer
