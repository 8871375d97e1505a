"""The CUDA kernels of batch normalisation against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, affine, empty, numbers
from cuda_agreement import check, run

ACTIVATIONS = {"none": (1, 1.0), "relu": (0, 0.0), "leaky": (1, 0.1), "negative slope": (1, -0.5), "sigmoid": (2, 0.0),
               "tanh": (3, 0.0), "silu": (4, 0.0)}
# Rows of channels, fewer and more than a warp has lanes, few and many of them; planes of an odd size, smaller and
# larger than a block; planes that 128-bit loads make up; below them channels that several blocks share, in each way.
SHAPES = ((4, 3, 1, 1), (33, 40, 1, 1), (2, 300, 1, 1), (2, 3, 1, 4), (5, 7, 7, 7), (20, 2, 8, 8), (3, 2, 9, 31),
          (3, 2, 2, 3), (2, 18, 4, 6))  # fmt: skip
SHARED = ((1100, 3, 1, 1), (17, 1, 21, 25), (35, 1, 20, 24))


def pooled(shape):
    return (*shape[:2], shape[2] // 2, shape[3] // 2)


def agree(shape, dtype, act, slope, pool, parameters):
    """Statistics, forward and backward on some numbers around 2, many of them equal if pooled."""
    x = numbers(shape, dtype) + dtype(2)
    out = pooled(shape) if pool else shape
    vector, grad = empty(shape[1], dtype), numbers(out, dtype, 1)
    if not pool:
        check("batch_norm_statistics", (x, vector, vector), {1, 2}, 16, 8)
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    weight, bias = parameters
    forward = (x, mean, variance, weight, bias, empty(out, dtype), 1e-5, act, slope, pool)
    check("batch_norm_forward", forward, {5}, 32, 32)
    grads = empty(shape, dtype), vector, vector
    backward = (x, mean, variance, weight, bias, grad, *grads, 1e-5, act, slope, pool)
    check("batch_norm_backward", backward, {6, 7, 8}, 32, 512)  # sums of up to 17,000 terms


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_batch_norm(name, dtype):
    for number, shape in enumerate(SHAPES):
        for pool in range(1 + (min(shape[2:]) > 1)):
            agree(shape, dtype, *ACTIVATIONS[name], pool, affine(shape[1], dtype)[number % 3])


@pytest.mark.parametrize("shape", SHARED)
def test_channels_that_blocks_share(shape):
    for pool in range(1 + (min(shape[2:]) > 1)):
        agree(shape, np.float32, *ACTIVATIONS["silu"], pool, affine(shape[1], np.float32)[0])


@pytest.mark.parametrize("act", (0, 1))
@pytest.mark.parametrize("shape", ((3, 2, 9, 21), (3, 2, 6, 14), (2, 1, 4, 2)))
@pytest.mark.parametrize("special", (0.0, np.nan, np.inf, -np.inf))
def test_ties_and_special_values(special, shape, act):
    """The first of equal elements wins, NaN beats every number, the last one if several: statistics are given."""
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal(shape)).astype(np.float32)
    x[rng.random(shape) < 0.3] = special
    mean, one = np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)
    grad = rng.standard_normal(pooled(shape)).astype(np.float32)
    check("batch_norm_forward", (x, mean, one, one, mean, empty(grad.shape, x.dtype), 0.0, act, 0.5, 1), {5})
    grads = empty(shape, x.dtype), empty(shape[1], x.dtype), empty(shape[1], x.dtype)
    arguments = (x, mean, one, one, mean, grad, *grads, 0.0, act, 0.5, 1)
    check("batch_norm_backward", arguments, {6, 7, 8}, 32, 128)


@pytest.mark.parametrize("shape", ((16, 3, 16, 16), (1100, 3, 1, 1), (33, 3, 7, 7), (150, 1, 10, 10)))
def test_statistics_of_a_large_mean(shape):
    """E[x²] - E[x]² has no correct digit here."""
    x = (np.random.default_rng(0).standard_normal(shape) + 1e4).astype(np.float32)
    vector = empty(shape[1], np.float32)
    _, mean, variance = run("batch_norm_statistics", (x, vector, vector))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axis=(0, 2, 3)), rtol=1e-3)


def test_statistics_of_a_constant():
    x = np.full((4, 2, 3, 3), 0.1, np.float32)
    _, mean, variance = run("batch_norm_statistics", (x, empty(2, np.float32), empty(2, np.float32)))
    np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
    assert (variance >= 0).all() and (variance < 1e-12).all()


@pytest.mark.parametrize("special", (np.nan, np.inf))
def test_special_values_stay_in_their_channel(special):
    for shape in ((4, 3, 1, 5), (4, 3, 1, 1), (40, 3, 2, 4), (256, 3, 1, 1)):
        x = numbers(shape, np.float32)
        x[-1, 1, 0, 0] = special
        check("batch_norm_statistics", (x, empty(3, np.float32), empty(3, np.float32)), {1, 2}, 16, 8)


def test_nothing_to_do():
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)):
        vector, x = empty(shape[1], np.float32), numbers(shape, np.float32)
        check("batch_norm_statistics", (x, vector, vector), {1, 2}) if shape[1] == 0 else None
        one = np.ones_like(vector)
        check("batch_norm_forward", (x, one, one, one, one, empty(shape, np.float32), 1e-5, 0, 0.0, 0), {5})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cumulative", (0, 1))
@pytest.mark.parametrize("size", (0, 1))
def test_batch_norm_running(size, cumulative, dtype):
    for channels in (7, 1100):
        mean, running, batches = numbers(channels, dtype), numbers(channels, dtype, 1), np.full(size, 4)
        for count in (2, 640):
            rate = np.array([0.1], dtype)
            arguments = (mean, mean * mean, running, running * running, rate, batches, count, cumulative)
            check("batch_norm_running", arguments, (), 8, 2, in_place={2, 3, 4})
