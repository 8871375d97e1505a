"""Layer normalisation of x (M, D). Sums run in the array's type within 64 rows and in float64 across them."""

import numpy as np

from minigrad.kernels.cpu.batch_norm_formulas import rstd_of
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel, scratch

STRIP = 64  # columns that a task takes side by side
ROWS = 64  # rows summed in the array's type


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
        scale = rstd_of(total / T(length), eps)
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
