"""Ops without a kernel or a gradient of their own: a line or two of other ops."""

import math

import numpy as np

from minigrad.dtypes import int64
from minigrad.ops.activation import tanh
from minigrad.ops.common import (
    as_float,
    as_shape,
    check_float,
    check_one_dtype,
    check_tensor,
    normalize_dim,
    normalize_dims,
    operands,
    product,
)
from minigrad.ops.elementwise import abs, add, clip, eq, exp, le, logical_and, logical_or, lt, mul, ne, where
from minigrad.ops.indexing import getitem
from minigrad.ops.norm import layer_norm
from minigrad.ops.reduction import RootOfSum, max, sum
from minigrad.ops.shape import expand, reshape, split, unsqueeze
from minigrad.tensor import Tensor


def square(x):
    """``x * x``"""
    return mul(check_tensor("square", x), x)


def masked_fill(x, mask, value):
    """The number `value` where the bool tensor `mask` holds, x elsewhere, broadcast."""
    check_tensor("masked_fill", x)
    return where(check_tensor("masked_fill", mask, "mask"), value, x)


def elu(x, alpha=1.0):
    """Exponential linear unit: x where it is positive, ``alpha * (exp(x) - 1)`` elsewhere (arXiv 1511.07289)."""
    x = as_float("elu", x)
    below = clip(x, max=0.0)  # exp of a large x would overflow, unused
    exp_less_one = tanh(0.5 * below) * (exp(below) + 1.0)  # exp(x) - 1 as written has no digits left near 0
    return where(x > 0.0, x, alpha * exp_less_one)


