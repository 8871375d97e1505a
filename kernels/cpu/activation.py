"""Activations and their gradients."""

import numpy as np

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import PARALLEL, PARALLEL_COSTLY, blocks, span, unary
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
from minigrad.kernels.cpu.vector_math import log1p, normal, strict


def gradient(name, f, first, threshold=PARALLEL):
    """The kernel out[i] = f(x[i], grad[i]); `first` names what the formula needs: the input x or the output y."""
    f = strict(f)

    @inline
    def one_block(block, x, grad, out):
        start, stop = span(block, out.size)
        source, above, target = x[start:stop], grad[start:stop], out[start:stop]
        for i in range(target.size):
            target[i] = f(source[i], above[i])

    def of_input(x, grad, out):
        parallel_for(one_block, blocks(out.size), out.size >= threshold, (x, grad, out))

    def of_output(y, grad, out):
        parallel_for(one_block, blocks(out.size), out.size >= threshold, (y, grad, out))

    return parallel_kernel(of_input if first == "x" else of_output, name=name)


def _relu(x):
    zero = type(x)(0)
    return zero if x <= zero else x


def _relu_grad(y, grad):
    zero = type(y)(0)
    return zero if y <= zero else grad


def _sigmoid_grad(y, grad):
    return grad * y * (type(y)(1) - y)


def _tanh_grad(y, grad):
    return grad * (type(y)(1) - y * y)


def _gelu(x):
    below, _ = normal(x)
    return x * below


def _gelu_grad(x, grad):
    below, power = normal(x)
    return grad * (below + x * type(x)(0.3989422804014327) * power)


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
sigmoid = unary("sigmoid", lambda x: vector_math.sigmoid(x), PARALLEL_COSTLY)
tanh = unary("tanh", lambda x: vector_math.tanh(x), PARALLEL_COSTLY)
gelu = unary("gelu", _gelu, PARALLEL_COSTLY)
gelu_tanh = unary("gelu_tanh", _gelu_tanh, PARALLEL_COSTLY)
silu = unary("silu", lambda x: x * vector_math.sigmoid(x), PARALLEL_COSTLY)

relu_grad = gradient("relu_grad", _relu_grad, "y")
sigmoid_grad = gradient("sigmoid_grad", _sigmoid_grad, "y")
tanh_grad = gradient("tanh_grad", _tanh_grad, "y")
gelu_grad = gradient("gelu_grad", _gelu_grad, "x", PARALLEL_COSTLY)
gelu_tanh_grad = gradient("gelu_tanh_grad", _gelu_tanh_grad, "x", PARALLEL_COSTLY)
silu_grad = gradient("silu_grad", _silu_grad, "x", PARALLEL_COSTLY)


@inline
def _leaky_relu_block(block, x, out, slope):
    start, stop = span(block, out.size)
    source, target = x[start:stop], out[start:stop]
    s, zero = x.dtype.type(slope), x.dtype.type(0)
    for i in range(target.size):
        target[i] = source[i] if source[i] > zero else source[i] * s


@parallel_kernel
def leaky_relu(x, out, slope):
    parallel_for(_leaky_relu_block, blocks(out.size), out.size >= PARALLEL, (x, out, slope))


@inline
def _leaky_relu_grad_block(block, x, grad, out, slope):
    start, stop = span(block, out.size)
    source, above, target = x[start:stop], grad[start:stop], out[start:stop]
    s, zero = x.dtype.type(slope), x.dtype.type(0)
    for i in range(target.size):
        target[i] = above[i] if source[i] > zero else above[i] * s


@parallel_kernel
def leaky_relu_grad(x, grad, out, slope):
    parallel_for(_leaky_relu_grad_block, blocks(out.size), out.size >= PARALLEL, (x, grad, out, slope))


@strict
def _softplus(x, beta, threshold):
    z, zero = x * beta, type(x)(0)
    positive = z if z > zero else zero
    smooth = (positive + log1p(vector_math.exp(-np.abs(z)))) / beta
    return smooth if z <= threshold else x  # NaN goes through x


@inline
def _softplus_block(block, x, out, beta, threshold):
    start, stop = span(block, out.size)
    source, target = x[start:stop], out[start:stop]
    b, t = x.dtype.type(beta), x.dtype.type(threshold)
    for i in range(target.size):
        target[i] = _softplus(source[i], b, t)


@parallel_kernel
def softplus(x, out, beta, threshold):
    parallel_for(_softplus_block, blocks(out.size), out.size >= PARALLEL_COSTLY, (x, out, beta, threshold))


@strict
def _softplus_grad(x, grad, beta, threshold):
    z = x * beta
    smooth = grad * vector_math.sigmoid(z)
    return grad if z > threshold else smooth


@inline
def _softplus_grad_block(block, x, grad, out, beta, threshold):
    start, stop = span(block, out.size)
    source, above, target = x[start:stop], grad[start:stop], out[start:stop]
    b, t = x.dtype.type(beta), x.dtype.type(threshold)
    for i in range(target.size):
        target[i] = _softplus_grad(source[i], above[i], b, t)


@parallel_kernel
def softplus_grad(x, grad, out, beta, threshold):
    parallel_for(_softplus_grad_block, blocks(out.size), out.size >= PARALLEL_COSTLY, (x, grad, out, beta, threshold))


@inline
def _clip_block(block, x, out, low, high):
    start, stop = span(block, out.size)
    source, target = x[start:stop], out[start:stop]
    a, b = x.dtype.type(low), x.dtype.type(high)
    for i in range(target.size):
        v = a if source[i] < a else source[i]
        target[i] = b if v > b else v


@parallel_kernel
def clip(x, out, low, high):
    parallel_for(_clip_block, blocks(out.size), out.size >= PARALLEL, (x, out, low, high))


@inline
def _clip_grad_block(block, x, grad, out, low, high):
    start, stop = span(block, out.size)
    source, above, target = x[start:stop], grad[start:stop], out[start:stop]
    a, b, zero = x.dtype.type(low), x.dtype.type(high), x.dtype.type(0)
    for i in range(target.size):
        inside = (source[i] >= a) & (source[i] <= b)
        target[i] = above[i] if inside else zero


@parallel_kernel
def clip_grad(x, grad, out, low, high):
    parallel_for(_clip_grad_block, blocks(out.size), out.size >= PARALLEL, (x, grad, out, low, high))
