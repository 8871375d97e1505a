"""Pooling over windows of (N, C, H, W): the definition of each kernel."""

import numpy as np


def max_pool2d_forward(
    x, out, indices, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
):
    """Largest element of each window, and its position ``h * W + w`` in the plane.

    Padding counts as minus infinity and is never the position. Of equal elements the first wins, NaN beats every
    number (the last one, as in PyTorch). A window that lies wholly in the padding gives minus infinity and -1.
    `indices` holds integers as wide as the floats.
    """
    height, width = x.shape[2:]
    for n, c, i, j in np.ndindex(*out.shape):
        best, where = -np.inf, -1
        for kh in range(kernel_h):
            for kw in range(kernel_w):
                h = i * stride_h - pad_top + kh * dilation_h
                w = j * stride_w - pad_left + kw * dilation_w
                if 0 <= h < height and 0 <= w < width:
                    value = x[n, c, h, w]
                    if where < 0 or value > best or np.isnan(value):
                        best, where = value, h * width + w
        out[n, c, i, j] = best
        indices[n, c, i, j] = where


def max_pool2d_backward(grad, indices, out):
    """Send each gradient to the position its maximum came from; windows that overlap add up."""
    n, c, h, w = out.shape
    planes = out.reshape(n, c, h * w)
    planes[...] = 0
    for n, c, i, j in np.ndindex(*grad.shape):
        if indices[n, c, i, j] >= 0:
            planes[n, c, indices[n, c, i, j]] += grad[n, c, i, j]


def max_pool2d_gather(x, indices, out):
    """``out = x`` at the positions of the maxima: the adjoint of `max_pool2d_backward`."""
    for n, c, i, j in np.ndindex(*out.shape):
        where = indices[n, c, i, j]
        out[n, c, i, j] = x[n, c].reshape(-1)[where] if where >= 0 else 0


def _average_windows(shape, outputs, kernel, stride, pad, count_include_pad):
    """For each output pixel the rows, the columns and the divisor of its window (the rule of torch's avg_pool2d).

    A window may hang over the far edge; the part beyond the padding is never counted, the padding only on request.
    """
    for i, j in np.ndindex(*outputs):
        top, left = i * stride[0] - pad[0], j * stride[1] - pad[1]
        bottom, right = min(top + kernel[0], shape[0] + pad[0]), min(left + kernel[1], shape[1] + pad[1])
        rows = slice(max(top, 0), min(bottom, shape[0]))
        columns = slice(max(left, 0), min(right, shape[1]))
        inside = max(rows.stop - rows.start, 0) * max(columns.stop - columns.start, 0)
        if inside:
            yield i, j, rows, columns, (bottom - top) * (right - left) if count_include_pad else inside


def avg_pool2d_forward(
    x, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad
):
    """Mean of each window of `x` (N, C, H, W)."""
    out[...] = 0
    for i, j, rows, columns, divisor in _average_windows(
        x.shape[2:], out.shape[2:], (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left), count_include_pad
    ):
        out[:, :, i, j] = x[:, :, rows, columns].sum(axis=(2, 3)) / divisor


def avg_pool2d_backward(
    grad, out, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, count_include_pad
):
    """Gradient by the input of `avg_pool2d_forward`: each window shares its gradient out evenly."""
    out[...] = 0
    for i, j, rows, columns, divisor in _average_windows(
        out.shape[2:], grad.shape[2:], (kernel_h, kernel_w), (stride_h, stride_w), (pad_top, pad_left),
        count_include_pad,
    ):
        out[:, :, rows, columns] += grad[:, :, i, j, None, None] / divisor


def _adaptive_windows(shape, outputs):
    """Window i of n over m elements runs from floor(i * m / n) to ceil((i + 1) * m / n), as in torch."""
    for i, j in np.ndindex(*outputs):
        rows = slice(i * shape[0] // outputs[0], -(-(i + 1) * shape[0] // outputs[0]))
        columns = slice(j * shape[1] // outputs[1], -(-(j + 1) * shape[1] // outputs[1]))
        yield i, j, rows, columns, (rows.stop - rows.start) * (columns.stop - columns.start)


def adaptive_avg_pool2d_forward(x, out):
    """Means over as many windows as `out` (N, C, OH, OW) has pixels, whatever the size of `x`."""
    for i, j, rows, columns, size in _adaptive_windows(x.shape[2:], out.shape[2:]):
        out[:, :, i, j] = x[:, :, rows, columns].sum(axis=(2, 3)) / size


def adaptive_avg_pool2d_backward(grad, out):
    """Gradient by the input of `adaptive_avg_pool2d_forward`."""
    out[...] = 0
    for i, j, rows, columns, size in _adaptive_windows(out.shape[2:], grad.shape[2:]):
        out[:, :, rows, columns] += grad[:, :, i, j, None, None] / size
