"""The gradient by the weight of a convolution with one output channel per group: pixels in the lanes.

The channels are shared out: image by image, each of a share's is padded (sorted by phase if there is a stride) and
multiplied with the gradient's rows, a few taps at a time. A channel's sum goes over all images in order: the same bits
on any number of threads.
"""

from numba import config

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.packing import pad_narrow_rows
from minigrad.kernels.cpu.parallel import flat, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduce_tiles import SUM, row_tile
from minigrad.kernels.cpu.simd import VECTOR_BYTES, dot_rows, keep_scalar, lanes_of, put_integer

TAPS = 9  # at a time: those of 3 x 3, and enough sums to hide the latency of the multiply-add
PARALLEL_WORK = 250_000  # multiply-adds, about 10 us
CHANNELS = 64  # whose sums are kept at the same time, so that planes are read in the order they lie: 36 KB for 3 x 3
SLACK = 128

_sum_row = row_tile(SUM)
_dot = dot_rows(TAPS)


def _layout(rows, columns, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w):
    """(lines of a phase, pitch, phases down and across)."""
    phases_h, phases_w = 1 if kernel_h == 1 else stride_h, 1 if kernel_w == 1 else stride_w
    lines = rows + (kernel_h - 1) * dilation_h // stride_h
    return lines, columns + (kernel_w - 1) * dilation_w // stride_w, phases_h, phases_w


_layout_compiled = inline(_layout)


@inline
def _sum_channel(chunk, chunks, chunk_size, grad, x, out, grad_bias, work, numbers, source, layout, taps):
    images, o_total, c_in, rows, columns = numbers
    height, width, pad_top, pad_left, stride_h, stride_w = source
    lines, pitch, phases_h, phases_w = layout
    lanes = lanes_of(work)
    taps_up = (taps + TAPS - 1) // TAPS * TAPS
    plane = phases_h * phases_w * lines * pitch
    together = max(1, CHANNELS // c_in)
    buffer_at = taps_up + chunk * chunk_size
    sums_at, sums_size = buffer_at + plane + SLACK, taps_up * lanes
    first, end, row_sum = chunk * o_total // chunks, (chunk + 1) * o_total // chunks, scratch(work.dtype.type(0), 1)
    for start in range(first, end, together):
        last = min(start + together, end)
        for i in range((last - start) * c_in * sums_size):
            work[sums_at + i] = work.dtype.type(0)
        if grad_bias.size > 0:
            for o in range(start, last):
                grad_bias[o] = work.dtype.type(0)
        for image in range(images):
            for o in range(start, last):
                at = (image * o_total + o) * rows * columns
                if grad_bias.size > 0:
                    _sum_row(grad, at, rows * columns, row_sum, 0)
                    grad_bias[o] += row_sum[0]
                for c in range(c_in):
                    channel = (image * o_total + o) * c_in + c
                    for phase in range(phases_h * phases_w):
                        pad_narrow_rows(x, channel * height * width, height, width, 0, lines, stride_h, stride_w,
                                        phase // phases_w, phase % phases_w, pad_top, pad_left, pitch, pitch,
                                        work, buffer_at + phase * lines * pitch)
                    target_at = sums_at + ((o - start) * c_in + c) * sums_size
                    for tap in range(0, taps, TAPS):
                        _dot(work, buffer_at, pitch, work, tap, grad, at, columns, rows, columns,
                             work, target_at + tap * lanes)
        for i in range(last - start):
            for j in range(c_in * taps):
                keep_scalar(work)
                source, total = sums_at + (i * c_in + j // taps) * sums_size + j % taps * lanes, work.dtype.type(0)
                for lane in range(lanes):
                    total += work[source + lane]
                out[(start + i) * c_in * taps + j] = total


@parallel_kernel
def depthwise_grad_weight(
    grad, x, out, grad_bias, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """`conv2d_grad_weight` where every group has one output channel."""
    images, o_total, rows, columns = grad.shape
    c_in, kernel_h, kernel_w = out.shape[1], out.shape[2], out.shape[3]
    taps = kernel_h * kernel_w
    lines, pitch, phases_h, phases_w = _layout_compiled(
        rows, columns, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w)
    taps_up = (taps + TAPS - 1) // TAPS * TAPS
    for tap in range(taps_up):
        down, right = min(tap, taps - 1) // kernel_w * dilation_h, min(tap, taps - 1) % kernel_w * dilation_w
        phase = down % stride_h * phases_w + right % stride_w
        put_integer(work, tap, (phase * lines + down // stride_h) * pitch + right // stride_w)
    chunk_size = (phases_h * phases_w * lines * pitch + 2 * SLACK
                  + max(CHANNELS, c_in) * taps_up * lanes_of(work))
    chunks = (work.size - taps_up) // chunk_size
    parallel_for(_sum_channel, chunks, grad.size * c_in * taps >= PARALLEL_WORK, (
        chunks, chunk_size, flat(grad), flat(x), flat(out), grad_bias, work,
        (images, o_total, c_in, rows, columns), (x.shape[2], x.shape[3], pad_top, pad_left, stride_h, stride_w),
        (lines, pitch, phases_h, phases_w), taps))


def depthwise_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `depthwise_grad_weight` wants for an output (n0, n1, n2, n3)."""
    rows, columns = grad.shape[2:]
    lines, pitch, phases_h, phases_w = _layout(rows, columns, n2, n3, stride_h, stride_w, dilation_h, dilation_w)
    taps_up = -(-n2 * n3 // TAPS) * TAPS
    chunk_size = (phases_h * phases_w * lines * pitch + 2 * SLACK
                  + max(CHANNELS, n1) * taps_up * (VECTOR_BYTES // x.itemsize))
    return taps_up + min(n0, config.NUMBA_NUM_THREADS) * chunk_size
