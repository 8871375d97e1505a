"""Matrix products: the definition of each kernel."""

import numpy as np


def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b``; `a` (M, K) or (K, M), `b` (K, N) or (N, K), `out` (M, N), or each with a batch in front."""
    a = a.swapaxes(-2, -1) if transpose_a else a
    b = b.swapaxes(-2, -1) if transpose_b else b
    with np.errstate(all="ignore"):
        out[...] = np.matmul(a, b)


def matmul_workspace(a, b, transpose_a, transpose_b, itemsize):
    """Elements of scratch memory that `matmul` wants, given the shapes of `a` and `b`."""
    return 0


def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O)."""
    with np.errstate(all="ignore"):
        out[...] = x @ weight.T
        if bias.size:
            out += bias


def linear_forward_workspace(x, weight, itemsize):
    """Elements of scratch memory that `linear_forward` wants, given the shapes of `x` and `weight`."""
    return 0
