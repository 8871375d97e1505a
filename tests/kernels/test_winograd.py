"""Winograd's convolution against the definition: odd sizes, paddings, NaN and infinity, threads, vector widths."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad.kernels import cpu, reference
from minigrad.kernels.cpu import simd, winograd_grad, winograd_tiles
from minigrad.kernels.cpu.winograd import _layout, wants_winograd

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
NAMES = ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"]
GUARD = 256


def problem(n, c, o, out, pad, bias=True, dtype=np.float32):
    """Inputs and output shape of each of the three kernels for one 3x3 convolution with that output and padding."""
    rng = np.random.default_rng(n * c * o * out[0] * out[1])
    height, width = (max(1, size + 2 - 2 * p) for size, p in zip(out, pad, strict=True))
    x, grad = (rng.standard_normal(shape).astype(dtype) for shape in ((n, c, height, width), (n, o, *out)))
    weight, offset = (rng.standard_normal(shape).astype(dtype) for shape in ((o, c, 3, 3), o if bias else 0))
    return {"conv2d_forward": ((x, weight, offset), grad.shape), "conv2d_grad_input": ((grad, weight), x.shape),
            "conv2d_grad_weight": ((grad, x), weight.shape)}


def run(name, inputs, shape, pad, before=np.nan):
    """The CPU kernel's output; the scratch memory holds `before` at first and has a guard behind it."""
    numbers = (1, 1, *pad, 1, 1, 1)
    size = getattr(cpu, f"{name}_workspace")(*inputs, *shape, *numbers)
    out, work = np.full(shape, np.nan, inputs[0].dtype), np.full(size + GUARD, before, inputs[0].dtype)
    work[size:] = 7
    bias = [np.full(inputs[0].shape[1], np.nan, out.dtype)] if name == "conv2d_grad_weight" else []
    getattr(cpu, name)(*inputs, out, *bias, work[:size], *numbers)
    for grad_bias in bias:
        exact, sizes = inputs[0].sum((0, 2, 3), np.float64), np.abs(inputs[0]).sum((0, 2, 3), np.float64)
        usual = sizes < 1e30
        np.testing.assert_allclose(grad_bias[usual], exact[usual], rtol=0, atol=1e-6 * sizes[usual].max(initial=0))
        np.testing.assert_array_equal(grad_bias[~np.isfinite(exact)], exact[~np.isfinite(exact)])
    assert (work[size:] == 7).all(), f"{name} overran its scratch memory"
    return out


def definition(name, inputs, shape, pad, dtype=np.float64):
    exact = np.empty(shape, dtype)
    bias = [exact.reshape(-1)[:0]] if name == "conv2d_grad_weight" else []
    getattr(reference, name)(*(v.astype(dtype) for v in inputs), exact, *bias, exact[:0], 1, 1, *pad, 1, 1, 1)
    return exact


def check(name, inputs, shape, pad, tolerance=2e-5):
    exact = definition(name, inputs, shape, pad)
    np.testing.assert_allclose(run(name, inputs, shape, pad), exact, rtol=0, atol=tolerance * np.abs(exact).max())


def taken(name, inputs, shape):
    """Whether this problem is computed Winograd's way."""
    (n, first), second = inputs[0].shape[:2], inputs[1].shape[1] if name == "conv2d_grad_weight" else shape[1]
    rows, columns = inputs[0].shape[2:] if name == "conv2d_grad_weight" else shape[2:]
    return wants_winograd(n, first, second, rows, columns, 3, 3, 1, 1, 1, 1, 1)


