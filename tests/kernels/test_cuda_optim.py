"""The optimizers' CUDA kernels against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, numbers
from cuda_agreement import check

from minigrad.kernels.cuda import maps

SIZES = (0, 1, 43)


@pytest.fixture(params=(maps.WAVE, 8), ids=("single", "wide"), autouse=True)
def wave(request, monkeypatch):
    """Every test runs with a thread per element, and again with the loops of large arrays."""
    monkeypatch.setattr(maps, "WAVE", request.param)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("momentum", (0.0, 0.9))
@pytest.mark.parametrize("nesterov", (0, 1))
@pytest.mark.parametrize("first", (0, 1))
def test_sgd(dtype, momentum, nesterov, first):
    for size in SIZES:
        param, grad, buffer = (numbers(size, dtype, seed) for seed in range(3))
        if first:
            buffer[:] = np.nan  # a fresh buffer must not be read
        buffer = buffer if momentum else buffer[:0]
        for decay, maximize in ((0.0, 0), (0.1, 1)):
            dampening = 0.0 if nesterov else 0.3
            settings = np.array([0.1, momentum, dampening, decay])
            arguments = (param, grad, buffer, settings, nesterov, maximize, first)
            check("sgd", arguments, {2} if first else set(), 8, 4, in_place={0, 2})


@pytest.mark.parametrize("dtype", FLOATS)
def test_sgd_whose_momentum_became_zero_leaves_the_buffer(dtype):
    param, grad, buffer = (numbers(43, dtype, seed) for seed in range(3))
    for nesterov in (0, 1):
        arguments = (param, grad, buffer, np.array([0.1, 0.0, 0.3, 0.1]), nesterov, 0, 0)
        check("sgd", arguments, set(), 8, 4, in_place={0})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("decoupled", (0, 1))
@pytest.mark.parametrize("amsgrad", (0, 1))
def test_adam(dtype, decoupled, amsgrad):
    for size in SIZES:
        param, grad, average = (numbers(size, dtype, seed) for seed in range(3))
        squares, top = np.square(numbers(size, dtype, 3)), np.square(numbers(size, dtype, 4))
        for step, maximize in ((1.0, 0), (1000.0, 1)):
            settings = np.array([0.01, 0.9, 0.999, 1e-8, 0.1])
            arrays = param, grad, average, squares, top if amsgrad else top[:0], np.array([step - 1]), settings
            check("adam", (*arrays, decoupled, maximize), set(), 16, 16, in_place={0, 2, 3, 4, 5})


def test_adam_of_zero_gradients_does_not_move():
    zero = np.zeros(5, np.float32)
    settings = np.array([1.0, 0.9, 0.999, 1e-8, 0.0])
    arguments = (zero + 1, zero, zero, zero, zero[:0], np.zeros(1), settings, 0, 0)
    after = check("adam", arguments, set(), in_place={0, 2, 3, 5})
    np.testing.assert_array_equal(after[0], 1)
    np.testing.assert_array_equal(after[5], 1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_scale_and_add(dtype):
    for size in SIZES:
        x, y = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        check("scale_inplace", (x, np.array([0.3], dtype)), set(), 0, in_place={0})
        check("fused_add", (x, y), set(), 0, in_place={0})
