"""logsumexp, softmax and log_softmax of x (M, R, K) over R, and their gradients from the output y.

Rows of neighbours (K = 1) go block by block through a tile that stays in the first-level cache: their maxima, then
exponentials, of short rows in one run over all of the block (a short row alone leaves most of a vector empty), then
their sums. Columns (K > 1) go side by side. Softmax computes each exponential once: (1000, 1000) over its rows took
0.60 ms instead of 0.85, over its columns 1.03 instead of 2.07; (100, 100, 100) over the last axis 0.69 instead of 1.50
(two threads).
"""

import numpy as np

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL_COSTLY
from minigrad.kernels.cpu.parallel import flat, merged, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduce_tiles import (
    COLUMN_VECTORS,
    MAX,
    SHORT,
    SUM,
    columns_tile,
    of_rows,
    row_tile,
    rows_tile,
)
from minigrad.kernels.cpu.simd import lanes_of
from minigrad.kernels.cpu.vector_math import exp, log, strict

TILE = 4096  # elements of a task that takes whole rows: 16 KiB of float32
MOST = 256  # rows of such a task
# Columns that a task takes side by side, at most. 64, a tile of maxima with AVX2, are too few of a row for memory to be
# read ahead: with them (100, 100, 100) took two Zen 3 cores 2.2 times as long, the gradient 1.6 times.
STRIP = 512
NARROW, FEW = 128, 4  # columns of a strip at least, where there are fewer tasks than that


