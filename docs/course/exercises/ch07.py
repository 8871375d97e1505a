"""Exercises of chapter 7: squareplus, y = (x + sqrt(x^2 + b)) / 2, as an op of your own.

    python -m pytest docs/course/exercises/test_ch07.py
"""

import os

os.environ.setdefault("MINIGRAD_CUDA", "emulate")

import numpy as np

import minigrad as mg


def squareplus_reference(x, out, b):
    """The definition."""
    out[...] = (x + np.sqrt(x * x + b)) / 2


# Exercise 1: the op on the CPU.


def squareplus_cpu(x, out, b):
    """out = (x + sqrt(x^2 + b)) / 2, as a loop over ``x.size`` elements; b is a float.

    Numba compiles this function as it stands: ``np.sqrt`` of one element is fine, whole arrays are not.
    """
    raise NotImplementedError("exercise: write the loop")


def squareplus_grad_cpu(x, grad, out, b):
    """out = grad dy/dx, as a loop."""
    raise NotImplementedError("exercise: find dy/dx, and write the loop")


class Squareplus(mg.Function):
    """y = (x + sqrt(x^2 + b)) / 2; apply it as ``Squareplus.apply(x, b=4.0)``."""

    def forward(self, x, b):
        """Keep b for backward, make an array by ``self.device.empty``, launch ``self.device.kernels.squareplus``."""
        raise NotImplementedError("exercise: launch the kernel")

    def backward(self, grad):
        """A tuple with the gradient by x: an op of its own, SquareplusGrad, applied to x and grad."""
        raise NotImplementedError("exercise: apply SquareplusGrad")


class SquareplusGrad(mg.Function):
    """grad dy/dx, in one pass."""

    def forward(self, x, grad, b):
        """Launch ``self.device.kernels.squareplus_grad``."""
        raise NotImplementedError("exercise: launch the kernel")

    def compose(self, x, grad):
        """The same in tensor ops."""
        raise NotImplementedError("exercise: write the formula in tensor ops")


# Exercise 2: the op on the GPU.


def squareplus_cuda(x, out, b):
    """Launch a CUDA kernel of yours with one thread per element.

    Import the words inside a function (see examples/custom_op_kernels.py); a number b is annotated as Float. The square
    root is ``math.sqrt`` of the language.
    """
    raise NotImplementedError("exercise: write the kernel and launch it")


def squareplus_grad_cuda(x, grad, out, b):
    """Launch a CUDA kernel of yours for the gradient."""
    raise NotImplementedError("exercise: write the kernel and launch it")


mg.register_kernel("squareplus", cpu=squareplus_cpu, cuda=squareplus_cuda, reference=squareplus_reference)
mg.register_kernel("squareplus_grad", cpu=squareplus_grad_cpu, cuda=squareplus_grad_cuda)
