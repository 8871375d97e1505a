"""Pooling over windows of (N, C, H, W). Every plane is independent, so planes are what runs in parallel."""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import flat, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduce_tiles import SUM, row_tile
from minigrad.kernels.cpu.row_windows import window_maxima
from minigrad.kernels.cpu.simd import lanes_of
from minigrad.kernels.cpu.windows import argmax_windows, mean_windows, share_windows

_sum_row = row_tile(SUM)
_maxima, _maxima_of_second, _maxima_apart = window_maxima(1), window_maxima(2), window_maxima(None)

PARALLEL_READS = 60_000  # elements read; below it, waking the threads costs more than it saves


@inline
def _side_by_side(shape, rows, columns, kernel, stride, pad):
    """Whether the windows are 2 x 2, next to each other, and wholly inside the image."""
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left) = kernel, stride, pad
    two = kernel_h == 2 and kernel_w == 2 and stride_h == 2 and stride_w == 2
    return two and pad_top == 0 and pad_left == 0 and 2 * rows <= shape[2] and 2 * columns <= shape[3]


@inline
def _max_single(x, n, c, out, indices, kernel, stride, pad, dilation):
    """A plane with one column of windows: with nobody beside it the lanes of a vector are no use, and in a large window
    a new largest element is rare, so that its branch is foreseen. A vector took 2.3 times as long for 14 x 14."""
    height, width = x.shape[2], x.shape[3]
    for i in range(out.shape[2]):
        best, where = -x.dtype.type(float("inf")), -1
        for kh in range(kernel[0]):
            h = i * stride[0] - pad[0] + kh * dilation[0]
            if h < 0 or h >= height:
                continue
            for kw in range(kernel[1]):
                w = kw * dilation[1] - pad[1]
                if w < 0 or w >= width:
                    continue
                value = x[n, c, h, w]
                if where < 0 or value > best or value != value:
                    best, where = value, h * width + w
        out[n, c, i, 0], indices[n, c, i, 0] = best, where


