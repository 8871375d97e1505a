"""Elementwise kernels and activations against the reference."""

import math

import numba
import numpy as np
import pytest
from agreement import FLOATS, check, empty, numbers, run

from minigrad.kernels import cpu
from minigrad.kernels.cpu.compile import OPTIONS
from minigrad.kernels.cpu.launch import dispatcher_of

SIZES = (0, 1, 7, 17, 33)
LARGE = 70_003  # above the parallel threshold, and no multiple of anything

EXACT = ("neg", "abs", "sqrt", "sign", "relu", "copy")
UNARY = {"exp": 2, "log": 2, "sin": 4, "cos": 4, "sigmoid": 4, "tanh": 4, "silu": 4}
# These lose digits where 1 + erf or 1 + tanh cancels: a floor relative to the largest result, as any formula of theirs.
CANCELLING = ("gelu", "gelu_tanh", "gelu_grad", "gelu_tanh_grad", "silu_grad")
GRADIENTS = ("relu_grad", "sigmoid_grad", "tanh_grad", "gelu_grad", "gelu_tanh_grad", "silu_grad")
ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", (*EXACT, *UNARY, "gelu", "gelu_tanh"))
def test_unary(name, dtype):
    for size in (*SIZES, LARGE):
        x = numbers(size, dtype, special=True)
        ulps, floor = (8, 2) if name in CANCELLING else (UNARY.get(name, 0), 0)
        check(name, (x, empty(size, dtype)), {1}, ulps, floor, threads=size == LARGE)


