"""Matrix products: the definition of each kernel."""

import numpy as np


def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b`` over a batch; `a` (Ba, M, K) or (Ba, K, M), `b` (Bb, K, N) or (Bb, N, K), `out` (B, M, N)."""
    a = a.swapaxes(1, 2) if transpose_a else a
    b = b.swapaxes(1, 2) if transpose_b else b
    with np.errstate(all="ignore"):
        out[...] = np.matmul(a, b)


def matmul_workspace(a, b, transpose_a, transpose_b):
    """Elements of scratch memory that `matmul` wants."""
    return 0


def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O)."""
    with np.errstate(all="ignore"):
        out[...] = x @ weight.T
        if bias.size:
            out += bias


def linear_forward_workspace(x, weight, bias):
    """Elements of scratch memory that `linear_forward` wants."""
    return 0
