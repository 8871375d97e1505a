"""Pooling over windows of (N, C, H, W): a thread for each output pixel, backwards for each input pixel.

The largest element sends its gradient to a place that only the indices know. Each warp owns a piece of a plane, looks
at all the plane's windows in order, 32 at a time, and adds what falls into its piece: no atomics, one order.
"""

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
    divide,
    int32,
    kernel,
    math,
    thread_index,
)

ALL = 0xFFFFFFFF  # lanes of a warp
WARPS = 4  # of a block, where a warp works for itself
PIECE = 256  # pixels, the least that a warp owns
BUSY = 2048  # warps that keep a GPU busy: half of what 132 processors hold


@device_function
def split(i, rows, columns):
    """Plane, row and column of pixel i."""
    line = div32(i, columns)
    plane = div32(line, rows)
    return plane, int32(line - plane * rows), int32(i - line * columns)


MAX_TYPES = (("float32", "float32", "int32"), ("float64", "float64", "int64"))


@kernel(examples=MAX_TYPES)
def _max(x: Pointer, out: Pointer, indices: Pointer, count: Int, rows: Int, columns: Int, height: Int, width: Int,
         kernel_h: Int, kernel_w: Int, stride_h: Int, stride_w: Int, pad_top: Int, pad_left: Int,
         dilation_h: Int, dilation_w: Int):
    place = thread_index()
    if place < count:
        plane, i, j = split(place, rows, columns)
        best, where = T(-math.inf), int32(-1)
        h = int32(i * stride_h - pad_top)
        for _ in range(kernel_h):
            if 0 <= h and h < height:
                w = int32(j * stride_w - pad_left)
                for _ in range(kernel_w):
                    if 0 <= w and w < width:
                        at = int32(h * width + w)
                        value = x[int32(plane * height * width + at)]
                        if where < 0 or value > best or value != value:
                            best, where = value, at
                    w = int32(w + dilation_w)
            h = int32(h + dilation_h)
        out[place] = best
        indices[place] = where


def max_pool2d_forward(
    x, out, indices, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
):
    """Largest element of each window, and its position ``h * W + w`` in the plane."""
    if out.size:
        _max[blocks(out.size), THREADS](x, out, indices, out.size, *out.shape[2:], *x.shape[2:], kernel_h, kernel_w,
                                        stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)


@kernel(examples=(("float32", "int32", "float32"), ("float64", "int64", "float64")))
def _max_backward(grad: Pointer, indices: Pointer, out: Pointer, planes: Int, windows: Int, size: Int, pieces: Int,
                  share: Int):
    warp = int32(cuda.blockIdx.x * WARPS + (cuda.threadIdx.x >> 5))
    lane = int32(cuda.threadIdx.x & 31)
    plane = div32(warp, pieces)
    if plane < planes:
        low = int32((warp - plane * pieces) * share)
        high, base, first = int32(min(low + share, size)), int32(plane * size), int32(plane * windows)
        for i in range(low + lane, high, WARP):
            out[int32(base + i)] = T(0)
        cuda.syncwarp()
        for start in range(0, windows, WARP):
            k, at, value = int32(start + lane), int32(-1), T(0)
            if k < windows:
                at = int32(indices[int32(first + k)])
            mine = low <= at and at < high
            if cuda.any_sync(ALL, mine):
                if mine:
                    value = grad[int32(first + k)]
                # Lanes with one target take turns, the first window first.
                others = cuda.match_any_sync(ALL, at if mine else int32(-1 - lane))
                turn, now = int32(cuda.popc(int32(others & ((1 << lane) - 1)))), int32(0)
                while cuda.any_sync(ALL, mine and turn >= now):
                    if mine and turn == now:
                        out[int32(base + at)] += value
                    cuda.syncwarp()
                    now = int32(now + 1)


