"""Elementwise kernels. Every binary kernel takes 1-D arrays of one size, an operand of size 1, or three 3-D arrays that broadcast."""

import math

import numpy as np
from numba import prange

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.compile import kernel
from minigrad.kernels.cpu.vector_math import strict

PARALLEL = 65536  # elements from which two threads win over one


def unary(name, f, threshold=PARALLEL):
    """The kernel out[i] = f(x[i])."""
    f = strict(f)

    @kernel(name=name, parallel=True)
    def body(x, out):
        n = out.size
        if n < threshold:
            for i in range(n):
                out[i] = f(x[i])
        else:
            for i in prange(n):
                out[i] = f(x[i])

    return body


def binary(name, f, threshold=PARALLEL):
    """The kernel out = f(a, b) of three 1-D arrays, a or b perhaps of size 1, or three 3-D arrays that broadcast."""
    f = strict(f)

    @kernel(name=name, parallel=True)
    def body(a, b, out):
        if out.ndim == 1:
            n = out.size
            if a.size == n and b.size == n:
                if n < threshold:
                    for i in range(n):
                        out[i] = f(a[i], b[i])
                else:
                    for i in prange(n):
                        out[i] = f(a[i], b[i])
            elif a.size == n:
                scalar = b[0]
                for i in range(n):
                    out[i] = f(a[i], scalar)
            else:
                scalar = a[0]
                for i in range(n):
                    out[i] = f(scalar, b[i])
        else:
            for i in range(out.shape[0]):
                ia, ib = min(i, a.shape[0] - 1), min(i, b.shape[0] - 1)
                for j in range(out.shape[1]):
                    ja, jb = min(j, a.shape[1] - 1), min(j, b.shape[1] - 1)
                    for k in range(out.shape[2]):
                        out[i, j, k] = f(a[ia, ja, min(k, a.shape[2] - 1)], b[ib, jb, min(k, b.shape[2] - 1)])

    return body


def _sign(x):
    zero, one = type(x)(0), type(x)(1)
    return one if x > zero else (-one if x < zero else x)


neg = unary("neg", lambda x: -x)
abs = unary("abs", lambda x: np.abs(x))
exp = unary("exp", lambda x: vector_math.exp(x))
log = unary("log", lambda x: vector_math.log(x))
sqrt = unary("sqrt", lambda x: np.sqrt(x))
sign = unary("sign", _sign)
logical_not = unary("logical_not", lambda x: not x)

add = binary("add", lambda a, b: a + b)
sub = binary("sub", lambda a, b: a - b)
mul = binary("mul", lambda a, b: a * b)
div = binary("div", lambda a, b: a / b)
pow = binary("pow", lambda a, b: a**b)
maximum = binary("maximum", lambda a, b: a if (a > b) | (a != a) else b)
minimum = binary("minimum", lambda a, b: a if (a < b) | (a != a) else b)
eq = binary("eq", lambda a, b: a == b)
ne = binary("ne", lambda a, b: a != b)
lt = binary("lt", lambda a, b: a < b)
le = binary("le", lambda a, b: a <= b)
gt = binary("gt", lambda a, b: a > b)
ge = binary("ge", lambda a, b: a >= b)
logical_and = binary("logical_and", lambda a, b: a & b)
logical_or = binary("logical_or", lambda a, b: a | b)


@strict
def _pow(x, e):
    return x**e


@kernel(parallel=True)
def pow_scalar(x, out, exponent):
    e = x.dtype.type(exponent)
    n = out.size
    if exponent == 2.0:
        for i in range(n):
            out[i] = x[i] * x[i]
    else:
        for i in prange(n):
            out[i] = _pow(x[i], e)


@kernel
def where(condition, a, b, out):
    if out.ndim == 1:
        n = out.size
        sc, sa, sb = int(condition.size == n), int(a.size == n), int(b.size == n)
        for i in range(n):
            out[i] = a[i * sa] if condition[i * sc] else b[i * sb]
    else:
        for i in range(out.shape[0]):
            ia, ib, ic = min(i, a.shape[0] - 1), min(i, b.shape[0] - 1), min(i, condition.shape[0] - 1)
            for j in range(out.shape[1]):
                ja, jb, jc = min(j, a.shape[1] - 1), min(j, b.shape[1] - 1), min(j, condition.shape[1] - 1)
                for k in range(out.shape[2]):
                    c = condition[ic, jc, min(k, condition.shape[2] - 1)]
                    left, right = a[ia, ja, min(k, a.shape[2] - 1)], b[ib, jb, min(k, b.shape[2] - 1)]
                    out[i, j, k] = left if c else right


@kernel(parallel=True)
def cast(x, out):
    for i in prange(out.size):
        out[i] = out.dtype.type(x[i])


copy = unary("copy", lambda x: x)


@kernel
def fill(out, value):
    v = out.dtype.type(value)
    for i in range(out.size):
        out[i] = v
