"""Batch and layer normalisation against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, check, empty, numbers, run

BATCH_SHAPES = ((2, 3, 4), (4, 3, 1), (33, 130, 1), (5, 7, 49), (3, 2, 2500), (16, 8, 600), (700, 100, 1))
LAYER_SHAPES = ((1, 2), (3, 5), (17, 130), (200, 33), (5, 3000), (600, 128))
PARALLEL = ((16, 8, 600), (700, 100, 1), (600, 128))


def affine(size, dtype):
    """weight and bias: both, none, only the weight."""
    weight, bias = 1 + 0.1 * numbers(size, dtype, 2), numbers(size, dtype, 3)
    return ((weight, bias), (weight[:0], bias[:0]), (weight, bias[:0]))


@pytest.mark.parametrize("dtype", FLOATS)
def test_batch_norm(dtype):
    for shape in BATCH_SHAPES:
        n, channels, size = shape
        x, grad = numbers(shape, dtype) + dtype(2), numbers(shape, dtype, 1)
        vector, threads = empty(channels, dtype), shape in PARALLEL
        check("batch_norm_statistics", (x, vector, vector), {1, 2}, 16, 8, threads)
        mean, variance = x.mean(axis=(0, 2)), x.var(axis=(0, 2))
        for weight, bias in affine(channels, dtype):
            arguments = (x, mean, variance, weight, bias, empty(shape, dtype), 1e-5)
            check("batch_norm_forward", arguments, {5}, 16, 8, threads)
            arguments = (x, mean, variance, weight, grad, empty(shape, dtype), vector, vector, 1e-5)
            check("batch_norm_backward", arguments, {5, 6, 7}, 32, 128, threads)


@pytest.mark.parametrize("shape", ((64, 3, 256), (16_384, 3, 1)))
def test_batch_norm_statistics_of_a_large_mean(shape):
    """E[x²] - E[x]² has no correct digit here."""
    x = (np.random.default_rng(0).standard_normal(shape) + 1e4).astype(np.float32)
    _, mean, variance = run("batch_norm_statistics", (x, empty(3, np.float32), empty(3, np.float32)))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=(0, 2)), rtol=1e-3)


def test_batch_norm_of_a_constant():
    x = np.full((4, 2, 9), 0.1, np.float32)
    _, mean, variance = run("batch_norm_statistics", (x, empty(2, np.float32), empty(2, np.float32)))
    np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
    assert (variance >= 0).all() and (variance < 1e-12).all()


def test_nan_stays_in_its_channel():
    for shape in ((4, 3, 5), (4, 3, 1)):
        x = numbers(shape, np.float32)
        x[1, 1, 0] = np.nan
        _, mean, variance = run("batch_norm_statistics", (x, empty(3, np.float32), empty(3, np.float32)))
        np.testing.assert_array_equal(np.isnan(mean), [False, True, False])
        np.testing.assert_array_equal(np.isnan(variance), [False, True, False])


@pytest.mark.parametrize("dtype", FLOATS)
def test_batch_norm_running(dtype):
    mean, running = numbers(7, dtype), numbers(7, dtype, 1)
    for count in (2, 640):
        arguments = (mean, mean * mean, running, running * running, np.array([0.1], dtype), count)
        check("batch_norm_running", arguments, {2, 3}, 8, 2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm(dtype):
    for shape in LAYER_SHAPES:
        rows, length = shape
        x, grad = numbers(shape, dtype) + dtype(2), numbers(shape, dtype, 1)
        column, vector, threads = empty(rows, dtype), empty(length, dtype), shape in PARALLEL
        mean, rstd = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + dtype(1e-5))
        for weight, bias in affine(length, dtype):
            arguments = (x, weight, bias, empty(shape, dtype), column, column, 1e-5)
            check("layer_norm_forward", arguments, {3, 4, 5}, 32, 32, threads)
            arguments = (x, mean, rstd, weight, grad, empty(shape, dtype), vector, vector)
            check("layer_norm_backward", arguments, {5, 6, 7}, 32, 64, threads)