def max_pool2d_backward(grad, indices, out):
    """Send each gradient to the position its maximum came from; windows that overlap add up."""
    if not out.size:
        return
    planes, size = out.shape[0] * out.shape[1], out.shape[2] * out.shape[3]
    share = -(-size // max(1, min(-(-size // PIECE), BUSY // planes)))
    pieces = -(-size // share)
    _max_backward[blocks(planes * pieces, WARPS), WARPS * WARP](
        grad, indices, out, planes, grad.shape[2] * grad.shape[3], size, pieces, share)


@kernel(examples=(("float32", "int32", "float32"), ("float64", "int64", "float64")))
def _gather(x: Pointer, indices: Pointer, out: Pointer, count: Int, windows: Int, size: Int):
    i = thread_index()
    if i < count:
        at, value = int32(indices[i]), T(0)
        if at >= 0:
            value = x[int32(div32(i, windows) * size + at)]
        out[i] = value


def max_pool2d_gather(x, indices, out):
    """``out = x`` at the positions of the maxima: the adjoint of `max_pool2d_backward`."""
    if out.size:
        _gather[blocks(out.size), THREADS](x, indices, out, out.size, out.shape[2] * out.shape[3],
                                           x.shape[2] * x.shape[3])


@device_function
def reach(i, kernel, stride, pad, extent):
    """Window i along one axis: where it starts and ends inside, and how long it is with its padding."""
    start = int32(i * stride - pad)
    stop = int32(min(start + kernel, extent + pad))
    return int32(max(start, 0)), int32(min(stop, extent)), int32(stop - start)


@device_function
def touching(h, kernel, stride, pad, outputs):
    """The first and the last window that contain a pixel."""
    behind = int32(h + pad - kernel + stride)
    first = int32(0)
    if behind >= stride:
        first = div32(behind, stride)
    return first, int32(min(div32(h + pad, stride), outputs - 1))


@device_function
def total(x, base, width, top, bottom, left, right):
    """Sum of a window."""
    value = T(0)
    for h in range(top, bottom):
        for w in range(left, right):
            value += x[int32(base + h * width + w)]
    return value


@kernel
def _mean(x: Pointer, out: Pointer, count: Int, rows: Int, columns: Int, height: Int, width: Int,
          kernel_h: Int, kernel_w: Int, stride_h: Int, stride_w: Int, pad_top: Int, pad_left: Int, include: Int):
    place = thread_index()
    if place < count:
        plane, i, j = split(place, rows, columns)
        top, bottom, high = reach(i, kernel_h, stride_h, pad_top, height)
        left, right, wide = reach(j, kernel_w, stride_w, pad_left, width)
        value = T(0)
        if top < bottom and left < right:
            size = int32(high * wide) if include else int32((bottom - top) * (right - left))
            value = divide(total(x, int32(plane * height * width), width, top, bottom, left, right), T(size))
        out[place] = value


def avg_pool2d_forward(
    x, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad
):
    """Mean of each window of `x` (N, C, H, W)."""
    if out.size:
        _mean[blocks(out.size), THREADS](x, out, out.size, *out.shape[2:], *x.shape[2:], kernel_h, kernel_w,
                                         stride_h, stride_w, pad_top, pad_left, count_include_pad)


@kernel
def _mean_backward(grad: Pointer, out: Pointer, count: Int, rows: Int, columns: Int, height: Int, width: Int,
                   kernel_h: Int, kernel_w: Int, stride_h: Int, stride_w: Int, pad_top: Int, pad_left: Int,
                   include: Int):
    place = thread_index()
    if place < count:
        plane, h, w = split(place, height, width)
        first_i, last_i = touching(h, kernel_h, stride_h, pad_top, rows)
        first_j, last_j = touching(w, kernel_w, stride_w, pad_left, columns)
        value = T(0)
        for i in range(first_i, last_i + 1):
            top, bottom, high = reach(i, kernel_h, stride_h, pad_top, height)
            for j in range(first_j, last_j + 1):
                left, right, wide = reach(j, kernel_w, stride_w, pad_left, width)
                size = int32(high * wide) if include else int32((bottom - top) * (right - left))
                value += divide(grad[int32((plane * rows + i) * columns + j)], T(size))
        out[place] = value


def avg_pool2d_backward(
    grad, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad
):
    """Gradient by the input of `avg_pool2d_forward`: each window shares its gradient out evenly."""
    if out.size:
        _mean_backward[blocks(out.size), THREADS](grad, out, out.size, *grad.shape[2:], *out.shape[2:], kernel_h,
                                                  kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad)


@kernel
def _adaptive(x: Pointer, out: Pointer, count: Int, rows: Int, columns: Int, height: Int, width: Int):
    place = thread_index()
    if place < count:
        plane, i, j = split(place, rows, columns)
        top, bottom = div32(i * height, rows), div32((i + 1) * height + rows - 1, rows)
        left, right = div32(j * width, columns), div32((j + 1) * width + columns - 1, columns)
        value = total(x, int32(plane * height * width), width, top, bottom, left, right)
        out[place] = divide(value, T(int32((bottom - top) * (right - left))))


@kernel
def _plane_means(x: Pointer, out: Pointer, planes: Int, size: Int):
    plane = int32(cuda.blockIdx.x * WARPS + (cuda.threadIdx.x >> 5))
    if plane < planes:
        value = T(0)
        for i in range(int32(cuda.threadIdx.x & 31), size, WARP):
            value += x[int32(plane * size + i)]
        for d in (16, 8, 4, 2, 1):
            value += cuda.shfl_down_sync(ALL, value, d)
        if cuda.threadIdx.x & 31 == 0:
            out[plane] = divide(value, T(size))


def adaptive_avg_pool2d_forward(x, out):
    """Means over as many windows as `out` (N, C, OH, OW) has pixels, whatever the size of `x`."""
    if not out.size:
        return
    if out.shape[2:] == (1, 1):
        _plane_means[blocks(out.size, WARPS), WARPS * WARP](x, out, out.size, x.shape[2] * x.shape[3])
    else:
        _adaptive[blocks(out.size), THREADS](x, out, out.size, *out.shape[2:], *x.shape[2:])


@kernel
def _adaptive_backward(grad: Pointer, out: Pointer, count: Int, rows: Int, columns: Int, height: Int, width: Int):
    place = thread_index()
    if place < count:
        plane, h, w = split(place, height, width)
        value = T(0)
        for i in range(div32(h * rows, height), div32((h + 1) * rows - 1, height) + 1):
            high = int32(div32((i + 1) * height + rows - 1, rows) - div32(i * height, rows))
            for j in range(div32(w * columns, width), div32((w + 1) * columns - 1, width) + 1):
                wide = int32(div32((j + 1) * width + columns - 1, columns) - div32(j * width, columns))
                value += divide(grad[int32((plane * rows + i) * columns + j)], T(int32(high * wide)))
        out[place] = value


def adaptive_avg_pool2d_backward(grad, out):
    """Gradient by the input of `adaptive_avg_pool2d_forward`."""
    if out.size:
        _adaptive_backward[blocks(out.size), THREADS](grad, out, out.size, *grad.shape[2:], *out.shape[2:])
