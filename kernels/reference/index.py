"""Strided views made contiguous, and rows picked by number."""

import numpy as np


def _view(array, shape, offset, strides):
    return np.lib.stride_tricks.as_strided(array[offset:], shape, [stride * array.itemsize for stride in strides])


def strided_copy(x, out, offset, s0, s1, s2, s3, s4):
    """out[i, j, k, l, m] = x[offset + i s0 + j s1 + k s2 + l s3 + m s4] (x is 1-D); strides may be 0 or negative."""
    if out.size:
        out[...] = _view(x, out.shape, offset, (s0, s1, s2, s3, s4))


def strided_scatter(x, out, offset, s0, s1, s2, s3, s4):
    """In place: out[offset + i s0 + j s1 + k s2 + l s3 + m s4] (1-D) = x[i, j, k, l, m]; the targets are distinct."""
    if x.size:
        _view(out, x.shape, offset, (s0, s1, s2, s3, s4))[...] = x


def take(x, indices, out):
    """out (n, D) = the rows `indices` (int64, n) of x (R, D)."""
    out[...] = x[indices]


def take_backward(grad, indices, out):
    """out (R, D) = 0, then out[indices[i]] += grad[i] in order of i."""
    out[...] = 0
    with np.errstate(all="ignore"):
        np.add.at(out, indices, grad)
