"""Changes in place. They are never recorded, so they are refused where a gradient would be lost."""

import numpy as np

from minigrad import ops
from minigrad.modes import is_grad_enabled
from minigrad.ops.common import NUMBER, product, strided_scatter
from minigrad.ops.indexing import parse_index
from minigrad.tensor import Tensor


def _check(op, x):
    if x.requires_grad and is_grad_enabled():
        raise RuntimeError(
            f"{op}: changing a tensor that requires grad in place would not be recorded; "
            "do it inside minigrad.no_grad(), or use the op that returns a new tensor"
        )


def _values(op, x, shape, value):
    """What is to be written, as a tensor of the target's dtype and shape."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, NUMBER):
        return Tensor(x.device.full(shape, value, x.dtype), x.device)
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected a Tensor or a number, got {type(value).__name__}")
    if value.device is not x.device:
        raise ValueError(f"{op}: expected a tensor on {x.device}, got one on {value.device}")
    ends = zip(value.shape[::-1], shape[::-1], strict=False)
    if value.ndim > len(shape) or any([extent not in (1, wanted) for extent, wanted in ends]):
        raise ValueError(f"{op}: expected values of shape {shape} or one that broadcasts to it, got {value.shape}")
    return ops.expand(value.detach().to(x.dtype), shape)


def copy_(x, value):
    """Overwrite a tensor with the values of another, or with a number."""
    _check("copy_", x)
    values = _values("copy_", x, x.shape, value)
    x.device.kernels.copy(values.data.ravel(), x.data.ravel())
    x.version[0] += 1
    return x


def setitem(x, index, value):
    """``x[index] = value`` for ints, slices, None and ``...``; and for one mask of the tensor's shape."""
    _check("setitem", x)
    if isinstance(index, Tensor) and index.dtype == "bool" and index.shape == x.shape:
        chosen = ops.where(index, _values("setitem", x, x.shape, value), x.detach())
        x.device.kernels.copy(chosen.data.ravel(), x.data.ravel())
    else:
        offset, shape, strides, arrays = parse_index("setitem", index, x.shape)
        if arrays:
            raise TypeError("setitem: expected ints, slices or a mask of the tensor's shape, got an array of indices")
        values = _values("setitem", x, shape, value)
        if product(shape):
            strided_scatter(x.device, values.data, x.data, strides, offset)
    x.version[0] += 1