def chunk(x, chunks, dim=0):
    """The tensor cut along a dimension into at most `chunks` parts of one extent; the last may be smaller."""
    check_tensor("chunk", x)
    if not isinstance(chunks, int) or chunks < 1:
        raise ValueError(f"chunk: expected the number of chunks as an int >= 1, got {chunks!r}")
    dim = normalize_dim("chunk", dim, x.ndim)
    extent = x.shape[dim] if x.shape else 0
    return split(x, -(-extent // chunks) or 1, dim)


def unflatten(x, dim, sizes):
    """One dimension as several, of the extents `sizes`; one of them may be -1 for what is left."""
    check_tensor("unflatten", x)
    dim, sizes = normalize_dim("unflatten", dim, x.ndim), as_shape("unflatten", (sizes,))
    extent = x.shape[dim] if x.shape else 1
    known = product([e for e in sizes if e != -1])
    whole = known != 0 and extent % known == 0 if -1 in sizes else known == extent
    if not sizes or sizes.count(-1) > 1 or min([e for e in sizes if e != -1], default=0) < 0 or not whole:
        raise ValueError(f"unflatten: expected sizes whose product is the extent {extent} of dim {dim}, got {sizes}")
    return reshape(x, x.shape[:dim] + tuple([extent // known if e == -1 else e for e in sizes]) + x.shape[dim + 1 :])


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """Group normalization (Wu and He, arXiv 1803.08494): over the channels of a group and all places of an example.

    Parameters
    ----------
    x : Tensor of shape (N, C, ...)
    num_groups : int
        A divisor of C.
    weight, bias : Tensor of shape (C,), optional
    eps : float
        Added to the (biased) variance.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the groups do not divide the channels.
    """
    op = "group_norm"
    check_float(op, x)
    channels = x.shape[1] if x.ndim > 1 else 0
    if not isinstance(num_groups, int) or num_groups < 1 or channels < 1 or channels % num_groups:
        raise ValueError(f"{op}: expected an input of shape (N, C, ...) with channels that num_groups divides, got "
                         f"shape {x.shape} and num_groups {num_groups!r}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and check_tensor(op, parameter, name).shape != (channels,):
            raise ValueError(f"{op}: expected {name} of shape {(channels,)}, got {parameter.shape}")
    check_one_dtype(op, x, weight=weight, bias=bias)
    width = product(x.shape[1:]) // num_groups
    out = reshape(layer_norm(reshape(x, (x.shape[0], num_groups, width)), width, eps=eps), x.shape)
    wide = (channels,) + (1,) * (x.ndim - 2)
    out = out if weight is None else mul(out, reshape(weight, wide))
    return out if bias is None else add(out, reshape(bias, wide))


def unbind(x, dim=0):
    """The slices along a dimension, as a tuple; each has one dimension less."""
    check_tensor("unbind", x)
    if not x.shape:
        raise ValueError("unbind: expected a tensor with at least one dimension, got a 0-d one")
    dim = normalize_dim("unbind", dim, x.ndim)
    if not x.shape[dim]:
        return ()
    return tuple([reshape(part, x.shape[:dim] + x.shape[dim + 1 :]) for part in split(x, 1, dim)])


def one_hot(x, num_classes):
    """1 at the place that the class index names, 0 elsewhere, along a new last dimension; int64.

    Parameters
    ----------
    x : Tensor of int64
        Class indices, each from 0 to ``num_classes - 1``; another one gives zeros only.
    num_classes : int
        Has to be given: to find the largest index a recorded step would have to read it.
    """
    check_tensor("one_hot", x)
    if x.dtype != int64:
        raise TypeError(f"one_hot: expected class indices of dtype int64, got {x.dtype}")
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"one_hot: expected num_classes as an int >= 1, got {num_classes!r}")
    every = Tensor(x.device.from_numpy(np.arange(num_classes)), x.device)
    return eq(unsqueeze(x, -1), every).long()


def isnan(x):
    """True where an element is not a number."""
    return ne(check_tensor("isnan", x), x)


def isinf(x):
    """True where an element is infinity or minus infinity."""
    return eq(abs(as_float("isinf", x)), math.inf)


def isfinite(x):
    """True where an element is neither infinite nor NaN."""
    return lt(abs(as_float("isfinite", x)), math.inf)


def isclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    """True where ``|a - b| <= atol + rtol * |b|``, and where both are the same infinity, broadcast.

    Parameters
    ----------
    a, b : Tensor or number
    rtol, atol : float
    equal_nan : bool
        Whether NaN is close to NaN.
    """
    a, b = [as_float("isclose", x) if isinstance(x, Tensor) else float(x) for x in operands("isclose", a, b)]
    size = abs(b) if isinstance(b, Tensor) else math.fabs(b)
    distance = abs(a - b)  # infinite or NaN where only one is finite, and then no tolerance helps
    close = logical_or(eq(a, b), logical_and(isfinite(distance), le(distance, atol + rtol * size)))
    return logical_or(close, logical_and(ne(a, a), ne(b, b))) if equal_nan else close


def flip(x, dims):
    """The elements in reverse order along a dimension, or along several."""
    check_tensor("flip", x)
    dims = normalize_dims("flip", dims, x.ndim)
    return getitem(x, tuple([slice(None, None, -1 if d in dims else 1) for d in range(x.ndim)]))


def tile(x, dims):
    """The tensor side by side, `dims` many times along its last dimensions; more numbers add dimensions in front.

    Parameters
    ----------
    x : Tensor
    dims : int or sequence of int
        How often for each dimension; those in front of them once.
    """
    check_tensor("tile", x)
    times = as_shape("tile", (dims,))
    if any([n < 0 for n in times]):
        raise ValueError(f"tile: expected numbers of at least 0, got {times}")
    shape = (1,) * (len(times) - x.ndim) + x.shape
    times = (1,) * (x.ndim - len(times)) + times
    pairs = list(zip(times, shape, strict=True))
    wide = expand(reshape(x, [e for _, extent in pairs for e in (1, extent)]), [e for pair in pairs for e in pair])
    return reshape(wide, tuple([n * extent for n, extent in pairs]))


def repeat(x, *times):
    """What `Tensor.repeat` is: `tile` that wants a number for every dimension. As a function, NumPy's is another."""
    times = as_shape("repeat", times)
    if len(times) < x.ndim:
        raise ValueError(f"repeat: expected a number of times for each of the {x.ndim} dimensions, got {times}")
    return tile(x, times)


def vector_norm(x, ord=2, dim=None, keepdim=False):
    """The length of vectors: over a dimension, several, or all (None); as a method `Tensor.norm`.

    Parameters
    ----------
    x : Tensor of float32 or float64
    ord : {2, 1, math.inf}
        The root of the sum of squares, the sum of absolute values, or the largest of these. The gradient at 0 is 0.
    dim : int, sequence of int or None
    keepdim : bool
        Whether the reduced dimensions stay, with extent 1.

    Raises
    ------
    ValueError
        For another ord, or the largest of no elements.
    """
    check_float("vector_norm", x)
    if ord == 2:
        return RootOfSum.apply_one(sum(mul(x, x), dim, keepdim))
    if ord == 1:
        return sum(abs(x), dim, keepdim)
    if ord != math.inf:
        raise ValueError(f"vector_norm: expected ord to be 1, 2 or math.inf, got {ord!r}")
    if product([x.shape[d] for d in normalize_dims("vector_norm", dim, x.ndim)]) == 0:
        raise ValueError(f"vector_norm: expected at least one element for ord inf, got shape {x.shape} over dim {dim}")
    return max(abs(x), dim, keepdim)
