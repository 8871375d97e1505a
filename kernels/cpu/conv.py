"""Two-dimensional convolution and its gradients: which of the kernels computes it."""

import functools

from minigrad.kernels.cpu.compile import chosen
from minigrad.kernels.cpu.conv_channels import correlate, correlate_workspace
from minigrad.kernels.cpu.conv_depthwise import depthwise_grad_weight, depthwise_grad_weight_workspace
from minigrad.kernels.cpu.conv_grad import correlate_grad_weight, correlate_grad_weight_workspace
from minigrad.kernels.cpu.conv_pixels import (
    correlate_lines_forward,
    correlate_lines_forward_workspace,
    correlate_lines_grad_input,
    correlate_lines_grad_input_workspace,
    pixels_pay,
)
from minigrad.kernels.cpu.simd import VECTOR_BYTES
from minigrad.kernels.cpu.winograd import wants_winograd

__all__ = [
    "conv2d_forward",
    "conv2d_forward_workspace",
    "conv2d_grad_input",
    "conv2d_grad_input_workspace",
    "conv2d_grad_weight",
    "conv2d_grad_weight_workspace",
]

FEW = 8  # channels of the result, per group, that are too few to fill the lanes on any processor


def _by_pixels(source, weight, result, numbers, backward, itemsize):
    """Whether pixels, and not channels, are in the lanes to compute `result` (N, C, H, W) from `source`; all shapes."""
    if result[1] <= FEW * numbers[-1]:
        return True
    return _pixels_pay(source, weight, result, numbers, backward, itemsize)


@functools.lru_cache(4096)
def _pixels_pay(source, weight, result, numbers, backward, itemsize):
    stride_h, stride_w, top, left, dilation_h, dilation_w, groups = numbers
    images, channels, rows, columns = result
    taps_h, taps_w = weight[2:]
    if images * rows * columns == 0:
        return False
    if itemsize == 4 and wants_winograd(images, source[1], channels, rows, columns, taps_h, taps_w, stride_h, stride_w,
                                        dilation_h, dilation_w, groups):
        return False
    whole = taps_h == taps_w == stride_h == stride_w == 1 and top == left == 0 and source[2:] == result[2:]
    return pixels_pay(images, source[1] // groups, channels // groups, taps_h * taps_w, rows, columns, whole,
                      stride_w if backward else 1, backward, VECTOR_BYTES // itemsize)


def _is_depthwise(c_out, c_in, groups):
    """Whether every group has one output channel, and there are tasks for several threads or next to nothing to do."""
    return c_out == groups and (groups >= 4 or c_in == 1)


@chosen
def conv2d_forward(x, weight, bias, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups):
    """Convolve `x` (N, C, H, W) with `weight` (O, C/groups, KH, KW), add `bias` (O,) or (0,): `out` (N, O, OH, OW).

    Bottom and right padding follow from the size of `out`.
    """
    numbers = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
    if _by_pixels(x.shape, weight.shape, out.shape, numbers, False, x.itemsize):
        return correlate_lines_forward, (x, weight, bias, out, work, *numbers)
    return correlate, (x, weight, bias, out, work, False, *numbers)


@chosen
def conv2d_grad_input(
    grad, weight, out, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradient `out` (N, C, H, W) of a convolution by its input, from `grad` (N, O, OH, OW)."""
    numbers = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
    if _by_pixels(grad.shape, weight.shape, out.shape, numbers, True, grad.itemsize):
        return correlate_lines_grad_input, (grad, weight, out, work, *numbers)
    return correlate, (grad, weight, work[:0], out, work, True, *numbers)


@chosen
def conv2d_grad_weight(
    grad, x, out, grad_bias, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Gradients of a convolution by its weight, `out` (O, C/groups, KH, KW), and by its bias, `grad_bias` (O,) or (0,),
    from `grad` (N, O, OH, OW) and `x` (N, C, H, W)."""
    kernel = depthwise_grad_weight if _is_depthwise(grad.shape[1], out.shape[1], groups) else correlate_grad_weight
    return kernel, (
        grad, x, out, grad_bias, work, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups)


def conv2d_forward_workspace(
    x, weight, bias, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_forward` wants for an output (n0, n1, n2, n3)."""
    result, numbers = (n0, n1, n2, n3), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups)
    if _by_pixels(x.shape, weight.shape, result, numbers, False, x.itemsize):
        return correlate_lines_forward_workspace(x, weight, bias, *result, *numbers)
    return correlate_workspace(x, weight, *result, *numbers, False)


def conv2d_grad_input_workspace(
    grad, weight, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_input` wants for an output (n0, n1, n2, n3)."""
    result, numbers = (n0, n1, n2, n3), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups)
    if _by_pixels(grad.shape, weight.shape, result, numbers, True, grad.itemsize):
        return correlate_lines_grad_input_workspace(grad, weight, *result, *numbers)
    return correlate_workspace(grad, weight, *result, *numbers, True)


def conv2d_grad_weight_workspace(
    grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups
):
    """Elements of scratch memory that `conv2d_grad_weight` wants for an output (n0, n1, n2, n3)."""
    few = _is_depthwise(n0, n1, groups)
    return (depthwise_grad_weight_workspace if few else correlate_grad_weight_workspace)(
        grad, x, n0, n1, n2, n3, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups)