@inline
def _max_plane(p, x, out, indices, kernel, stride, pad, dilation):
    height, width, rows, columns, lanes = x.shape[2], x.shape[3], out.shape[2], out.shape[3], lanes_of(x)
    if dilation == (1, 1) and _side_by_side(x.shape, rows, columns, kernel, stride, pad):
        for i in range(rows):
            top = (p * height + 2 * i) * width
            argmax_windows(x, top, top + width, columns, out, (p * rows + i) * columns, indices, 2 * i * width, width)
        return
    if columns == 1:
        _max_single(x, p // x.shape[1], p % x.shape[1], out, indices, kernel, stride, pad, dilation)
        return
    for i in range(rows):
        for j in range(0, columns, lanes):
            j = max(0, min(j, columns - lanes))  # the last vector overlaps the one before it
            windows = (x, p * height * width, height, width, i * stride[0] - pad[0], j * stride[1] - pad[1], stride[1],
                       kernel[0], kernel[1], dilation[0], dilation[1], columns, out, (p * rows + i) * columns + j,
                       indices)
            if stride[1] == 1:
                _maxima(*windows)
            elif stride[1] == 2:
                _maxima_of_second(*windows)
            else:
                _maxima_apart(*windows)


@parallel_kernel
def max_pool2d_forward(
    x, out, indices, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
):
    """Largest element of each window of `x` (N, C, H, W), and its position ``h * W + w`` in the plane.

    Padding counts as minus infinity and is never the position. Of equal elements the first wins, NaN beats every
    number (the last one, as in PyTorch). A window that lies wholly in the padding gives minus infinity and -1.
    `indices` holds integers as wide as the floats.
    """
    planes = out.shape[0] * out.shape[1]
    parallel_for(_max_plane, planes, out.size * kernel_h * kernel_w >= PARALLEL_READS,
                 (x, out, indices, (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left),
                  (dilation_h, dilation_w)))


@inline
def _clear(out, p, size):
    """Zeros in plane p."""
    plane = out[p * size : (p + 1) * size]
    for i in range(size):
        plane[i] = out.dtype.type(0)


@inline
def _scatter_plane(p, grad, indices, out, plane, windows):
    _clear(out, p, plane)
    for i in range(p * windows, (p + 1) * windows):
        where = indices[i]
        if where >= 0:
            out[p * plane + where] += grad[i]


@parallel_kernel
def max_pool2d_backward(grad, indices, out):
    """Send each gradient to the position its maximum came from; windows that overlap add up, in order."""
    parallel_for(_scatter_plane, out.shape[0] * out.shape[1], out.size >= PARALLEL_READS,
                 (grad.reshape(grad.size), indices.reshape(indices.size), out.reshape(out.size),
                  out.shape[2] * out.shape[3], grad.shape[2] * grad.shape[3]))


@inline
def _gather_plane(p, x, indices, out, plane, windows):
    for i in range(p * windows, (p + 1) * windows):
        where = indices[i]
        out[i] = x[p * plane + where] if where >= 0 else x.dtype.type(0)


@parallel_kernel
def max_pool2d_gather(x, indices, out):
    """``out = x`` at the positions of the maxima: the adjoint of `max_pool2d_backward`."""
    parallel_for(_gather_plane, out.shape[0] * out.shape[1], 4 * out.size >= PARALLEL_READS,
                 (x.reshape(x.size), indices.reshape(indices.size), out.reshape(out.size),
                  x.shape[2] * x.shape[3], out.shape[2] * out.shape[3]))


@inline
def _whole_rows(height, width, rows, columns, kernel, stride, pad):
    """Whether every window consists of whole rows, at least of one."""
    return columns == 1 and kernel[1] == width and pad[0] == 0 and pad[1] == 0 and (rows - 1) * stride[0] < height


@inline
def _mean_of_rows(x, p, top, bottom, out, i):
    """The mean of window i of plane p, whose whole rows top ... bottom - 1 are one run of memory. Of 14 x 14 pixels, as
    nets end with it, it takes a sixth of the time of a loop over rows and columns, its gradient a quarter, of 4 x 4 0.4
    and 0.6 (two Zen 3 cores).
    """
    height, width, total = x.shape[2], x.shape[3], scratch(x.dtype.type(0), 1)
    _sum_row(flat(x), (p * height + top) * width, (bottom - top) * width, total, 0)
    flat(out)[p * out.shape[2] + i] = total[0] / x.dtype.type((bottom - top) * width)


@inline
def _share_to_rows(grad, p, i, out, top, bottom):
    """The gradient of `_mean_of_rows`, added to `out`."""
    height, width = out.shape[2], out.shape[3]
    rows = flat(out)[(p * height + top) * width : (p * height + bottom) * width]
    share = flat(grad)[p * grad.shape[2] + i] / out.dtype.type(rows.size)
    for k in range(rows.size):
        rows[k] += share


@inline
def _mean_plane(p, x, out, kernel, stride, pad, count_include_pad):
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left) = kernel, stride, pad
    n, c, height, width = p // x.shape[1], p % x.shape[1], x.shape[2], x.shape[3]
    rows, columns = out.shape[2], out.shape[3]
    if _side_by_side(x.shape, rows, columns, kernel, stride, pad):
        for i in range(rows):
            start = (p * height + 2 * i) * width
            mean_windows(x, start, start + width, columns, out, (p * rows + i) * columns)
        return
    if _whole_rows(height, width, rows, columns, kernel, stride, pad):
        for i in range(rows):
            _mean_of_rows(x, p, i * stride_h, min(i * stride_h + kernel_h, height), out, i)
        return
    for i in range(rows):
        top = i * stride_h - pad_top
        bottom = min(top + kernel_h, height + pad_top)
        for j in range(out.shape[3]):
            left = j * stride_w - pad_left
            right = min(left + kernel_w, width + pad_left)
            divisor = (bottom - top) * (right - left)
            if not count_include_pad:
                divisor = (min(bottom, height) - max(top, 0)) * (min(right, width) - max(left, 0))
            total = x.dtype.type(0)
            for h in range(max(top, 0), min(bottom, height)):
                for w in range(max(left, 0), min(right, width)):
                    total += x[n, c, h, w]
            empty = max(top, 0) >= min(bottom, height) or max(left, 0) >= min(right, width)
            out[n, c, i, j] = x.dtype.type(0) if empty else total / x.dtype.type(divisor)


@parallel_kernel
def avg_pool2d_forward(x, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad):
    """Mean of each window of `x` (N, C, H, W), by the rule of torch's avg_pool2d.

    A window may hang over the far edge (ceil_mode): the part beyond the padding is never counted in the divisor,
    the padding only if `count_include_pad`.
    """
    planes = out.shape[0] * out.shape[1]
    parallel_for(_mean_plane, planes, out.size * kernel_h * kernel_w >= PARALLEL_READS,
                 (x, out, (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left), count_include_pad))


