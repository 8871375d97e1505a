"""Batch normalisation of x (N, C, H, W), an activation and 2 x 2 max pooling behind it.

An absent weight or bias has size 0. An activation is a number: 0 ReLU, 1 leaky ReLU of a slope (of slope 1: none),
2 sigmoid, 3 tanh, 4 SiLU.
"""

import numpy as np

from minigrad.kernels.reference.activation import (
    leaky_relu,
    leaky_relu_grad,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    silu,
    silu_grad,
    tanh,
    tanh_grad,
)
from minigrad.kernels.reference.pool import max_pool2d_backward, max_pool2d_forward

RELU, LEAKY_RELU, SIGMOID, TANH, SILU = range(5)
WINDOW = (2, 2, 2, 2, 0, 0, 1, 1)


def _per_channel(array):
    return array.astype(np.float64)[None, :, None, None]


def batch_norm_statistics(x, mean, variance):
    """mean, variance (C,): of every channel of x (N, C, H, W), the variance biased."""
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        mean[...] = x.mean(axis=(0, 2, 3))
        variance[...] = x.var(axis=(0, 2, 3))


def _normalised(x, mean, variance, weight, bias, eps):
    y = (x - _per_channel(mean)) / np.sqrt(_per_channel(variance) + eps)
    if weight.size:
        y = y * _per_channel(weight)
    return y + _per_channel(bias) if bias.size else y


def _activated(z, act, slope):
    y = np.empty_like(z)
    if act == LEAKY_RELU:
        leaky_relu(z, y, slope)
    else:
        {RELU: relu, SIGMOID: sigmoid, TANH: tanh, SILU: silu}[act](z, y)
    return y


def _pooled(y, dtype):
    """The largest elements of the windows, and where they are. Compared as rounded to the array's type: ties are."""
    n, c, h, w = y.shape
    best, places = np.empty((n, c, h // 2, w // 2)), np.empty((n, c, h // 2, w // 2), np.int64)
    max_pool2d_forward(y.astype(dtype).astype(np.float64), best, places, *WINDOW)
    return best, places


def batch_norm_forward(x, mean, variance, weight, bias, out, eps, act, slope, pool):
    """out = f((x - mean) / √(variance + eps) * weight + bias) (Ioffe and Szegedy 2015, algorithm 1), f an activation.

    With `pool`, `out` (N, C, H // 2, W // 2) gets the maxima of its windows of 2 x 2 (see `max_pool2d_forward`).
    """
    with np.errstate(all="ignore"):
        y = _activated(_normalised(x, mean, variance, weight, bias, eps), act, slope)
        out[...] = _pooled(y, x.dtype)[0] if pool else y


def batch_norm_backward(x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope, pool):
    """The three gradients of batch_norm_forward where mean and variance are those of x itself (training)."""
    with np.errstate(all="ignore"):
        count = x.shape[0] * x.shape[2] * x.shape[3]
        grad = grad.astype(np.float64)
        z = _normalised(x, mean, variance, weight, bias, eps)
        y = _activated(z, act, slope)
        if pool:
            spread = np.empty_like(y)
            max_pool2d_backward(grad, _pooled(y, x.dtype)[1], spread)
            grad = spread
        inner = np.empty_like(grad)
        if act == LEAKY_RELU:
            leaky_relu_grad(z, grad, inner, slope)
        elif act == SILU:
            silu_grad(z, grad, inner)
        else:
            {RELU: relu_grad, SIGMOID: sigmoid_grad, TANH: tanh_grad}[act](y, grad, inner)
        rstd = 1 / np.sqrt(_per_channel(variance) + eps)
        normalised = (x - _per_channel(mean)) * rstd
        grad_bias[...] = sum_grad = inner.sum(axis=(0, 2, 3))
        grad_weight[...] = sum_product = (inner * normalised).sum(axis=(0, 2, 3))
        scale = rstd * _per_channel(weight) if weight.size else rstd
        grad_x[...] = scale * (inner - _per_channel(sum_grad) / count - normalised * _per_channel(sum_product) / count)


def batch_norm_running(mean, variance, running_mean, running_var, momentum, batches, count, cumulative):
    """In place: both running values move by momentum[0] towards the batch's mean and its unbiased variance.

    The batch had `count` values per channel; the variance given is the biased one. The int64 `batches` (1,), unless its
    size is 0, counts up by one; if `cumulative`, momentum[0] then becomes 1 / batches[0].
    """
    with np.errstate(all="ignore"):
        if batches.size:
            batches[0] += 1
            if cumulative:
                momentum[0] = 1 / np.float64(batches[0])
        new = np.float64(momentum[0])
        running_mean[...] = (1 - new) * running_mean + new * mean
        running_var[...] = (1 - new) * running_var + new * variance * (np.float64(count) / np.float64(count - 1))
