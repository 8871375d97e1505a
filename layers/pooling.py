"""Pooling over windows of an image."""

import numpy as np

from minigrad import functional as F
from minigrad.creation import tensor
from minigrad.layers.module import Module, check_input
from minigrad.ops.conv import pair


class _Pool(Module):
    """What the pooling layers share: the check of the input."""

    def _check(self, x):
        check_input(self, lambda shape: len(shape) in (3, 4), "(N, C, H, W) or (C, H, W)", x)


class MaxPool2d(_Pool):
    """Largest element of each window, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or pair of int
        `stride` is the kernel size if left out; padding counts as minus infinity.
    return_indices : bool
        Only False is accepted: there is no unpooling that would use them.
    ceil_mode : bool
        Keep windows that hang over the edge.
    """

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
        if return_indices:
            raise ValueError("MaxPool2d: expected return_indices=False, since there is no unpooling, got True")
        pair("MaxPool2d", "kernel_size", kernel_size, 1)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x):
        self._check(x)
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self):
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class AvgPool2d(_Pool):
    """Mean of each window, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    kernel_size, stride, padding : int or pair of int
        `stride` is the kernel size if left out.
    ceil_mode : bool
        Keep windows that hang over the edge.
    count_include_pad : bool
        Whether padding counts in the divisor.
    divisor_override : int, optional
        Divide each window's sum by this instead of by its size.
    """

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
                 divisor_override=None):
        pair("AvgPool2d", "kernel_size", kernel_size, 1)
        if divisor_override is not None and divisor_override == 0:
            raise ValueError("AvgPool2d: expected a divisor_override other than 0")
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, x):
        self._check(x)
        if self.divisor_override is None:
            return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        means = F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, True)
        sizes = self._window_sizes(x.shape[-2:], means.shape[-2:]) / self.divisor_override
        return means * tensor(sizes, x.dtype, x.device)

    def _window_sizes(self, image, out):
        """How many elements each window's mean was divided by, padding included, of shape (OH, OW)."""
        extents = []
        for i in range(2):
            kernel, stride, padding = [
                pair("AvgPool2d", name, getattr(self, name), 0)[i] for name in ("kernel_size", "stride", "padding")
            ]
            start = np.arange(out[i]) * stride - padding
            extents.append(np.minimum(start + kernel, image[i] + padding) - start)
        return np.outer(*extents)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(_Pool):
    """Means over windows that divide the image as evenly as possible, ``(N, C, H, W)`` to ``(N, C, *output_size)``.

    Parameters
    ----------
    output_size : int or pair of int or None
        None keeps that extent.
    """

    def __init__(self, output_size):
        self.output_size = output_size

    def forward(self, x):
        self._check(x)
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self):
        return f"output_size={self.output_size}"
