"""Exercises of chapter 6. Replace each `raise` by your answer; test_ch06.py says whether it is one."""


def layer_norm_grad(x, weight, grad, eps):
    """The gradient by x (N, features) of (x - mean) / sqrt(variance + eps) * weight, mean and variance of each row."""
    raise NotImplementedError


def merge(a, b):
    """(count, mean, variance) of two sets of numbers together, from those of each; the variance is divided by count."""
    raise NotImplementedError
