"""Pooling over windows of (N, C, H, W). Every plane is independent, so planes are what runs in parallel."""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import flat, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduce_tiles import SUM, block_sum, of_rows, row_tile, rows_tile
from minigrad.kernels.cpu.row_windows import by_step, window_maxima, window_means, window_shares
from minigrad.kernels.cpu.simd import lanes_of
from minigrad.kernels.cpu.windows import argmax_windows, mean_windows, share_windows

_sum_row, _sum_block = row_tile(SUM), block_sum()
_sums_of_planes = of_rows(rows_tile(SUM), _sum_row)
_maxima, _means, _shares = by_step(window_maxima), by_step(window_means), by_step(window_shares)

TILE = 8_192  # elements of the planes that one call averages, as many planes at once as there are lanes
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
            _maxima(stride[1], windows)


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
def _laid(x, column):
    """Images of one column as images of one row, which lie in memory alike and fill vectors."""
    height, width = x.shape[2], x.shape[3]
    return x.reshape(x.shape[0], x.shape[1], width if column else height, height if column else width)


@inline
def _turned(down, along, column):
    """A pair of numbers for rows and columns, for images as `_laid`."""
    return (along, down) if column else (down, along)


@inline
def _extent(i, size, kernel, stride, pad, count_include_pad):
    """Of window i along one dimension: its elements first ... last - 1 in the image, and how many the divisor has."""
    start = i * stride - pad
    end = min(start + kernel, size + pad)
    first = max(start, 0)
    last = max(first, min(end, size))
    return first, last, end - start if count_include_pad else last - first


@inline
def _mean_of_window(x, p, top, bottom, left, right, divisor):
    """The mean of one window of plane p, its columns in the lanes: a loop over its elements took 3 times as long for
    7 x 7 (two Zen 3 cores). Whole rows are one run of memory."""
    width, total = x.shape[3], scratch(x.dtype.type(0), 1)
    at = (p * x.shape[2] + top) * width + left
    if right - left == width:
        _sum_row(flat(x), at, (bottom - top) * width, total, 0)
    else:
        _sum_block(flat(x), at, width, bottom - top, right - left, total, 0)
    return total[0] / x.dtype.type(divisor)


@inline
def _share_window(share, out, p, top, bottom, left, right):
    """Add `share` to the pixels of one window of plane p."""
    width = out.shape[3]
    start, length, lines = (p * out.shape[2] + top) * width + left, right - left, bottom - top
    if length == width:
        length, lines = lines * width, 1
    for i in range(lines):
        line = flat(out)[start + i * width : start + i * width + length]
        for k in range(line.size):
            line[k] += share


@inline
def _few(columns, lanes, kernel, stride):
    """Whether windows are taken one by one: side by side they would leave most lanes empty."""
    return 4 * columns <= lanes and (stride[1] > 2 or kernel[1] >= lanes)


@inline
def _mean_plane(p, x, out, kernel, stride, pad, count_include_pad):
    height, width, rows, columns = x.shape[2], x.shape[3], out.shape[2], out.shape[3]
    if _side_by_side(x.shape, rows, columns, kernel, stride, pad):
        for i in range(rows):
            start = (p * height + 2 * i) * width
            mean_windows(x, start, start + width, columns, out, (p * rows + i) * columns)
        return
    lanes, over = lanes_of(x), pad[1] if count_include_pad else 0
    for i in range(rows):
        top, bottom, down = _extent(i, height, kernel[0], stride[0], pad[0], count_include_pad)
        if _few(columns, lanes, kernel, stride):
            for j in range(columns):
                left, right, along = _extent(j, width, kernel[1], stride[1], pad[1], count_include_pad)
                mean = _mean_of_window(x, p, top, bottom, left, right, max(down * along, 1))
                flat(out)[(p * rows + i) * columns + j] = mean
            continue
        for j in range(0, columns, lanes):
            j = max(0, min(j, columns - lanes))  # the last vector overlaps the one before it
            windows = (x, p * height * width, height, width, i * stride[0] - pad[0], j * stride[1] - pad[1], stride[1],
                       kernel[0], kernel[1], max(down, 1), -over, width + over, columns, out,
                       (p * rows + i) * columns + j)
            _means(stride[1], windows)


@parallel_kernel
def avg_pool2d_forward(x, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad):
    """Mean of each window of `x` (N, C, H, W), by the rule of torch's avg_pool2d.

    A window may hang over the far edge (ceil_mode): the part beyond the padding is never counted in the divisor,
    the padding only if `count_include_pad`.
    """
    column, planes = x.shape[3] == 1 and out.shape[3] == 1, out.shape[0] * out.shape[1]
    parallel_for(_mean_plane, planes, out.size * kernel_h * kernel_w >= PARALLEL_READS,
                 (_laid(x, column), _laid(out, column), _turned(kernel_h, kernel_w, column),
                  _turned(stride_h, stride_w, column), _turned(pad_top, pad_left, column), count_include_pad))