@inline
def _share_plane(p, grad, out, kernel, stride, pad, count_include_pad):
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left) = kernel, stride, pad
    n, c, height, width = p // out.shape[1], p % out.shape[1], out.shape[2], out.shape[3]
    rows, columns = grad.shape[2], grad.shape[3]
    two = _side_by_side(out.shape, rows, columns, kernel, stride, pad)
    if not two or 2 * rows < height or 2 * columns < width:
        _clear(flat(out), p, height * width)
    if two:
        for i in range(rows):
            start = (p * height + 2 * i) * width
            share_windows(grad, (p * rows + i) * columns, columns, out, start, start + width)
        return
    if _whole_rows(height, width, rows, columns, kernel, stride, pad):
        for i in range(rows):
            _share_to_rows(grad, p, i, out, i * stride_h, min(i * stride_h + kernel_h, height))
        return
    for i in range(rows):
        top = i * stride_h - pad_top
        bottom = min(top + kernel_h, height + pad_top)
        for j in range(grad.shape[3]):
            left = j * stride_w - pad_left
            right = min(left + kernel_w, width + pad_left)
            divisor = (bottom - top) * (right - left)
            if not count_include_pad:
                divisor = (min(bottom, height) - max(top, 0)) * (min(right, width) - max(left, 0))
            if max(top, 0) >= min(bottom, height) or max(left, 0) >= min(right, width):
                continue
            share = grad[n, c, i, j] / out.dtype.type(divisor)
            for h in range(max(top, 0), min(bottom, height)):
                for w in range(max(left, 0), min(right, width)):
                    out[n, c, h, w] += share


@parallel_kernel
def avg_pool2d_backward(grad, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad):
    """Gradient by the input of `avg_pool2d_forward`: each window shares its gradient out evenly."""
    planes = out.shape[0] * out.shape[1]
    parallel_for(_share_plane, planes, out.size + grad.size * kernel_h * kernel_w >= PARALLEL_READS,
                 (grad, out, (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left), count_include_pad))


@inline
def _adaptive_mean_plane(p, x, out):
    n, c, height, width = p // x.shape[1], p % x.shape[1], x.shape[2], x.shape[3]
    rows, columns = out.shape[2], out.shape[3]
    for i in range(rows):
        top, bottom = i * height // rows, ((i + 1) * height + rows - 1) // rows
        if columns == 1:
            _mean_of_rows(x, p, top, bottom, out, i)
            continue
        for j in range(columns):
            left, right = j * width // columns, ((j + 1) * width + columns - 1) // columns
            total = x.dtype.type(0)
            for h in range(top, bottom):
                for w in range(left, right):
                    total += x[n, c, h, w]
            out[n, c, i, j] = total / x.dtype.type((bottom - top) * (right - left))


@parallel_kernel
def adaptive_avg_pool2d_forward(x, out):
    """Means over as many windows of `x` (N, C, H, W) as `out` has pixels.

    Window i of n over m elements runs from floor(i m / n) to ceil((i + 1) m / n), as in torch.
    """
    planes = out.shape[0] * out.shape[1]
    parallel_for(_adaptive_mean_plane, planes, x.size >= PARALLEL_READS, (x, out))


@inline
def _adaptive_share_plane(p, grad, out):
    n, c, height, width = p // out.shape[1], p % out.shape[1], out.shape[2], out.shape[3]
    rows, columns = grad.shape[2], grad.shape[3]
    _clear(flat(out), p, height * width)
    for i in range(rows):
        top, bottom = i * height // rows, ((i + 1) * height + rows - 1) // rows
        if columns == 1:
            _share_to_rows(grad, p, i, out, top, bottom)
            continue
        for j in range(columns):
            left, right = j * width // columns, ((j + 1) * width + columns - 1) // columns
            share = grad[n, c, i, j] / out.dtype.type((bottom - top) * (right - left))
            for h in range(top, bottom):
                for w in range(left, right):
                    out[n, c, h, w] += share


@parallel_kernel
def adaptive_avg_pool2d_backward(grad, out):
    """Gradient by the input of `adaptive_avg_pool2d_forward`."""
    planes = out.shape[0] * out.shape[1]
    parallel_for(_adaptive_share_plane, planes, out.size >= PARALLEL_READS, (grad, out))
