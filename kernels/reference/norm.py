"""Batch normalisation of x (N, C, S) and layer normalisation of x (M, D). An absent weight or bias has size 0."""

import numpy as np


def _per_channel(array):
    return array.astype(np.float64)[None, :, None]


def batch_norm_statistics(x, mean, variance):
    """mean, variance (C,): of every channel of x (N, C, S), the variance biased."""
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        mean[...] = x.mean(axis=(0, 2))
        variance[...] = x.var(axis=(0, 2))


def batch_norm_forward(x, mean, variance, weight, bias, out, eps):
    """out = (x - mean) / √(variance + eps) * weight + bias (Ioffe and Szegedy 2015, algorithm 1)."""
    with np.errstate(all="ignore"):
        y = (x - _per_channel(mean)) / np.sqrt(_per_channel(variance) + eps)
        if weight.size:
            y = y * _per_channel(weight)
        if bias.size:
            y = y + _per_channel(bias)
        out[...] = y


def batch_norm_backward(x, mean, variance, weight, grad, grad_x, grad_weight, grad_bias, eps):
    """The three gradients of batch_norm_forward where mean and variance are those of x itself (training)."""
    with np.errstate(all="ignore"):
        count = x.shape[0] * x.shape[2]
        grad = grad.astype(np.float64)
        rstd = 1 / np.sqrt(_per_channel(variance) + eps)
        normalised = (x - _per_channel(mean)) * rstd
        grad_bias[...] = sum_grad = grad.sum(axis=(0, 2))
        grad_weight[...] = sum_product = (grad * normalised).sum(axis=(0, 2))
        scale = rstd * _per_channel(weight) if weight.size else rstd
        grad_x[...] = scale * (grad - _per_channel(sum_grad) / count - normalised * _per_channel(sum_product) / count)


def batch_norm_running(mean, variance, running_mean, running_var, momentum, count):
    """In place: both running values move by momentum[0] towards the batch's mean and its unbiased variance.

    The batch had `count` values per channel; the variance given is the biased one.
    """
    with np.errstate(all="ignore"):
        new = np.float64(momentum[0])
        running_mean[...] = (1 - new) * running_mean + new * mean
        running_var[...] = (1 - new) * running_var + new * variance * (np.float64(count) / np.float64(count - 1))


def layer_norm_forward(x, weight, bias, out, mean, rstd, eps):
    """out = (x - mean) * rstd * weight + bias over each row of x (M, D); mean, rstd (M,) are outputs too.

    rstd = 1 / √(biased variance + eps) (Ba, Kiros and Hinton 2016, section 3).
    """
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        mu = x.mean(axis=1, keepdims=True)
        r = 1 / np.sqrt(x.var(axis=1, keepdims=True) + eps)
        mean[...], rstd[...] = mu[:, 0], r[:, 0]
        y = (x - mu) * r
        if weight.size:
            y = y * weight
        if bias.size:
            y = y + bias
        out[...] = y


def layer_norm_backward(x, mean, rstd, weight, grad, grad_x, grad_weight, grad_bias):
    """The three gradients of layer_norm_forward, from its mean and rstd."""
    with np.errstate(all="ignore"):
        grad, r = grad.astype(np.float64), rstd.astype(np.float64)[:, None]
        normalised = (x.astype(np.float64) - mean[:, None]) * r
        grad_weight[...] = (grad * normalised).sum(axis=0)
        grad_bias[...] = grad.sum(axis=0)
        g = grad * weight if weight.size else grad
        mean_g, mean_product = g.mean(axis=1, keepdims=True), (g * normalised).mean(axis=1, keepdims=True)
        grad_x[...] = r * (g - mean_g - normalised * mean_product)
