"""Exercises of chapter 2. Replace each `raise` by your answer; test_ch02.py says whether it is one."""


def matmul_grads(a, b, grad):
    """The gradients of a @ b by a and by b, given the gradient of the product; arrays of two or more dimensions.

    The axes before the last two broadcast. Each answer has the shape of its input.
    """
    raise NotImplementedError


def centre_grad(grad):
    """The gradient of x - x.mean(axis=0) by x, given the gradient of the result, both of shape (n, features)."""
    raise NotImplementedError
