"""Batch normalisation of rows: images of one pixel, the (N, C) of an MLP, and an activation behind it.

Rows of channels go through a strip of channels at a time, some rows of it together, with as many copies of what its
channels are normalised with: loops are long then, whatever the number of channels.
"""

import numpy as np

from minigrad.kernels.cpu.batch_norm_formulas import LEAKY_RELU, SIGMOID, TANH, activate, derive, rectified, rstd_of
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import PARALLEL
from minigrad.kernels.cpu.image_tiles import TILE, tiles_across
from minigrad.kernels.cpu.parallel import flat, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduction import deviations_from, squares_about
from minigrad.kernels.cpu.vector_math import finite, strict

STRIP = 256  # channels side by side of a task
ROWS = 64  # tiles added up in the array's type


@strict
def _anchor(value):
    """A value to measure a channel's others from; 0 if it is not finite."""
    return value if finite(value) else type(value)(0)


@parallel_kernel
def statistics_of_rows(x, mean, variance):
    """Measured from the first row: of values around 1e4 with deviation 1 the mean would be off by up to 1.6e-3."""
    batch, channels = x.shape[:2]
    rows, values, count = x.reshape((1, batch, channels)), x.reshape(x.size), np.float64(batch)
    for c in range(channels):
        variance[c] = _anchor(values[c]) if batch else x.dtype.type(0)
    deviations_from(rows, variance, mean, count)
    for c in range(channels):
        mean[c] += variance[c]
    squares_about(rows, mean, variance, count)


@inline
def _patterns(start, width, rows, mean, variance, weight, bias, eps, middle, scale, shift):
    """What a strip of channels is normalised with, as long as a tile of `rows` rows."""
    one = type(eps)(1)
    for k in range(width):
        middle[k] = mean[start + k]
        scale[k] = rstd_of(variance[start + k], eps) * (weight[start + k] if weight.size else one)
        shift[k] = bias[start + k] if bias.size else type(eps)(0)
    for r in range(1, rows):
        for k in range(width):
            middle[r * width + k] = middle[k]
            scale[r * width + k] = scale[k]
            shift[r * width + k] = shift[k]


@inline
def _strip(number, channels):
    """A strip of channels, and the rows of a tile of them, which is dense: (first channel, channels, rows)."""
    start = number * STRIP
    return start, min(STRIP, channels - start), TILE // channels if channels <= STRIP else 1


@inline
def _forward_rows(task, x, mean, variance, weight, bias, out, eps, slope, shape, act):
    batch, channels, strips, share = shape
    start, width, rows = _strip(task % strips, channels)
    middle, scale, shift = scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE)
    _patterns(start, width, min(rows, batch), mean, variance, weight, bias, eps, middle, scale, shift)
    first, last, leaky = task // strips * share, min((task // strips + 1) * share, batch), act == LEAKY_RELU
    for n in range(first, last, rows):
        at, count = n * channels + start, min(rows, last - n) * width
        source, target = x[at : at + count], out[at : at + count]
        if act <= LEAKY_RELU:
            for i in range(count):
                target[i] = rectified((source[i] - middle[i]) * scale[i] + shift[i], leaky, slope)
        else:
            for i in range(count):
                target[i] = (source[i] - middle[i]) * scale[i] + shift[i]
            activate(target, act)


@parallel_kernel
def forward_of_rows(x, mean, variance, weight, bias, out, eps, act, slope):
    batch, channels = x.shape[:2]
    T, strips, share = x.dtype.type, tiles_across(channels, STRIP), max(1, ROWS * TILE // channels)
    shape = batch, channels, strips, share
    arguments = flat(x), mean, variance, weight, bias, flat(out), T(eps), T(slope), shape, act
    parallel_for(_forward_rows, tiles_across(batch, share) * strips, x.size >= PARALLEL, arguments)


@inline
def _backward_rows(strip, x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, slope, shape,
                   act):
    batch, channels = shape
    start, width, rows = _strip(strip, channels)
    rows = min(rows, batch)
    middle, scale, shift, line = scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE)
    total, product, wide = scratch(eps, TILE), scratch(eps, TILE), np.float64(0)
    totals, products = scratch(wide, STRIP), scratch(wide, STRIP)
    _patterns(start, width, rows, mean, variance, weight, bias, eps, middle, scale, shift)
    for k in range(width):
        totals[k] = 0.0
        products[k] = 0.0
    for block in range(0, batch, ROWS * rows):
        last = min(block + ROWS * rows, batch)
        for i in range(rows * width):
            total[i] = 0.0
            product[i] = 0.0
        for n in range(block, last, rows):
            at, count = n * channels + start, min(rows, last - n) * width
            source, above, target = x[at : at + count], grad[at : at + count], grad_x[at : at + count]
            z = line[:count]
            for i in range(count):
                z[i] = (source[i] - middle[i]) * scale[i] + shift[i]
            if act == SIGMOID or act == TANH:
                activate(z, act)
            derive(z, above, target, act, slope)
            for i in range(count):
                total[i] += target[i]
                product[i] += target[i] * (source[i] - middle[i])
        for r in range(rows):
            for k in range(width):
                totals[k] += total[r * width + k]
                products[k] += product[r * width + k]
    for k in range(width):
        rstd = rstd_of(variance[start + k], eps)
        grad_bias[start + k] = totals[k]
        grad_weight[start + k] = products[k] * rstd
        total[k] = totals[k] / batch
        product[k] = products[k] * rstd * rstd / batch
    for r in range(1, rows):
        for k in range(width):
            total[r * width + k] = total[k]
            product[r * width + k] = product[k]
    for n in range(0, batch, rows):
        at, count = n * channels + start, min(rows, batch - n) * width
        source, target = x[at : at + count], grad_x[at : at + count]
        for i in range(count):
            target[i] = scale[i] * ((target[i] - total[i]) - (source[i] - middle[i]) * product[i])


@parallel_kernel
def backward_of_rows(x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope):
    T, channels = x.dtype.type, x.shape[1]
    arguments = (flat(x), mean, variance, weight, bias, flat(grad), flat(grad_x), grad_weight, grad_bias, T(eps),
                 T(slope), x.shape[:2], act)
    parallel_for(_backward_rows, tiles_across(channels, STRIP), x.size >= PARALLEL, arguments)
