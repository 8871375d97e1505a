"""Answers to the exercises of chapter 7: squareplus, y = (x + sqrt(x^2 + b)) / 2, with dy/dx = (1 + x / root) / 2."""

import functools
import os

os.environ.setdefault("MINIGRAD_CUDA", "emulate")

import numpy as np

import minigrad as mg


def squareplus_reference(x, out, b):
    """The definition."""
    out[...] = (x + np.sqrt(x * x + b)) / 2


def squareplus_cpu(x, out, b):
    """The loop; b as a number of the array's type keeps float32 arithmetic in float32."""
    T = x.dtype.type
    half, below = T(0.5), T(b)
    for i in range(x.size):
        out[i] = half * (x[i] + np.sqrt(x[i] * x[i] + below))


def squareplus_grad_cpu(x, grad, out, b):
    """grad (1 + x / sqrt(x^2 + b)) / 2"""
    T = x.dtype.type
    half, one, below = T(0.5), T(1), T(b)
    for i in range(x.size):
        out[i] = grad[i] * half * (one + x[i] / np.sqrt(x[i] * x[i] + below))


class Squareplus(mg.Function):
    """y = (x + sqrt(x^2 + b)) / 2"""

    def forward(self, x, b):
        self.b = b
        out = self.device.empty(x.shape, x.dtype)
        self.device.kernels.squareplus(x.ravel(), out.ravel(), b)
        return out

    def backward(self, grad):
        (x,) = self.inputs
        return (SquareplusGrad.apply(x, grad, b=self.b),)


class SquareplusGrad(mg.Function):
    """grad (1 + x / sqrt(x^2 + b)) / 2, in one pass"""

    def forward(self, x, grad, b):
        self.b = b
        out = self.device.empty(x.shape, x.dtype)
        self.device.kernels.squareplus_grad(x.ravel(), grad.ravel(), out.ravel(), b)
        return out

    def compose(self, x, grad):
        return grad * 0.5 * (1 + x / mg.sqrt(x * x + self.b))


@functools.cache
def cuda_kernels():
    """Made at the first launch."""
    from minigrad.kernels.cuda.language import Float, Int, Pointer, T, divide, kernel, math, thread_index

    @kernel
    def forward(x: Pointer, out: Pointer, n: Int, b: Float):
        i = thread_index()
        if i < n:
            out[i] = T(0.5) * (x[i] + math.sqrt(x[i] * x[i] + b))

    @kernel
    def gradient(x: Pointer, grad: Pointer, out: Pointer, n: Int, b: Float):
        i = thread_index()
        if i < n:
            out[i] = grad[i] * T(0.5) * (T(1) + divide(x[i], math.sqrt(x[i] * x[i] + b)))

    return forward, gradient


def squareplus_cuda(x, out, b):
    """One thread per element, in blocks of 256."""
    cuda_kernels()[0][max(1, -(-x.size // 256)), 256](x, out, x.size, b)


def squareplus_grad_cuda(x, grad, out, b):
    """The same for the gradient."""
    cuda_kernels()[1][max(1, -(-x.size // 256)), 256](x, grad, out, x.size, b)


mg.register_kernel("squareplus", cpu=squareplus_cpu, cuda=squareplus_cuda, reference=squareplus_reference)
mg.register_kernel("squareplus_grad", cpu=squareplus_grad_cpu, cuda=squareplus_grad_cuda)
