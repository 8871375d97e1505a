"""Batch normalisation of rows: images of one pixel, the (N, C) of an MLP, and an activation behind it.

Rows of channels go through a strip of channels at a time, some rows of it together if there are many, with as many
copies of what its channels are normalised with: loops are long then, also of few channels. Parts of the rows are tasks
of their own, whose sums are added up in order: how many depends on the shape alone.
"""

import numpy as np

from minigrad.kernels.cpu.batch_norm_formulas import LEAKY_RELU, SIGMOID, TANH, activate, derive, rectified, rstd_of
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.image_tiles import tiles_across
from minigrad.kernels.cpu.parallel import flat, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduction import deviations_from, squares_about
from minigrad.kernels.cpu.vector_math import finite, strict

STRIP = 256  # channels side by side of a task
TILE = 512  # elements of the rows that go together, at most
TILES = 8  # of a part at least: with two or three large ones, copies of what a few rows need take longer than the rows
ROWS = 64  # tiles added up in the array's type
EVEN = 16  # a tile has a multiple of so many elements where it can: a loop's last few go one by one
PARTS = 8  # of the rows at most, those of all strips together
# There is a part for so many elements. 60 x 100 is two of them forward (with one, inference of net A takes 1.05 times
# as long) and one back, where the sums of a second take 1.4 us of 4.6.
FORWARD, BACK = 3000, 4096
SUMS = 2 * PARTS * STRIP  # two of each channel and part


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
def _full(width):
    """So many rows of a strip are full vectors."""
    return EVEN // (width & -width) if width % EVEN else 1


@inline
def _strip(number, strips, channels, share):
    """A strip of channels, and the rows of a tile of them, which is dense: (first channel, channels, rows)."""
    width = tiles_across(channels, strips)
    start = number * width
    width = min(width, channels - start)
    rows = max(1, min(TILE // max(1, width), share // TILES)) if strips == 1 else 1
    full = _full(width)
    return start, width, rows // full * full if rows >= full else rows


@inline
def _cut(batch, channels, part):
    """Into how many strips of channels and parts of their rows x is cut, one for `part` elements, and the rows of a
    part: of a single strip so many that full vectors can go together in it."""
    strips = tiles_across(channels, STRIP)
    parts = max(1, min(batch * channels // part, PARTS // max(1, strips)))
    full = _full(channels) if strips == 1 and parts > 1 else 1
    share = max(1, tiles_across(tiles_across(batch, parts), full) * full)
    return strips, max(1, tiles_across(batch, share)), share


@inline
def _repeat(line, width, rows):
    """Copy the first `width` elements behind themselves, `rows` of them altogether."""
    first = line[:width]
    for r in range(1, rows):
        copy = line[r * width : (r + 1) * width]
        for k in range(width):
            copy[k] = first[k]


@inline
def _patterns(start, width, rows, mean, variance, weight, bias, eps, middle, scale, shift):
    """What a strip of channels is normalised with, (x - middle) * scale + shift, as long as a tile of `rows` rows."""
    for k in range(width):
        rstd = rstd_of(variance[start + k], eps)
        middle[k] = mean[start + k]
        scale[k] = rstd * weight[start + k] if weight.size else rstd
        shift[k] = bias[start + k] if bias.size else type(eps)(0)
    _repeat(middle, width, rows)
    _repeat(scale, width, rows)
    _repeat(shift, width, rows)


@inline
def _forward_rows(task, x, mean, variance, weight, bias, out, eps, slope, shape, act):
    batch, channels, strips, share = shape
    start, width, rows = _strip(task % strips, strips, channels, share)
    middle, scale, shift = scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE)
    _patterns(start, width, rows, mean, variance, weight, bias, eps, middle, scale, shift)
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
    T, (strips, parts, share) = x.dtype.type, _cut(batch, channels, FORWARD)
    shape = batch, channels, strips, share
    arguments = flat(x), mean, variance, weight, bias, flat(out), T(eps), T(slope), shape, act
    parallel_for(_forward_rows, strips * parts, x.size >= 2 * FORWARD, arguments)


@inline
def _derive_rows(task, x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, partials, eps, slope,
                 shape, act):
    """The gradient before the activation of a part of the rows of a strip, into grad_x, and its sums."""
    batch, channels, strips, parts, share = shape
    start, width, rows = _strip(task % strips, strips, channels, share)
    middle, scale, shift, line = scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE)
    total, product, wide = scratch(eps, TILE), scratch(eps, TILE), np.float64(0)
    totals, products = scratch(wide, STRIP), scratch(wide, STRIP)
    _patterns(start, width, rows, mean, variance, weight, bias, eps, middle, scale, shift)
    for k in range(width):
        totals[k] = 0.0
        products[k] = 0.0
    end = min((task // strips + 1) * share, batch)
    for block in range(task // strips * share, end, ROWS * rows):
        last = min(block + ROWS * rows, end)
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
        if parts == 1:
            grad_bias[start + k] = totals[k]
            grad_weight[start + k] = products[k] * rstd_of(variance[start + k], eps)
        else:
            at = task // strips * 2 * channels + start + k
            partials[at] = totals[k]
            partials[at + channels] = products[k]


@inline
def _center_rows(task, x, mean, variance, weight, grad_x, grad_weight, grad_bias, eps, shape):
    """What goes by way of the mean and the variance, in place: scale (grad_x - offset - factor (x - mean))."""
    batch, channels, strips, parts, share = shape
    start, width, rows = _strip(task % strips, strips, channels, share)
    middle, scale, offset, factor = scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE)
    for k in range(width):
        rstd = rstd_of(variance[start + k], eps)
        middle[k] = mean[start + k]
        scale[k] = rstd * weight[start + k] if weight.size else rstd
        offset[k] = grad_bias[start + k] / batch
        factor[k] = grad_weight[start + k] * rstd / batch
    _repeat(middle, width, rows)
    _repeat(scale, width, rows)
    _repeat(offset, width, rows)
    _repeat(factor, width, rows)
    last = min((task // strips + 1) * share, batch)
    for n in range(task // strips * share, last, rows):
        at, count = n * channels + start, min(rows, last - n) * width
        source, target = x[at : at + count], grad_x[at : at + count]
        for i in range(count):
            target[i] = scale[i] * ((target[i] - offset[i]) - (source[i] - middle[i]) * factor[i])


@parallel_kernel
def backward_of_rows(x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope):
    batch, channels = x.shape[:2]
    T, (strips, parts, share) = x.dtype.type, _cut(batch, channels, BACK)
    shape, parallel, partials = (batch, channels, strips, parts, share), x.size >= 2 * BACK, scratch(0.0, SUMS)
    values, result = flat(x), flat(grad_x)
    parallel_for(_derive_rows, strips * parts, parallel, (
        values, mean, variance, weight, bias, flat(grad), result, grad_weight, grad_bias, partials, T(eps), T(slope),
        shape, act))
    if parts > 1:
        for c in range(channels):
            total, product = 0.0, 0.0
            for part in range(parts):
                total += partials[2 * part * channels + c]
                product += partials[(2 * part + 1) * channels + c]
            grad_bias[c] = total
            grad_weight[c] = product * rstd_of(variance[c], T(eps))
    parallel_for(_center_rows, strips * parts, parallel, (
        values, mean, variance, weight, result, grad_weight, grad_bias, T(eps), shape))
