"""Optimizer steps, all in place. Arrays are 1-D; what may vary from step to step is read from `settings` (float64)."""

import math

import numpy as np

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import blocks, span
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
from minigrad.kernels.cpu.simd import CACHE_LINE, ask_to_write
from minigrad.kernels.cpu.vector_math import strict

# A gradient's first half lies in the caches of the core that computed it, and so does the second: each goes on with its
# own from as few elements as pay for a launch, in blocks that cut an array in half. SGD of 10,000 on two Zen 4 cores in
# a step of net A: 11 us on the one, 6 on both.
BLOCK, PARALLEL = 1024, 8192


@inline
def _span(block, param):
    """As `span`, of parameters, whose lines are all asked for at once.

    Every core has read them in the passes, so a store has to wait until the others have dropped the line. One after the
    other they took a step of net B, with a weight of 200,704, 180 us instead of 52 (two Emerald Rapids cores).
    """
    start, stop = span(block, param.size, BLOCK)
    for i in range(start, stop, CACHE_LINE // param.itemsize):
        ask_to_write(param, i)
    return start, stop


@inline
def _normal(average):
    """0 for a number too small to be normal. Processors are slow with those, and an average of gradients that have
    become 0, behind a dead ReLU, never gets from there to 0: 0.9 of the smallest rounds to it.

    From step 900 of net B on 6,800 of its 207,018 averages were such: a step took 3.6 ms instead of 3.3.
    """
    T = type(average)
    return T(0) if abs(average) < np.finfo(T).tiny else average


@inline
def _normal_square(average):
    """As `_normal` of squares, but the smallest normal number, not 0: without `eps` it is divided by."""
    tiny, zero = np.finfo(type(average)).tiny, type(average)(0)
    return tiny if (average > zero) & (average < tiny) else average


@inline
def _sgd_plain(block, param, grad, rate, decay, sign):
    start, stop = _span(block, param)
    p, d = param[start:stop], grad[start:stop]
    for i in range(p.size):
        p[i] -= rate * (sign * d[i] + decay * p[i])


@inline
def _sgd_momentum(block, param, grad, buffer, rate, keep, new, decay, sign, nesterov, first):
    start, stop = _span(block, param)
    p, d, b = param[start:stop], grad[start:stop], buffer[start:stop]
    for i in range(p.size):
        g = sign * d[i] + decay * p[i]
        moved = g if first else _normal(keep * b[i] + new * g)
        b[i] = moved
        p[i] -= rate * (g + keep * moved if nesterov else moved)


@parallel_kernel
def sgd(param, grad, buffer, settings, nesterov, maximize, first):
    T = param.dtype.type
    momentum, dampening = settings[1], settings[2]
    rate, decay, sign = T(settings[0]), T(settings[3]), T(-1) if maximize else T(1)
    many, parallel = blocks(param.size, BLOCK), param.size >= PARALLEL
    if momentum == 0.0:
        parallel_for(_sgd_plain, many, parallel, (param, grad, rate, decay, sign))
    else:
        keep, new = T(momentum), T(1.0 - dampening)
        arguments = (param, grad, buffer, rate, keep, new, decay, sign, nesterov != 0, first != 0)
        parallel_for(_sgd_momentum, many, parallel, arguments)


@strict
def _adam_direction(m, v, root, eps):
    return m / (np.sqrt(v) * root + eps)


# What is written is not read again: store-to-load forwarding fails where a vector crosses a line of the cache (NumPy's
# arrays begin at any multiple of 16 bytes), and Adam took 2.8 times as long (Zen 4, AVX-512).
@inline
def _adam_block(block, param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, numbers):
    size, root, b1, c1, b2, c2, eps, shrink, decay, sign = numbers
    start, stop = _span(block, param)
    p, d, m, v = param[start:stop], grad[start:stop], exp_avg[start:stop], exp_avg_sq[start:stop]
    if max_exp_avg_sq.size == 0:
        for i in range(p.size):
            g = sign * d[i] + decay * p[i]
            first, second = _normal(b1 * m[i] + c1 * g), _normal_square(b2 * v[i] + c2 * (g * g))
            m[i], v[i] = first, second
            p[i] = p[i] * shrink - size * _adam_direction(first, second, root, eps)
    else:
        top = max_exp_avg_sq[start:stop]
        for i in range(p.size):
            g = sign * d[i] + decay * p[i]
            first, second, largest = _normal(b1 * m[i] + c1 * g), _normal_square(b2 * v[i] + c2 * (g * g)), top[i]
            if not ((largest > second) | (largest != largest)):
                largest = second
            m[i], v[i], top[i] = first, second, largest
            p[i] = p[i] * shrink - size * _adam_direction(first, largest, root, eps)


@parallel_kernel
def adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, step, settings, decoupled, maximize):
    T = param.dtype.type
    lr, beta1, beta2, eps, weight_decay = settings[0], settings[1], settings[2], settings[3], settings[4]
    step[0] += 1.0
    size = T(lr / (1.0 - math.pow(beta1, step[0])))  # the bias corrections in float64, once
    root = T(1.0 / math.sqrt(1.0 - math.pow(beta2, step[0])))
    shrink = T(1.0 - lr * weight_decay) if decoupled else T(1)
    decay = T(0) if decoupled else T(weight_decay)
    sign = T(-1) if maximize else T(1)
    numbers = (size, root, T(beta1), T(1.0 - beta1), T(beta2), T(1.0 - beta2), T(eps), shrink, decay, sign)
    arguments = (param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, numbers)
    parallel_for(_adam_block, blocks(param.size, BLOCK), param.size >= PARALLEL, arguments)


@inline
def _scale_block(block, x, factor):
    start, stop = span(block, x.size, BLOCK)
    target = x[start:stop]
    for i in range(target.size):
        target[i] *= factor


@parallel_kernel
def scale_inplace(x, scale):
    parallel_for(_scale_block, blocks(x.size, BLOCK), x.size >= PARALLEL, (x, x.dtype.type(scale[0])))


@inline
def _add_block(block, x, y):
    start, stop = span(block, x.size, BLOCK)
    target, source = x[start:stop], y[start:stop]
    for i in range(target.size):
        target[i] += source[i]


@parallel_kernel
def fused_add(x, y):
    parallel_for(_add_block, blocks(x.size, BLOCK), x.size >= PARALLEL, (x, y))
