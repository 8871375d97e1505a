"""Two-dimensional convolution and its gradients, as products of matrices that are never written down: `conv_tiles`
and `conv_reduce`.

Groups of few channels (depthwise convolution) leave most rows of a tile empty: there a thread sums one output alone, a
block one element of the gradient by the weight.
"""

from math import gcd

from minigrad.kernels.cuda import memory
from minigrad.kernels.cuda.conv_reduce import REDUCTIONS
from minigrad.kernels.cuda.conv_tiles import (
    GATHERS,
    LAYOUTS,
    add3,
    every_tap,
    meeting_taps,
    pixel_or_zero,
    split3,
)
from minigrad.kernels.cuda.elementwise import fill
from minigrad.kernels.cuda.gemm_tiles import choose, slices
from minigrad.kernels.cuda.language import (
    THREADS,
    WARP,
    Int,
    Pointer,
    T,
    blocks,
    cuda,
    device_function,
    div32,
    int32,
    kernel,
    thread_index,
)
from minigrad.kernels.cuda.slices import add_slices

FEW = 4  # output channels of a group up to which no tile is used
WARPS = THREADS // WARP


def _direct(taps_of):
    """The kernel that needs no tiles: see `conv_tiles.gather` for what it computes.

    Neighbours may be of different residue classes, and the threads of a warp wait for those that meet most taps (3 x 3
    with stride 2: 3 turns in the mean, where the pixels' mean is 9/4 and all taps are 9); they write side by side.
    """

    @kernel
    def sums(weight: Pointer, source: Pointer, bias: Pointer, out: Pointer, size: Int, m: Int, sources: Int,
             row_step: Int, channel_step: Int, group_step: Int, channels: Int, height: Int, width: Int, rows: Int,
             columns: Int, channels_out: Int, kernel_h: Int, kernel_w: Int, scale_h: Int, scale_w: Int, shift_h: Int,
             shift_w: Int, step_h: Int, step_w: Int, divisor_h: Int, divisor_w: Int, whole_h: Int, whole_w: Int,
             part_h: Int, part_w: Int, period_h: Int, period_w: Int, biased: Int):
        place = thread_index()
        if place < size:
            plane, y, x = split3(place, rows, columns)
            image = div32(plane, channels_out)
            o = int32(plane - image * channels_out)
            group = div32(o, m)
            at = int32(group * group_step + (o - group * m) * row_step)
            base = int32((image * channels + group * sources) * height * width)
            r_0, kh_0, taps_h, next_h = taps_of(y * scale_h + shift_h, kernel_h, divisor_h, whole_h, part_h, period_h)
            s_0, kw_0, taps_w, next_w = taps_of(x * scale_w + shift_w, kernel_w, divisor_w, whole_w, part_w, period_w)
            at, line_step = int32(at + kh_0 * kernel_w + kw_0), int32(next_h * kernel_w)
            total = T(0)
            for c in range(sources):
                line, r = int32(at + c * channel_step), r_0
                for _ in range(taps_h):
                    tap, s = line, s_0
                    for _ in range(taps_w):
                        value = pixel_or_zero(source, int32(base + c * height * width), r, s, height, width)
                        total += weight[tap] * value
                        tap, s = int32(tap + next_w), int32(s + step_w)
                    line, r = int32(line + line_step), int32(r + step_h)
            if biased:
                total += bias[o]
            out[place] = total

    return sums


_DIRECT = {False: _direct(every_tap), True: _direct(meeting_taps)}
_DIRECT[False].__name__, _DIRECT[True].__name__ = "_conv_direct_gather", "_conv_direct_spread"


