"""Answers to the exercises of chapter 6."""

import numpy as np


def layer_norm_grad(x, weight, grad, eps):
    """The weight multiplies before anything is averaged, so it belongs to the gradient, not in front of the bracket."""
    scale = 1 / np.sqrt(x.var(axis=1, keepdims=True) + eps)
    normalised, grad = (x - x.mean(axis=1, keepdims=True)) * scale, grad * weight
    by_variance = normalised * (grad * normalised).mean(axis=1, keepdims=True)
    return scale * (grad - grad.mean(axis=1, keepdims=True) - by_variance)


def merge(a, b):
    """The squares about the common mean: those about each own mean, and what the means' distance adds.

    Chan, Golub and LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    (m, mean_a, var_a), (n, mean_b, var_b) = a, b
    count, apart = m + n, mean_b - mean_a
    mean = mean_a + apart * (n / count)
    return count, mean, (m * var_a + n * var_b) / count + apart * apart * (m * n / count**2)
