"""Sine and cosine against an exact reduction: next to multiples of π/2, of large arguments, of none."""

import math
from fractions import Fraction

import agreement
import cuda_agreement
import numba
import numpy as np
import pytest

from minigrad.kernels import cpu
from minigrad.kernels.cpu.compile import OPTIONS
from minigrad.kernels.cpu.launch import dispatcher_of

HALF_PI = Fraction(0x1921FB54442D18469898CC51701B839A252049C1114CF98E804177D4C76273644A, 1 << 260)
RUN = {"cpu": agreement.run, "cuda": cuda_agreement.run}
QUARTERS = {"sin": (math.sin, math.cos), "cos": (math.cos, lambda angle: -math.sin(angle))}


def exact(name, x):
    """The angle that is left of each number by multiples of π/2 to 260 bits, and the C library's function of it."""
    result = []
    for value in x.tolist():
        n = round(Fraction(value) / HALF_PI)
        one = QUARTERS[name][n % 2](float(Fraction(value) - n * HALF_PI))
        result.append(-one if n % 4 >= 2 else one)
    return np.array(result)


@pytest.mark.parametrize("dtype", agreement.FLOATS)
@pytest.mark.parametrize("name", QUARTERS)
@pytest.mark.parametrize("device", RUN)
def test_next_to_multiples_of_a_right_angle(device, name, dtype):
    """Relative to the result itself, which may be as small as the spacing of the arguments: 2 units, 3 of 2**-53."""
    rng = np.random.default_rng(0)
    count = 2000 if device == "cpu" else 100
    for limit in (10, 4e4, 6e5):  # below and above where float32 changes its reduction on a GPU
        n = rng.integers(-limit, limit, count)
        near = (n * (math.pi / 2)).astype(dtype)
        x = np.concatenate([near, np.nextafter(near, dtype(0)), (rng.uniform(-2, 2, count) * limit).astype(dtype)])
        x = x[x != 0]
        got = RUN[device](name, (x, agreement.empty(x.size, dtype)))[1]
        np.testing.assert_allclose(got.astype(np.float64), exact(name, x), rtol=2.5 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", QUARTERS)
@pytest.mark.parametrize(("device", "dtype"), [("cpu", np.float32), ("cpu", np.float64), ("cuda", np.float32)])
def test_every_magnitude(device, name, dtype):
    """Where the plain reduction ends the C library or more bits of 2 / π go on, beside small numbers in one array."""
    rng = np.random.default_rng(1)
    count = 20_000 if device == "cpu" else 400
    top = 38 if dtype == np.float32 else 300
    x = (rng.choice([-1, 1], count) * 10.0 ** rng.uniform(-30, top, count)).astype(dtype)
    got = RUN[device](name, (x, agreement.empty(count, dtype)))[1]
    wanted = {"sin": np.sin, "cos": np.cos}[name](x.astype(np.float64))
    np.testing.assert_allclose(got, wanted, rtol=2.5 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", agreement.FLOATS)
@pytest.mark.parametrize("device", RUN)
def test_special_values(device, dtype):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    sine, cosine = [RUN[device](name, (x, agreement.empty(5, dtype)))[1] for name in ("sin", "cos")]
    np.testing.assert_array_equal(sine, [np.nan, np.nan, np.nan, 0, 0])
    assert np.signbit(sine[3:]).tolist() == [False, True]
    np.testing.assert_array_equal(cosine, [np.nan, np.nan, np.nan, 1, 1])


def test_float64_beyond_the_reduction_of_a_gpu_is_nan():
    """Not a number that looks like a sine: 2**30 is the last that has one."""
    x = np.array([2.0**30, np.nextafter(2.0**30, np.inf), -1e300])
    for name in QUARTERS:
        got = cuda_agreement.run(name, (x, agreement.empty(3, np.float64)))[1]
        np.testing.assert_allclose(got[0], exact(name, x[:1])[0], rtol=5e-16)
        assert np.isnan(got[1:]).all()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
@pytest.mark.parametrize("dtype", agreement.FLOATS)
@pytest.mark.parametrize("name", QUARTERS)
def test_polynomials_are_vectors(name, dtype):
    kernel = numba.njit(dispatcher_of(getattr(cpu, name)).py_func, **OPTIONS)  # one from the cache shows no code
    kernel(agreement.numbers(5, dtype), agreement.empty(5, dtype))
    (text,) = kernel.inspect_llvm().values()
    products = [line for line in text.splitlines() if "fmul contract <" in line]
    kind = "float" if dtype == np.float32 else "double"
    assert sum(f" x {kind}>" in line for line in products) > 8
