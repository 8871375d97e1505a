"""2-D convolution (cross-correlation, as in every deep-learning library) and its two gradients.

The three form a closed family: the gradient of each is made of the other two.
"""

from typing import NamedTuple

from minigrad.function import Function, apply_multiple
from minigrad.ops.common import check_float, check_one_dtype
from minigrad.ops.reduction import sum
from minigrad.ops.shape import reshape


class Geometry(NamedTuple):
    """How the window of a convolution moves. Padding below and to the right follows from the output's size."""

    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    groups: int


def _run(fn, kernel, inputs, shape, geometry, *more_outputs):
    """Run one of the three kernels into a new array of `shape`."""
    dtype = inputs[0].dtype
    out = fn.device.empty(shape, dtype)
    work = fn.device.workspace(kernel, dtype, *inputs, *shape, *geometry)
    getattr(fn.device.kernels, kernel)(*inputs, out, *more_outputs, work, *geometry)
    return out


class Conv2d(Function):
    """y[n,o,i,j] = b[o] + sum over c,p,q of x[n,c,si+dp,sj+dq] w[o,c,p,q]"""

    def forward(self, x, weight, bias, shape, geometry):
        self.geometry = geometry
        if bias is None:
            bias = self.device.empty((0,), x.dtype)
        return _run(self, "conv2d_forward", (x, weight, bias), shape, geometry)

    def backward(self, grad):
        x, weight, bias = self.inputs
        needs = self.needs_input_grad
        grad_x = Conv2dGradInput.apply(grad, weight, shape=x.shape, geometry=self.geometry) if needs[0] else None
        if needs[1] and needs[2]:
            both = apply_multiple(Conv2dGradParameters, grad, x, shape=weight.shape, geometry=self.geometry)
            return grad_x, *both
        return (
            grad_x,
            Conv2dGradWeight.apply(grad, x, shape=weight.shape, geometry=self.geometry) if needs[1] else None,
            sum(grad, (0, 2, 3)) if needs[2] else None,
        )


class Conv2dGradInput(Function):
    """dL/dx from dL/dy and w: linear in both"""

    def forward(self, grad, weight, shape, geometry):
        self.geometry = geometry
        return _run(self, "conv2d_grad_input", (grad, weight), shape, geometry)

    def backward(self, grad_x):
        grad, weight = self.inputs
        needs = self.needs_input_grad
        return (
            Conv2d.apply(grad_x, weight, None, shape=grad.shape, geometry=self.geometry) if needs[0] else None,
            Conv2dGradWeight.apply(grad, grad_x, shape=weight.shape, geometry=self.geometry) if needs[1] else None,
        )


class Conv2dGradWeight(Function):
    """dL/dw from dL/dy and x: linear in both"""

    def forward(self, grad, x, shape, geometry):
        self.geometry = geometry
        return _run(self, "conv2d_grad_weight", (grad, x), shape, geometry, self.device.empty((0,), x.dtype))

    def backward(self, grad_w):
        grad, x = self.inputs
        needs = self.needs_input_grad
        return (
            Conv2d.apply(x, grad_w, None, shape=grad.shape, geometry=self.geometry) if needs[0] else None,
            Conv2dGradInput.apply(grad, grad_w, shape=x.shape, geometry=self.geometry) if needs[1] else None,
        )


class Conv2dGradParameters(Function):
    """dL/dw and dL/db from dL/dy and x: one pass over dL/dy for both"""

    def forward(self, grad, x, shape, geometry):
        self.shape, self.geometry = shape, geometry
        grad_bias = self.device.empty(grad.shape[1:2], x.dtype)
        return _run(self, "conv2d_grad_weight", (grad, x), shape, geometry, grad_bias), grad_bias

    def compose(self, grad, x):
        return Conv2dGradWeight.apply(grad, x, shape=self.shape, geometry=self.geometry), sum(grad, (0, 2, 3))


def pair(op, argument, value, smallest):
    """An int or a pair of ints as a pair, each at least `smallest`."""
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else None
    if values is None or len(values) != 2 or not all(isinstance(v, int) and v >= smallest for v in values):
        raise ValueError(f"{op}: expected {argument} to be an int >= {smallest} or a pair of them, got {value!r}")
    return values


def _padding(op, padding, kernel, dilation, stride):
    """Padding as ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"{op}: padding='same' needs stride 1, got {stride}")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple([(total // 2, total - total // 2) for total in totals])
    if isinstance(padding, str):
        raise ValueError(f"{op}: expected padding to be 'same', 'valid', an int or a pair, got {padding!r}")
    return tuple([(p, p) for p in pair(op, "padding", padding, 0)])


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """2-D convolution.

    Parameters
    ----------
    x : Tensor of shape (N, C, H, W) or (C, H, W)
    weight : Tensor of shape (O, C / groups, KH, KW)
    bias : Tensor of shape (O,), optional
    stride, dilation : int or pair
    padding : int, pair, "same" or "valid"
        Zeros around the image; "same" keeps its size (stride 1 only; an odd zero goes below and to the right).
    groups : int
        The channels are split into this many groups that do not see each other.

    Returns
    -------
    Tensor of shape (N, O, OH, OW)
        With ``OH = (H + padding - dilation * (KH - 1) - 1) // stride + 1``, padding being that of both sides.

    Raises
    ------
    ValueError
        If shapes, groups or sizes do not fit together.
    """
    check_float("conv2d", x)
    check_float("conv2d", weight, "weight")
    check_one_dtype("conv2d", x, weight=weight, bias=bias)
    if x.ndim == 3:
        return reshape(out := conv2d(reshape(x, (1, *x.shape)), weight, bias, stride, padding, dilation, groups),
                       out.shape[1:])
    if x.ndim != 4:
        raise ValueError(f"conv2d: expected an input of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    if weight.ndim != 4:
        raise ValueError(f"conv2d: expected weight of shape (O, C / groups, KH, KW), got {weight.shape}")
    out_channels, group_channels, *kernel = weight.shape
    if not isinstance(groups, int) or groups < 1 or out_channels % groups:
        raise ValueError(f"conv2d: expected groups to divide the {out_channels} output channels, got {groups}")
    if x.shape[1] != group_channels * groups:
        raise ValueError(
            f"conv2d: weight expects {group_channels * groups} input channels, got {x.shape[1]} (input shape {x.shape})"
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f"conv2d: expected bias of shape {(out_channels,)}, got {bias.shape}")
    stride, dilation = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    pads = _padding("conv2d", padding, kernel, dilation, stride)
    sizes = []
    for size, (before, after), k, d, s in zip(x.shape[2:], pads, kernel, dilation, stride, strict=True):
        room = size + before + after - d * (k - 1) - 1
        if room < 0 or k < 1:
            raise ValueError(
                f"conv2d: kernel of size {tuple(kernel)} and dilation {dilation} is larger than the padded input "
                f"(input shape {x.shape}, padding {padding!r})"
            )
        sizes.append(room // s + 1)
    geometry = Geometry(*stride, pads[0][0], pads[1][0], *dilation, groups)
    return Conv2d.apply(x, weight, bias, shape=(x.shape[0], out_channels, *sizes), geometry=geometry)
