"""Batch normalisation of x (N, C, H, W), an activation and 2 x 2 max pooling behind it, in as few passes as it takes.

Images go through the loops a tile at a time: some neighbouring rows of one channel, or several small planes, brought
together in scratch memory that stays in the first-level cache. Images of one pixel (the (N, C) of an MLP) are rows of
channels, which go through a strip of channels at a time, in kernels of their own: a net mostly needs one kind, and both
together took 10.3 s to compile where the planes alone take 4.5. Sums run in the array's type within a tile and in
float64 across them. What the activation and the pooling did is recomputed in the backward pass, from x alone.
"""

import numpy as np

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.batch_norm_pool import pooled_gradient
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
from minigrad.kernels.cpu.reduction import deviations_from, squares_about
from minigrad.kernels.cpu.vector_math import finite, strict
from minigrad.kernels.cpu.windows import max_windows, spread_windows

RELU, LEAKY_RELU, SIGMOID, TANH, SILU = 0, 1, 2, 3, 4  # without an activation: LEAKY_RELU of slope 1
PIXEL = 1, 1  # height and width of an image in (N, C)
CHANNELS = 16  # channels of a task that goes through images
STRIP = 256  # channels side by side of a task where images are pixels
ROWS = 64  # tiles added up in the array's type there


@strict
def _rstd(variance, eps):
    return type(variance)(1) / np.sqrt(variance + eps)


@strict
def _silu_grad(z, grad):
    s, one = vector_math.sigmoid(z), type(z)(1)
    return grad * s * (one + z * (one - s))


@strict
def _sigmoid_grad(y, grad):
    return grad * y * (type(y)(1) - y)


@strict
def _tanh_grad(y, grad):
    return grad * (type(y)(1) - y * y)


@strict
def _rectified(z, leaky, slope):
    zero = type(z)(0)
    low = z * slope if leaky else zero
    return low if z <= zero else z


@strict
def _rectified_grad(z, grad, leaky, slope):
    """Where z is NaN, ReLU lets the gradient through and leaky ReLU scales it, as the kernels of these names do."""
    zero = type(z)(0)
    low = grad * slope if leaky else zero
    return low if (z <= zero) | (leaky & (z != z)) else grad


@inline
def _activate(y, act):
    """In place: y = f(y), f one of the smooth activations. One array, not two that may be the same: LLVM would ask
    whether they overlap, and not vectorise if they do."""
    one, silu = y.dtype.type(1), act == SILU
    if act == TANH:
        for i in range(y.size):
            y[i] = vector_math.tanh(y[i])
    else:
        for i in range(y.size):
            y[i] = (y[i] if silu else one) * vector_math.sigmoid(y[i])


@inline
def _derive(z, grad, out, act, slope):
    """out = grad f'(z), but of sigmoid and tanh `z` is the output y, and may be of ReLU with a slope >= 0."""
    leaky = act == LEAKY_RELU
    if act <= LEAKY_RELU:
        for i in range(out.size):
            out[i] = _rectified_grad(z[i], grad[i], leaky, slope)
    elif act == SIGMOID:
        for i in range(out.size):
            out[i] = _sigmoid_grad(z[i], grad[i])
    elif act == TANH:
        for i in range(out.size):
            out[i] = _tanh_grad(z[i], grad[i])
    else:
        for i in range(out.size):
            out[i] = _silu_grad(z[i], grad[i])


@inline
def _affine(c, mean, variance, weight, bias, eps):
    """Of channel c: mean, 1 / deviation, and (x - mean) * scale + shift is its affine map."""
    rstd = _rstd(variance[c], eps)
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
            target[i] = _rectified((source[i] - middle) * scale + shift, leaky, slope)
    else:
        _normalise(source, target, middle, scale, shift)
        _activate(target, act)


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
                            target[i] = _rectified((source[i] - middle) * scale + shift, leaky, slope)
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


@inline
def _patterns(start, width, rows, mean, variance, weight, bias, eps, middle, scale, shift):
    """What a strip of channels is normalised with, as long as a tile of `rows` rows."""
    one = type(eps)(1)
    for k in range(width):
        middle[k] = mean[start + k]
        scale[k] = _rstd(variance[start + k], eps) * (weight[start + k] if weight.size else one)
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
                target[i] = _rectified((source[i] - middle[i]) * scale[i] + shift[i], leaky, slope)
        else:
            for i in range(count):
                target[i] = (source[i] - middle[i]) * scale[i] + shift[i]
            _activate(target, act)


@parallel_kernel
def forward_of_rows(x, mean, variance, weight, bias, out, eps, act, slope):
    batch, channels = x.shape[:2]
    T, strips, share = x.dtype.type, tiles_across(channels, STRIP), max(1, ROWS * TILE // channels)
    shape = batch, channels, strips, share
    arguments = flat(x), mean, variance, weight, bias, flat(out), T(eps), T(slope), shape, act
    parallel_for(_forward_rows, tiles_across(batch, share) * strips, x.size >= PARALLEL, arguments)


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
        _derive(y, above, target, act, slope)
    else:
        _normalise(source, y, affine[0], affine[2], affine[3])
        if act != SILU:
            _activate(y, act)
        _derive(y, gathered(grad, runs, back), target, act, slope)
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
                d = _rectified_grad(centred * scale + shift, above[i], leaky, slope)
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
                d = _rectified_grad(centred * scale + shift, above[i], leaky, slope)
                target[i] = scale * ((d - offset) - centred * factor)
        else:
            for i in range(plane):
                target[i] = scale * ((target[i] - offset) - (source[i] - middle) * factor)


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
                _activate(z, act)
            _derive(z, above, target, act, slope)
            for i in range(count):
                total[i] += target[i]
                product[i] += target[i] * (source[i] - middle[i])
        for r in range(rows):
            for k in range(width):
                totals[k] += total[r * width + k]
                products[k] += product[r * width + k]
    for k in range(width):
        rstd = _rstd(variance[start + k], eps)
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
