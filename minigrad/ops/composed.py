"""Ops without a kernel or a gradient of their own: a line or two of other ops."""

import numpy as np

from minigrad.dtypes import int64
from minigrad.ops.common import as_float, check_tensor, normalize_dim
from minigrad.ops.elementwise import clip, eq, exp, mul, where
from minigrad.ops.shape import reshape, split, unsqueeze
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
    return where(x > 0.0, x, alpha * (exp(clip(x, max=0.0)) - 1.0))  # exp of a large x would overflow, unused


def chunk(x, chunks, dim=0):
    """The tensor cut along a dimension into at most `chunks` parts of one extent; the last may be smaller."""
    check_tensor("chunk", x)
    if not isinstance(chunks, int) or chunks < 1:
        raise ValueError(f"chunk: expected the number of chunks as an int >= 1, got {chunks!r}")
    dim = normalize_dim("chunk", dim, x.ndim)
    extent = x.shape[dim] if x.shape else 0
    return split(x, max(1, -(-extent // chunks)), dim)


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
