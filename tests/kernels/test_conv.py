"""Convolution and its gradients against the definition: strides, paddings, dilations, groups, odd widths."""

import numba
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minigrad.kernels import cpu, reference
from minigrad.kernels.cpu import conv, conv_pixels

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
NAMES = ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"]
GUARD = 256


def problem(rng, dtype, n, c, h, w, o, kernel, numbers, out=None, bias=True):
    """Inputs and output shape of each of the three kernels for one convolution."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, groups = numbers
    if out is None:
        out = ((h + 2 * top - (kernel[0] - 1) * dilation_h - 1) // stride_h + 1,
               (w + 2 * left - (kernel[1] - 1) * dilation_w - 1) // stride_w + 1)
    x, grad = rng.standard_normal((n, c, h, w)).astype(dtype), rng.standard_normal((n, o, *out)).astype(dtype)
    weight = rng.standard_normal((o, c // groups, *kernel)).astype(dtype)
    offset = rng.standard_normal(o if bias else 0).astype(dtype)
    return {"conv2d_forward": ((x, weight, offset), grad.shape), "conv2d_grad_input": ((grad, weight), x.shape),
            "conv2d_grad_weight": ((grad, x), weight.shape)}


def outputs(name, inputs, shape, dtype):
    """Arrays for the outputs: the gradient by the weight comes with the one by the bias."""
    shapes = [shape, inputs[0].shape[1:2]] if name == "conv2d_grad_weight" else [shape]
    return [np.full(shape, np.nan, dtype) for shape in shapes]


def run(name, inputs, shape, numbers):
    """The CPU kernel's outputs; the scratch memory starts as NaN and has a guard behind it."""
    dtype = inputs[0].dtype
    size = getattr(cpu, f"{name}_workspace")(*inputs, *shape, *numbers)
    outs, work = outputs(name, inputs, shape, dtype), np.full(size + GUARD, np.nan, dtype)
    work[size:] = 7
    getattr(cpu, name)(*inputs, *outs, work[:size], *numbers)
    assert (work[size:] == 7).all(), f"{name} overran its scratch memory"
    return outs


def defined(name, inputs, shape, numbers, dtype=np.float64):
    """The outputs by definition."""
    outs = outputs(name, inputs, shape, dtype)
    getattr(reference, name)(*(v.astype(dtype) for v in inputs), *outs, outs[0][:0], *numbers)
    return outs


def check(name, inputs, shape, numbers):
    for out, exact in zip(run(name, inputs, shape, numbers), defined(name, inputs, shape, numbers), strict=True):
        scale = np.abs(exact).max(initial=1e-30)
        np.testing.assert_allclose(out, exact, rtol=0, atol=4 * TOLERANCE[out.dtype.type] * scale)


@settings(max_examples=60)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64]), groups=st.integers(1, 3))
def test_small_configurations(data, dtype, groups):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, pad, dilation = pair(1, 4), pair(1, 3), pair(0, 4), pair(1, 2)
    h, w = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    assume(all(size + 2 * p > (k - 1) * d for size, p, k, d in zip((h, w), pad, kernel, dilation, strict=True)))
    n, c, o = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20)))
    c, o = c * groups, o * groups
    numbers = (*stride, *pad, *dilation, groups)
    for name, case in problem(np.random.default_rng(h * w), dtype, n, c, h, w, o, kernel, numbers).items():
        check(name, *case, numbers)


