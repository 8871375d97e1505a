"""Pooling over windows of an image."""

from minigrad.function import Function
from minigrad.ops.common import check_float
from minigrad.ops.conv import pair
from minigrad.ops.shape import reshape
from minigrad.tensor import Tensor


class MaxPool2d(Function):
    """y = the largest element of each window, the first where several are; the gradient goes to it"""

    saves_inputs = False

    def forward(self, x, shape, window):
        self.source = x.shape
        integers = "int32" if x.dtype.itemsize == 4 else "int64"  # as wide as the floats: vectors of both match
        out, self.indices = self.device.empty(shape, x.dtype), self.device.empty(shape, integers)
        self.device.kernels.max_pool2d_forward(x, out, self.indices, *window)
        return out

    def backward(self, grad):
        return (MaxPool2dGrad.apply(grad, Tensor(self.indices, self.device), shape=self.source),)


class MaxPool2dGrad(Function):
    """Gradients added up at the places that won"""

    saves_inputs = False

    def forward(self, grad, indices, shape):
        self.indices = indices
        out = self.device.empty(shape, grad.dtype)
        self.device.kernels.max_pool2d_backward(grad, indices, out)
        return out

    def backward(self, grad):
        return MaxPool2dGather.apply(grad, Tensor(self.indices, self.device)), None


class MaxPool2dGather(Function):
    """Elements read at the places that won: the adjoint of MaxPool2dGrad"""

    saves_inputs = False

    def forward(self, x, indices):
        self.source, self.indices = x.shape, indices
        out = self.device.empty(indices.shape, x.dtype)
        self.device.kernels.max_pool2d_gather(x, indices, out)
        return out

    def backward(self, grad):
        return MaxPool2dGrad.apply(grad, Tensor(self.indices, self.device), shape=self.source), None


class AvgPool2d(Function):
    """y = the mean of each window"""

    saves_inputs = False

    def forward(self, x, shape, window):
        self.source, self.window = x.shape, window
        out = self.device.empty(shape, x.dtype)
        self.device.kernels.avg_pool2d_forward(x, out, *window)
        return out

    def backward(self, grad):
        return (AvgPool2dGrad.apply(grad, shape=self.source, window=self.window),)


class AvgPool2dGrad(Function):
    """Each gradient spread evenly over its window"""

    saves_inputs = False

    def forward(self, grad, shape, window):
        self.source, self.window = grad.shape, window
        out = self.device.empty(shape, grad.dtype)
        self.device.kernels.avg_pool2d_backward(grad, out, *window)
        return out

    def backward(self, grad):
        return (AvgPool2d.apply(grad, shape=self.source, window=self.window),)


class AdaptiveAvgPool2d(Function):
    """y = means over windows that divide the image as evenly as possible"""

    saves_inputs = False

    def forward(self, x, shape):
        self.source = x.shape
        out = self.device.empty(shape, x.dtype)
        self.device.kernels.adaptive_avg_pool2d_forward(x, out)
        return out

    def backward(self, grad):
        return (AdaptiveAvgPool2dGrad.apply(grad, shape=self.source),)


class AdaptiveAvgPool2dGrad(Function):
    """Each gradient spread evenly over its window"""

    saves_inputs = False

    def forward(self, grad, shape):
        self.source = grad.shape
        out = self.device.empty(shape, grad.dtype)
        self.device.kernels.adaptive_avg_pool2d_backward(grad, out)
        return out

    def backward(self, grad):
        return (AdaptiveAvgPool2d.apply(grad, shape=self.source),)


def _images(op, function, x, *arguments):
    """Apply a function of (N, C, H, W) to that or to one image (C, H, W)."""
    check_float(op, x)
    if x.ndim not in (3, 4):
        raise ValueError(f"{op}: expected an input of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    if 0 in x.shape[-2:]:
        raise ValueError(f"{op}: expected an image with at least one pixel, got shape {x.shape}")
    if x.ndim == 4:
        return function(x, *arguments)
    out = function(reshape(x, (1, *x.shape)), *arguments)
    return reshape(out, out.shape[1:])


def _out_size(op, size, kernel, stride, padding, dilation, ceil_mode):
    """The number of windows along one dimension (torch's rule: none starts beyond the image and its front padding)."""
    if padding * 2 > kernel:
        raise ValueError(f"{op}: expected padding of at most half the kernel size {kernel}, got {padding}")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if count < 1:
        raise ValueError(f"{op}: a kernel of {kernel} (dilation {dilation}) is larger than the padded input ({size})")
    return count


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Largest element of each window.

    Parameters
    ----------
    x : Tensor of shape (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, dilation : int or pair
        `stride` is the kernel size if left out; padding counts as minus infinity.
    ceil_mode : bool
        Keep windows that hang over the edge.
    """
    kernel = pair("max_pool2d", "kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair("max_pool2d", "stride", stride, 1)
    padding, dilation = pair("max_pool2d", "padding", padding, 0), pair("max_pool2d", "dilation", dilation, 1)

    def run(x):
        sizes = [_out_size("max_pool2d", x.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode)
                 for i in range(2)]
        return MaxPool2d.apply(x, shape=(*x.shape[:2], *sizes), window=(*kernel, *stride, *padding, *dilation))

    return _images("max_pool2d", run, x)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean of each window.

    Parameters
    ----------
    x : Tensor of shape (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding : int or pair
        `stride` is the kernel size if left out.
    ceil_mode : bool
        Keep windows that hang over the edge.
    count_include_pad : bool
        Whether padding counts in the divisor.
    """
    kernel = pair("avg_pool2d", "kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair("avg_pool2d", "stride", stride, 1)
    padding = pair("avg_pool2d", "padding", padding, 0)

    def run(x):
        sizes = [_out_size("avg_pool2d", x.shape[2 + i], kernel[i], stride[i], padding[i], 1, ceil_mode)
                 for i in range(2)]
        shape = (*x.shape[:2], *sizes)
        if sizes == [1, 1] and kernel == x.shape[2:] and padding == (0, 0):  # the whole image
            return AdaptiveAvgPool2d.apply(x, shape=shape)
        return AvgPool2d.apply(x, shape=shape, window=(*kernel, *stride, *padding, int(count_include_pad)))

    return _images("avg_pool2d", run, x)


def adaptive_avg_pool2d(x, output_size):
    """Means over ``output_size`` windows that divide the image as evenly as possible.

    Parameters
    ----------
    x : Tensor of shape (N, C, H, W) or (C, H, W)
    output_size : int or pair of int or None
        None keeps that extent.
    """
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(sizes) != 2:
        raise ValueError(f"adaptive_avg_pool2d: expected output_size to be an int or a pair, got {output_size!r}")

    def run(x):
        target = [extent if size is None else size for size, extent in zip(sizes, x.shape[2:], strict=True)]
        target = pair("adaptive_avg_pool2d", "output_size", target, 1)
        (height, width), (rows, columns) = x.shape[2:], target
        if (rows, columns) != (1, 1) and height % rows == 0 and width % columns == 0:  # all windows of one size
            kernel = height // rows, width // columns
            return AvgPool2d.apply(x, shape=(*x.shape[:2], rows, columns), window=(*kernel, *kernel, 0, 0, 1))
        return AdaptiveAvgPool2d.apply(x, shape=(*x.shape[:2], rows, columns))

    return _images("adaptive_avg_pool2d", run, x)
