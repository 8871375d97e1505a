"""logsumexp, softmax and log_softmax of x (M, R, K) over R, and their gradients from the output y."""

import numpy as np
from numba import prange

from minigrad.kernels.cpu.compile import inline, kernel
from minigrad.kernels.cpu.vector_math import exp, log


@inline
def _top(x, m, k):
    best = x.dtype.type(-np.inf)
    for r in range(x.shape[1]):
        v = x[m, r, k]
        best = v if (v > best) | (v != v) else best
    return best


@inline
def _sum_of_exp(x, m, k, shift):
    total = x.dtype.type(0)
    for r in range(x.shape[1]):
        total += exp(x[m, r, k] - shift)
    return total


@kernel(parallel=True)
def logsumexp(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            shift = _top(x, m, k)
            if np.isinf(shift):
                shift = x.dtype.type(0)
            out[m, k] = shift + log(_sum_of_exp(x, m, k, shift))


@kernel(parallel=True)
def softmax(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            shift = _top(x, m, k)
            total = _sum_of_exp(x, m, k, shift)
            for r in range(x.shape[1]):
                out[m, r, k] = exp(x[m, r, k] - shift) / total


@kernel(parallel=True)
def log_softmax(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            shift = _top(x, m, k)
            total = log(_sum_of_exp(x, m, k, shift))
            for r in range(x.shape[1]):
                out[m, r, k] = (x[m, r, k] - shift) - total


@kernel(parallel=True)
def softmax_grad(y, grad, out):
    for m in prange(y.shape[0]):
        for k in range(y.shape[2]):
            total = y.dtype.type(0)
            for r in range(y.shape[1]):
                total += y[m, r, k] * grad[m, r, k]
            for r in range(y.shape[1]):
                out[m, r, k] = y[m, r, k] * (grad[m, r, k] - total)


@kernel(parallel=True)
def log_softmax_grad(y, grad, out):
    for m in prange(y.shape[0]):
        for k in range(y.shape[2]):
            total = y.dtype.type(0)
            for r in range(y.shape[1]):
                total += grad[m, r, k]
            for r in range(y.shape[1]):
                out[m, r, k] = grad[m, r, k] - exp(y[m, r, k]) * total