CASES = {
    "one image in bands": ((1, 70, 40, 40, 9, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "more images than blocks": ((19, 2, 5, 5, 3, (5, 5), (1, 1, 0, 0, 1, 1, 1)), {}),
    "less padding below than above": ((2, 2, 12, 10, 5, (3, 3), (1, 1, 1, 2, 1, 1, 1)), {"out": (10, 8)}),
    "strided, odd edges": ((2, 2, 12, 10, 5, (3, 3), (2, 2, 1, 0, 1, 1, 1)), {"out": (5, 7)}),
    "more padding than kernel": ((2, 3, 3, 2, 4, (2, 2), (1, 1, 4, 5, 1, 1, 1)), {}),
    "depthwise": ((2, 24, 9, 9, 24, (3, 3), (1, 1, 1, 1, 1, 1, 24)), {}),
    "depthwise, strided": ((2, 5, 21, 37, 5, (3, 3), (2, 2, 1, 1, 1, 1, 5)), {}),
    "depthwise, narrower than a vector": ((3, 70, 14, 13, 70, (3, 3), (1, 1, 1, 1, 1, 1, 70)), {}),
    "depthwise, narrow, dilated, wide padding": ((2, 5, 12, 6, 5, (3, 3), (1, 1, 9, 3, 2, 1, 5)), {}),
    "groups of few channels, narrow": ((3, 24, 14, 14, 24, (3, 3), (1, 1, 1, 1, 1, 1, 3)), {}),
    "groups of an odd few, strided": ((3, 10, 15, 14, 14, (3, 3), (2, 2, 1, 1, 1, 1, 2)), {}),
    "one output per group": ((2, 8, 9, 20, 4, (3, 2), (1, 2, 1, 0, 1, 1, 4)), {}),
    "1 x 1, strided": ((2, 5, 9, 17, 49, (1, 1), (2, 3, 0, 0, 1, 1, 1)), {}),
    "1 x 1, images that end inside of a tile": ((35, 20, 7, 7, 20, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "1 x 1, images smaller than a tile": ((35, 9, 1, 2, 20, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "1 x 1, images of whole tiles": ((19, 9, 6, 8, 10, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "1 x 1, strided, many images": ((19, 9, 9, 7, 20, (1, 1), (2, 2, 0, 0, 1, 1, 1)), {}),
    "1 x 1, one image in bands": ((1, 70, 43, 41, 20, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "1 x 1, strided, groups": ((3, 18, 15, 15, 27, (1, 1), (2, 2, 0, 0, 1, 1, 3)), {}),
    "1 x 1, rows and columns left out": ((2, 9, 9, 8, 10, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {"out": (7, 6)}),
    "1 x 1, padded": ((2, 9, 9, 8, 10, (1, 1), (1, 1, 1, 2, 1, 1, 1)), {}),
    "1 x 1, padded below only": ((2, 9, 9, 8, 10, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {"out": (11, 8)}),
    "1 x 1, padded right only": ((2, 9, 9, 8, 10, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {"out": (9, 9)}),
    "1 x 1, one tile": ((1, 9, 2, 3, 10, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "rows that follow each other": ((3, 9, 12, 11, 10, (3, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "no rows, padded": ((2, 16, 0, 16, 16, (1, 1), (1, 1, 1, 1, 1, 1, 1)), {}),
    "no images": ((0, 3, 8, 8, 4, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "no output": ((2, 3, 8, 8, 4, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {"out": (0, 8)}),
    "many channels of one image": ((1, 37, 6, 6, 40, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "deeper than a slice of weights": ((9, 130, 5, 4, 12, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "wider padding than a vector": ((2, 3, 6, 20, 12, (3, 3), (1, 1, 1, 17, 1, 1, 1)), {}),
    "rows of a vector": ((2, 3, 6, 15, 13, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "rows of two vectors": ((2, 3, 6, 30, 13, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "rows of three vectors, dilated": ((2, 3, 9, 44, 13, (3, 3), (1, 1, 1, 2, 1, 2, 1)), {}),
    "rows of two and two vectors, strided down": ((2, 6, 9, 63, 26, (3, 5), (2, 1, 1, 2, 1, 1, 2)), {}),
    "rows of three and two vectors": ((2, 3, 4, 79, 8, (2, 2), (1, 1, 0, 1, 1, 1, 1)), {}),
    "no bias": ((2, 3, 8, 8, 4, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {"bias": False}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_pixels", [True, False])
def test_named_configurations(case, name, by_pixels, rng, monkeypatch):
    """With pixels in the lanes, and with channels, whichever is faster."""
    monkeypatch.setattr(conv, "_by_pixels", lambda *_: by_pixels)
    arguments, options = CASES[case]
    for dtype in (np.float32, np.float64):
        check(name, *problem(rng, dtype, *arguments, **options)[name], arguments[-1])


PLAIN = (1, 1, 1, 1, 1, 1, 1)
CHOICES = [  # source, weight, result, numbers, backward; whether pixels are in the lanes, and with AVX-512
    ((64, 20, 28, 28), (6, 20, 3, 3), (64, 6, 28, 28), PLAIN, False, True, True),
    ((64, 1, 28, 28), (16, 1, 3, 3), (64, 16, 28, 28), PLAIN, False, False, True),
    ((64, 3, 32, 32), (32, 3, 3, 3), (64, 32, 32, 32), PLAIN, False, False, True),
    ((64, 3, 7, 7), (32, 3, 3, 3), (64, 32, 7, 7), PLAIN, False, False, False),  # half a vector
    ((64, 16, 32, 32), (32, 16, 3, 3), (64, 32, 32, 32), PLAIN, False, False, False),  # by Winograd's method
    ((32, 64, 28, 28), (64, 64, 1, 1), (32, 64, 28, 28), (1, 1, 0, 0, 1, 1, 1), False, False, True),
    ((32, 64, 28, 28), (64, 64, 1, 1), (32, 64, 28, 28), (1, 1, 0, 0, 1, 1, 1), True, False, True),
    ((1, 512, 14, 14), (512, 512, 1, 1), (1, 512, 14, 14), (1, 1, 0, 0, 1, 1, 1), True, False, False),  # packing
    ((32, 256, 7, 7), (256, 256, 1, 1), (32, 256, 7, 7), (1, 1, 0, 0, 1, 1, 1), False, False, False),
    ((32, 64, 32, 32), (64, 16, 3, 3), (32, 64, 32, 32), (1, 1, 1, 1, 1, 1, 4), False, False, True),
    ((32, 32, 14, 14), (64, 32, 5, 5), (32, 64, 14, 14), (1, 1, 2, 2, 1, 1, 1), False, False, False),  # deep
    ((32, 9, 16, 16), (9, 12, 3, 3), (32, 12, 32, 32), (2, 2, 1, 1, 1, 1, 1), True, False, False),  # every other column
    ((0, 3, 32, 32), (32, 3, 3, 3), (0, 32, 32, 32), PLAIN, False, False, False),
    ((2, 16, 2, 18), (16, 16, 1, 1), (2, 16, 0, 16), PLAIN, True, False, False),
]


@pytest.fixture
def anew():
    """The choice is made anew, and forgotten."""
    conv._pixels_pay.cache_clear()
    yield
    conv._pixels_pay.cache_clear()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("source, weight, result, numbers, backward, few, masked", CHOICES)
def test_which_layers_have_pixels_in_the_lanes(source, weight, result, numbers, backward, few, masked, free, anew,
                                               monkeypatch):
    monkeypatch.setattr(conv, "VECTOR_BYTES", 64)
    monkeypatch.setattr(conv_pixels, "FREE_MASKS", free)
    monkeypatch.setattr(conv_pixels, "ROWS", 8)
    assert conv._by_pixels(source, weight, result, numbers, backward, 4) == (masked if free else few)


@pytest.mark.parametrize("channels, outs, groups, kernel", [
    (6, 20, 1, 3), (70, 70, 70, 3), (24, 24, 3, 3), (30, 40, 1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_on_any_number_of_threads(name, channels, outs, groups, kernel, rng):
    pad = kernel // 2
    arguments = (11, channels, 14, 14, outs, (kernel, kernel), (1, 1, pad, pad, 1, 1, groups))
    case = problem(rng, np.float32, *arguments)[name]
    out = run(name, *case, arguments[-1])
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        for one, other in zip(out, run(name, *case, arguments[-1]), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("channels, outs, groups", [(3, 10, 1), (5, 5, 5), (12, 12, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_reach_what_they_touch_and_nothing_else(name, channels, outs, groups, rng):
    """An infinite pixel must not leak into its neighbours through lanes that are computed and dropped."""
    arguments = (2, channels, 9, 9, outs, (3, 3), (1, 1, 1, 1, 1, 1, groups))
    for value in (np.nan, np.inf):
        inputs, shape = problem(rng, np.float32, *arguments)[name]
        for array in inputs:
            if array.ndim == 4 and array.shape[2] == 9:
                array[1, 2, 4, 0] = value
                break
        exact = defined(name, inputs, shape, arguments[-1], np.float32)[0]
        out = run(name, inputs, shape, arguments[-1])[0]
        assert not np.isfinite(exact).all()
        assert np.isfinite(exact).any() or name == "conv2d_grad_weight"
        np.testing.assert_array_equal(np.isfinite(out), np.isfinite(exact))
