"""Tests of the exercises of chapter 5."""

import numpy as np
import pytest

import minigrad as mg


def offsets(channels, height, width, rows, columns):
    c, u, v = np.ogrid[:channels, :height, :width]
    return ((c * rows + u) * columns + v).ravel()


@pytest.mark.parametrize("window, stride", [(2, 2), (3, 1), (3, 2)])
def test_max_pool(chapter, rng, window, stride):
    x = rng.standard_normal((2, 3, 8, 9)).astype(np.float32)
    wanted = mg.max_pool2d(mg.from_numpy(x), window, stride=stride).numpy()
    out = np.full_like(wanted, np.inf)
    chapter.max_pool(x, offsets(1, window, window, 8, 9), stride, out)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("place", [0, 1, 6, 7])
def test_max_pool_keeps_nan(chapter, place):
    x, out = np.arange(12, dtype=np.float32), np.zeros((1, 1, 1, 3), np.float32)
    x[place] = np.nan
    chapter.max_pool(x.reshape(1, 1, 2, 6), offsets(1, 2, 2, 2, 6), 2, out)
    np.testing.assert_array_equal(out.ravel(), [np.nan, 9.0, 11.0])


@pytest.mark.parametrize("stride", [1, 2])
def test_grad_weight(chapter, rng, stride):
    x = rng.standard_normal((3, 2, 7, 9)).astype(np.float32)
    weight = mg.from_numpy(rng.standard_normal((4, 2, 3, 3)).astype(np.float32)).requires_grad_()
    result = mg.conv2d(mg.from_numpy(x), weight, stride=stride)
    grad = rng.standard_normal(result.shape).astype(np.float32)
    (wanted,) = mg.grad(result, [weight], mg.from_numpy(grad))
    out = np.full((4, 18), np.nan, np.float32)
    chapter.grad_weight(x, grad, offsets(2, 3, 3, 7, 9), stride, out)
    np.testing.assert_allclose(out.reshape(weight.shape), wanted.numpy(), rtol=1e-4, atol=1e-4)
