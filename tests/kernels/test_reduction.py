"""Reductions and the softmax family against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, check, empty, numbers, run

SHAPES = (
    (1, 1, 1), (3, 1, 7), (64, 10, 1), (5, 33, 1), (7, 70, 1), (2, 1000, 1), (1, 100_003, 1), (2, 17, 3), (1, 500, 33),
    (3, 5, 300), (1, 3000, 40), (300, 300, 1), (0, 4, 5), (4, 5, 0),
)  # fmt: skip
LARGE = ((1, 100_003, 1), (1, 3000, 40), (300, 300, 1), (40, 30, 70))
SOFTMAX_SHAPES = ((1, 1, 1), (64, 10, 1), (70, 32, 1), (5, 33, 1), (3, 1000, 1), (2, 5003, 1), (4, 10, 33), (2, 7, 130),
                  (2, 9, 1100), (3000, 12, 1), (40, 1003, 1), (9, 5003, 1), (1, 90, 400), (2, 40, 530), (0, 4, 5),
                  (4, 5, 0))  # fmt: skip
SHARED = (3000, 12, 1), (40, 1003, 1), (9, 5003, 1), (1, 90, 400), (2, 40, 530)  # by several threads


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ("sum", "mean"))
def test_sums(name, dtype):
    for shape in (*SHAPES, (2, 0, 3)):
        x, out = numbers(shape, dtype), empty((shape[0], shape[2]), dtype)
        check(name, (x, out), {1}, 4, 64, threads=shape in LARGE)  # in float64 the reference errs too


@pytest.mark.parametrize("dtype", FLOATS)
def test_variance(dtype):
    for shape in SHAPES:
        for correction in (0, 1):
            x = numbers(shape, dtype) + dtype(5)
            mean = x.mean(axis=1)
            out = empty((shape[0], shape[2]), dtype)
            check("variance", (x, mean, out, correction), {2}, 16, 32, threads=shape in LARGE)


def test_float32_sums_are_as_accurate_as_pairwise_ones():
    """A running float32 sum of a million ones and 1e-4s is off by 1e-4; these are off by a rounding or two."""
    for shape in ((1, 1_000_000, 1), (1, 250_000, 4)):
        x = (1 + 1e-4 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
        exact = x.sum(axis=1, dtype=np.float64)
        got = run("sum", (x, empty((1, shape[2]), np.float32)))[1]
        np.testing.assert_allclose(got, exact, rtol=2e-7)


def test_variance_of_a_large_mean():
    x = (np.random.default_rng(0).standard_normal((2, 5000, 1)) + 1e4).astype(np.float32)
    mean = x.mean(axis=1, dtype=np.float64).astype(np.float32)
    got = run("variance", (x, mean, empty((2, 1), np.float32), 0))[2]
    np.testing.assert_allclose(got, x.var(axis=1, dtype=np.float64), rtol=1e-3)


@pytest.mark.parametrize("dtype", (*FLOATS, np.int64))
@pytest.mark.parametrize("name", ("max", "min", "argmax", "argmin"))
def test_extremes(name, dtype):
    for shape in SHAPES:
        x = numbers(shape, np.float64).round().astype(dtype)  # rounded: ties
        out = empty((shape[0], shape[2]), np.int64 if name.startswith("arg") else dtype)
        check(name, (x, out), {1}, 0, threads=shape in LARGE)
        if dtype != np.int64 and x.size:
            x[0, shape[1] // 2, 0] = np.nan
            x[0, shape[1] - 1, 0] = np.nan
            x[-1, shape[1] // 3, -1] = -np.inf
            check(name, (x, out), {1}, 0)


def test_sum_of_integers():
    for shape in ((3, 40, 1), (2, 300, 9), (1, 100_000, 1)):
        x = np.random.default_rng(0).integers(-(2**40), 2**40, shape)
        check("sum", (x, empty((shape[0], shape[2]), np.int64)), {1})


@pytest.mark.parametrize("name", ("any", "all"))
def test_logical(name):
    for shape in (*SHAPES, (2, 0, 3)):
        x = np.random.default_rng(0).random(shape) < (0.02 if name == "any" else 0.98)
        check(name, (x, empty((shape[0], shape[2]), np.bool_)), {1})


@pytest.mark.parametrize("dtype", FLOATS)
def test_sum_of_squares(dtype):
    for size in (0, 1, 17, 5000, 100_003):
        check("sum_of_squares", (numbers(size, dtype), empty(1, dtype)), {1}, 4, threads=size > 5000)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ("logsumexp", "softmax", "log_softmax"))
def test_softmax(name, dtype):
    for shape in SOFTMAX_SHAPES:
        x = numbers(shape, dtype)
        if shape[1] > 1 and x.size:
            x[0, 0, 0] = -np.inf
            x[-1, 1, -1] = 200  # exp overflows without the shift
        out = empty((shape[0], shape[2]) if name == "logsumexp" else shape, dtype)
        check(name, (x, out), {1}, 8, 1, threads=shape in SHARED)


@pytest.mark.parametrize("shape", ((3, 5, 1), (3, 100, 1), (3, 303, 1), (3, 5003, 1), (3, 5, 4)))
@pytest.mark.parametrize("place", (0, -1))
def test_softmax_of_infinities(shape, place):
    for dtype in FLOATS:
        x = numbers(shape, dtype)
        x[0], x[1, 2], x[2, place] = -np.inf, np.inf, np.nan
        check("logsumexp", (x, empty((3, shape[2]), dtype)), {1}, 8)
        check("softmax", (x, empty(shape, dtype)), {1}, 8)
        check("log_softmax", (x, empty(shape, dtype)), {1}, 8)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_gradients(dtype):
    for shape in SOFTMAX_SHAPES:
        grad, y = numbers(shape, dtype, 1), numbers(shape, dtype)
        shifted = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        check("softmax_grad", (np.exp(shifted), grad, empty(shape, dtype)), {2}, 16, 16, threads=shape in SHARED)
        check("log_softmax_grad", (shifted, grad, empty(shape, dtype)), {2}, 16, 16)
