"""What the ops share: operands brought to one type, broadcasting, axes, strided copies."""

import operator
from functools import lru_cache

import numpy as np

from minigrad.dtypes import float32, is_float, promote
from minigrad.tensor import Tensor

NUMBER = (int, float)


def check_tensor(op, x, argument="input"):
    """Raise unless `x` is a Tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: expected {argument} to be a Tensor, got {type(x).__name__}")
    return x


def check_float(op, x, argument="input"):
    """Raise unless `x` is a tensor of floats."""
    check_tensor(op, x, argument)
    if not is_float(x.dtype):
        raise TypeError(f"{op}: expected {argument} to be float32 or float64, got {x.dtype}")
    return x


def check_one_dtype(op, x, **parameters):
    """Raise unless every parameter (None is left out) has the dtype of the input `x`."""
    for name, parameter in parameters.items():
        if parameter is not None and check_tensor(op, parameter, name).dtype != x.dtype:
            raise TypeError(f"{op}: expected {name} of the input's dtype {x.dtype}, got {parameter.dtype}")


def as_float(op, x):
    """A tensor of floats: int64 and bool become float32."""
    check_tensor(op, x)
    return x if is_float(x.dtype) else x.float()


def operands(op, a, b):
    """Two operands with one dtype. Numbers become Python numbers; an int64 tensor beside a float becomes float32."""
    if isinstance(a, Tensor):
        if isinstance(b, Tensor):
            if a.data.dtype is b.data.dtype:
                return a, b
            dtype = promote(a.dtype, b.dtype)
            return a.to(dtype), b.to(dtype)
        if isinstance(b, (int, float, np.number, np.bool_)):
            return _for_number(a, b)
    elif isinstance(b, Tensor) and isinstance(a, (int, float, np.number, np.bool_)):
        return _for_number(b, a)[::-1]
    wrong = b if isinstance(a, Tensor) else a
    raise TypeError(
        f"{op}: expected tensors or numbers, got {type(wrong).__name__}; make it one with minigrad.tensor(...)"
    )


def _for_number(x, number):
    if isinstance(number, np.generic):
        number = number.item()
    kind = x.data.dtype.kind
    if kind == "f" or (kind == "i" and not isinstance(number, float)) or isinstance(number, bool):
        return x, number
    return x.to(float32) if isinstance(number, float) else x.long(), number


# -- broadcasting ------------------------------------------------------------------------------------------------


@lru_cache(4096)
def broadcast_shapes(op, *shapes):
    """The shape that NumPy's rules give for operands of these shapes.

    Raises
    ------
    ValueError
        If two extents differ and neither is 1.
    """
    ndim = max(map(len, shapes))
    out = [1] * ndim
    for shape in shapes:
        for i, extent in enumerate(shape, ndim - len(shape)):
            if extent != 1 and out[i] != extent:
                if out[i] != 1:
                    raise ValueError(f"{op}: shapes {' and '.join(map(str, shapes))} cannot be broadcast together")
                out[i] = extent
    return tuple(out)


@lru_cache(4096)
def broadcast_plan(op, *shapes):
    """How a broadcasting kernel should see its operands.

    Neighbouring dimensions that are broadcast alike are merged; a kernel takes what is left as 3-D.

    Returns
    -------
    out_shape : tuple
    views : tuple of tuples or None
        The 3-D shape of each operand, then of the output; None if more than three groups are left.
    """
    out = broadcast_shapes(op, *shapes)
    ndim = len(out)
    padded = [(1,) * (ndim - len(s)) + s for s in shapes]
    groups = []  # (pattern, extent)
    for i, extent in enumerate(out):
        if extent == 1:
            continue
        pattern = tuple([p[i] != 1 for p in padded])
        if groups and groups[-1][0] == pattern:
            groups[-1] = pattern, groups[-1][1] * extent
        else:
            groups.append((pattern, extent))
    if len(groups) > 3:
        return out, None
    groups = [((True,) * len(shapes), 1)] * (3 - len(groups)) + groups
    views = [tuple([extent if p[k] else 1 for p, extent in groups]) for k in range(len(shapes))]
    return out, (*views, tuple([extent for _, extent in groups]))


def elementwise(fn, kernel, dtype, *arrays):
    """Run a broadcasting kernel over arrays and Python numbers; returns the output array of `dtype`."""
    device = fn.device
    if any([isinstance(a, NUMBER) for a in arrays]):
        of = next(a for a in arrays if not isinstance(a, NUMBER)).dtype
        arrays = [device.from_numpy(np.array(a, of)) if isinstance(a, NUMBER) else a for a in arrays]
    shape, views = broadcast_plan(fn.name, *[a.shape for a in arrays])
    out = device.empty(shape, dtype)
    if views is None:
        kernel(*[expand_array(device, a, shape).ravel() for a in arrays], out.ravel())
    else:
        kernel(*[a.reshape(v) for a, v in zip(arrays, views[:-1], strict=True)], out.reshape(views[-1]))
    return out


def elementwise_pair(fn, kernel, a, b, dtype=None):
    """`elementwise` of two operands, with short ways for the frequent cases: one shape, or a number."""
    if type(a) is type(b):  # two arrays
        shape = a.shape
        if shape != b.shape:
            shape, views = broadcast_plan(fn.name, shape, b.shape)
            if views is None:
                return elementwise(fn, kernel, dtype or a.dtype, a, b)
            out = fn.device.empty(shape, dtype or a.dtype)
            kernel(a.reshape(views[0]), b.reshape(views[1]), out.reshape(views[2]))
            return out
    elif isinstance(a, NUMBER):
        a, shape = fn.device.from_numpy(np.array((a,), b.dtype)), b.shape
    else:
        b, shape = fn.device.from_numpy(np.array((b,), a.dtype)), a.shape
    out = fn.device.empty(shape, dtype or a.dtype)
    if len(shape) == 1:  # flat already: 0.2 us less
        kernel(a, b, out)
    else:
        kernel(a.ravel(), b.ravel(), out.ravel())
    return out


def flat(array):
    """An array in one dimension, as kernels take it: itself if it has one already, without a new view."""
    return array if array.ndim == 1 else array.ravel()


def map_array(fn, kernel, x, *numbers):
    """Run an elementwise kernel of one array."""
    shape = x.shape
    out = fn.device.empty(shape, x.dtype)
    if len(shape) == 1:
        kernel(x, out, *numbers)
    else:
        kernel(x.ravel(), out.ravel(), *numbers)
    return out


def zip_arrays(fn, kernel, x, y, *numbers):
    """Run an elementwise kernel of two arrays of one shape (a fused gradient, say)."""
    shape = x.shape
    out = fn.device.empty(shape, x.dtype)
    if len(shape) == 1:
        kernel(x, y, out, *numbers)
    else:
        kernel(x.ravel(), y.ravel(), out.ravel(), *numbers)
    return out


# -- axes --------------------------------------------------------------------------------------------------------


def normalize_dim(op, dim, ndim):
    """A dimension counted from the front.

    Raises
    ------
    IndexError
        If the tensor has no such dimension.
    """
    try:
        dim = operator.index(dim)
    except TypeError:
        raise TypeError(f"{op}: expected a dimension as an int, got {type(dim).__name__}") from None
    if not -ndim <= dim < ndim and not (ndim == 0 and dim in (0, -1)):
        raise IndexError(f"{op}: dimension {dim} is out of range for a tensor with {ndim} dimension(s)")
    return dim % ndim if ndim else 0


def normalize_dims(op, dim, ndim):
    """Several dimensions (an int, a sequence, or None for all) as an ascending tuple."""
    if dim is None:
        return tuple(range(ndim))
    if type(dim) is int and -ndim <= dim < ndim:  # the frequent case: 0.15 us instead of 0.8
        return (dim % ndim,)
    dims = [normalize_dim(op, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    if ndim == 0:
        return ()
    if len(set(dims)) != len(dims):
        raise ValueError(f"{op}: dimension given twice in {tuple(dim)}")
    return tuple(sorted(dims))


def product(extents):
    """The number of elements of a shape."""
    n = 1
    for extent in extents:
        n *= extent
    return n


def as_shape(op, shape):
    """A shape given as separate ints or as one sequence."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = shape[0]
    try:
        return tuple([operator.index(extent) for extent in shape])
    except TypeError:
        raise TypeError(f"{op}: expected the shape as ints, got {tuple(shape)}") from None


