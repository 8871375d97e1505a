"""Activations and their gradients."""

import numpy as np
from numba import prange

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.compile import kernel
from minigrad.kernels.cpu.elementwise import PARALLEL, unary
from minigrad.kernels.cpu.vector_math import erf, exp, log1p, strict


def gradient(name, f, first, threshold=PARALLEL):
    """The kernel out[i] = f(y[i], grad[i]); `first` is "x" or "y": what the formula needs, the input or the output."""
    f = strict(f)

    def of_input(x, grad, out):
        n = out.size
        if n < threshold:
            for i in range(n):
                out[i] = f(x[i], grad[i])
        else:
            for i in prange(n):
                out[i] = f(x[i], grad[i])

    def of_output(y, grad, out):
        n = out.size
        if n < threshold:
            for i in range(n):
                out[i] = f(y[i], grad[i])
        else:
            for i in prange(n):
                out[i] = f(y[i], grad[i])

    return kernel(of_input if first == "x" else of_output, name=name, parallel=True)


def _relu(x):
    zero = type(x)(0)
    return zero if x <= zero else x


def _relu_grad(y, grad):
    zero = type(y)(0)
    return zero if y <= zero else grad


def _gelu(x):
    T = type(x)
    return T(0.5) * x * (T(1) + erf(x * T(0.7071067811865476)))


def _gelu_grad(x, grad):
    T = type(x)
    cdf = T(0.5) * (T(1) + erf(x * T(0.7071067811865476)))
    return grad * (cdf + x * T(0.3989422804014327) * exp(T(-0.5) * x * x))


def _gelu_tanh(x):
    T = type(x)
    inner = T(0.7978845608028654) * (x + T(0.044715) * x * x * x)
    return T(0.5) * x * (T(1) + vector_math.tanh(inner))


def _gelu_tanh_grad(x, grad):
    T = type(x)
    t = vector_math.tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x))
    inner = T(0.7978845608028654) * (T(1) + T(0.134145) * x * x)
    return grad * T(0.5) * (T(1) + t + x * (T(1) - t * t) * inner)


def _silu_grad(x, grad):
    s, one = vector_math.sigmoid(x), type(x)(1)
    return grad * s * (one + x * (one - s))


relu = unary("relu", _relu)
sigmoid = unary("sigmoid", lambda x: vector_math.sigmoid(x))
tanh = unary("tanh", lambda x: vector_math.tanh(x))
gelu = unary("gelu", _gelu)
gelu_tanh = unary("gelu_tanh", _gelu_tanh)
silu = unary("silu", lambda x: x * vector_math.sigmoid(x))

relu_grad = gradient("relu_grad", _relu_grad, "y")
sigmoid_grad = gradient("sigmoid_grad", lambda y, grad: grad * y * (type(y)(1) - y), "y")
tanh_grad = gradient("tanh_grad", lambda y, grad: grad * (type(y)(1) - y * y), "y")
gelu_grad = gradient("gelu_grad", _gelu_grad, "x")
gelu_tanh_grad = gradient("gelu_tanh_grad", _gelu_tanh_grad, "x")
silu_grad = gradient("silu_grad", _silu_grad, "x")


@kernel(parallel=True)
def leaky_relu(x, out, slope):
    s, zero = x.dtype.type(slope), x.dtype.type(0)
    for i in prange(out.size):
        out[i] = x[i] if x[i] > zero else x[i] * s


@kernel(parallel=True)
def leaky_relu_grad(x, grad, out, slope):
    s, zero = x.dtype.type(slope), x.dtype.type(0)
    for i in prange(out.size):
        out[i] = grad[i] if x[i] > zero else grad[i] * s


@strict
def _softplus(x, beta, threshold):
    z, zero = x * beta, type(x)(0)
    positive = z if z > zero else zero
    smooth = (positive + log1p(exp(-np.abs(z)))) / beta
    return smooth if z <= threshold else x  # NaN goes through x


@kernel(parallel=True)
def softplus(x, out, beta, threshold):
    b, t = x.dtype.type(beta), x.dtype.type(threshold)
    for i in prange(out.size):
        out[i] = _softplus(x[i], b, t)


@strict
def _softplus_grad(x, grad, beta, threshold):
    z = x * beta
    return grad if z > threshold else grad * vector_math.sigmoid(z)


@kernel(parallel=True)
def softplus_grad(x, grad, out, beta, threshold):
    b, t = x.dtype.type(beta), x.dtype.type(threshold)
    for i in prange(out.size):
        out[i] = _softplus_grad(x[i], grad[i], b, t)


@kernel(parallel=True)
def clip(x, out, low, high):
    a, b = x.dtype.type(low), x.dtype.type(high)
    for i in prange(out.size):
        v = a if x[i] < a else x[i]
        out[i] = b if v > b else v


@kernel(parallel=True)
def clip_grad(x, grad, out, low, high):
    a, b = x.dtype.type(low), x.dtype.type(high)
    for i in prange(out.size):
        out[i] = grad[i] if (x[i] >= a) & (x[i] <= b) else x.dtype.type(0)
