"""Answers to the exercises of chapter 2."""


def sum_to(grad, shape):
    """A gradient of the shape that broadcasting made, summed back to the shape that was there before."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return grad.sum(axis=tuple(i for i, extent in enumerate(shape) if extent == 1), keepdims=True)


def matmul_grads(a, b, grad):
    """As for two matrices, with the last two axes swapped, and then summed over what was stretched."""
    by_a, by_b = grad @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ grad
    return sum_to(by_a, a.shape), sum_to(by_b, b.shape)


def centre_grad(grad):
    """Directly an element has the factor 1; through the mean it has -1/n in each of n rows."""
    return grad - grad.mean(axis=0)
