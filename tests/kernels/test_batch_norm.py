"""Batch normalisation, with and without an activation and pooling behind it, against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, affine, check, empty, numbers, run, same_bits

ACTIVATIONS = {"none": (1, 1.0), "relu": (0, 0.0), "leaky": (1, 0.1), "negative slope": (1, -0.5), "sigmoid": (2, 0.0),
               "tanh": (3, 0.0), "silu": (4, 0.0)}
# Rows of channels, of the last three several parts; planes smaller than a tile, several of which make one; odd ones;
# ones that several tiles make up, by rows and by columns; rows of fewer windows than a vector has lanes, than half of
# it, and of one.
SHAPES = ((4, 3, 1, 1), (33, 130, 1, 1), (7, 300, 1, 1), (60, 100, 1, 1), (70, 300, 1, 1), (130, 50, 1, 1),
          (2, 3, 1, 4), (5, 7, 7, 7), (70, 2, 8, 8), (3, 2, 9, 31), (3, 2, 50, 53), (2, 2, 3, 1100), (1, 2, 5, 513),
          (3, 2, 2, 3), (2, 18, 4, 6))
PARALLEL = ((16, 8, 20, 30), (700, 100, 1, 1), (300, 270, 1, 1), (9, 2300, 1, 1))


def pooled(shape):
    return (*shape[:2], shape[2] // 2, shape[3] // 2)


def agree(shape, dtype, act, slope, pool, parameters, threads=False):
    """Statistics, forward and backward on some numbers around 2, many of them equal if pooled."""
    x = numbers(shape, dtype) + dtype(2)
    out = pooled(shape) if pool else shape
    vector, grad = empty(shape[1], dtype), numbers(out, dtype, 1)
    if not pool:
        check("batch_norm_statistics", (x, vector, vector), {1, 2}, 16, 8, threads)
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    weight, bias = parameters
    forward = (x, mean, variance, weight, bias, empty(out, dtype), 1e-5, act, slope, pool)
    check("batch_norm_forward", forward, {5}, 32, 32, threads)
    grads = empty(shape, dtype), vector, vector
    backward = (x, mean, variance, weight, bias, grad, *grads, 1e-5, act, slope, pool)
    check("batch_norm_backward", backward, {6, 7, 8}, 32, 512, threads)  # sums of up to 80,000 terms


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_batch_norm(name, dtype):
    for number, shape in enumerate(SHAPES):
        for pool in range(1 + (min(shape[2:]) > 1)):
            agree(shape, dtype, *ACTIVATIONS[name], pool, affine(shape[1], dtype)[number % 3])


@pytest.mark.parametrize("shape", PARALLEL)
@pytest.mark.parametrize("name", ("none", "relu", "sigmoid"))
def test_many_tasks_in_parallel_give_the_same_bits(name, shape):
    for pool in range(1 + (min(shape[2:]) > 1)):
        agree(shape, np.float32, *ACTIVATIONS[name], pool, affine(shape[1], np.float32)[0], threads=True)


@pytest.mark.parametrize("act", (0, 1))
@pytest.mark.parametrize("shape", ((3, 2, 9, 21), (3, 2, 6, 14), (20, 2, 8, 8), (2, 1, 4, 2)))
@pytest.mark.parametrize("special", (0.0, np.nan, np.inf, -np.inf))
def test_ties_and_special_values(special, shape, act):
    """The first of equal elements wins, NaN beats every number, the last one if several: statistics are given."""
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal(shape)).astype(np.float32)
    x[rng.random(shape) < 0.3] = special
    mean, one = np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)
    grad = rng.standard_normal(pooled(shape)).astype(np.float32)
    check("batch_norm_forward", (x, mean, one, one, mean, empty(grad.shape, x.dtype), 0.0, act, 1.0, 1), {5})
    grads = empty(shape, x.dtype), empty(shape[1], x.dtype), empty(shape[1], x.dtype)
    arguments = (x, mean, one, one, mean, grad, *grads, 0.0, act, 1.0, 1)
    check("batch_norm_backward", arguments, {6, 7, 8}, 32, 128)
    if np.isfinite(special):
        same_bits("batch_norm_backward", arguments)


@pytest.mark.parametrize("shape", ((64, 3, 16, 16), (16_384, 3, 1, 1), (64, 3, 4, 4)))
def test_batch_norm_statistics_of_a_large_mean(shape):
    """E[x²] - E[x]² has no correct digit here."""
    x = (np.random.default_rng(0).standard_normal(shape) + 1e4).astype(np.float32)
    _, mean, variance = run("batch_norm_statistics", (x, empty(3, np.float32), empty(3, np.float32)))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=(0, 2, 3)), rtol=1e-3)


def test_batch_norm_of_a_constant():
    x = np.full((4, 2, 3, 3), 0.1, np.float32)
    _, mean, variance = run("batch_norm_statistics", (x, empty(2, np.float32), empty(2, np.float32)))
    np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
    assert (variance >= 0).all() and (variance < 1e-12).all()


def test_sums_over_no_rows_are_zeros():
    one, none = np.ones(3, np.float32), empty((0, 3, 1, 1), np.float32)
    sums = empty(3, np.float32), empty(3, np.float32)
    got = run("batch_norm_backward", (none, one, one, one, one, none, none, *sums, 1e-5, 0, 0.0, 0))
    np.testing.assert_array_equal(got[7:9], 0)


def test_nan_stays_in_its_channel():
    for shape in ((4, 3, 1, 5), (4, 3, 1, 1)):
        x = numbers(shape, np.float32)
        x[1, 1, 0, 0] = np.nan
        _, mean, variance = run("batch_norm_statistics", (x, empty(3, np.float32), empty(3, np.float32)))
        np.testing.assert_array_equal(np.isnan(mean), [False, True, False])
        np.testing.assert_array_equal(np.isnan(variance), [False, True, False])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cumulative", (0, 1))
@pytest.mark.parametrize("size", (0, 1))
def test_batch_norm_running(size, cumulative, dtype):
    mean, running, batches = numbers(7, dtype), numbers(7, dtype, 1), np.full(size, 4)
    for count in (2, 640):
        rate = np.array([0.1], dtype)
        arguments = (mean, mean * mean, running, running * running, rate, batches, count, cumulative)
        check("batch_norm_running", arguments, {2, 3, 4}, 8, 2)
