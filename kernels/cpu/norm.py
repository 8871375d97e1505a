"""Batch normalisation of x (N, C, S) and layer normalisation of x (M, D).

Batch normalisation goes through planes (S > 1) a channel at a time, and through rows of channels (S = 1) a strip of
channels at a time. Sums run in the array's type within a plane (or 64 rows) and in float64 across them.
"""

import numpy as np

from minigrad.kernels.cpu.compile import inline, kernel
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduction import squares_about, total_of
from minigrad.kernels.cpu.vector_math import strict

STRIP = 64  # channels (S = 1) or columns that a task takes side by side
ROWS = 64  # rows summed in the array's type
CHUNK = 1024  # neighbours summed in the array's type


@strict
def _rstd(variance, eps):
    return type(variance)(1) / np.sqrt(variance + eps)


@inline
def _plane_statistics(c, x, mean, variance, shape):
    """Mean and variance of channel c: those of each piece of a plane while it is in the cache, combined in order
    (Chan, Golub and LeVeque 1979)."""
    batch, channels, size = shape
    center, squares, count = 0.0, 0.0, 0.0
    for n in range(batch):
        plane = x[(n * channels + c) * size : (n * channels + c + 1) * size]
        for start in range(0, size, CHUNK):
            piece, total = plane[start : min(start + CHUNK, size)], x.dtype.type(0)
            for i in range(piece.size):
                total += piece[i]
            middle, total = x.dtype.type(total / x.dtype.type(piece.size)), x.dtype.type(0)
            for i in range(piece.size):
                total += (piece[i] - middle) * (piece[i] - middle)
            more = count + piece.size
            distance = middle - center
            squares += total + distance * distance * (count * piece.size / more)
            center += distance * (piece.size / more)
            count = more
    mean[c] = center
    variance[c] = squares / count


@parallel_kernel
def batch_norm_statistics(x, mean, variance):
    batch, channels, size = x.shape
    if size == 1:
        rows, count = x.reshape((1, batch, channels)), np.float64(batch)
        total_of(rows, mean, mean, count)
        squares_about(rows, mean, variance, count)
    else:
        arguments = (x.reshape(x.size), mean, variance, (batch, channels, size))
        parallel_for(_plane_statistics, channels, x.size >= PARALLEL, arguments)


@inline
def _normalise_planes(n, x, mean, variance, weight, bias, out, eps, shape):
    channels, size = shape
    for c in range(channels):
        scale = _rstd(variance[c], eps)
        if weight.size:
            scale *= weight[c]
        shift, middle = bias[c] if bias.size else x.dtype.type(0), mean[c]
        start = (n * channels + c) * size
        source, target = x[start : start + size], out[start : start + size]
        for i in range(size):
            target[i] = (source[i] - middle) * scale + shift


