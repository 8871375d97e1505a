"""Changes in place. They are never recorded, so they are refused where a gradient would be lost."""

import numpy as np

from minigrad import ops
from minigrad.modes import is_grad_enabled
from minigrad.ops.common import NUMBER, product, strided_scatter
from minigrad.ops.indexing import TakeGrad, parse_index
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


def augmented(name, op, x, other):
    """``x += other`` and the like: in place where nothing is recorded, else a new tensor under the old name.

    Raises
    ------
    RuntimeError
        For a recorded leaf: the name would no longer mean the tensor that gets the gradient.
    TypeError
        If the result has another dtype.
    """
    if is_grad_enabled() and (x.requires_grad or isinstance(other, Tensor) and other.requires_grad):
        if x.requires_grad and x.fn is None:
            _check(name, x)
        return op(x, other)
    result = op(x.detach(), other)
    if result.dtype != x.dtype:
        raise TypeError(f"{name}: expected a result of dtype {x.dtype} to be written in place, got {result.dtype}")
    return copy_(x, result)


def _set_masked(x, mask, value):
    """``x[mask] = value`` for a mask of the tensor's shape: one value for all places, or one for each."""
    if isinstance(value, Tensor) and value.data.size != 1:
        places = np.flatnonzero(mask.numpy())
        if value.shape != (places.size,):
            raise ValueError(f"setitem: expected a number or values of shape {(places.size,)}, got {value.shape}")
        indices = Tensor(x.device.from_numpy(places), x.device)
        rows = ops.reshape(value.detach().to(x.dtype), (places.size, 1))
        value = ops.reshape(TakeGrad.apply(rows, indices, shape=(x.data.size, 1)), x.shape)
    elif isinstance(value, Tensor):
        value = ops.reshape(value, ())
    chosen = ops.where(mask, _values("setitem", x, x.shape, value), x.detach())
    x.device.kernels.copy(chosen.data.ravel(), x.data.ravel())


def setitem(x, index, value):
    """``x[index] = value`` for ints, slices, None and ``...``; and for one mask of the tensor's shape."""
    _check("setitem", x)
    if isinstance(index, Tensor) and index.dtype == "bool" and index.shape == x.shape:
        _set_masked(x, index, value)
    else:
        offset, shape, strides, arrays = parse_index("setitem", index, x.shape)
        if arrays:
            raise TypeError("setitem: expected ints, slices or a mask of the tensor's shape, got an array of indices")
        values = _values("setitem", x, shape, value)
        if product(shape):
            strided_scatter(x.device, values.data, x.data, strides, offset)
    x.version[0] += 1
