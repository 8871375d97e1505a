"""Layer normalisation of x (M, D). An absent weight or bias has size 0."""

import numpy as np


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
