"""Reductions of x (M, R, K) over R."""

import numpy as np


def _accumulator(x):
    return np.float64 if x.dtype.kind == "f" else x.dtype


def sum(x, out):
    """out (M, K) = the sum of x (M, R, K) over R; float or int64."""
    with np.errstate(all="ignore"):
        out[...] = x.sum(axis=1, dtype=_accumulator(x))


def mean(x, out):
    """out (M, K) = the mean of x (M, R, K) over R; NaN if R is 0."""
    with np.errstate(all="ignore"):
        out[...] = x.sum(axis=1, dtype=np.float64) / np.float64(x.shape[1])


def variance(x, mean, out, correction):
    """out (M, K) = Σ (x - mean)² / max(R - correction, 0)."""
    with np.errstate(all="ignore"):
        squares = (x.astype(np.float64) - mean[:, None, :]) ** 2
        out[...] = squares.sum(axis=1) / np.maximum(np.float64(x.shape[1] - correction), 0.0)


def max(x, out):
    """out (M, K) = the largest of x (M, R, K) over R, R > 0; NaN propagates. Float or int64."""
    out[...] = x.max(axis=1)


def min(x, out):
    """out (M, K) = the smallest of x (M, R, K) over R, R > 0; NaN propagates. Float or int64."""
    out[...] = x.min(axis=1)


def argmax(x, out):
    """out (M, K) int64 = the first index of the largest of x (M, R, K) over R; the first NaN wins."""
    out[...] = x.argmax(axis=1)


def argmin(x, out):
    """out (M, K) int64 = the first index of the smallest of x (M, R, K) over R; the first NaN wins."""
    out[...] = x.argmin(axis=1)


def sum_of_squares(x, out):
    """out (1,) = Σ x² of x 1-D."""
    with np.errstate(all="ignore"):
        out[0] = np.square(x.astype(np.float64)).sum()


def any(x, out):
    """out (M, K) = whether any of x (M, R, K) over R is True; bool."""
    out[...] = x.any(axis=1)


def all(x, out):
    """out (M, K) = whether all of x (M, R, K) over R are True; bool."""
    out[...] = x.all(axis=1)
