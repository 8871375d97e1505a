"""Tests of the exercises of chapter 4."""

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (200, 5)])
def test_bias_gradient(chapter, rng, shape):
    grad, out = normal(rng, *shape), np.full(shape[1], np.nan, np.float32)
    chapter.bias_gradient(grad, out)
    np.testing.assert_allclose(out, grad.sum(0), rtol=1e-4, atol=1e-5)


def test_they_are_compiled(chapter):
    assert isinstance(chapter.bias_gradient, Dispatcher) and isinstance(chapter.linear_relu, Dispatcher)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 3), (65, 64, 31)])
def test_linear_relu(chapter, rng, sizes):
    rows, inputs, outputs = sizes
    x, weight, bias = normal(rng, rows, inputs), normal(rng, outputs, inputs), normal(rng, outputs)
    out = np.full((rows, outputs), np.nan, np.float32)
    chapter.linear_relu(x, weight, bias, out)
    np.testing.assert_allclose(out, np.maximum(x @ weight.T + bias, 0), rtol=1e-4, atol=1e-4)


def test_linear_relu_lets_nan_through(chapter):
    out = np.zeros((1, 1), np.float32)
    chapter.linear_relu(np.full((1, 2), np.nan, np.float32), np.ones((1, 2), np.float32), np.zeros(1, np.float32), out)
    assert np.isnan(out[0, 0])


def test_linear_relu_grad(chapter, rng):
    out = np.array([[0.0, 0.5, 2.0], [0.0, 0.0, 1.0]], np.float32)
    grad = normal(rng, 2, 3)
    np.testing.assert_array_equal(chapter.linear_relu_grad(out, grad), grad * [[0, 1, 1], [0, 0, 1]])