@pytest.mark.parametrize("name", ("exp", "log", "tanh", "sigmoid", "gelu"))
def test_float32_error_over_the_whole_range(name):
    """Against float64, on numbers of every magnitude: three units in the last place."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-110, 110, 20_000), rng.normal(size=20_000) * 10.0 ** rng.uniform(-38, 2, 20_000)])
    x = np.abs(x) if name == "log" else x
    check(name, (x.astype(np.float32), empty(x.size, np.float32)), {1}, 3, 1 if name == "gelu" else 0)


def test_special_values():
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -1.0, -0.0])
    expected = {
        "exp": [np.inf, 0, np.nan, 1, math.exp(-1), 1],
        "log": [np.inf, np.nan, np.nan, -np.inf, np.nan, -np.inf],
        "sqrt": [np.inf, np.nan, np.nan, 0, np.nan, 0],
        "tanh": [1, -1, np.nan, 0, math.tanh(-1), 0],
        "sigmoid": [1, 0, np.nan, 0.5, 1 / (1 + math.e), 0.5],
        "relu": [np.inf, 0, np.nan, 0, 0, 0],
    }
    for name, wanted in expected.items():
        for dtype in FLOATS:
            got = run(name, (x.astype(dtype), empty(x.size, dtype)))[1]
            np.testing.assert_allclose(got, np.array(wanted, dtype), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name, dtype):
    for size in (*SIZES, LARGE):
        x, grad = numbers(size, dtype, special=name == "relu_grad"), numbers(size, dtype, 1)
        if name in ("sigmoid_grad", "tanh_grad"):
            x = np.tanh(x)
        floor = {"relu_grad": 0, "gelu_tanh_grad": 64}.get(name, 2)  # x³ (1 - tanh²): digits lost, then magnified
        check(name, (x, grad, empty(size, dtype)), {2}, 12, floor, threads=size == LARGE)


@pytest.mark.parametrize("dtype", FLOATS)
def test_parametric_activations(dtype):
    for size in (0, 17, LARGE):
        x, grad, out = numbers(size, dtype, special=True), numbers(size, dtype, 1), empty(size, dtype)
        check("leaky_relu", (x, out, 0.1), {1}, 0)
        check("leaky_relu_grad", (x, grad, out, 0.1), {2}, 0)
        check("clip", (x, out, -1.0, np.inf), {1}, 0)
        check("clip", (x, out, 1.0, -1.0), {1}, 0)
        check("clip_grad", (x, grad, out, -1.0, 0.5), {2}, 0)
        for beta, threshold in ((1.0, 20.0), (2.5, 3.0)):
            check("softplus", (x, out, beta, threshold), {1}, 32)  # exp magnifies the rounding of beta x
            check("softplus_grad", (x, grad, out, beta, threshold), {2}, 32)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, dtype) for name in ARITHMETIC for dtype in FLOATS), *((name, np.float32) for name in COMPARISONS)],
)
def test_binary(name, dtype):
    kind = np.bool_ if name in COMPARISONS else dtype
    for size in (*SIZES, LARGE):
        a, b = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        b[::3] = a[::3]  # some are equal
        check(name, (a, b, empty(size, kind)), {2}, 0, threads=size == LARGE)
        check(name, (b, a, empty(size, kind)), {2}, 0)
        if size:
            check(name, (a, b[:1], empty(size, kind)), {2}, 0)
            check(name, (a[:1], b, empty(size, kind)), {2}, 0)


@pytest.mark.parametrize("name", ("sub", "lt"))
def test_binary_broadcasts_in_three_dimensions(name):
    kind = np.bool_ if name == "lt" else np.float32
    for shape in ((3, 4, 5), (2, 1, 7), (5, 3, 6000), (0, 2, 3)):
        full = numbers(shape, np.float32)
        for axes in range(8):
            part = numbers([1 if axes >> i & 1 else n for i, n in enumerate(shape)], np.float32, 1)
            check(name, (full, part, empty(shape, kind)), {2}, 0)
            check(name, (part, full, empty(shape, kind)), {2}, 0)
    column, row = numbers((1, 4, 1), np.float32), numbers((1, 1, 6), np.float32, 1)
    check(name, (column, row, empty((1, 4, 6), kind)), {2}, 0)


def test_integers_and_booleans():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-5, 5, 100), rng.integers(-5, 5, 100)
    for name in ("add", "maximum"):
        check(name, (a, b, empty(100, np.int64)), {2})
    check("abs", (a, empty(100, np.int64)), {1})
    check("lt", (a, b, empty(100, np.bool_)), {2})
    for name in ("eq", "logical_and", "logical_or"):
        check(name, (a > 0, b > 0, empty(100, np.bool_)), {2})
    check("logical_not", (a > 0, empty(100, np.bool_)), {1})


@pytest.mark.parametrize("dtype", FLOATS)
def test_pow(dtype):
    for size in (0, 17, LARGE):
        x, y = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        check("pow", (np.abs(x), y, empty(size, dtype)), {2}, 4)
        for exponent in (2.0, 3.0, 0.5, -1.0, 0.0, 1.0, -2.0, 1.7, -0.5):
            check("pow_scalar", (x, empty(size, dtype), exponent), {1}, 4)
    base, power = (np.array(v, dtype) for v in ([-2, -2, 0, 0, np.nan, -8], [3, 2, 0, -1, 0, 1 / 3]))
    np.testing.assert_array_equal(run("pow", (base, power, empty(6, dtype)))[2], [-8, 4, 1, np.inf, 1, np.nan])


@pytest.mark.parametrize("dtype", FLOATS)
def test_pow_of_special_values(dtype):
    """Every pair of them, with the signs of zeros, against the C library's pow, of which NumPy's is a loop."""
    values = np.array([0, 1, 2, 3, 0.5, 1.5, 2.5, 1e-40, 1e9, 16777215, 16777216, 150, 1 + 1e-7, np.inf, np.nan])
    values = np.concatenate([values, -values]).astype(dtype)
    x, y = np.repeat(values, values.size), np.tile(values, values.size)
    got = check("pow", (x, y, empty(x.size, dtype)), {2}, 4)[2]
    with np.errstate(all="ignore"):
        wanted = np.power(x, y)
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(wanted[number]))


def test_float32_pow_is_rounded_almost_correctly():
    """Against float64, results of every magnitude: one unit in the last place."""
    rng = np.random.default_rng(0)
    x = np.exp2(rng.uniform(-149, 128, 50_000)).astype(np.float32)
    y = (rng.uniform(-155, 130, x.size) / np.log2(x.astype(np.float64))).astype(np.float32)
    got = run("pow", (x, y, empty(x.size, np.float32)))[2]
    with np.errstate(all="ignore"):
        wanted = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    distance = np.abs(got.view(np.int32).astype(np.int64) - wanted.view(np.int32))
    assert distance.max() <= 1


def test_float32_gelu_keeps_its_digits_in_the_tail():
    x = np.linspace(-9, 0, 2000, dtype=np.float32)
    got = run("gelu", (x, empty(x.size, np.float32)))[1]
    wanted = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_where(dtype):
    for size in (0, 1, 33, LARGE):
        a, b = numbers(size, dtype, special=True), numbers(size, dtype, 1)
        check("where", (b > 0, a, b, empty(size, dtype)), {3}, 0, threads=size == LARGE)
        if size:
            for one in range(8):
                c, left, right = (v[:1] if one >> i & 1 else v for i, v in enumerate((b > 0, a, b)))
                check("where", (c, left, right, empty(size, dtype)), {3}, 0)
    full = numbers((3, 4, 5), dtype)
    for axes in range(8):
        part = numbers([1 if axes >> i & 1 else n for i, n in enumerate(full.shape)], dtype, 1)
        check("where", (part > 0, full, part, empty(full.shape, dtype)), {3}, 0)
        check("where", (full > 0, part, full, empty(full.shape, dtype)), {3}, 0)


KINDS = (np.float32, np.float64, np.int64, np.bool_)


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_cast(source, target):
    x = numbers(33, np.float64)
    x[3:6] = 0
    check("cast", (x.astype(source), empty(33, target)), {1}, 0)
    if target is np.bool_ and source in FLOATS:
        check("cast", (np.array([np.nan, np.inf, -0.0], source), empty(3, target)), {1})


def test_fill():
    for kind, value in ((np.float32, 1.5), (np.float64, np.nan), (np.int64, 3.0), (np.bool_, 1.0)):
        for size in (0, 5, LARGE):
            check("fill", (empty(size, kind), value), {0}, 0)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
@pytest.mark.parametrize("name", ("exp", "log", "tanh", "gelu"))
def test_float32_kernels_are_vectors_of_float32(name):
    """The loop is vectorised, calls nothing of the C library and holds no double."""
    kernel = getattr(cpu, name)
    kernel = numba.njit(dispatcher_of(kernel).py_func, **OPTIONS)  # one from the cache shows no code
    kernel(numbers(5, np.float32), empty(5, np.float32))
    (text,) = kernel.inspect_llvm().values()
    assert "x float>" in text
    assert " double" not in text
    for function in ("expf", "logf", "tanhf", "erff"):
        assert f"@{function}(" not in text