@inline
def _strips(rows, inner):
    """Into how many strips of columns each of `rows` matrices is cut: few of them into more, for several threads."""
    return max((inner + STRIP - 1) // STRIP, min(FEW // max(1, rows), inner // NARROW))


@inline
def _strip(block, rows, inner):
    """The matrix and the columns of a task: (number of the matrix, first column, columns)."""
    strips = _strips(rows, inner)
    width = (inner + strips - 1) // strips
    start = block % strips * width
    return block // strips, start, min(width, inner - start)


@strict
def _larger(a, b):
    return b if (b > a) | (b != b) else a


@strict
def _finite(top):
    """The shift of logsumexp: the maximum, or 0 if that is infinite (the sum is then 0 or infinite by itself)."""
    return top if np.abs(top) < np.inf else type(top)(0)


@strict
def _log_probability(x, shift, total):
    return (x - shift) - total


_row_maximum, _row_sum, _column_maxima = row_tile(MAX), row_tile(SUM), columns_tile(MAX)
_maxima, _totals = of_rows(rows_tile(MAX), _row_maximum), of_rows(rows_tile(SUM), _row_sum)

LOGSUMEXP, SOFTMAX, LOG_SOFTMAX = range(3)


def normaliser(kind):
    """The body of the kernel of this kind: two functions (x, out), for K = 1 and for any K."""

    @inline
    def rows_task(block, x, out, shape, count):
        """Some rows of at most TILE elements."""
        rows, length = shape
        zero, one = x.dtype.type(0), x.dtype.type(1)
        tile, shift, total = scratch(zero, TILE), scratch(zero, MOST), scratch(zero, MOST)
        first, many = block * count, min(count, rows - block * count)
        _maxima(x, first * length, many, length, shift)
        for m in range(many):
            source, target = x[(first + m) * length : (first + m + 1) * length], tile[m * length : (m + 1) * length]
            top = _finite(shift[m]) if kind == LOGSUMEXP else shift[m]
            shift[m] = top
            if length > SHORT:
                for i in range(length):
                    target[i] = exp(source[i] - top)
            else:
                for i in range(length):
                    target[i] = source[i] - top
        if length <= SHORT:
            for i in range(many * length):
                tile[i] = exp(tile[i])
        _totals(tile, 0, many, length, total)
        for m in range(many):
            total[m] = one / total[m] if kind == SOFTMAX else log(total[m])
        for m in range(many):
            if kind == LOGSUMEXP:
                out[first + m] = shift[m] + total[m]
            else:
                top, last = shift[m], total[m]
                start, stop = (first + m) * length, (first + m + 1) * length
                source, power, target = x[start:stop], tile[m * length : (m + 1) * length], out[start:stop]
                for i in range(length):
                    target[i] = power[i] * last if kind == SOFTMAX else _log_probability(source[i], top, last)

    @inline
    def long_row(m, x, out, shape, count):
        """One row of more than TILE elements."""
        length = shape[1]
        row = x[m * length : (m + 1) * length]
        tile, result, total = scratch(x.dtype.type(0), TILE), scratch(x.dtype.type(0), 1), 0.0
        _row_maximum(x, m * length, length, result, 0)
        top = _finite(result[0]) if kind == LOGSUMEXP else result[0]
        for first in range(0, length, TILE):
            piece = row[first : min(first + TILE, length)]
            for i in range(piece.size):
                tile[i] = exp(piece[i] - top)
            _row_sum(tile, 0, piece.size, result, 0)
            total += np.float64(result[0])
            if kind == SOFTMAX:
                target = out[m * length + first : m * length + first + piece.size]
                for i in range(piece.size):
                    target[i] = tile[i]
        if kind == SOFTMAX:
            target, scale = out[m * length : (m + 1) * length], x.dtype.type(1.0 / total)
            for i in range(length):
                target[i] *= scale
        else:
            last = log(x.dtype.type(total))
            if kind == LOGSUMEXP:
                out[m] = top + last
            else:
                target = out[m * length : (m + 1) * length]
                for i in range(length):
                    target[i] = _log_probability(row[i], top, last)

    @inline
    def columns(block, x, out, shape, inner):
        rows, length = shape
        zero, one, wide = x.dtype.type(0), x.dtype.type(1), COLUMN_VECTORS * lanes_of(x)
        shift, total = scratch(zero, STRIP), scratch(zero, STRIP)
        m, start, width = _strip(block, rows, inner)
        first = m * length * inner + start
        if width >= wide:
            for begin in range(0, width, wide):
                k = min(begin, width - wide)
                _column_maxima(x, first + k, inner, length, x, 0, shift, k)
        else:
            for k in range(width):
                shift[k] = -np.inf
            for at in range(first, first + length * inner, inner):
                row = x[at : at + width]
                for k in range(width):
                    shift[k] = _larger(shift[k], row[k])
        for k in range(width):
            shift[k] = _finite(shift[k]) if kind == LOGSUMEXP else shift[k]
            total[k] = zero
        for at in range(first, first + length * inner, inner):
            row = x[at : at + width]
            if kind == SOFTMAX:
                target = out[at : at + width]
                for k in range(width):
                    power = exp(row[k] - shift[k])
                    target[k] = power
                    total[k] += power
            else:
                for k in range(width):
                    total[k] += exp(row[k] - shift[k])
        for k in range(width):
            total[k] = one / total[k] if kind == SOFTMAX else log(total[k])
        if kind == LOGSUMEXP:
            target = out[m * inner + start : m * inner + start + width]
            for k in range(width):
                target[k] = shift[k] + total[k]
        else:
            for at in range(first, first + length * inner, inner):
                row, target = x[at : at + width], out[at : at + width]
                if kind == SOFTMAX:
                    for k in range(width):
                        target[k] *= total[k]
                else:
                    for k in range(width):
                        target[k] = _log_probability(row[k], shift[k], total[k])

    @merged
    def of_rows(x, out):
        rows, length = x.shape[:2]
        arguments, parallel = (flat(x), flat(out), (rows, length)), x.size >= PARALLEL_COSTLY
        if length <= TILE:
            count = min(MOST, TILE // max(1, length))
            parallel_for(rows_task, (rows + count - 1) // count, parallel, (*arguments, count))
        else:
            parallel_for(long_row, rows, parallel, (*arguments, 1))

    @merged
    def of_columns(x, out):
        rows, length, inner = x.shape
        tasks = rows * _strips(rows, inner)
        parallel_for(columns, tasks, x.size >= PARALLEL_COSTLY, (flat(x), flat(out), (rows, length), inner))

    return of_rows, of_columns


logsumexp_of_rows, logsumexp_of_columns = normaliser(LOGSUMEXP)
_softmax_rows, _softmax_columns = normaliser(SOFTMAX)
_log_softmax_rows, _log_softmax_columns = normaliser(LOG_SOFTMAX)


@parallel_kernel
def logsumexp(x, out):
    if x.shape[2] == 1:
        logsumexp_of_rows(x, out)
    else:
        logsumexp_of_columns(x, out)


@parallel_kernel
def softmax(x, out):
    if x.shape[2] == 1:
        _softmax_rows(x, out)
    else:
        _softmax_columns(x, out)


@parallel_kernel
def log_softmax(x, out):
    if x.shape[2] == 1:
        _log_softmax_rows(x, out)
    else:
        _log_softmax_columns(x, out)


def gradient(name, product, value):
    """The kernel out = value(y, grad, Σ product(y, grad))."""
    product, value = strict(product), strict(value)

    @inline
    def rows_task(block, y, grad, out, shape, count):
        rows, length = shape
        for m in range(block * count, min((block + 1) * count, rows)):
            source, above = y[m * length : (m + 1) * length], grad[m * length : (m + 1) * length]
            target, total = out[m * length : (m + 1) * length], y.dtype.type(0)
            for i in range(length):
                total += product(source[i], above[i])
            for i in range(length):
                target[i] = value(source[i], above[i], total)

    @inline
    def columns(block, y, grad, out, shape, inner):
        rows, length = shape
        total = scratch(y.dtype.type(0), STRIP)
        m, start, width = _strip(block, rows, inner)
        first = m * length * inner + start
        for k in range(width):
            total[k] = 0.0
        for at in range(first, first + length * inner, inner):
            source, above = y[at : at + width], grad[at : at + width]
            for k in range(width):
                total[k] += product(source[k], above[k])
        for at in range(first, first + length * inner, inner):
            source, above, target = y[at : at + width], grad[at : at + width], out[at : at + width]
            for k in range(width):
                target[k] = value(source[k], above[k], total[k])

    @parallel_kernel(name=name)
    def body(y, grad, out):
        rows, length, inner = y.shape
        arguments = (y.reshape(y.size), grad.reshape(y.size), out.reshape(y.size), (rows, length))
        parallel = y.size >= PARALLEL_COSTLY
        if inner != 1:
            parallel_for(columns, rows * _strips(rows, inner), parallel, (*arguments, inner))
        else:
            count = max(1, BLOCK // max(1, length))
            parallel_for(rows_task, (rows + count - 1) // count, parallel, (*arguments, count))

    return body


softmax_grad = gradient("softmax_grad", lambda y, grad: y * grad, lambda y, grad, total: y * (grad - total))
log_softmax_grad = gradient("log_softmax_grad", lambda y, grad: grad, lambda y, grad, total: grad - exp(y) * total)
