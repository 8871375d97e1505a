"""Reductions of x (M, R, K) over R.

One launch where there are enough outputs for the GPU, two where there are few: the parts of an output are reduced by
blocks of their own, then their results. float32 is added up in float32, by every thread its own few elements in four
running sums, then in a tree: no sum is long.
"""

from minigrad.kernels.cuda.array import DeviceArray, np
from minigrad.kernels.cuda.memory import scratch
from minigrad.kernels.cuda.reduce_blocks import plan, wide
from minigrad.kernels.cuda.reducers import (
    argmax_of_places,
    argmax_of_values,
    argmin_of_places,
    argmin_of_values,
    largest,
    means,
    smallest,
    squares,
    squares_about,
    sums,
    truth_of_all,
    truth_of_any,
    variances,
)


def _reduce(kernels, x, centre, out, divisor):
    """Reduce by three pairs of kernels, (any x, x by four): an output in one go, parts of it, the parts' results."""
    whole, part, last = kernels
    rows, length, inner = x.shape
    if not out.size:
        return
    four = inner == 1 and length >= 128 and wide(x, length)
    step = 4 if four else 1
    p = plan(rows, length // step, inner)
    numbers = rows, length // step, inner, p.chunk, p.strips, divisor
    if p.parts == 1:
        whole[four][p.grid, p.block](x, centre, out, *numbers)
        return
    parts = scratch(rows * p.parts * inner, x.dtype)
    part[four][p.grid, p.block](x, centre, parts, *numbers)
    q = plan(rows, p.parts, inner, split=False)
    last[0][q.grid, q.block](parts, parts, out, rows, p.parts, inner, q.chunk, q.strips, divisor)


def sum(x, out):
    """out (M, K) = the sum of x (M, R, K) over R; float or int64."""
    _reduce((sums, sums, sums), x, x, out, 1)


def mean(x, out):
    """out (M, K) = the mean of x (M, R, K) over R; NaN if R is 0."""
    _reduce((means, sums, means), x, x, out, x.shape[1])


def variance(x, mean, out, correction):
    """out (M, K) = Σ (x - mean)² / max(R - correction, 0)."""
    divisor = x.shape[1] - correction
    _reduce((variances, squares_about, means), x, mean, out, divisor if divisor > 0 else 0)


def max(x, out):
    """out (M, K) = the largest of x (M, R, K) over R, R > 0; NaN propagates. Float or int64."""
    _reduce((largest, largest, largest), x, x, out, 1)


def min(x, out):
    """out (M, K) = the smallest of x (M, R, K) over R, R > 0; NaN propagates. Float or int64."""
    _reduce((smallest, smallest, smallest), x, x, out, 1)


def sum_of_squares(x, out):
    """out (1,) = Σ x² of x 1-D."""
    x = x.reshape(1, x.size, 1)
    _reduce((squares, squares, sums), x, x, out, 1)


def _find(of_values, of_places, x, out):
    """The same for kernels that find an index; a part's result is where in R it found the element."""
    rows, length, inner = x.shape
    if not out.size:
        return
    p = plan(rows, length, inner)
    places = scratch(rows * p.parts * inner if p.parts > 1 else 1, np.int32)
    numbers = length, rows, length, inner, p.chunk, p.strips
    if p.parts == 1:
        of_values[1][p.grid, p.block](x, places, out, *numbers)
        return
    of_values[0][p.grid, p.block](x, places, places, *numbers)
    q = plan(rows, p.parts, inner, split=False)
    of_places[q.grid, q.block](x, places, out, length, rows, p.parts, inner, q.chunk, q.strips)


def argmax(x, out):
    """out (M, K) int64 = the first index of the largest of x (M, R, K) over R; the first NaN wins."""
    _find(argmax_of_values, argmax_of_places, x, out)


def argmin(x, out):
    """out (M, K) int64 = the first index of the smallest of x (M, R, K) over R; the first NaN wins."""
    _find(argmin_of_values, argmin_of_places, x, out)


def _bytes(array):
    """A bool array as what it is in memory: Numba reads no bool through a pointer."""
    return DeviceArray(array.shape, np.dtype(np.uint8), array.memory, array.offset, array)


def any(x, out):
    """out (M, K) = whether any of x (M, R, K) over R is True; bool."""
    x = _bytes(x)
    _reduce((truth_of_any, truth_of_any, truth_of_any), x, x, _bytes(out), 1)


def all(x, out):
    """out (M, K) = whether all of x (M, R, K) over R are True; bool."""
    x = _bytes(x)
    _reduce((truth_of_all, truth_of_all, truth_of_all), x, x, _bytes(out), 1)
