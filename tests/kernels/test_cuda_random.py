"""The random numbers' CUDA kernels against the reference: the same bits, but for normal numbers."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import check, run
from test_random import KNOWN, state

from minigrad.kernels import cuda
from minigrad.kernels.cuda import array, maps

SIZES = (0, 1, 2, 3, 4, 5, 8, 43, 1100)  # the last takes two blocks


@pytest.fixture(params=(maps.WAVE, 8), ids=("single", "wide"))
def wave(request, monkeypatch):
    """A test runs with a thread per element, and again with the loops of large arrays."""
    monkeypatch.setattr(maps, "WAVE", request.param)


def test_philox_is_the_same_generator():
    """The first four numbers under seed 0 are the first known answer."""
    got = run("random_uniform", (empty(4, np.float32), state(0)))[0]
    np.testing.assert_array_equal(got, [(w >> 8) * 2.0**-24 for w in KNOWN[0][2]])


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_has_the_bits_of_the_reference_and_advances_the_state(dtype):
    for size in SIZES:
        for counter in (0, 2**32 - 3, 2**64 - 1):
            check("random_uniform", (empty(size, dtype), state(2**63 + 5, counter)), {0}, 0, in_place={1})
    first, whole = empty(8, dtype), empty(16, dtype)
    (first, s), (whole, _) = run("random_uniform", (first, state())), run("random_uniform", (whole, state()))
    second = run("random_uniform", (empty(8, dtype), s))[0]
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal(dtype):
    for size in SIZES:
        check("random_normal", (empty(size, dtype), state(3, 2**32 - 2)), {0}, 64, 16, in_place={1})


@pytest.mark.parametrize("dtype", FLOATS)
def test_arrays_that_begin_anywhere(dtype):
    for start in (0, 1, 2, 3, 4):
        out = array.from_host(np.zeros(30, dtype))
        cuda.random_uniform(out[start : start + 21], array.from_host(state()))
        wanted = run("random_uniform", (empty(21, dtype), state()))[0]
        np.testing.assert_array_equal(out.numpy(), np.concatenate([np.zeros(start), wanted, np.zeros(9 - start)]))


@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout(dtype, wave):
    for size in SIZES:
        for p in (0.0, 0.3, 1.0):
            x, mask = numbers(size, dtype, special=True), np.zeros(size, np.bool_)
            got = check("dropout_forward", (x, mask, empty(size, dtype), state(), p), {1, 2}, 0, in_place={3})
            check("dropout_backward", (x, got[1], empty(size, dtype), p), {2}, 0)
    assert abs(got[1].mean() - (1 - p)) < 0.1
