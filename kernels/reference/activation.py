"""Activations and their gradients. Computed in float64, rounded once: the oracle of the fast kernels."""

import math

import numpy as np

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_erf = np.frompyfunc(math.erf, 1, 1)


def _wide(*arrays):
    return tuple(array.astype(np.float64) for array in arrays)


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _normal_cdf(x):
    return 0.5 * (1 + _erf(x * math.sqrt(0.5)).astype(np.float64))


def relu(x, out):
    """out = max(x, 0); NaN stays NaN."""
    out[...] = np.maximum(x, 0)


def relu_grad(y, grad, out):
    """out = 0 where y <= 0, else grad."""
    out[...] = np.where(y <= 0, 0, grad)


def leaky_relu(x, out, slope):
    """out = x where x > 0, else slope * x."""
    with np.errstate(all="ignore"):
        out[...] = np.where(x > 0, x, x * x.dtype.type(slope))


def leaky_relu_grad(x, grad, out, slope):
    """out = grad where x > 0, else slope * grad."""
    with np.errstate(all="ignore"):
        out[...] = np.where(x > 0, grad, grad * x.dtype.type(slope))


def sigmoid(x, out):
    """out = 1 / (1 + exp(-x))."""
    with np.errstate(all="ignore"):
        out[...] = _logistic(*_wide(x))


def sigmoid_grad(y, grad, out):
    """out = grad * y * (1 - y), y being the output of sigmoid."""
    with np.errstate(all="ignore"):
        y, grad = _wide(y, grad)
        out[...] = grad * y * (1 - y)


def tanh(x, out):
    """out = tanh(x)."""
    out[...] = np.tanh(*_wide(x))


def tanh_grad(y, grad, out):
    """out = grad * (1 - y²), y being the output of tanh."""
    with np.errstate(all="ignore"):
        y, grad = _wide(y, grad)
        out[...] = grad * (1 - y * y)


def gelu(x, out):
    """out = x Φ(x), Φ the normal distribution function (Hendrycks and Gimpel 2016, section 2)."""
    with np.errstate(all="ignore"):
        (x,) = _wide(x)
        out[...] = x * _normal_cdf(x)


def gelu_grad(x, grad, out):
    """out = grad * (Φ(x) + x φ(x))."""
    with np.errstate(all="ignore"):
        x, grad = _wide(x, grad)
        out[...] = grad * (_normal_cdf(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


def gelu_tanh(x, out):
    """out = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 (Hendrycks and Gimpel 2016, section 2)."""
    with np.errstate(all="ignore"):
        (x,) = _wide(x)
        out[...] = 0.5 * x * (1 + np.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * x**3)))


def gelu_tanh_grad(x, grad, out):
    """out = grad * the derivative of gelu_tanh at x."""
    with np.errstate(all="ignore"):
        x, grad = _wide(x, grad)
        t = np.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * x**3))
        inner = _SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x * x)
        out[...] = grad * 0.5 * (1 + t + x * (1 - t * t) * inner)


def silu(x, out):
    """out = x * sigmoid(x)."""
    with np.errstate(all="ignore"):
        (x,) = _wide(x)
        out[...] = x * _logistic(x)


def silu_grad(x, grad, out):
    """out = grad * s * (1 + x (1 - s)), s = sigmoid(x)."""
    with np.errstate(all="ignore"):
        x, grad = _wide(x, grad)
        s = _logistic(x)
        out[...] = grad * s * (1 + x * (1 - s))


def softplus(x, out, beta, threshold):
    """out = log(1 + exp(beta x)) / beta, and x itself where beta x > threshold."""
    with np.errstate(all="ignore"):
        (x,) = _wide(x)
        out[...] = np.where(beta * x > threshold, x, np.log1p(np.exp(beta * x)) / beta)


def softplus_grad(x, grad, out, beta, threshold):
    """out = grad * sigmoid(beta x), and grad itself where beta x > threshold."""
    with np.errstate(all="ignore"):
        x, grad = _wide(x, grad)
        out[...] = np.where(beta * x > threshold, grad, grad * _logistic(beta * x))


def clip(x, out, low, high):
    """out = min(max(x, low), high); NaN stays NaN."""
    out[...] = np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high))


def clip_grad(x, grad, out, low, high):
    """out = grad where low <= x <= high, else 0."""
    out[...] = np.where((x >= x.dtype.type(low)) & (x <= x.dtype.type(high)), grad, 0)
