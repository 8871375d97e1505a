"""The CUDA kernels of layer normalisation against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, affine, empty, numbers
from cuda_agreement import beside, check, run

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import array

# Rows that are held, by four and not, and that are too long for it; column sums of one block and of several.
SHAPES = ((1, 2), (3, 5), (17, 130), (3, 700), (2, 2101), (260, 33), (5, 4), (3, 12), (260, 36))


def _check(shapes, dtype):
    for number, shape in enumerate(shapes):
        rows, length = shape
        x, grad = numbers(shape, dtype) + dtype(2), numbers(shape, dtype, 1)
        column, vector = empty(rows, dtype), empty(length, dtype)
        mean, rstd = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + dtype(1e-5))
        weight, bias = affine(length, dtype)[number % 3]
        arguments = (x, weight, bias, empty(shape, dtype), column, column, 1e-5)
        check("layer_norm_forward", arguments, {3, 4, 5}, 32, 32)
        arguments = (x, mean, rstd, weight, grad, empty(shape, dtype), vector, vector)
        check("layer_norm_backward", arguments, {5, 6, 7}, 32, 64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm(dtype):
    _check(SHAPES, dtype)


@pytest.mark.parametrize("length", (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 63, 64, 65, 68, 127, 128, 129, 132,
                                    511, 512, 513, 516))  # fmt: skip
def test_widths(length):
    """With weight and bias, without a bias, with neither."""
    _check(((3, length),) * 3, np.float32)


def test_wide_rows():
    """Up to 2048 elements are held, up to 8192 by four."""
    _check([(1, length) for length in (2047, 2049, 8192, 8196)], np.float32)


@pytest.mark.parametrize("misplaced", range(5))
def test_arrays_that_do_not_begin_at_a_multiple_of_16_bytes(misplaced):
    shape = 2, 12
    host = [numbers(shape, np.float32), numbers(12, np.float32, 1), numbers(12, np.float32, 2),
            numbers(shape, np.float32, 3), empty(shape, np.float32)]  # fmt: skip
    x, weight, bias, grad, out = [beside(a) if i == misplaced else array.from_host(a) for i, a in enumerate(host)]
    mean, rstd, *sums = [array.empty(n, np.float32) for n in (2, 2, 12, 12)]
    cuda.layer_norm_forward(x, weight, bias, out, mean, rstd, 1e-5)
    wanted = [np.empty(n, np.float32) for n in (shape, 2, 2, shape, 12, 12)]
    reference.layer_norm_forward(*host[:3], *wanted[:3], 1e-5)
    results = [out.numpy(), mean.numpy(), rstd.numpy()]
    cuda.layer_norm_backward(x, mean, rstd, weight, grad, out, *sums)
    reference.layer_norm_backward(host[0], *wanted[1:3], host[1], host[3], *wanted[3:])
    for result, right in zip((*results, out.numpy(), *[a.numpy() for a in sums]), wanted, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("length", (100, 101, 2101))
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