# -- strided copies ----------------------------------------------------------------------------------------------


def contiguous_strides(shape):
    """Row-major strides, in elements."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def _merge(shape, strides):
    """Drop extents of 1 and merge neighbours that one stride can walk: fewer dimensions, the same elements."""
    merged = []
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = merged[-1][0] * extent, stride
        else:
            merged.append((extent, stride))
    return merged


def _five(merged):
    padded = [(1, 0)] * (5 - len(merged)) + merged
    return tuple([extent for extent, _ in padded]), tuple([stride for _, stride in padded])


def strided_copy(device, x, shape, strides, offset=0):
    """A new array whose elements are ``x.flat[offset + sum(index * strides)]``."""
    out = device.empty(shape, x.dtype)
    if out.size:
        _copy(device.kernels.strided_copy, x.ravel(), out.ravel(), _merge(shape, strides), offset, into=False)
    return out


def strided_scatter(device, x, out, strides, offset=0):
    """Write the elements of `x` to ``out.flat[offset + sum(index * strides)]``, in place."""
    if x.size:
        _copy(device.kernels.strided_scatter, x.ravel(), out.ravel(), _merge(x.shape, strides), offset, into=True)


def _copy(kernel, x, out, merged, offset, into):
    """Call a strided kernel, once per leading index where more than five dimensions are left."""
    if len(merged) > 5:
        (extent, stride), rest = merged[0], merged[1:]
        dense = x if into else out
        block = dense.size // extent
        for i in range(extent):
            part = dense[i * block : (i + 1) * block]
            _copy(kernel, *((part, out) if into else (x, part)), rest, offset + i * stride, into)
        return
    shape, strides = _five(merged)
    if into:
        kernel(x.reshape(shape), out, offset, *strides)
    else:
        kernel(x, out.reshape(shape), offset, *strides)


def expand_array(device, x, shape):
    """An array broadcast to a larger shape, in memory of its own."""
    lead = len(shape) - len(x.shape)
    own = contiguous_strides(x.shape)
    strides = (0,) * lead + tuple([0 if e == 1 else s for e, s in zip(x.shape, own, strict=True)])
    return strided_copy(device, x, shape, strides)
