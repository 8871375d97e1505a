"""The CUDA kernels of the softmax family against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import check

# Elements of a thread: one, up to 8, more; these of one block and of several; rows, columns and something in between.
SHAPES = ((1, 1, 1), (64, 10, 1), (40, 32, 1), (5, 33, 1), (3, 1000, 1), (2, 2100, 1), (1, 9000, 1), (4, 10, 33),
          (2, 7, 130), (2, 90, 35), (1, 1100, 5), (100, 12, 1), (0, 4, 5), (4, 5, 0))  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ("logsumexp", "softmax", "log_softmax"))
def test_softmax(name, dtype):
    for shape in (*SHAPES, (2, 0, 3)):
        x = numbers(shape, dtype)
        if shape[1] > 1 and x.size:
            x[0, 0, 0] = -np.inf
            x[-1, 1, -1] = 200  # exp overflows without the shift
        out = empty((shape[0], shape[2]) if name == "logsumexp" else shape, dtype)
        check(name, (x, out), {1}, 8, 1)


@pytest.mark.parametrize("shape", ((3, 5, 1), (3, 100, 1), (3, 5, 4), (3, 2100, 1), (3, 1200, 4)))
def test_softmax_of_infinities(shape):
    for dtype in FLOATS:
        x = numbers(shape, dtype)
        x[0], x[1, 2], x[2, 0] = -np.inf, np.inf, np.nan
        check("logsumexp", (x, empty((3, shape[2]), dtype)), {1}, 8)
        check("softmax", (x, empty(shape, dtype)), {1}, 8)
        check("log_softmax", (x, empty(shape, dtype)), {1}, 8)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_gradients(dtype):
    for shape in SHAPES:
        grad, y = numbers(shape, dtype, 1), numbers(shape, dtype)
        shifted = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        check("softmax_grad", (np.exp(shifted), grad, empty(shape, dtype)), {2}, 16, 16)
        check("log_softmax_grad", (shifted, grad, empty(shape, dtype)), {2}, 16, 16)
