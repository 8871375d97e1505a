"""Optimizer steps, all in place. Arrays are 1-D; lr, step and scale are arrays of one element."""

import numpy as np


def sgd(param, grad, buffer, lr, momentum, dampening, weight_decay, nesterov, maximize, first):
    """One step of SGD with momentum, as torch.optim.SGD writes it; nesterov, maximize and first are 0 or 1.

    With momentum 0 the buffer is not touched and may have size 0; on the `first` step it becomes the gradient.
    """
    with np.errstate(all="ignore"):
        g = -grad if maximize else grad
        g = g + weight_decay * param.astype(np.float64)
        if momentum:
            buffer[...] = g if first else momentum * buffer.astype(np.float64) + (1 - dampening) * g
            g = g + momentum * buffer.astype(np.float64) if nesterov else buffer
        param[...] = param - np.float64(lr[0]) * g


def adam(
    param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, lr, step, beta1, beta2, eps, weight_decay, decoupled, maximize
):
    """One step of Adam (Kingma and Ba 2015) or, decoupled, AdamW (Loshchilov and Hutter 2019, algorithm 2).

    step[0] is the number of this step, from 1. max_exp_avg_sq has size 0 unless AMSGrad (Reddi et al. 2018) is wanted.
    """
    with np.errstate(all="ignore"):
        rate, t = np.float64(lr[0]), np.float64(step[0])
        p, g = param.astype(np.float64), grad.astype(np.float64)
        if maximize:
            g = -g
        if decoupled:
            p = p * (1 - rate * weight_decay)
        else:
            g = g + weight_decay * p
        exp_avg[...] = m = beta1 * exp_avg.astype(np.float64) + (1 - beta1) * g
        exp_avg_sq[...] = v = beta2 * exp_avg_sq.astype(np.float64) + (1 - beta2) * g * g
        if max_exp_avg_sq.size:
            max_exp_avg_sq[...] = v = np.maximum(max_exp_avg_sq, v)
        denominator = np.sqrt(v) / np.sqrt(1 - beta2**t) + eps
        param[...] = p - rate / (1 - beta1**t) * m / denominator


def scale_inplace(x, scale):
    """x *= scale[0]."""
    with np.errstate(all="ignore"):
        x *= x.dtype.type(scale[0])


def fused_add(x, y):
    """x += y."""
    with np.errstate(all="ignore"):
        x += y
