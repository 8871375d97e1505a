"""Optimizer steps against the reference (which follows torch.optim's formulas)."""

import numpy as np
import pytest
from agreement import FLOATS, check, numbers

from minigrad.kernels import cpu

SIZES = (0, 1, 17, 33, 70_003)


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
            check("sgd", arguments, {0, 2}, 8, 4, threads=size == SIZES[-1])


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
            arguments = (*arrays, decoupled, maximize)
            check("adam", arguments, {0, 2, 3, 4, 5}, 16, 16, threads=size == SIZES[-1])


def test_adam_of_zero_gradients_does_not_move():
    zero = np.zeros(5, np.float32)
    settings = np.array([1.0, 0.9, 0.999, 1e-8, 0.0])
    arguments = (zero + 1, zero, zero, zero, zero[:0], np.zeros(1), settings, 0, 0)
    after = check("adam", arguments, {0, 2, 3, 5})
    np.testing.assert_array_equal(after[0], 1)
    np.testing.assert_array_equal(after[5], 1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kernel", ("sgd", "adam"))
def test_averages_too_small_to_be_normal_are_0(kernel, dtype):
    """They would stay, for 0.9 of the smallest number rounds to it, and processors are slow with them."""
    tiny = np.finfo(dtype).tiny
    param, grad, average = (np.zeros(40, dtype) for _ in range(3))
    average[:] = 4 * tiny
    average[33:37] = np.nan, -np.inf, -tiny, 1
    squares = np.abs(average)
    if kernel == "sgd":
        arguments = param, grad, average, np.array([1.0, 0.5, 0.0, 0.0]), 0, 0, 0
    else:
        settings = np.array([1.0, 0.5, 0.5, 1e-8, 0.0])
        arguments = param, grad, average, squares, grad[:0], np.zeros(1), settings, 0, 0
    getattr(cpu, kernel)(*arguments)
    np.testing.assert_array_equal(average[:33], 2 * tiny)
    np.testing.assert_array_equal(average[33:37], [np.nan, -np.inf, 0, 0.5])
    if kernel == "adam":
        np.testing.assert_array_equal(squares[33:37], [np.nan, np.inf, tiny, 0.5])
    for _ in range(2):
        getattr(cpu, kernel)(*arguments)
    np.testing.assert_array_equal(average[:33], 0)
    if kernel == "adam":
        np.testing.assert_array_equal(squares[:33], tiny)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", (0.1, 1.0, 1e3))
def test_adam_without_eps_stays_finite(dtype, size):
    """Gradients whose squares are about as small as numbers get, and then none."""
    param, average, squares = (np.zeros(5, dtype) for _ in range(3))
    settings, step = np.array([0.1, 0.9, 0.999, 0.0, 0.0]), np.zeros(1)
    for i in range(40):
        grad = np.full(5, size * np.sqrt(np.finfo(dtype).tiny) if i < 20 else 0, dtype)
        cpu.adam(param, grad, average, squares, param[:0], step, settings, 0, 0)
        assert np.isfinite(param).all() and (param < 0).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_scale_and_add(dtype):
    for size in SIZES:
        x, y = numbers(size, dtype), numbers(size, dtype, 1)
        check("scale_inplace", (x, np.array([0.3], dtype)), {0}, 0, threads=size == SIZES[-1])
        check("fused_add", (x, y), {0}, 0, threads=size == SIZES[-1])
