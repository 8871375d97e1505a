"""Optimizer steps, all in place. Arrays are 1-D; what may vary from step to step is read from `settings` (float64)."""

import numpy as np


def sgd(param, grad, buffer, settings, nesterov, maximize, first):
    """One step of SGD with momentum, as torch.optim.SGD writes it; nesterov, maximize and first are 0 or 1.

    settings holds lr, momentum, dampening and weight_decay. With momentum 0 the buffer is not touched and may have
    size 0; on the `first` step it becomes the gradient, without reading it. Averages, here and in `adam`, may be 0
    where they are too small to be normal numbers; those of squares may be the smallest normal number there.
    """
    lr, momentum, dampening, weight_decay = settings
    with np.errstate(all="ignore"):
        g = -grad if maximize else grad
        g = g + weight_decay * param.astype(np.float64)
        if momentum:
            buffer[...] = g if first else momentum * buffer.astype(np.float64) + (1 - dampening) * g
            g = g + momentum * buffer.astype(np.float64) if nesterov else buffer
        param[...] = param - lr * g


def adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, step, settings, decoupled, maximize):
    """One step of Adam (Kingma and Ba 2015) or, decoupled, AdamW (Loshchilov and Hutter 2019, algorithm 2).

    settings holds lr, beta1, beta2, eps and weight_decay. step[0] counts the steps taken, and goes up by one.
    max_exp_avg_sq has size 0 unless AMSGrad (Reddi et al. 2018) is wanted.
    """
    rate, beta1, beta2, eps, weight_decay = settings
    step += 1
    with np.errstate(all="ignore"):
        t = step[0]
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