def in_parts(n, c, o, out):
    """Whether the gradient by the weight is summed in parts of the images."""
    down, across, strips, size, c_lanes, o_lanes, *_ = _layout(simd.VECTOR_BYTES // 4, n, c, o, *out)
    return winograd_grad._batch(simd.VECTOR_BYTES // 4, across, size, n * strips * down, c_lanes, o_lanes)[0] > 1


LARGE, WHOLE, UNEVEN = (11, 40, 48, (14, 14)), (60, 16, 32, (14, 14)), (33, 17, 20, (9, 21))


def test_which_shapes_are_summed_in_parts():
    assert not in_parts(*LARGE) and in_parts(*WHOLE) and in_parts(*UNEVEN)
    assert all(in_parts(*sizes) == name.startswith("parts") for name, (*sizes, _) in CASES.items())


@pytest.mark.parametrize("name", NAMES)
def test_drawn_shapes(name):
    """Odd sizes, any padding, one image or many, channels that leave lanes empty."""
    seen = set()

    @settings(max_examples=30)
    @given(n=st.sampled_from([1, 2, 11]), c=st.integers(32, 50), o=st.integers(32, 50),
           out=st.tuples(st.integers(7, 30), st.integers(4, 40)), pad=st.tuples(st.integers(0, 4), st.integers(0, 4)))
    def draw(n, c, o, out, pad):
        case = problem(n, c, o, out, pad)[name]
        check(name, *case, pad)
        seen.add(taken(name, *case))

    draw()
    assert True in seen


CASES = {
    "widths of the examples": (3, 32, 48, (7, 14), (1, 1)),
    "strips of a wide image": (1, 33, 32, (4, 270), (1, 1)),
    "one row": (5, 32, 32, (1, 61), (0, 2)),
    "one column": (5, 32, 32, (61, 1), (2, 0)),
    "several batches of tiles": (40, 40, 72, (16, 16), (1, 1)),
    "more padding than image": (4, 32, 32, (9, 9), (5, 4)),
    "parts": (*WHOLE, (1, 1)),
    "parts of unequal blocks": (*UNEVEN, (1, 1)),
    "parts of several panels of outputs": (40, 16, 100, (14, 14), (1, 1)),
    "parts of several panels of inputs": (40, 50, 20, (14, 14), (1, 1)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_named_shapes(case, name):
    check(name, *problem(*CASES[case])[name], CASES[case][-1])


def test_no_bias():
    check("conv2d_forward", *problem(2, 32, 32, (12, 12), (1, 1), bias=False)["conv2d_forward"], (1, 1))


def test_a_bias_larger_than_the_rest():
    inputs, shape = problem(2, 32, 32, (12, 12), (1, 1))["conv2d_forward"]
    inputs[2][...] = np.linspace(-1e4, 1e4, 32)
    check("conv2d_forward", inputs, shape, (1, 1), tolerance=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_float64_is_as_exact_as_ever(name):
    check(name, *problem(2, 32, 32, (12, 12), (1, 1), dtype=np.float64)[name], (1, 1), tolerance=1e-13)


@pytest.mark.parametrize("sizes", ((3, 32, 40, (9, 13)), UNEVEN))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_reach_what_they_touch_and_nothing_else(name, value, sizes):
    """In each input in turn: the definition's finite values stay, its infinities keep their sign.

    Not in grad_input's weights: there the kernels multiply the padding too, the definition does not.
    """
    for which in range({"conv2d_forward": 3, "conv2d_grad_input": 1, "conv2d_grad_weight": 2}[name]):
        inputs, shape = problem(*sizes, (1, 1))[name]
        assert taken(name, inputs, shape)
        inputs[which].reshape(-1)[inputs[which].size // 2] = value
        exact, out = definition(name, inputs, shape, (1, 1), np.float32), run(name, inputs, shape, (1, 1))
        finite = np.isfinite(exact)
        assert not finite.all() and finite.any()
        np.testing.assert_array_equal(out[~finite], exact[~finite])
        np.testing.assert_allclose(out[finite], exact[finite], rtol=0, atol=1e-4 * np.abs(exact[finite]).max())


@pytest.mark.parametrize("sizes", ((3, 32, 40, (9, 13)), UNEVEN))
@pytest.mark.parametrize("name", NAMES)
def test_sums_that_only_the_transforms_overflow(name, sizes):
    """The largest numbers: differences of tiles are infinite, the convolution is not."""
    inputs, shape = problem(*sizes, (1, 1))[name]
    inputs[0][...] *= np.float32(1e38) / np.abs(inputs[0]).max()
    inputs[1][...] *= np.float32(1e-2)
    check(name, inputs, shape, (1, 1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_scratch_memory_may_hold_anything(case, name):
    """NaN would make the result invalid, which is then computed directly; numbers would be added to it."""
    *sizes, pad = CASES[case]
    inputs, shape = problem(*sizes, pad)[name]
    assert taken(name, inputs, shape) or case == "more padding than image"  # whose gradient by the input is one pixel
    np.testing.assert_array_equal(run(name, inputs, shape, pad), run(name, inputs, shape, pad, before=1000))


@pytest.mark.parametrize("sizes", (LARGE, WHOLE, UNEVEN))
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_any_number_of_threads(name, sizes):
    """Also where the gradient by the weight is summed in parts of the images."""
    case = problem(*sizes, (1, 1))[name]
    assert taken(name, *case)
    out, threads = run(name, *case, (1, 1)), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(out, run(name, *case, (1, 1)))
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("sizes", (WHOLE, UNEVEN))
def test_same_bits_with_scratch_memory_for_any_number_of_threads(sizes):
    """There are as many tasks as have memory: one, an uneven number, as many as parts, more threads than that."""
    (grad, x), shape = problem(*sizes, (1, 1))["conv2d_grad_weight"]
    assert in_parts(*sizes)
    results = []
    for threads in (1, 3, 8, 20):
        size = winograd_grad.winograd_grad_weight_workspace(*x.shape[:2], *grad.shape[1:], threads)
        out, bias = np.full(shape, np.nan, np.float32), np.full(shape[0], np.nan, np.float32)
        work = np.full(size + GUARD, 7, np.float32)
        assert _grad_weight(grad, x, out, bias, work[:size])
        assert (work[size:] == 7).all()
        results.append((out, bias))
    for out, bias in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(bias, results[0][1])


@numba.njit
def _grad_weight(grad, x, out, bias, work):
    return winograd_grad.winograd_grad_weight(grad, x, out, bias, work, 1, 1)


def test_matrices_give_the_correlation():
    """Lavin and Gray's identity for one line of six inputs and three weights, exact in rational numbers."""
    rng = np.random.default_rng(0)
    d, w = rng.integers(-9, 9, 6), rng.integers(-9, 9, 3)
    through = winograd_tiles.RESULT @ ((winograd_tiles.WEIGHT.astype(np.float64) @ w) * (winograd_tiles.INPUT @ d))
    np.testing.assert_allclose(through, np.correlate(d, w, "valid"), atol=1e-4)


PROGRAM = """
import sys
sys.path.insert(0, "tests/kernels")
from test_winograd import NAMES, check, in_parts, problem, taken
for arguments in [(2, 32, 40, (7, 19), (1, 1)), (1, 35, 32, (18, 15), (0, 2)), (33, 17, 20, (9, 21), (1, 1))]:
    for name in NAMES[:COUNT]:
        case = problem(*arguments)[name]
        assert taken(name, *case)
        check(name, *case, arguments[-1])
assert in_parts(*arguments[:-1])
"""


def at_width(program, **variables):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=root, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(root), **variables}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not JIT, reason="needs the compiler")
@pytest.mark.parametrize("width", [width for width in (16, 32, 64) if width != simd.VECTOR_BYTES])
def test_other_vector_widths_compute_the_same(width):
    """The processor's own width is what all other tests run; grad_input shares all with forward."""
    at_width(PROGRAM.replace("NAMES[:COUNT]", "(NAMES[0], NAMES[2])"), MINIGRAD_LANES=str(width))


def test_plain_twins_compute_the_same():
    at_width(PROGRAM.replace("COUNT", "3"), NUMBA_DISABLE_JIT="1")