@inline
def _share_plane(p, grad, out, kernel, stride, pad, count_include_pad):
    height, width, rows, columns = out.shape[2], out.shape[3], grad.shape[2], grad.shape[3]
    two = _side_by_side(out.shape, rows, columns, kernel, stride, pad)
    if not two or 2 * rows < height or 2 * columns < width:
        _clear(flat(out), p, height * width)
    if two:
        for i in range(rows):
            start = (p * height + 2 * i) * width
            share_windows(grad, (p * rows + i) * columns, columns, out, start, start + width)
        return
    lanes, over = lanes_of(out), pad[1] if count_include_pad else 0
    for i in range(rows):
        top, bottom, down = _extent(i, height, kernel[0], stride[0], pad[0], count_include_pad)
        if _few(columns, lanes, kernel, stride):
            for j in range(columns):
                left, right, along = _extent(j, width, kernel[1], stride[1], pad[1], count_include_pad)
                share = flat(grad)[(p * rows + i) * columns + j] / out.dtype.type(max(down * along, 1))
                _share_window(share, out, p, top, bottom, left, right)
            continue
        for w in range(-(pad[1] % 2) if stride[1] == 2 else 0, width, lanes):
            windows = (grad, (p * rows + i) * columns, columns, stride[1], kernel[1], pad[1], max(down, 1), -over,
                       width + over, out, (p * height + top) * width, w, width, bottom - top)
            _shares(stride[1], windows)


@parallel_kernel
def avg_pool2d_backward(grad, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad):
    """Gradient by the input of `avg_pool2d_forward`: each window shares its gradient out evenly."""
    column, planes = grad.shape[3] == 1 and out.shape[3] == 1, out.shape[0] * out.shape[1]
    parallel_for(_share_plane, planes, out.size + grad.size * kernel_h * kernel_w >= PARALLEL_READS,
                 (_laid(grad, column), _laid(out, column), _turned(kernel_h, kernel_w, column),
                  _turned(stride_h, stride_w, column), _turned(pad_top, pad_left, column), count_include_pad))


@inline
def _global_means(block, x, out, planes):
    """The means of some planes, each one run of memory."""
    size, first = x.shape[2] * x.shape[3], block * planes
    means = flat(out)[first : min(first + planes, out.size)]
    _sums_of_planes(flat(x), first * size, means.size, size, means)
    for i in range(means.size):
        means[i] /= x.dtype.type(size)


@inline
def _global_shares(p, grad, out):
    """The gradient of the mean of plane p."""
    size = out.shape[2] * out.shape[3]
    plane, share = flat(out)[p * size : (p + 1) * size], flat(grad)[p] / out.dtype.type(size)
    for k in range(size):
        plane[k] = share


@inline
def _adaptive_extent(i, size, count):
    """The elements first ... last - 1 of window i of `count`."""
    return i * size // count, ((i + 1) * size + count - 1) // count


@inline
def _adaptive_mean_plane(p, x, out):
    height, width, rows, columns = x.shape[2], x.shape[3], out.shape[2], out.shape[3]
    for i in range(rows):
        top, bottom = _adaptive_extent(i, height, rows)
        for j in range(columns):
            left, right = _adaptive_extent(j, width, columns)
            mean = _mean_of_window(x, p, top, bottom, left, right, (bottom - top) * (right - left))
            flat(out)[(p * rows + i) * columns + j] = mean


@parallel_kernel
def adaptive_avg_pool2d_forward(x, out):
    """Means over as many windows of `x` (N, C, H, W) as `out` has pixels.

    Window i of n over m elements runs from floor(i m / n) to ceil((i + 1) m / n), as in torch.
    """
    planes, parallel = out.shape[0] * out.shape[1], x.size >= PARALLEL_READS
    if out.size == planes:
        together = max(1, TILE // (x.shape[2] * x.shape[3]))
        parallel_for(_global_means, (planes + together - 1) // together, parallel, (x, out, together))
    else:
        parallel_for(_adaptive_mean_plane, planes, parallel, (x, out))


@inline
def _adaptive_share_plane(p, grad, out):
    height, width, rows, columns = out.shape[2], out.shape[3], grad.shape[2], grad.shape[3]
    _clear(flat(out), p, height * width)
    for i in range(rows):
        top, bottom = _adaptive_extent(i, height, rows)
        for j in range(columns):
            left, right = _adaptive_extent(j, width, columns)
            share = flat(grad)[(p * rows + i) * columns + j] / out.dtype.type((bottom - top) * (right - left))
            _share_window(share, out, p, top, bottom, left, right)


@parallel_kernel
def adaptive_avg_pool2d_backward(grad, out):
    """Gradient by the input of `adaptive_avg_pool2d_forward`."""
    planes, parallel = out.shape[0] * out.shape[1], out.size >= PARALLEL_READS
    if grad.size == planes:
        parallel_for(_global_shares, planes, parallel, (grad, out))
    else:
        parallel_for(_adaptive_share_plane, planes, parallel, (grad, out))
