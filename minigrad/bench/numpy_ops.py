"""Every op of the benchmark in plain NumPy, with its gradient.

The best that stays readable: matrix products for convolution, no needless temporaries, no loops over elements. An op
takes arrays and returns its result and ``backward(grad)``, which returns one gradient per input (None for labels).
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def _sum_to(grad, shape):
    """Undo broadcasting: sum a gradient back to the shape of the input."""
    missing = grad.ndim - len(shape)
    axes = (*range(missing), *[i + missing for i, extent in enumerate(shape) if extent == 1 < grad.shape[i + missing]])
    return grad.sum(axes).reshape(shape) if axes else grad


def add(a, b):
    return a + b, lambda grad: (_sum_to(grad, a.shape), _sum_to(grad, b.shape))


def mul(a, b):
    return a * b, lambda grad: (_sum_to(grad * b, a.shape), _sum_to(grad * a, b.shape))


def div(a, b):
    out = a / b

    def backward(grad):
        grad_a = grad / b
        grad_b = grad_a * out
        np.negative(grad_b, out=grad_b)
        return _sum_to(grad_a, a.shape), _sum_to(grad_b, b.shape)

    return out, backward


def pow(x, exponent):
    def backward(grad):
        grad_x = x ** (exponent - 1)
        grad_x *= exponent
        grad_x *= grad
        return (grad_x,)

    return x**exponent, backward


def exp(x):
    out = np.exp(x)
    return out, lambda grad: (grad * out,)


def log(x):
    return np.log(x), lambda grad: (grad / x,)


def tanh(x):
    out = np.tanh(x)

    def backward(grad):
        grad_x = out * out
        np.subtract(1, grad_x, out=grad_x)
        grad_x *= grad
        return (grad_x,)

    return out, backward


def sigmoid(x):
    out = np.exp(-x)
    out += 1
    np.reciprocal(out, out=out)

    def backward(grad):
        grad_x = 1 - out
        grad_x *= out
        grad_x *= grad
        return (grad_x,)

    return out, backward


def relu(x):
    out = np.maximum(x, 0)
    return out, lambda grad: (grad * (out > 0),)


_erf = np.frompyfunc(math.erf, 1, 1)


def gelu(x):
    """Only as the reference: NumPy has no erf, and this one calls Python for every element."""
    below = (_erf(x / math.sqrt(2)).astype(x.dtype) + 1) / 2

    def backward(grad):
        density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return (grad * (below + x * density),)

    return x * below, backward


def sum(x, dim):
    def backward(grad):
        return (np.broadcast_to(grad if dim is None else np.expand_dims(grad, dim), x.shape).copy(),)

    return x.sum(dim), backward


def softmax(x, dim):
    out = x - x.max(dim, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(dim, keepdims=True)

    def backward(grad):
        grad_x = grad * out
        total = grad_x.sum(dim, keepdims=True)
        grad_x -= out * total
        return (grad_x,)

    return out, backward


def matmul(a, b):
    return a @ b, lambda grad: (grad @ b.T, a.T @ grad)


def linear(x, weight, bias):
    out = x @ weight.T
    out += bias

    def backward(grad, needs_x=True):
        return grad @ weight if needs_x else None, grad.T @ x, grad.sum(0)

    return out, backward


def conv2d(x, weight, bias, padding, stride=1, dilation=1, groups=1):
    """Every window becomes a column, so that the convolution is one matrix product per image and group."""
    n, c, h, w = x.shape
    o, _, kh, kw = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))) if padding else x
    windows = sliding_window_view(padded, ((kh - 1) * dilation + 1, (kw - 1) * dilation + 1), (2, 3))
    windows = windows[:, :, ::stride, ::stride, ::dilation, ::dilation]
    oh, ow = windows.shape[2:4]
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, groups, c // groups * kh * kw, oh * ow)
    matrix = weight.reshape(groups, o // groups, -1)
    out = (matrix @ columns).reshape(n, o, oh, ow)
    out += bias[:, None, None]

    def backward(grad, needs_x=True):
        grad_bias = grad.sum((0, 2, 3))
        grad = grad.reshape(n, groups, o // groups, oh * ow)
        grad_weight = (grad @ columns.swapaxes(2, 3)).sum(0).reshape(weight.shape)
        if not needs_x:
            return None, grad_weight, grad_bias
        shares = (matrix.swapaxes(1, 2) @ grad).reshape(n, c, kh, kw, oh, ow)
        grad_padded = np.zeros_like(padded)
        for i in range(kh):
            for j in range(kw):
                top, left = i * dilation, j * dilation
                rows, cols = slice(top, top + oh * stride, stride), slice(left, left + ow * stride, stride)
                grad_padded[:, :, rows, cols] += shares[:, :, i, j]
        return grad_padded[:, :, padding : padding + h, padding : padding + w], grad_weight, grad_bias

    return out, backward


def batch_norm(x, weight, bias, eps=1e-5, statistics=None):
    """Training mode; the mean and the biased variance go into the list `statistics`, if there is one."""
    axes = (0, *range(2, x.ndim))
    column = (-1, *[1] * (x.ndim - 2))
    count = x.size // x.shape[1]
    mean = x.mean(axes).reshape(column)
    normalised = x - mean
    variance = np.square(normalised).mean(axes).reshape(column)
    scale = 1 / np.sqrt(variance + eps)
    normalised *= scale
    out = normalised * weight.reshape(column)
    out += bias.reshape(column)
    if statistics is not None:
        statistics[:] = mean.ravel(), variance.ravel()

    def backward(grad):
        grad_weight = (grad * normalised).sum(axes)
        grad_bias = grad.sum(axes)
        grad_x = normalised * (grad_weight / -count).reshape(column)
        grad_x += grad
        grad_x -= (grad_bias / count).reshape(column)
        grad_x *= scale * weight.reshape(column)
        return grad_x, grad_weight, grad_bias

    return out, backward


def _corners(x, size, stride, padding, value):
    """The padded image, and for each element of a window the slices that take it out of all windows."""
    edge = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    padded = np.pad(x, edge, constant_values=value) if padding else x
    h, w = [(extent - size) // stride * stride + 1 for extent in padded.shape[2:]]
    return padded, [(..., slice(i, i + h, stride), slice(j, j + w, stride)) for i in range(size) for j in range(size)]


def max_pool2d(x, size=2, stride=None, padding=0):
    """Rows and columns that fill no window are left out."""
    stride = stride or size
    padded, corners = _corners(x, size, stride, padding, -np.inf)
    out = padded[corners[0]].copy()
    for corner in corners[1:]:
        np.maximum(out, padded[corner], out=out)

    def backward(grad):
        grad_x = np.zeros_like(padded)
        free = np.ones(out.shape, bool)  # the gradient goes to the first of equal maxima
        for corner in corners:
            won = padded[corner] == out
            won &= free
            free ^= won
            if stride < size:
                grad_x[corner] += grad * won
            else:
                np.multiply(grad, won, out=grad_x[corner])
        return (grad_x[..., padding : padding + x.shape[2], padding : padding + x.shape[3]],)

    return out, backward


def avg_pool2d(x, size=2, stride=None, padding=0):
    """Rows and columns that fill no window are left out; padding counts."""
    stride = stride or size
    padded, corners = _corners(x, size, stride, padding, 0)
    out = padded[corners[0]].copy()
    for corner in corners[1:]:
        out += padded[corner]
    out *= 1 / size**2

    def backward(grad):
        grad_x = np.zeros_like(padded)
        share = grad * (1 / size**2)
        for corner in corners:
            if stride < size:
                grad_x[corner] += share
            else:
                grad_x[corner] = share
        return (grad_x[..., padding : padding + x.shape[2], padding : padding + x.shape[3]],)

    return out, backward


def cross_entropy(logits, target):
    """Mean over the batch."""
    shifted = logits - logits.max(1, keepdims=True)
    rows = np.arange(len(target))
    picked = shifted[rows, target]
    np.exp(shifted, out=shifted)
    total = shifted.sum(1, keepdims=True)
    loss = (np.log(total[:, 0]) - picked).mean()

    def backward(grad):
        grad_logits = shifted / total
        grad_logits[rows, target] -= 1
        grad_logits *= grad / len(target)
        return grad_logits, None

    return loss, backward


def chain(x, w, length):
    """x * w * w * ..."""
    values = [x]
    for _ in range(length):
        values.append(values[-1] * w)

    def backward(grad):
        grad_w = np.zeros_like(w)
        for value in values[-2::-1]:
            grad_w += grad * value
            grad = grad * w
        return grad, grad_w

    return values[-1], backward


def fan_out(x, w, width):
    """x * w + x * w + ..."""
    total = x * w
    for _ in range(width - 1):
        total = total + x * w
    return total, lambda grad: (grad * w * width, grad * x * width)


OPS = {
    f.__name__: f
    for f in (add, mul, div, pow, exp, log, tanh, sigmoid, relu, gelu, sum, softmax, matmul, linear, conv2d, batch_norm,
              max_pool2d, avg_pool2d, cross_entropy, chain, fan_out)
}


class SGD:
    """Momentum; everything in place."""

    def __init__(self, parameters, lr, momentum):
        self.parameters, self.lr, self.momentum = parameters, lr, momentum
        self.buffers = [np.zeros_like(p) for p in parameters]

    def step(self, gradients):
        for p, buffer, grad in zip(self.parameters, self.buffers, gradients, strict=True):
            buffer *= self.momentum
            buffer += grad
            p -= self.lr * buffer


class Adam:
    """Kingma and Ba, arXiv 1412.6980, algorithm 1; everything in place."""

    def __init__(self, parameters, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
        self.parameters, self.lr, self.beta1, self.beta2, self.eps = parameters, lr, beta1, beta2, eps
        self.means = [np.zeros_like(p) for p in parameters]
        self.squares = [np.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, gradients):
        self.steps += 1
        rate = self.lr / (1 - self.beta1**self.steps)
        correction = (1 - self.beta2**self.steps) ** 0.5
        for p, mean, square, grad in zip(self.parameters, self.means, self.squares, gradients, strict=True):
            mean *= self.beta1
            mean += (1 - self.beta1) * grad
            square *= self.beta2
            square += (1 - self.beta2) * np.square(grad)
            divisor = np.sqrt(square)
            divisor /= correction
            divisor += self.eps
            p -= rate * mean / divisor
