"""Optimizer steps, all in place. Arrays are 1-D; lr, step and scale are arrays of one element."""

import math

import numpy as np
from numba import prange

from minigrad.kernels.cpu.compile import kernel


@kernel(parallel=True)
def sgd(param, grad, buffer, lr, momentum, dampening, weight_decay, nesterov, maximize, first):
    T = param.dtype.type
    rate, decay, keep, new = T(lr[0]), T(weight_decay), T(momentum), T(1.0 - dampening)
    sign = T(-1) if maximize else T(1)
    for i in prange(param.size):
        g = sign * grad[i] + decay * param[i]
        if momentum != 0.0:
            b = g if first else keep * buffer[i] + new * g
            buffer[i] = b
            g = g + keep * b if nesterov else b
        param[i] -= rate * g


@kernel(parallel=True)
def adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, lr, step, beta1, beta2, eps, weight_decay, decoupled, maximize):
    T = param.dtype.type
    size = T(lr[0] / (1.0 - math.pow(beta1, step[0])))
    root = T(1.0 / math.sqrt(1.0 - math.pow(beta2, step[0])))
    b1, c1, b2, c2, small = T(beta1), T(1.0 - beta1), T(beta2), T(1.0 - beta2), T(eps)
    shrink = T(1.0 - lr[0] * weight_decay) if decoupled else T(1)
    decay = T(0) if decoupled else T(weight_decay)
    sign = T(-1) if maximize else T(1)
    for i in prange(param.size):
        p = param[i]
        g = sign * grad[i] + decay * p
        m = b1 * exp_avg[i] + c1 * g
        v = b2 * exp_avg_sq[i] + c2 * (g * g)
        exp_avg[i] = m
        exp_avg_sq[i] = v
        if max_exp_avg_sq.size:
            old = max_exp_avg_sq[i]
            v = old if (old > v) | (old != old) else v
            max_exp_avg_sq[i] = v
        param[i] = p * shrink - size * m / (np.sqrt(v) * root + small)


@kernel(parallel=True)
def scale_inplace(x, scale):
    s = x.dtype.type(scale[0])
    for i in prange(x.size):
        x[i] *= s


@kernel(parallel=True)
def fused_add(x, y):
    for i in prange(x.size):
        x[i] += y[i]
