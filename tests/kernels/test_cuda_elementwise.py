"""The elementwise CUDA kernels against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import check, run

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import array, emulator, maps
from minigrad.kernels.cuda.language import Int, Pointer, kernel, load4, store4

SIZES = (0, 1, 43)
UNARY = {"neg": 0, "abs": 0, "sqrt": 0, "sign": 0, "copy": 0, "exp": 2, "log": 2, "sin": 4, "cos": 4}
ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
KINDS = (np.float32, np.float64, np.int64, np.bool_)


@pytest.fixture(params=(maps.WAVE, 8), ids=("single", "wide"), autouse=True)
def wave(request, monkeypatch):
    """Every test runs with a thread per element, and again with the loops of large arrays."""
    monkeypatch.setattr(maps, "WAVE", request.param)
    return request.param


def kind_of(name, dtype):
    return np.bool_ if name in COMPARISONS or name.startswith("logical") else dtype


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    for size in SIZES:
        check(name, (numbers(size, dtype, special=True), empty(size, dtype)), {1}, UNARY[name])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", (*ARITHMETIC, *COMPARISONS))
def test_binary(name, dtype):
    for size in SIZES:
        a, b = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        b[::3] = a[::3]  # some are equal
        out = empty(size, kind_of(name, dtype))
        check(name, (a, b, out), {2}, 0)
        check(name, (b, a, out), {2}, 0)
        if size:
            check(name, (a, b[:1], out), {2}, 0)
            check(name, (a[:1], b, out), {2}, 0)


@pytest.mark.parametrize("name", ("sub", "lt"))
def test_binary_broadcasts_in_three_dimensions(name):
    kind = kind_of(name, np.float32)
    for shape in ((3, 4, 5), (2, 1, 7), (2, 3, 8), (0, 2, 3)):
        full = numbers(shape, np.float32)
        for axes in range(8):
            part = numbers([1 if axes >> i & 1 else n for i, n in enumerate(shape)], np.float32, 1)
            check(name, (full, part, empty(shape, kind)), {2}, 0)
            check(name, (part, full, empty(shape, kind)), {2}, 0)
    column, row = numbers((1, 4, 1), np.float32), numbers((1, 1, 12), np.float32, 1)
    check(name, (column, row, empty((1, 4, 12), kind)), {2}, 0)


def test_integers_and_booleans():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-5, 5, 44), rng.integers(-5, 5, 44)
    a[0], b[0] = 2**40, 2**40 + 1  # too large for int32, and one number in float32
    for name in (*ARITHMETIC, *COMPARISONS):
        if name != "div":
            check(name, (a, b, empty(44, kind_of(name, np.int64))), {2})
            check(name, (a, b[:1], empty(44, kind_of(name, np.int64))), {2})
    for name in ("neg", "abs", "sign", "copy"):
        check(name, (a, empty(44, np.int64)), {1})
    for name in ("eq", "ne", "logical_and", "logical_or"):
        check(name, (a > 0, b > 0, empty(44, np.bool_)), {2})
        check(name, (a > 0, b[:1] > 0, empty(44, np.bool_)), {2})
    for name in ("logical_not", "copy"):
        check(name, (a > 0, empty(44, np.bool_)), {1})


@pytest.mark.parametrize("dtype", FLOATS)
def test_pow(dtype):
    for size in SIZES:
        x, y = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        check("pow", (np.abs(x), y, empty(size, dtype)), {2}, 4)
        for exponent in (2.0, 3.0, 0.5, -1.0, 0.0, 1.0, -2.0, 1.7, -0.5, 2):
            check("pow_scalar", (x, empty(size, dtype), exponent), {1}, 4)
    base, power = (np.array(v, dtype) for v in ([-2, -2, 0, 0, np.nan, -8], [3, 2, 0, -1, 0, 1 / 3]))
    np.testing.assert_array_equal(run("pow", (base, power, empty(6, dtype)))[2], [-8, 4, 1, np.inf, 1, np.nan])


@pytest.mark.parametrize("dtype", FLOATS)
def test_where(dtype):
    for size in (0, 1, 44):
        a, b = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        check("where", (b > 0, a, b, empty(size, dtype)), {3}, 0)
        if size:
            for one in range(8):
                c, left, right = (v[:1] if one >> i & 1 else v for i, v in enumerate((b > 0, a, b)))
                check("where", (c, left, right, empty(size, dtype)), {3}, 0)
    for shape in ((2, 3, 4), (2, 2, 5)):
        full = numbers(shape, dtype)
        for axes in range(8):
            part = numbers([1 if axes >> i & 1 else n for i, n in enumerate(shape)], dtype, 1)
            check("where", (part > 0, full, part, empty(shape, dtype)), {3}, 0)
            check("where", (full > 0, part, full, empty(shape, dtype)), {3}, 0)


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_cast(source, target):
    for size in SIZES:
        x = numbers(size, np.float64)
        x[3:6] = 0
        check("cast", (x.astype(source), empty(size, target)), {1}, 0)
    if target is np.bool_ and source in FLOATS:
        check("cast", (np.array([np.nan, np.inf, -0.0], source), empty(3, target)), {1})


def test_fill():
    cases = ((np.float32, 1.5), (np.float64, np.nan), (np.float64, 1 / 3), (np.int64, 3.0), (np.int64, -(2**62) - 1),
             (np.int64, 2**53 + 1), (np.bool_, 1.0), (np.bool_, False), (np.uint64, 2**64 - 1), (np.uint8, 255))
    for kind, value in cases:
        for size in SIZES:
            check("fill", (empty(size, kind), value), {0}, 0)


def test_arrays_that_begin_anywhere():
    """Part of an allocation is no multiple of 16 bytes from its start: no 128-bit loads then."""
    whole, other = numbers(60, np.float32), numbers(60, np.float32, 1)
    for start in (0, 1, 2, 4):
        x, y = array.from_host(whole)[start : start + 43], array.from_host(other)[4 : 47]
        for name, inputs in (("exp", (x,)), ("sub", (x, y)), ("sub", (x, y[0:1])), ("copy", (x,))):
            out, expected = array.empty((43,), np.float32), empty(43, np.float32)
            getattr(cuda, name)(*inputs, out)
            getattr(reference, name)(*[a.numpy() for a in inputs], expected)
            np.testing.assert_allclose(out.numpy(), expected, rtol=3e-7)
            out = array.from_host(whole)
            getattr(cuda, name)(*inputs, out[start : start + 43])
            np.testing.assert_allclose(out.numpy()[start : start + 43], expected, rtol=3e-7)
            np.testing.assert_array_equal(out.numpy()[:start], whole[:start])
            np.testing.assert_array_equal(out.numpy()[start + 43 :], whole[start + 43 :])


@pytest.mark.parametrize(("start", "index"), ((1, 0), (0, 2), (2, 4)))
def test_wide_access_in_the_wrong_place_is_an_error(start, index):
    x = array.from_host(numbers(40, np.float32))[start:]
    if isinstance(x.memory, emulator.Memory):
        with pytest.raises(emulator.Misaligned, match="not at the start of four elements"):
            _four[1, 1](x, index)


@kernel
def _four(x: Pointer, i: Int):
    a, b, c, d = load4(x, i)
    store4(x, i, a, b, c, d)
