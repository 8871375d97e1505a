"""Batch normalization in float32 of values with a mean of 1e4 and a deviation of 1: within 1e-3 of float64.

Half of that is the rounding of the mean to float32, whose neighbours are 9.8e-4 apart there. With E[x^2] - E[x]^2 the
variance would be noise.
"""

import copy

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn

# (shape, ghost_batch_size): sub-batches large enough for a deviation near 1
CASES = [((60, 3), None), ((1000, 300), None), ((5000, 2), None), ((12, 3, 50), None), ((1, 2, 64), None),
         ((100, 20, 7, 7), None), ((16, 3, 28, 28), None), ((1, 4, 12, 12), None), ((3, 2, 130, 130), None),
         ((240, 3), 60), ((9, 3, 50), 2), ((10, 4, 12, 12), 1)]
SMALL = [((60, 3), None), ((600, 1), None), ((4, 3, 40), None), ((1, 2, 64), None), ((6, 2, 7, 7), None),
         ((2, 3, 12, 12), None), ((240, 2), 60), ((5, 2, 8, 8), 1)]
PLACES = [("cpu", *case) for case in CASES] + [("cuda", *case) for case in SMALL]
RUNS = [[], [nn.ReLU], [nn.SiLU], [lambda: nn.LeakyReLU(0.3), lambda: nn.MaxPool2d(2)]]


def values(shape, seed):
    return (np.random.default_rng(seed).standard_normal(shape) + 1e4).astype(np.float32)


@pytest.mark.parametrize("device, shape, ghost", PLACES)
def test_output_and_statistics(device, shape, ghost):
    """By itself and fused, with statistics of the batch and of sub-batches."""
    norm = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    for seed, rest in enumerate(RUNS):
        if len(rest) > 1 and len(shape) != 4:
            continue
        single = nn.Sequential(norm(shape[1], ghost_batch_size=ghost), *[kind() for kind in rest]).to(device)
        double = copy.deepcopy(single).to("cpu").double()
        x = values(shape, seed)
        y = single(mg.tensor(x, device=device)).numpy()
        z = double(mg.tensor(x.astype(np.float64))).numpy()
        np.testing.assert_allclose(y, z, rtol=0, atol=1e-3)
        np.testing.assert_allclose(single[0].running_mean.numpy(), double[0].running_mean.numpy(), rtol=2e-7)
        np.testing.assert_allclose(single[0].running_var.numpy(), double[0].running_var.numpy(), rtol=1e-5)


@pytest.mark.parametrize("device, shape, ghost", PLACES)
def test_the_mean_is_right_to_the_last_bit_or_the_next(device, shape, ghost):
    device, channels = mg.get_device(device), shape[1]
    mean, variance = [device.empty((channels,), np.dtype(np.float32)) for _ in range(2)]
    images = shape if len(shape) == 4 else (*shape[:2], 1, int(np.prod(shape[2:])))
    for seed in range(3):
        x, axes = values(images, seed), (0, 2, 3)
        device.kernels.batch_norm_statistics(device.from_numpy(x), mean, variance)
        found = device.to_numpy(mean).astype(np.float64)
        np.testing.assert_allclose(found, x.mean(axes, dtype=np.float64), rtol=0, atol=5.2e-4)
        np.testing.assert_allclose(device.to_numpy(variance), x.var(axes, dtype=np.float64), rtol=2e-6)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("shape", [(40, 2), (3, 2, 4, 8), (3, 2, 3, 3)])
def test_a_first_value_far_from_the_others_or_not_finite(shape, device):
    """The one that the others are measured from."""
    device = mg.get_device(device)
    images = shape if len(shape) == 4 else (*shape, 1, 1)
    mean, variance = [device.empty((2,), np.dtype(np.float32)) for _ in range(2)]
    for first in (-3e6, np.inf, -np.inf, np.nan):
        x = np.random.default_rng(0).standard_normal(images).astype(np.float32)
        x[0, 0, 0, 0] = first
        device.kernels.batch_norm_statistics(device.from_numpy(x), mean, variance)
        found, spread = device.to_numpy(mean), device.to_numpy(variance)
        with np.errstate(invalid="ignore"):
            wanted, deviation = x.mean((0, 2, 3), dtype=np.float64), x.std((0, 2, 3), dtype=np.float64)
            np.testing.assert_allclose(spread, deviation**2, rtol=1e-5)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
        np.testing.assert_array_equal(found[~np.isfinite(found)], wanted[~np.isfinite(found)])
        finite = np.isfinite(found)
        assert (np.abs(found[finite] - wanted[finite]) <= 1e-6 * deviation[finite]).all()
