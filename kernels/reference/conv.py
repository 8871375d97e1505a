"""Two-dimensional convolution (cross-correlation, as in every network library) and its two gradients.

Output pixel ``(i, j)`` reads the padded input at ``(i * stride_h + kh * dilation_h, j * stride_w + kw * dilation_w)``.
Only the top and the left padding are given; whatever the output reads below and to the right of the input is zero.
"""

import numpy as np


def _padded(x, rows, columns, pad_top, pad_left):
    """`x` (N, C, H, W) moved down and right into zeros (N, C, rows, columns)."""
    n, c, h, w = x.shape
    padded = np.zeros((n, c, max(rows, pad_top + h), max(columns, pad_left + w)), x.dtype)
    padded[:, :, pad_top : pad_top + h, pad_left : pad_left + w] = x
    return padded


def _extent(outputs, kernel, stride, dilation):
    """How many padded rows (or columns) the outputs read."""
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1 if outputs else 0


def _windows(shape, kh, kw, stride_h, stride_w, dilation_h, dilation_w):
    """For each tap of the kernel, the slices of the padded input that it meets, one element per output pixel."""
    rows, columns = shape
    for i in range(kh):
        for j in range(kw):
            down = slice(i * dilation_h, i * dilation_h + rows * stride_h, stride_h)
            right = slice(j * dilation_w, j * dilation_w + columns * stride_w, stride_w)
            yield i, j, down, right


def _groups(channels_out, channels_in, groups):
    """Per group, its slice of the output channels and its slice of the input channels."""
    o, c = channels_out // groups, channels_in // groups
    return [(slice(g * o, (g + 1) * o), slice(g * c, (g + 1) * c)) for g in range(groups)]


def conv2d_forward(x, weight, bias, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    """Convolve `x` (N, C, H, W) with `weight` (O, C/groups, KH, KW), add `bias` (O,) or (0,): `out` (N, O, OH, OW)."""
    kh, kw = weight.shape[2:]
    oh, ow = out.shape[2:]
    rows, columns = _extent(oh, kh, stride_h, dilation_h) + stride_h, _extent(ow, kw, stride_w, dilation_w) + stride_w
    padded = _padded(x, rows, columns, pad_top, pad_left)
    out[...] = bias.reshape(1, -1, 1, 1) if bias.size else 0
    with np.errstate(all="ignore"):
        for i, j, down, right in _windows((oh, ow), kh, kw, stride_h, stride_w, dilation_h, dilation_w):
            for o, c in _groups(out.shape[1], x.shape[1], groups):
                out[:, o] += np.einsum("nchw,oc->nohw", padded[:, c, down, right], weight[o, :, i, j])


def conv2d_grad_input(
    grad, weight, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradient `out` (N, C, H, W) by the input, from `grad` (N, O, OH, OW): each tap sends its share back."""
    kh, kw = weight.shape[2:]
    oh, ow = grad.shape[2:]
    rows, columns = _extent(oh, kh, stride_h, dilation_h) + stride_h, _extent(ow, kw, stride_w, dilation_w) + stride_w
    padded = _padded(np.zeros_like(out), rows, columns, pad_top, pad_left)
    with np.errstate(all="ignore"):
        for i, j, down, right in _windows((oh, ow), kh, kw, stride_h, stride_w, dilation_h, dilation_w):
            for o, c in _groups(grad.shape[1], out.shape[1], groups):
                padded[:, c, down, right] += np.einsum("nohw,oc->nchw", grad[:, o], weight[o, :, i, j])
    out[...] = padded[:, :, pad_top : pad_top + out.shape[2], pad_left : pad_left + out.shape[3]]


def conv2d_grad_weight(
    grad, x, out, grad_bias, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradients by the weight, `out` (O, C/groups, KH, KW), and by the bias, `grad_bias` (O,) or (0,), from `grad`
    (N, O, OH, OW) and `x` (N, C, H, W)."""
    kh, kw = out.shape[2:]
    oh, ow = grad.shape[2:]
    rows, columns = _extent(oh, kh, stride_h, dilation_h) + stride_h, _extent(ow, kw, stride_w, dilation_w) + stride_w
    padded = _padded(x, rows, columns, pad_top, pad_left)
    with np.errstate(all="ignore"):
        for i, j, down, right in _windows((oh, ow), kh, kw, stride_h, stride_w, dilation_h, dilation_w):
            for o, c in _groups(grad.shape[1], x.shape[1], groups):
                out[o, :, i, j] = np.einsum("nohw,nchw->oc", grad[:, o], padded[:, c, down, right])
        if grad_bias.size:
            grad_bias[...] = grad.sum((0, 2, 3))


def conv2d_forward_workspace(
    x, weight, bias, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_forward` wants for an output (n0, n1, n2, n3)."""
    return 0


def conv2d_grad_input_workspace(
    grad, weight, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_input` wants for an output (n0, n1, n2, n3)."""
    return 0


def conv2d_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_weight` wants for an output (n0, n1, n2, n3)."""
    return 0
