"""logsumexp, softmax and log_softmax of x (M, R, K) over R, and their gradients from the output y.

Three ways through one array: long rows of neighbours (K = 1) as they lie; short ones, such as ten classes, sixty-four
at a time and turned on their side, for a vector needs sixteen equal steps; and columns (K > 1) side by side.
"""

import numpy as np

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL_COSTLY
from minigrad.kernels.cpu.parallel import merged, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.vector_math import exp, log, strict

LANES = 64  # rows turned together, and columns of a task
SHORT = 32  # rows up to this length are turned
TILE = LANES * SHORT  # 8 KiB of float32


@strict
def _larger(a, b):
    return b if (b > a) | (b != b) else a


@strict
def _finite(top):
    """The shift of logsumexp: the maximum, or 0 if that is infinite (the sum is then 0 or infinite by itself)."""
    return top if np.abs(top) < np.inf else type(top)(0)


@merged
def _shift_and_sum(x, first, rows, stride, width, shift, total, safe):
    """shift = the maxima of `width` <= LANES columns, total = Σ exp(x - shift)."""
    for k in range(width):
        shift[k] = -np.inf
        total[k] = 0.0
    for r in range(rows):
        row = x[first + r * stride : first + r * stride + width]
        for k in range(width):
            shift[k] = _larger(shift[k], row[k])
    if safe:
        for k in range(width):
            shift[k] = _finite(shift[k])
    for r in range(rows):
        row = x[first + r * stride : first + r * stride + width]
        for k in range(width):
            total[k] += exp(row[k] - shift[k])


@merged
def _row_shift_and_sum(row, safe):
    """The same of one row of neighbours, its maximum found in LANES columns."""
    top, lanes = row.dtype.type(-np.inf), scratch(row.dtype.type(0), LANES)
    for k in range(LANES):
        lanes[k] = top
    many = row.size // LANES
    for i in range(many):
        piece = row[i * LANES : (i + 1) * LANES]
        for k in range(LANES):
            lanes[k] = _larger(lanes[k], piece[k])
    for k in range(LANES):
        top = _larger(top, lanes[k])
    for i in range(many * LANES, row.size):
        top = _larger(top, row[i])
    if safe:
        top = _finite(top)
    total = row.dtype.type(0)
    for i in range(row.size):
        total += exp(row[i] - top)
    return top, total


@strict
def _probability(x, shift, total):
    return exp(x - shift) / total


@strict
def _log_probability(x, shift, total):
    return (x - shift) - total


def normaliser(name, value, of_total, per_element):
    """The body out = value(x, shift, of_total(Σ exp(x - shift))), or shift + of_total(...) if not per_element."""
    of_total = strict(of_total)

    @inline
    def long_rows(block, x, out, shape, count):
        rows, length = shape
        for m in range(block * count, min((block + 1) * count, rows)):
            row = x[m * length : (m + 1) * length]
            top, total = _row_shift_and_sum(row, not per_element)
            total = of_total(total)
            if per_element:
                target = out[m * length : (m + 1) * length]
                for i in range(length):
                    target[i] = value(row[i], top, total)
            else:
                out[m] = top + total

    @inline
    def short_rows(block, x, out, shape, count):
        rows, length = shape
        zero = x.dtype.type(0)
        tile, shift, total = scratch(zero, TILE), scratch(zero, LANES), scratch(zero, LANES)
        first = block * LANES
        width = min(LANES, rows - first)
        for r in range(length):
            for k in range(width):
                tile[r * LANES + k] = x[(first + k) * length + r]
        _shift_and_sum(tile, 0, length, LANES, width, shift, total, not per_element)
        for k in range(width):
            total[k] = of_total(total[k])
        if per_element:
            for r in range(length):
                for k in range(width):
                    tile[r * LANES + k] = value(tile[r * LANES + k], shift[k], total[k])
            for k in range(width):
                for r in range(length):
                    out[(first + k) * length + r] = tile[r * LANES + k]
        else:
            for k in range(width):
                out[first + k] = shift[k] + total[k]

    @inline
    def columns(block, x, out, shape, inner):
        rows, length = shape
        zero = x.dtype.type(0)
        shift, total = scratch(zero, LANES), scratch(zero, LANES)
        strips = (inner + LANES - 1) // LANES
        m, start = block // strips, block % strips * LANES
        width = min(LANES, inner - start)
        first = m * length * inner + start
        _shift_and_sum(x, first, length, inner, width, shift, total, not per_element)
        for k in range(width):
            total[k] = of_total(total[k])
        if per_element:
            for r in range(length):
                at = first + r * inner
                row, target = x[at : at + width], out[at : at + width]
                for k in range(width):
                    target[k] = value(row[k], shift[k], total[k])
        else:
            target = out[m * inner + start : m * inner + start + width]
            for k in range(width):
                target[k] = shift[k] + total[k]

    @merged
    def normalise(x, out):
        rows, length, inner = x.shape
        arguments = (x.reshape(x.size), out.reshape(out.size), (rows, length))
        parallel = x.size >= PARALLEL_COSTLY
        if inner != 1:
            parallel_for(columns, rows * ((inner + LANES - 1) // LANES), parallel, (*arguments, inner))
        elif length <= SHORT:
            parallel_for(short_rows, (rows + LANES - 1) // LANES, parallel, (*arguments, 1))
        else:
            count = max(1, BLOCK // length)
            parallel_for(long_rows, (rows + count - 1) // count, parallel, (*arguments, count))

    return normalise


logsumexp_of = normaliser("logsumexp", _probability, lambda total: log(total), False)
_softmax = normaliser("softmax", _probability, lambda total: total, True)
_log_softmax = normaliser("log_softmax", _log_probability, lambda total: log(total), True)


@parallel_kernel
def logsumexp(x, out):
    logsumexp_of(x, out)


@parallel_kernel
def softmax(x, out):
    _softmax(x, out)


@parallel_kernel
def log_softmax(x, out):
    _log_softmax(x, out)


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
        total = scratch(y.dtype.type(0), LANES)
        strips = (inner + LANES - 1) // LANES
        start = block % strips * LANES
        width, first = min(LANES, inner - start), block // strips * length * inner + start
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
            parallel_for(columns, rows * ((inner + LANES - 1) // LANES), parallel, (*arguments, inner))
        else:
            count = max(1, BLOCK // max(1, length))
            parallel_for(rows_task, (rows + count - 1) // count, parallel, (*arguments, count))

    return body


softmax_grad = gradient("softmax_grad", lambda y, grad: y * grad, lambda y, grad, total: y * (grad - total))
log_softmax_grad = gradient("log_softmax_grad", lambda y, grad: grad, lambda y, grad, total: grad - exp(y) * total)
