"""The random number kernels: known answers, agreement with the reference, moments."""

import numpy as np
import pytest
from agreement import FLOATS, check, empty, numbers, run

from minigrad.kernels import reference
from minigrad.kernels.reference import rng as reference_rng

# counter and key -> output of philox4x32-10, as published with the generator (Random123, kat_vectors)
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def state(seed=7, counter=0):
    return np.array([seed, counter], np.uint64)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_known_answers(counter, key, output):
    words = reference_rng.philox([np.array([c], np.uint64) for c in counter], [np.array([k], np.uint64) for k in key])
    assert tuple(int(w[0]) for w in words) == output


def test_cpu_philox_is_the_same_generator():
    """The first four numbers under seed 0 are the first known answer."""
    got = run("random_uniform", (empty(4, np.float32), state(0)))[0]
    np.testing.assert_array_equal(got, [(w >> 8) * 2.0**-24 for w in KNOWN[0][2]])


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_has_the_bits_of_the_reference_and_advances_the_state(dtype):
    for size in (0, 1, 2, 3, 4, 5, 33, 100_003):
        for counter in (0, 2**32 - 3, 2**40):
            check("random_uniform", (empty(size, dtype), state(2**63 + 5, counter)), {0, 1}, 0, threads=size > 33)
    first, second, whole = empty(8, dtype), empty(8, dtype), empty(16, dtype)
    (first, s), (whole, _) = run("random_uniform", (first, state())), run("random_uniform", (whole, state()))
    second = run("random_uniform", (second, s))[0]
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_moments(dtype):
    x = run("random_uniform", (empty(200_000, dtype), state()))[0].astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 5 * np.sqrt(1 / 12 / x.size)
    assert abs(x.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.015


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal(dtype):
    for size in (0, 1, 2, 3, 4, 5, 33, 50_003):
        arguments = (empty(size, dtype), state(3, 2**32 - 2))
        expected = [a.copy() for a in arguments]
        reference.random_normal(*expected)
        got = check("random_normal", arguments, {0}, 64, 16, threads=size > 33)
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-6)
    x = run("random_normal", (empty(200_000, dtype), state()))[0].astype(np.float64)
    assert abs(x.mean()) < 0.012 and abs(x.var() - 1) < 0.02
    assert abs((x**3).mean()) < 0.03 and abs((x**4).mean() - 3) < 0.12
    assert np.isfinite(x).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout(dtype):
    for size in (0, 1, 5, 33, 100_003):
        for p in (0.0, 0.3, 1.0):
            x, mask = numbers(size, dtype), np.zeros(size, np.bool_)
            got = check("dropout_forward", (x, mask, empty(size, dtype), state(), p), {2}, 0, threads=size > 33)
            check("dropout_backward", (x, got[1], empty(size, dtype), p), {2}, 0, threads=size > 33)
            if size > 33:
                assert abs(got[1].mean() - (1 - p)) < 0.01
                assert int(got[3][1]) == -(-size // 4)