@device_function
def block_sum(value):
    """The sum of the values of a block's threads, for thread 0."""
    partial = cuda.shared.array(WARPS, T)
    for d in (16, 8, 4, 2, 1):
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, d)
    if cuda.threadIdx.x & 31 == 0:
        partial[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for w in range(1, WARPS):
            value += partial[w]
    return value


@kernel
def _channel_sums(grad: Pointer, out: Pointer, images: Int, channels: Int, plane: Int):
    total = T(0)
    for image in range(int32(cuda.threadIdx.x >> 5), images, WARPS):
        base = int32((image * channels + cuda.blockIdx.x) * plane)
        for i in range(int32(cuda.threadIdx.x & 31), plane, WARP):
            total += grad[int32(base + i)]
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        out[cuda.blockIdx.x] = total


@kernel
def _reduce_one(grad: Pointer, source: Pointer, out: Pointer, k: Int, m: Int, sources: Int, channels_out: Int,
                channels: Int, height: Int, width: Int, rows: Int, columns: Int, kernel_h: Int, kernel_w: Int,
                stride_h: Int, stride_w: Int, pad_top: Int, pad_left: Int, dilation_h: Int, dilation_w: Int,
                add_n: Int, add_i: Int, add_j: Int):
    # A block for each element of the weight, its threads take turns at the pixels.
    rest, kh, kw = split3(cuda.blockIdx.x, kernel_h, kernel_w)
    o = div32(rest, sources)
    channel = int32(div32(o, m) * sources + rest - o * sources)
    down, along = int32(kh * dilation_h - pad_top), int32(kw * dilation_w - pad_left)
    pixel, total = int32(cuda.threadIdx.x), T(0)
    image, i, j = split3(pixel, rows, columns)
    while pixel < k:
        value = pixel_or_zero(source, int32((image * channels + channel) * height * width), int32(i * stride_h + down),
                              int32(j * stride_w + along), height, width)
        total += grad[int32(((image * channels_out + o) * rows + i) * columns + j)] * value
        pixel = int32(pixel + THREADS)
        image, i, j = add3(image, i, j, add_n, add_i, add_j, rows, columns)
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        out[cuda.blockIdx.x] = total


def _digits(step, middle, last):
    """The digits of a step through an index of three digits."""
    return step // (middle * last), step // last % middle, step % last


def _weights(row_step, channel_step, m, sources, kernel, weight):
    """How the weights of a group lie: their neighbours in k side by side, their rows, or neither; see `LAYOUTS`."""
    taps = kernel[0] * kernel[1]
    if weight.address % 16 == 0 and channel_step == taps and sources * taps % 4 == 0:
        return "deep"
    if weight.address % 16 == 0 and row_step == taps == 1 and m % 4 == 0:
        return "wide"
    return "any"


def _gather(weight, source, bias, out, m, sources, row_step, channel_step, groups, kernel, scale, shift, step, divisor):
    """The convolution or the gradient by the input: `sources` channels per group make `m`."""
    images, channels_out, rows, columns = out.shape
    biased = int(bias is not None and bias.size > 0)
    bias = bias if biased else weight
    group_step = weight.size // groups
    common = [gcd(*pair) for pair in zip(step, divisor, strict=True)]
    period = [d // c for d, c in zip(divisor, common, strict=True)]  # one tap in so many meets a pixel
    turns = [divmod(abs(s), d) for s, d in zip(step, divisor, strict=True)]
    numbers = (*kernel, *scale, *shift, *[s // c for s, c in zip(step, common, strict=True)], *divisor,
               turns[0][0], turns[1][0], turns[0][1], turns[1][1], *period)
    if m <= FEW or not sources:
        _DIRECT[divisor != (1, 1)][blocks(out.size), THREADS](
            weight, source, bias, out, out.size, m, sources, row_step, channel_step, group_step, *source.shape[1:],
            rows, columns, channels_out, *numbers, biased)
        return
    classes_h, classes_w = min(divisor[0], rows), min(divisor[1], columns)
    classes = classes_h * classes_w
    pixels = images * -(-rows // divisor[0]) * -(-columns // divisor[1])  # of the largest class
    k = sources * -(-kernel[0] // period[0]) * -(-kernel[1] // period[1])
    tile, splits = choose(m, pixels, k, groups * classes, out.dtype.itemsize)
    share, splits = slices(k, splits, tile.depth)
    target = out if splits == 1 else memory.scratch(splits * out.size, out.dtype)
    tiles, across = -(-m // tile.rows), -(-pixels // tile.columns)
    vectors = int(classes == 1 and rows * columns % 4 == 0 and target.address % 16 == 0)
    same = (kernel == [1, 1] and scale == divisor == (1, 1) and shift == (0, 0) and vectors
            and source.shape[2:] == out.shape[2:] and source.address % 16 == 0)
    layouts = _weights(row_step, channel_step, m, sources, kernel, weight), "same" if same else "any"
    if layouts not in LAYOUTS:
        layouts = "any", "any"
    GATHERS[tile, layouts][(tiles * across * classes, groups * splits), tile.threads](
        weight, source, bias, target, m, images, tiles, across, classes_w, splits, share, row_step, channel_step,
        group_step, *source.shape[1:], rows, columns, channels_out, sources, *numbers, out.size,
        biased if splits == 1 else 0, vectors)
    if splits > 1:
        add_slices(target, bias if biased else None, out, splits, rows * columns)


def conv2d_forward(x, weight, bias, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    """Convolve `x` (N, C, H, W) with `weight` (O, C/groups, KH, KW), add `bias` (O,) or (0,): `out` (N, O, OH, OW)."""
    if not out.size:
        return
    o, c, *kernel = weight.shape
    taps = kernel[0] * kernel[1]
    _gather(weight, x, bias, out, o // groups, c, c * taps, taps, groups, kernel, (stride_h, stride_w),
            (-pad_top, -pad_left), (dilation_h, dilation_w), (1, 1))


def conv2d_grad_input(
    grad, weight, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradient `out` (N, C, H, W) by the input, from `grad` (N, O, OH, OW): each tap sends its share back."""
    if not out.size:
        return
    o, c, *kernel = weight.shape
    taps = kernel[0] * kernel[1]
    _gather(weight, grad, None, out, c, o // groups, taps, c * taps, groups, kernel, (1, 1),
            (pad_top, pad_left), (-dilation_h, -dilation_w), (stride_h, stride_w))


def conv2d_grad_weight(
    grad, x, out, grad_bias, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradients by the weight, `out` (O, C/groups, KH, KW), and by the bias, `grad_bias` (O,) or (0,), from `grad`
    (N, O, OH, OW) and `x` (N, C, H, W)."""
    images, o, rows, columns = grad.shape
    if grad_bias.size:
        _channel_sums[o, THREADS](grad, grad_bias, images, o, rows * columns)
    k = images * rows * columns
    if not out.size or not k:
        fill(out, 0.0)
        return
    m, n = o // groups, out.size // o
    numbers = (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)
    if m <= FEW:
        _reduce_one[out.size, THREADS](grad, x, out, k, m, out.shape[1], o, *x.shape[1:], rows, columns,
                                       *out.shape[2:], *numbers, *_digits(THREADS, rows, columns))
        return
    tile, splits = choose(m, n, k, groups, out.dtype.itemsize)
    share, splits = slices(k, splits, tile.depth)
    target = out if splits == 1 else memory.scratch(splits * out.size, out.dtype)
    tiles = -(-m // tile.rows)
    deep = rows * columns % 4 == 0 and grad.address % 16 == 0
    same = (deep and x.address % 16 == 0 and x.shape[2:] == grad.shape[2:] and out.shape[2:] == (1, 1)
            and (stride_h, stride_w, pad_top, pad_left) == (1, 1, 0, 0))
    layouts = "deep" if deep else "any", "same" if same else "any"
    REDUCTIONS[tile, layouts][(tiles * -(-n // tile.columns), groups * splits), tile.threads](
        grad, x, target, m, n, k, tiles, splits, share, groups, *x.shape[1:], rows, columns, *out.shape[2:],
        *numbers, *_digits(tile.depth, rows, columns))
    if splits > 1:
        add_slices(target, None, out, splits)


def conv2d_forward_workspace(
    x, weight, bias, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_forward` wants for an output (n0, n1, n2, n3): it has its own."""
    return 0


def conv2d_grad_input_workspace(
    grad, weight, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_input` wants for an output (n0, n1, n2, n3): it has its own."""
    return 0


def conv2d_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_weight` wants for an output (n0, n1, n2, n3): it has its own."""
    return 0
