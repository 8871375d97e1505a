"""Reductions of x (M, R, K) over R."""

from numba import prange

from minigrad.kernels.cpu.compile import kernel


@kernel(parallel=True)
def sum(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            total = x.dtype.type(0)
            for r in range(x.shape[1]):
                total += x[m, r, k]
            out[m, k] = total


@kernel(parallel=True)
def mean(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            total = x.dtype.type(0)
            for r in range(x.shape[1]):
                total += x[m, r, k]
            out[m, k] = total / x.dtype.type(x.shape[1])


@kernel(parallel=True)
def variance(x, mean, out, correction):
    divisor = x.shape[1] - correction
    divisor = x.dtype.type(divisor if divisor > 0 else 0)
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            total = x.dtype.type(0)
            for r in range(x.shape[1]):
                total += (x[m, r, k] - mean[m, k]) ** 2
            out[m, k] = total / divisor


def _extreme(name, better, position):
    def value(x, out):
        for m in prange(x.shape[0]):
            for k in range(x.shape[2]):
                best = x[m, 0, k]
                for r in range(1, x.shape[1]):
                    if better(x[m, r, k], best):
                        best = x[m, r, k]
                out[m, k] = best

    def index(x, out):
        for m in prange(x.shape[0]):
            for k in range(x.shape[2]):
                best, where = x[m, 0, k], 0
                for r in range(1, x.shape[1]):
                    if better(x[m, r, k], best):
                        best, where = x[m, r, k], r
                out[m, k] = where

    return kernel(index if position else value, name=name, parallel=True)


from minigrad.kernels.cpu.vector_math import strict

_greater = strict(lambda a, b: (a > b) | ((a != a) & (b == b)))
_less = strict(lambda a, b: (a < b) | ((a != a) & (b == b)))
max = _extreme("max", _greater, False)
min = _extreme("min", _less, False)
argmax = _extreme("argmax", _greater, True)
argmin = _extreme("argmin", _less, True)


@kernel
def sum_of_squares(x, out):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * x[i]
    out[0] = total


@kernel(parallel=True)
def any(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            found = False
            for r in range(x.shape[1]):
                found = found | x[m, r, k]
            out[m, k] = found


@kernel(parallel=True)
def all(x, out):
    for m in prange(x.shape[0]):
        for k in range(x.shape[2]):
            every = True
            for r in range(x.shape[1]):
                every = every & x[m, r, k]
            out[m, k] = every