@inline
def _normalise_rows(block, x, mean, variance, weight, bias, out, eps, shape):
    channels, count = shape
    scale, shift = scratch(eps, STRIP), scratch(eps, STRIP)
    for start in range(0, channels, STRIP):
        width = min(STRIP, channels - start)
        for k in range(width):
            scale[k] = _rstd(variance[start + k], eps) * (weight[start + k] if weight.size else 1)
            shift[k] = bias[start + k] if bias.size else 0
        middle = mean[start : start + width]
        for n in range(block * count, min((block + 1) * count, x.size // channels)):
            at = n * channels + start
            source, target = x[at : at + width], out[at : at + width]
            for k in range(width):
                target[k] = (source[k] - middle[k]) * scale[k] + shift[k]


@parallel_kernel
def batch_norm_forward(x, mean, variance, weight, bias, out, eps):
    batch, channels, size = x.shape
    values, results, e = x.reshape(x.size), out.reshape(x.size), x.dtype.type(eps)
    if size == 1:
        count = max(1, BLOCK // channels)
        arguments = (values, mean, variance, weight, bias, results, e, (channels, count))
        parallel_for(_normalise_rows, (batch + count - 1) // count, x.size >= PARALLEL, arguments)
    else:
        planes = (values, mean, variance, weight, bias, results, e, (channels, size))
        parallel_for(_normalise_planes, batch, x.size >= PARALLEL, planes)


@inline
def _backward_planes(c, x, mean, variance, weight, grad, grad_x, grad_weight, grad_bias, eps, shape):
    batch, channels, size = shape
    rstd, middle = _rstd(variance[c], eps), mean[c]
    total, product = 0.0, 0.0
    for n in range(batch):
        start = (n * channels + c) * size
        source, above = x[start : start + size], grad[start : start + size]
        t, p = x.dtype.type(0), x.dtype.type(0)
        for i in range(size):
            t += above[i]
            p += above[i] * (source[i] - middle)
        total += t
        product += p
    grad_bias[c] = total
    grad_weight[c] = product * rstd
    T, count = x.dtype.type, batch * size
    scale = rstd * weight[c] if weight.size else rstd
    offset, slope = T(total / count), T(product * rstd * rstd / count)
    for n in range(batch):
        start = (n * channels + c) * size
        source, above, target = x[start : start + size], grad[start : start + size], grad_x[start : start + size]
        for i in range(size):
            target[i] = scale * ((above[i] - offset) - (source[i] - middle) * slope)


@inline
def _backward_rows(strip, x, mean, variance, weight, grad, grad_x, grad_weight, grad_bias, eps, shape):
    batch, channels = shape
    start = strip * STRIP
    width, wide = min(STRIP, channels - start), np.float64(0)
    total, product = scratch(eps, STRIP), scratch(eps, STRIP)
    totals, products = scratch(wide, STRIP), scratch(wide, STRIP)
    middle = mean[start : start + width]
    for k in range(width):
        totals[k] = 0.0
        products[k] = 0.0
    for first in range(0, batch, ROWS):
        for k in range(width):
            total[k] = 0.0
            product[k] = 0.0
        for n in range(first, min(first + ROWS, batch)):
            at = n * channels + start
            source, above = x[at : at + width], grad[at : at + width]
            for k in range(width):
                total[k] += above[k]
                product[k] += above[k] * (source[k] - middle[k])
        for k in range(width):
            totals[k] += total[k]
            products[k] += product[k]
    scale = scratch(eps, STRIP)
    for k in range(width):
        rstd = _rstd(variance[start + k], eps)
        grad_bias[start + k] = totals[k]
        grad_weight[start + k] = products[k] * rstd
        scale[k] = rstd * (weight[start + k] if weight.size else 1)
        total[k] = totals[k] / batch
        product[k] = products[k] * rstd * rstd / batch
    for n in range(batch):
        at = n * channels + start
        source, above, target = x[at : at + width], grad[at : at + width], grad_x[at : at + width]
        for k in range(width):
            target[k] = scale[k] * ((above[k] - total[k]) - (source[k] - middle[k]) * product[k])


@parallel_kernel
def batch_norm_backward(x, mean, variance, weight, grad, grad_x, grad_weight, grad_bias, eps):
    batch, channels, size = x.shape
    values, above, results = x.reshape(x.size), grad.reshape(x.size), grad_x.reshape(x.size)
    e, parallel = x.dtype.type(eps), x.size >= PARALLEL
    if size == 1:
        arguments = (
            values, mean, variance, weight, above, results, grad_weight, grad_bias, e, (batch, channels)
        )  # fmt: skip
        parallel_for(_backward_rows, (channels + STRIP - 1) // STRIP, parallel, arguments)
    else:
        planes = (
            values, mean, variance, weight, above, results, grad_weight, grad_bias, e, (batch, channels, size)
        )  # fmt: skip
        parallel_for(_backward_planes, channels, parallel, planes)


@kernel
def batch_norm_running(mean, variance, running_mean, running_var, momentum, count):
    T = running_mean.dtype.type
    new = T(momentum[0])
    old, unbiased = T(1) - new, T(count) / T(count - 1)
    for c in range(mean.size):
        running_mean[c] = old * running_mean[c] + new * mean[c]
        running_var[c] = old * running_var[c] + new * (variance[c] * unbiased)


@inline
def _layer_norm_rows(block, x, weight, bias, out, mean, rstd, eps, shape):
    length, count = shape
    T = x.dtype.type
    for m in range(block * count, min((block + 1) * count, mean.size)):
        row, target, total = x[m * length : (m + 1) * length], out[m * length : (m + 1) * length], T(0)
        for i in range(length):
            total += row[i]
        middle, total = total / T(length), T(0)
        for i in range(length):
            total += (row[i] - middle) * (row[i] - middle)
        scale = _rstd(total / T(length), eps)
        mean[m] = middle
        rstd[m] = scale
        if weight.size > 0 and bias.size > 0:
            for i in range(length):
                target[i] = (row[i] - middle) * scale * weight[i] + bias[i]
        else:
            for i in range(length):
                target[i] = (row[i] - middle) * scale
            if weight.size > 0:
                for i in range(length):
                    target[i] *= weight[i]
            if bias.size > 0:
                for i in range(length):
                    target[i] += bias[i]


@parallel_kernel
def layer_norm_forward(x, weight, bias, out, mean, rstd, eps):
    rows, length = x.shape
    count = max(1, BLOCK // length)
    arguments = (
        x.reshape(x.size), weight, bias, out.reshape(x.size), mean, rstd, x.dtype.type(eps), (length, count)
    )  # fmt: skip
    parallel_for(_layer_norm_rows, (rows + count - 1) // count, x.size >= PARALLEL, arguments)


@inline
def _layer_norm_backward_rows(block, x, mean, rstd, weight, grad, grad_x, shape):
    length, count = shape
    T = x.dtype.type
    for m in range(block * count, min((block + 1) * count, mean.size)):
        row, above = x[m * length : (m + 1) * length], grad[m * length : (m + 1) * length]
        target, middle, scale = grad_x[m * length : (m + 1) * length], mean[m], rstd[m]
        total, product = T(0), T(0)
        for i in range(length):
            g = above[i] * weight[i] if weight.size else above[i]
            total += g
            product += g * (row[i] - middle)
        total /= T(length)
        product *= scale * scale / T(length)
        for i in range(length):
            g = above[i] * weight[i] if weight.size else above[i]
            target[i] = scale * ((g - total) - (row[i] - middle) * product)


@inline
def _layer_norm_backward_columns(strip, x, mean, rstd, grad, grad_weight, grad_bias):
    length, start = grad_weight.size, strip * STRIP
    width, wide = min(STRIP, length - start), np.float64(0)
    total, product = scratch(x.dtype.type(0), STRIP), scratch(x.dtype.type(0), STRIP)
    totals, products = scratch(wide, STRIP), scratch(wide, STRIP)
    for k in range(width):
        totals[k] = 0.0
        products[k] = 0.0
    for first in range(0, mean.size, ROWS):
        for k in range(width):
            total[k] = 0.0
            product[k] = 0.0
        for m in range(first, min(first + ROWS, mean.size)):
            at, middle, scale = m * length + start, mean[m], rstd[m]
            source, above = x[at : at + width], grad[at : at + width]
            for k in range(width):
                total[k] += above[k]
                product[k] += above[k] * ((source[k] - middle) * scale)
        for k in range(width):
            totals[k] += total[k]
            products[k] += product[k]
    for k in range(width):
        grad_bias[start + k] = totals[k]
        grad_weight[start + k] = products[k]


@parallel_kernel
def layer_norm_backward(x, mean, rstd, weight, grad, grad_x, grad_weight, grad_bias):
    rows, length = x.shape
    values, above, parallel = x.reshape(x.size), grad.reshape(x.size), x.size >= PARALLEL
    count = max(1, BLOCK // length)
    arguments = (values, mean, rstd, weight, above, grad_x.reshape(x.size), (length, count))
    parallel_for(_layer_norm_backward_rows, (rows + count - 1) // count, parallel, arguments)
    columns = (values, mean, rstd, above, grad_weight, grad_bias)
    parallel_for(_layer_norm_backward_columns, (length + STRIP - 1) // STRIP, parallel, columns)
