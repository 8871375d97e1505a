"""Batch normalisation of x (N, C, H, W), an activation and 2 x 2 max pooling behind it, in as few passes as it takes.

Images go through the loops a tile at a time: some neighbouring rows of one channel, or several small planes, brought
together in scratch memory that stays in the first-level cache. Images of one pixel (the (N, C) of an MLP) have kernels
of their own, in `batch_norm_rows`: a net mostly needs one kind, and both together took 10.3 s to compile where the
planes alone take 4.5. Sums run in the array's type within a tile and in float64 across them. What the activation and
the pooling did is recomputed in the backward pass, from x alone.
"""

import numpy as np

from minigrad.kernels.cpu.batch_norm_formulas import (
    LEAKY_RELU,
    RELU,
    SILU,
    activate,
    derive,
    rectified,
    rectified_grad,
    rstd_of,
)
from minigrad.kernels.cpu.batch_norm_pool import pooled_gradient
from minigrad.kernels.cpu.batch_norm_rows import backward_of_rows, forward_of_rows, statistics_of_rows
from minigrad.kernels.cpu.compile import chosen, inline, kernel
from minigrad.kernels.cpu.elementwise import PARALLEL
from minigrad.kernels.cpu.image_tiles import (
    TILE,
    gathered,
    pooled_tile,
    put_back,
    runs_of,
    target_of,
    tile_at,
    tile_size,
    tiles_across,
)
from minigrad.kernels.cpu.parallel import flat, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.vector_math import finite, strict
from minigrad.kernels.cpu.windows import max_windows, spread_windows

PIXEL = 1, 1  # height and width of an image in (N, C)
CHANNELS = 16  # channels of a task that goes through images


@inline
def _affine(c, mean, variance, weight, bias, eps):
    """Of channel c: mean, 1 / deviation, and (x - mean) * scale + shift is its affine map."""
    rstd = rstd_of(variance[c], eps)
    scale = rstd * weight[c] if weight.size else rstd
    return mean[c], rstd, scale, bias[c] if bias.size else type(eps)(0)


@strict
def _correction(drift, count):
    """By how much a mean is off, from the sum of the deviations from it; 0 if it is infinite."""
    mean = drift / count
    return mean if finite(mean) else type(mean)(0)


@inline
def _plane_statistics(c, x, mean, variance, shape):
    """Mean and variance of channel c: those of each tile while it is in the cache, combined in order (Chan, Golub and
    LeVeque 1979).

    The deviations from a tile's mean show how far rounding has put it off (Björck's correction in Chan, Golub and
    LeVeque 1983): of values around 1e4 with deviation 1 the output is off by up to 1.4e-3 without it.
    """
    size = tile_size(shape[2], shape[3])
    line = scratch(x.dtype.type(0), TILE)
    center, squares, count = 0.0, 0.0, 0.0
    many = tiles_across(shape[0], size[0]) * tiles_across(shape[2], size[1]) * tiles_across(shape[3], size[2])
    for number in range(many):
        piece, total = gathered(x, runs_of(tile_at(number, shape, size, c), shape, c), line), x.dtype.type(0)
        for i in range(piece.size):
            total += piece[i]
        middle, total, drift = x.dtype.type(total / x.dtype.type(piece.size)), x.dtype.type(0), x.dtype.type(0)
        for i in range(piece.size):
            total += (piece[i] - middle) * (piece[i] - middle)
            drift += piece[i] - middle
        more, off = count + piece.size, _correction(np.float64(drift), np.float64(piece.size))
        distance = middle + off - center
        squares += total - off * off * piece.size + distance * distance * (count * piece.size / more)
        center += distance * (piece.size / more)
        count = more
    mean[c] = center
    variance[c] = squares / count


@parallel_kernel
def statistics_of_planes(x, mean, variance):
    parallel_for(_plane_statistics, x.shape[1], x.size >= PARALLEL, (flat(x), mean, variance, x.shape))


