"""Convolution over images."""

from minigrad import functional as F
from minigrad.layers.init import weight_and_bias_
from minigrad.layers.linear import empty_parameter
from minigrad.layers.module import Module, check_input, check_sizes
from minigrad.ops.conv import pair

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Conv2d(Module):
    """2-D convolution, (N, in_channels, H, W) to (N, out_channels, OH, OW).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or pair of int
    padding : int, pair of int, "same" or "valid"
        Around the image; "same" keeps its size (stride 1 only).
    groups : int
        Channels are split into this many groups that do not see each other.
    bias : bool
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What stands in the padding.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, in_channels / groups, KH, KW)
    bias : Parameter of shape (out_channels,), or None
        Both start from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in = in_channels / groups * KH * KW.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
                 padding_mode="zeros", device=None, dtype=None):
        check_sizes(self, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: expected groups to divide in_channels ({in_channels}) and out_channels ({out_channels}), "
                f"got {groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d", "stride", stride, 1)
        self.dilation = pair("Conv2d", "dilation", dilation, 1)
        self.padding = self._checked_padding(padding)
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"Conv2d: expected padding_mode to be one of {PADDING_MODES}, got {padding_mode!r}")
        self.padding_mode = padding_mode
        self.weight = empty_parameter((out_channels, in_channels // groups, *self.kernel_size), device, dtype)
        self.bias = empty_parameter((out_channels,), device, dtype) if bias else None
        self.reset_parameters()

    def _checked_padding(self, padding):
        if not isinstance(padding, str):
            return pair("Conv2d", "padding", padding, 0)
        if padding not in ("same", "valid"):
            raise ValueError(f"Conv2d: expected padding to be 'same', 'valid', an int or a pair, got {padding!r}")
        if padding == "same" and self.stride != (1, 1):
            raise ValueError(f"Conv2d: padding='same' needs stride 1, got {self.stride}")
        return padding

    def reset_parameters(self):
        """Draw the initial values anew."""
        weight_and_bias_(self.weight, self.bias)

    def forward(self, x):
        check_input(self, self._fits, f"(N, {self.in_channels}, H, W)", x)
        padding = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            x, padding = F.pad(x, self._explicit_padding(), mode=self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _fits(self, shape):
        return len(shape) in (3, 4) and shape[-3] == self.in_channels

    def _explicit_padding(self):
        """``(left, right, top, bottom)``"""
        if self.padding != "same":
            return [p for p in reversed(self.padding) for _ in range(2)]
        totals = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        return [part for total in reversed(totals) for part in (total // 2, total - total // 2)]

    def extra_repr(self):
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        usual = {"padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        parts += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join(parts + (["bias=False"] if self.bias is None else []))
