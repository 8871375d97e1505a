"""Launches without Numba's dispatcher: the same results, and the same errors, as with it."""

import sys
import types

import numba
import numpy as np
import pytest
from numba.core.registry import CPUDispatcher

from minigrad.kernels.cpu import elementwise, launch, optim

pytestmark = pytest.mark.skipif(
    not launch.possible() or not isinstance(elementwise.mul, CPUDispatcher),
    reason="launches go through Numba or Python here",
)


@pytest.fixture
def module():
    """Kernels of a module of their own, none called yet."""
    made = types.ModuleType("kernels")
    made.mul, made.pow_scalar, made.eq, made.fill = (
        elementwise.mul, elementwise.pow_scalar, elementwise.eq, elementwise.fill)
    made.sgd = optim.sgd
    launch.install(made)
    return made


def often(call, times=3 * launch.OFTEN):
    for _ in range(times):
        call()


def is_specialised(kernel):
    return isinstance(kernel, type(len))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(5,), (0,), (2, 3, 4)])
def test_arrays(module, dtype, shape):
    a, b, out = np.arange(np.prod(shape)).reshape(shape).astype(dtype), np.full(shape, 3, dtype), np.empty(shape, dtype)
    often(lambda: module.mul(a, b, out))
    assert is_specialised(module.mul)
    out[...] = 0
    assert module.mul(a, b, out) is None
    np.testing.assert_array_equal(out, a * b)


def test_numbers(module):
    x, out = np.arange(6, dtype=np.float32), np.empty(6, np.float32)
    often(lambda: module.pow_scalar(x, out, 2.0))
    assert is_specialised(module.pow_scalar)
    for exponent in (3.0, 3, np.float64(3.0)):  # the last two are not what it was made for
        module.pow_scalar(x, out, exponent)
        np.testing.assert_array_equal(out, x**3)
    p, g, buffer = np.ones(4, np.float32), np.ones(4, np.float32), np.zeros(4, np.float32)
    often(lambda: module.sgd(p, g, buffer, np.array([0.0, 0.9, 0.0, 0.0]), 0, 0, 0))
    module.sgd(p, g, buffer, np.array([0.5, 0.0, 0.0, 0.0]), 0, 1, 0)
    np.testing.assert_array_equal(p, 1.5)  # maximize, the second of three ints, was 1


def test_every_type_finds_its_own_code(module):
    arrays = {dtype: [np.full(3, value, dtype) for value in (2, 3, 0)] for dtype in (np.float32, np.float64, np.int64)}
    for _ in range(5):
        for a, b, out in arrays.values():
            often(lambda: module.mul(a, b, out), launch.OFTEN)  # noqa: B023 - called at once
    for a, b, out in arrays.values():
        out[:] = 0
        module.mul(a, b, out)
        np.testing.assert_array_equal(out, 6)


def test_a_bool_array(module):
    a, out = np.arange(4.0), np.zeros(4, bool)
    often(lambda: module.eq(a, a, out))
    assert is_specialised(module.eq) and out.all()


def test_what_does_not_fit_goes_to_the_dispatcher(module):
    a, out = np.arange(6, dtype=np.float32), np.empty(6, np.float32)
    often(lambda: module.mul(a, a, out))
    fixed = a.copy()
    fixed.flags.writeable = False
    module.mul(fixed, a, out)
    np.testing.assert_array_equal(out, a * a)
    for wrong in (fixed, "text"):
        with pytest.raises(numba.TypingError):
            module.mul(a, a, wrong)
    with pytest.raises(TypeError, match="not enough arguments"):
        module.mul(a, a)
    with pytest.raises(TypeError, match="too many arguments"):
        module.mul(a, a, out, out)


def test_an_int_that_does_not_fit(module):
    out = np.zeros(3, np.int64)
    often(lambda: module.fill(out, -1))
    assert is_specialised(module.fill) and (out == -1).all()
    with pytest.raises(OverflowError):
        module.fill(out, 2**63)
    assert (out == -1).all()


def test_a_launcher_that_somebody_holds_makes_each_function_once(module):
    held, a, out = module.mul, np.ones(3, np.float32), np.empty(3, np.float32)
    often(lambda: held(a, a, out), 10 * launch.OFTEN)
    assert len(held.front) == 1


def test_what_others_have_put_in_the_place_stays(module):
    held, a, out = module.mul, np.ones(3, np.float32), np.empty(3, np.float32)
    module.mul = spy = lambda *arguments: held(*arguments)
    often(lambda: module.mul(a, a, out))
    assert module.mul is spy


def test_nothing_is_leaked(module):
    a, out = np.arange(6, dtype=np.float32), np.empty(6, np.float32)
    often(lambda: module.mul(a, a, out))
    before = sys.getrefcount(a), sys.getrefcount(out)
    often(lambda: module.mul(a, a, out))
    assert (sys.getrefcount(a), sys.getrefcount(out)) == before


def test_the_dispatcher_is_found_behind(module):
    a, out = np.arange(6, dtype=np.float32), np.empty(6, np.float32)
    often(lambda: module.mul(a, a, out))
    often(lambda: module.mul(a.astype(np.float64), a.astype(np.float64), np.empty(6)))
    assert launch.dispatcher_of(module.mul) is launch.dispatcher_of(elementwise.mul) is elementwise.mul
