"""logsumexp, softmax and log_softmax of x (M, R, K) over R, and their gradients from the output y."""

import numpy as np


def logsumexp(x, out):
    """out (M, K) = log Σ exp(x) over R, without overflow; -inf if R is 0."""
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        top = x.max(axis=1, keepdims=True, initial=-np.inf)
        shift = np.where(np.isinf(top), 0, top)
        out[...] = (shift + np.log(np.exp(x - shift).sum(axis=1, keepdims=True)))[:, 0]


def softmax(x, out):
    """out (M, R, K) = exp(x) / Σ exp(x)."""
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        powers = np.exp(x - x.max(axis=1, keepdims=True, initial=-np.inf))
        out[...] = powers / powers.sum(axis=1, keepdims=True)


def softmax_grad(y, grad, out):
    """out = y (grad - Σ y grad)."""
    with np.errstate(all="ignore"):
        y, grad = y.astype(np.float64), grad.astype(np.float64)
        out[...] = y * (grad - (y * grad).sum(axis=1, keepdims=True))


def log_softmax(x, out):
    """out (M, R, K) = x - log Σ exp(x)."""
    with np.errstate(all="ignore"):
        x = x.astype(np.float64)
        shifted = x - x.max(axis=1, keepdims=True, initial=-np.inf)
        out[...] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_softmax_grad(y, grad, out):
    """out = grad - exp(y) Σ grad."""
    with np.errstate(all="ignore"):
        y, grad = y.astype(np.float64), grad.astype(np.float64)
        out[...] = grad - np.exp(y) * grad.sum(axis=1, keepdims=True)
