"""The CUDA reductions against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import check, run

# Rows short and long, few and many; columns fewer and more than a warp has lanes; what one block does, what several
# share (they leave parts), with 128-bit loads (R a multiple of 4, at least 128) and without; empty ones.
SHAPES = ((1, 1, 1), (3, 1, 7), (70, 10, 1), (5, 33, 1), (2, 1000, 1), (3, 129, 1), (1, 9000, 1), (2, 17, 3),
          (1, 300, 33), (3, 5, 40), (1, 1100, 5), (2, 3, 300), (0, 4, 5), (4, 5, 0))  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ("sum", "mean"))
def test_sums(name, dtype):
    for shape in (*SHAPES, (2, 0, 3)):
        check(name, (numbers(shape, dtype), empty((shape[0], shape[2]), dtype)), {1}, 4, 64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_variance(dtype):
    for shape in SHAPES:
        for correction in (0, 1, 0.5):
            x = numbers(shape, dtype) + dtype(5)
            check("variance", (x, x.mean(axis=1), empty((shape[0], shape[2]), dtype), correction), {2}, 16, 32)


@pytest.mark.parametrize("shape", ((1, 40_000, 1), (1, 40_001, 1), (1, 10_000, 4)))
def test_float32_sums_are_as_accurate_as_pairwise_ones(shape):
    x = (1 + 1e-4 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    got = run("sum", (x, empty((1, shape[2]), np.float32)))[1]
    np.testing.assert_allclose(got, x.sum(axis=1, dtype=np.float64), rtol=2e-7)


@pytest.mark.parametrize("dtype", (*FLOATS, np.int64))
@pytest.mark.parametrize("name", ("max", "min", "argmax", "argmin"))
def test_extremes(name, dtype):
    for shape in SHAPES:
        x = numbers(shape, np.float64).round().astype(dtype)  # rounded: ties
        out = empty((shape[0], shape[2]), np.int64 if name.startswith("arg") else dtype)
        check(name, (x, out), {1}, 0)
        if dtype != np.int64 and x.size:
            x[0, shape[1] // 2, 0] = np.nan
            x[0, shape[1] - 1, 0] = np.nan
            x[-1, shape[1] // 3, -1] = -np.inf
            check(name, (x, out), {1}, 0)


def test_sum_of_integers():
    for shape in ((3, 40, 1), (2, 300, 9), (1, 10_000, 1)):
        x = np.random.default_rng(0).integers(-(2**40), 2**40, shape)
        check("sum", (x, empty((shape[0], shape[2]), np.int64)), {1})


@pytest.mark.parametrize("name", ("any", "all"))
def test_logical(name):
    for shape in (*SHAPES, (2, 0, 3)):
        x = np.random.default_rng(0).random(shape) < (0.02 if name == "any" else 0.98)
        check(name, (x, empty((shape[0], shape[2]), np.bool_)), {1})


@pytest.mark.parametrize("dtype", FLOATS)
def test_sum_of_squares(dtype):
    for size in (0, 1, 17, 1024, 10_003):
        check("sum_of_squares", (numbers(size, dtype), empty(1, dtype)), {1}, 4)


def test_slices_may_begin_anywhere():
    """128-bit loads only from addresses that bear them."""
    from minigrad.kernels.cuda import array, reduction

    x = numbers(516, np.float32)
    for start in range(4):
        sent, out = array.from_host(x)[start : start + 512], array.empty((1, 1), np.float32)
        reduction.sum(sent.reshape(1, 512, 1), out)
        np.testing.assert_allclose(out.numpy()[0, 0], x[start : start + 512].sum(dtype=np.float64), rtol=1e-5)


def test_a_search_in_one_launch_takes_no_scratch_memory(monkeypatch):
    """Scratch memory is kept for good, and there may be millions of outputs."""
    from minigrad.kernels.cuda import reduction

    asked, scratch = [], reduction.scratch
    monkeypatch.setattr(reduction, "scratch", lambda count, dtype: asked.append(count) or scratch(count, dtype))
    x, out = numbers((40, 3, 2), np.float32), empty((40, 2), np.int64)
    check("argmax", (x, out), {1})
    assert asked == [1]
