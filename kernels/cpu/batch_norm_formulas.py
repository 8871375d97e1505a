"""The formulas of batch normalisation and of the activations behind it, in loops over elements side by side."""

import numpy as np

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.vector_math import strict

RELU, LEAKY_RELU, SIGMOID, TANH, SILU = 0, 1, 2, 3, 4  # without an activation: LEAKY_RELU of slope 1


@strict
def rstd_of(variance, eps):
    return type(variance)(1) / np.sqrt(variance + eps)


@strict
def _silu_grad(z, grad):
    s, one = vector_math.sigmoid(z), type(z)(1)
    return grad * s * (one + z * (one - s))


@strict
def _sigmoid_grad(y, grad):
    return grad * y * (type(y)(1) - y)


@strict
def _tanh_grad(y, grad):
    return grad * (type(y)(1) - y * y)


@strict
def rectified(z, leaky, slope):
    zero = type(z)(0)
    low = z * slope if leaky else zero
    return low if z <= zero else z


@strict
def rectified_grad(z, grad, leaky, slope):
    """Where z is NaN, ReLU lets the gradient through and leaky ReLU scales it, as the kernels of these names do."""
    zero = type(z)(0)
    low = grad * slope if leaky else zero
    return low if (z <= zero) | (leaky & (z != z)) else grad


@inline
def activate(y, act):
    """In place: y = f(y), f one of the smooth activations. One array, not two that may be the same: LLVM would ask
    whether they overlap, and not vectorise if they do."""
    one, silu = y.dtype.type(1), act == SILU
    if act == TANH:
        for i in range(y.size):
            y[i] = vector_math.tanh(y[i])
    else:
        for i in range(y.size):
            y[i] = (y[i] if silu else one) * vector_math.sigmoid(y[i])


@inline
def derive(z, grad, out, act, slope):
    """out = grad f'(z), but of sigmoid and tanh `z` is the output y, and may be of ReLU with a slope >= 0."""
    leaky = act == LEAKY_RELU
    if act <= LEAKY_RELU:
        for i in range(out.size):
            out[i] = rectified_grad(z[i], grad[i], leaky, slope)
    elif act == SIGMOID:
        for i in range(out.size):
            out[i] = _sigmoid_grad(z[i], grad[i])
    elif act == TANH:
        for i in range(out.size):
            out[i] = _tanh_grad(z[i], grad[i])
    else:
        for i in range(out.size):
            out[i] = _silu_grad(z[i], grad[i])
