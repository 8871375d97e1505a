"""The CUDA kernels of layer normalisation against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, affine, empty, numbers
from cuda_agreement import check, run

# Elements of a thread: one, up to 8, more; column sums of one block and of several.
SHAPES = ((1, 2), (3, 5), (17, 130), (3, 700), (2, 2100), (260, 33))


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm(dtype):
    for number, shape in enumerate(SHAPES):
        rows, length = shape
        x, grad = numbers(shape, dtype) + dtype(2), numbers(shape, dtype, 1)
        column, vector = empty(rows, dtype), empty(length, dtype)
        mean, rstd = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + dtype(1e-5))
        weight, bias = affine(length, dtype)[number % 3]
        arguments = (x, weight, bias, empty(shape, dtype), column, column, 1e-5)
        check("layer_norm_forward", arguments, {3, 4, 5}, 32, 32)
        arguments = (x, mean, rstd, weight, grad, empty(shape, dtype), vector, vector)
        check("layer_norm_backward", arguments, {5, 6, 7}, 32, 64)


@pytest.mark.parametrize("length", (100, 2100))
def test_layer_norm_of_a_large_mean(length):
    """E[x²] - E[x]² has no correct digit here."""
    x = (np.random.default_rng(0).standard_normal((2, length)) + 1e4).astype(np.float32)
    none, column = np.empty(0, np.float32), empty(2, np.float32)
    rstd = run("layer_norm_forward", (x, none, none, empty(x.shape, x.dtype), column, column, 0.0))[5]
    np.testing.assert_allclose(rstd, x.std(axis=1, dtype=np.float64) ** -1, rtol=1e-3)


def test_no_rows():
    none = np.empty(0, np.float32)
    x = np.empty((0, 3), np.float32)
    check("layer_norm_forward", (x, none, none, x, none, none, 0.1), {3, 4, 5})
    check("layer_norm_backward", (x, none, none, none, x, x, empty(3, np.float32), empty(3, np.float32)), {5, 6, 7})
