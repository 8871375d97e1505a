"""Exercises of chapter 5. Replace each `raise` by your answer and compile the kernels with @njit."""


def max_pool(x, table, stride, out):
    """The largest of the pixels at corner + table[k], in each channel of x (N, C, H, W): out (N, C, OH, OW).

    NaN is larger than every number.
    """
    raise NotImplementedError


def grad_weight(x, grad, table, stride, out):
    """out[o, k] = sum over images n and pixels (i, j) of grad[n, o, i, j] times the pixel at corner + table[k] of x[n].

    Padded images x (N, C, H, W), grad (N, O, OH, OW), one offset per tap, out (O, taps).
    """
    raise NotImplementedError
