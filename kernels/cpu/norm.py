"""Batch normalisation of x (N, C, S) and layer normalisation of x (M, D)."""

import numpy as np
from numba import prange

from minigrad.kernels.cpu.compile import kernel


@kernel(parallel=True)
def batch_norm_statistics(x, mean, variance):
    count = x.dtype.type(x.shape[0] * x.shape[2])
    for c in prange(x.shape[1]):
        total = x.dtype.type(0)
        for n in range(x.shape[0]):
            part = x.dtype.type(0)
            for s in range(x.shape[2]):
                part += x[n, c, s]
            total += part
        mu = total / count
        total = x.dtype.type(0)
        for n in range(x.shape[0]):
            part = x.dtype.type(0)
            for s in range(x.shape[2]):
                d = x[n, c, s] - mu
                part += d * d
            total += part
        mean[c] = mu
        variance[c] = total / count


@kernel(parallel=True)
def batch_norm_forward(x, mean, variance, weight, bias, out, eps):
    T = x.dtype.type
    for n in prange(x.shape[0]):
        for c in range(x.shape[1]):
            scale = T(1) / np.sqrt(variance[c] + T(eps))
            if weight.size:
                scale *= weight[c]
            shift = bias[c] if bias.size else T(0)
            mu = mean[c]
            for s in range(x.shape[2]):
                out[n, c, s] = (x[n, c, s] - mu) * scale + shift


@kernel(parallel=True)
def batch_norm_backward(x, mean, variance, weight, grad, grad_x, grad_weight, grad_bias, eps):
    T = x.dtype.type
    count = T(x.shape[0] * x.shape[2])
    for c in prange(x.shape[1]):
        rstd = T(1) / np.sqrt(variance[c] + T(eps))
        mu = mean[c]
        total, product = T(0), T(0)
        for n in range(x.shape[0]):
            t, p = T(0), T(0)
            for s in range(x.shape[2]):
                t += grad[n, c, s]
                p += grad[n, c, s] * (x[n, c, s] - mu)
            total += t
            product += p
        grad_bias[c] = total
        grad_weight[c] = product * rstd
        scale = rstd * weight[c] if weight.size else rstd
        a, b = total / count, product * rstd * rstd / count
        for n in range(x.shape[0]):
            for s in range(x.shape[2]):
                grad_x[n, c, s] = scale * (grad[n, c, s] - a - (x[n, c, s] - mu) * b)


@kernel
def batch_norm_running(mean, variance, running_mean, running_var, momentum, count):
    T = running_mean.dtype.type
    new = T(momentum[0])
    old = T(1) - new
    unbiased = T(count) / T(count - 1)
    for c in range(mean.size):
        running_mean[c] = old * running_mean[c] + new * mean[c]
        running_var[c] = old * running_var[c] + new * (variance[c] * unbiased)


@kernel(parallel=True)
def layer_norm_forward(x, weight, bias, out, mean, rstd, eps):
    T = x.dtype.type
    size = T(x.shape[1])
    for m in prange(x.shape[0]):
        total = T(0)
        for d in range(x.shape[1]):
            total += x[m, d]
        mu = total / size
        total = T(0)
        for d in range(x.shape[1]):
            total += (x[m, d] - mu) * (x[m, d] - mu)
        r = T(1) / np.sqrt(total / size + T(eps))
        mean[m] = mu
        rstd[m] = r
        for d in range(x.shape[1]):
            v = (x[m, d] - mu) * r
            if weight.size:
                v *= weight[d]
            if bias.size:
                v += bias[d]
            out[m, d] = v


@kernel(parallel=True)
def layer_norm_backward(x, mean, rstd, weight, grad, grad_x, grad_weight, grad_bias):
    T = x.dtype.type
    size = T(x.shape[1])
    for m in prange(x.shape[0]):
        mu, r = mean[m], rstd[m]
        total, product = T(0), T(0)
        for d in range(x.shape[1]):
            g = grad[m, d] * weight[d] if weight.size else grad[m, d]
            total += g
            product += g * ((x[m, d] - mu) * r)
        total /= size
        product /= size
        for d in range(x.shape[1]):
            g = grad[m, d] * weight[d] if weight.size else grad[m, d]
            grad_x[m, d] = r * (g - total - (x[m, d] - mu) * r * product)
    for d in prange(x.shape[1]):
        total, product = T(0), T(0)
        for m in range(x.shape[0]):
            total += grad[m, d]
            product += grad[m, d] * ((x[m, d] - mean[m]) * rstd[m])
        grad_bias[d] = total
        grad_weight[d] = product