@chosen
def batch_norm_statistics(x, mean, variance):
    return statistics_of_rows if x.shape[2:] == PIXEL else statistics_of_planes, (x, mean, variance)


@kernel
def batch_norm_running(mean, variance, running_mean, running_var, momentum, batches, count, cumulative):
    T = running_mean.dtype.type
    if batches.size:
        batches[0] += 1
        if cumulative:
            momentum[0] = T(1) / T(batches[0])
    new = T(momentum[0])
    old, unbiased = T(1) - new, T(count) / T(count - 1)
    for c in range(mean.size):
        running_mean[c] = old * running_mean[c] + new * mean[c]
        running_var[c] = old * running_var[c] + new * (variance[c] * unbiased)


@inline
def _normalise(source, target, middle, scale, shift):
    for i in range(target.size):
        target[i] = (source[i] - middle) * scale + shift


@inline
def _transform(source, target, middle, scale, shift, act, slope):
    """Normalise and activate."""
    leaky = act == LEAKY_RELU
    if act <= LEAKY_RELU:
        for i in range(target.size):
            target[i] = rectified((source[i] - middle) * scale + shift, leaky, slope)
    else:
        _normalise(source, target, middle, scale, shift)
        activate(target, act)


@inline
def _forward_planes(task, x, mean, variance, weight, bias, out, eps, slope, shape, act, pool):
    batch, channels, height, width = shape
    size, line = tile_size(height, width), scratch(eps, TILE)
    parts = tiles_across(channels, CHANNELS)
    first, leaky = task % parts * CHANNELS, act == LEAKY_RELU
    many = tiles_across(height, size[1]) * tiles_across(width, size[2])
    for c in range(first, min(first + CHANNELS, channels)):
        middle, _, scale, shift = _affine(c, mean, variance, weight, bias, eps)
        for number in range(task // parts * many, (task // parts + 1) * many):
            tile = tile_at(number, shape, size, c)
            runs = runs_of(tile, shape, c)
            start, count, length, step = runs
            if not pool:
                for k in range(count):
                    at = start + k * step
                    source, target = x[at : at + length], out[at : at + length]
                    if act <= LEAKY_RELU:  # written out: a call for every short run is four to ten times slower
                        for i in range(length):
                            target[i] = rectified((source[i] - middle) * scale + shift, leaky, slope)
                    else:
                        _transform(source, target, middle, scale, shift, act, slope)
            else:
                y = line[: count * length]
                for k in range(count):
                    at = start + k * step
                    _transform(x[at : at + length], y[k * length : (k + 1) * length], middle, scale, shift, act, slope)
                half, half_shape = pooled_tile(tile, shape)
                at, _, _, jump = runs_of(half, half_shape, c)
                for plane in range(half[3]):
                    for r in range(half[4]):
                        top = (plane * tile[4] + 2 * r) * tile[5]
                        max_windows(y, top, top + tile[5], half[5], out, at + plane * jump + r * half_shape[3])


@parallel_kernel
def forward_of_planes(x, mean, variance, weight, bias, out, eps, act, slope, pool):
    batch, channels, height, width = x.shape
    T, tasks = x.dtype.type, tiles_across(batch, tile_size(height, width)[0]) * tiles_across(channels, CHANNELS)
    arguments = flat(x), mean, variance, weight, bias, flat(out), T(eps), T(slope), x.shape, act, pool
    parallel_for(_forward_planes, tasks, x.size >= PARALLEL, arguments)


@chosen
def batch_norm_forward(x, mean, variance, weight, bias, out, eps, act, slope, pool):
    arguments = x, mean, variance, weight, bias, out, eps, act, slope
    return (forward_of_rows, arguments) if x.shape[2:] == PIXEL else (forward_of_planes, (*arguments, pool))


@inline
def _tile_gradient(runs, tile, x, grad, grad_x, lines, affine, shape, c, act, slope, pool):
    """The gradient before the activation and the pooling of a tile, into grad_x; returns the tile's x and that."""
    line, image, back, result = lines
    source, target = gathered(x, runs, line), target_of(grad_x, runs, result)
    y = image[: source.size]
    if pool:
        above, zero = back[: source.size], x.dtype.type(0)
        _transform(source, y, affine[0], affine[2], affine[3], act, slope)
        if tile[4] % 2 or tile[5] % 2:
            for i in range(above.size):
                above[i] = zero
        half, half_shape = pooled_tile(tile, shape)
        at, _, _, jump = runs_of(half, half_shape, c)
        for plane in range(half[3]):
            for r in range(half[4]):
                top = (plane * tile[4] + 2 * r) * tile[5]
                spread_windows(y, top, top + tile[5], half[5], grad, at + plane * jump + r * half_shape[3], above)
        if act == SILU or slope < zero:  # the others can tell from y
            _normalise(source, y, affine[0], affine[2], affine[3])
        derive(y, above, target, act, slope)
    else:
        _normalise(source, y, affine[0], affine[2], affine[3])
        if act != SILU:
            activate(y, act)
        derive(y, gathered(grad, runs, back), target, act, slope)
    put_back(grad_x, runs, target)
    return source, target


@inline
def _backward_planes(c, x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, slope, shape, act,
                     pool):
    zero, size, leaky = x.dtype.type(0), tile_size(shape[2], shape[3]), act == LEAKY_RELU
    line, image, back, result = scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE), scratch(eps, TILE)
    affine = _affine(c, mean, variance, weight, bias, eps)
    middle, rstd, scale, shift = affine
    if pool and act == RELU and pooled_gradient(c, x, affine, grad, grad_x, grad_weight, grad_bias, shape):
        return
    total, product, plain = 0.0, 0.0, act <= LEAKY_RELU and not pool
    many = tiles_across(shape[0], size[0]) * tiles_across(shape[2], size[1]) * tiles_across(shape[3], size[2])
    for number in range(many):
        tile = tile_at(number, shape, size, c)
        runs = runs_of(tile, shape, c)
        t, p = zero, zero
        if plain:  # nothing is kept: cheaper to do again than to write and read
            source, above = gathered(x, runs, line), gathered(grad, runs, back)
            for i in range(source.size):
                centred = source[i] - middle
                d = rectified_grad(centred * scale + shift, above[i], leaky, slope)
                t += d
                p += d * centred
        else:
            source, above = _tile_gradient(
                runs, tile, x, grad, grad_x, (line, image, back, result), affine, shape, c, act, slope, pool
            )
            for i in range(source.size):
                t += above[i]
                p += above[i] * (source[i] - middle)
        total += t
        product += p
    grad_bias[c] = total
    grad_weight[c] = product * rstd
    T, count, plane = x.dtype.type, shape[0] * shape[2] * shape[3], shape[2] * shape[3]
    offset, factor = T(total / count), T(product * rstd * rstd / count)
    for n in range(shape[0]):
        start = (n * shape[1] + c) * plane
        source, target = x[start : start + plane], grad_x[start : start + plane]
        if plain:
            above = grad[start : start + plane]
            for i in range(plane):
                centred = source[i] - middle
                d = rectified_grad(centred * scale + shift, above[i], leaky, slope)
                target[i] = scale * ((d - offset) - centred * factor)
        else:
            for i in range(plane):
                target[i] = scale * ((target[i] - offset) - (source[i] - middle) * factor)


@parallel_kernel
def backward_of_planes(x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope, pool):
    T, channels = x.dtype.type, x.shape[1]
    arguments = (flat(x), mean, variance, weight, bias, flat(grad), flat(grad_x), grad_weight, grad_bias, T(eps),
                 T(slope), x.shape, act, pool)
    parallel_for(_backward_planes, channels, x.size >= PARALLEL, arguments)


@chosen
def batch_norm_backward(
    x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope, pool
):
    arguments = x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope
    return (backward_of_rows, arguments) if x.shape[2:] == PIXEL else (backward_of_planes, (*arguments, pool))
