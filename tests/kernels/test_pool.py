"""Pooling against the definition: overlaps, paddings, dilations, windows over the edge, NaN and ties."""

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigrad.kernels import cpu, reference
from minigrad.kernels.cpu.simd import VECTOR_BYTES

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}
TYPES = st.sampled_from([np.float32, np.float64])


def max_pool(kernels, x, out, numbers):
    y, indices = np.full(out, np.nan, x.dtype), np.full(out, -9, np.int32 if x.itemsize == 4 else np.int64)
    kernels.max_pool2d_forward(x, y, indices, *numbers)
    return y, indices


@st.composite
def windows(draw):
    """Extent, kernel, stride, padding (at most half the kernel), dilation, outputs of one axis."""
    kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pad = draw(st.integers(0, kernel // 2))
    reach = (kernel - 1) * dilation + 1
    size = draw(st.integers(max(1, reach - 2 * pad), 20))
    outputs = (size + 2 * pad - reach) // stride + 1
    if draw(st.booleans()) and outputs * stride < size + pad:  # ceil_mode: one more window hangs over the edge
        outputs += 1
    return size, kernel, stride, pad, dilation, outputs


@settings(max_examples=60)
@example(rows=(1, 2, 1, 1, 2, 1), columns=(1, 2, 1, 1, 2, 1), dtype=np.float32, special="none")  # all padding
@example(rows=(9, 3, 2, 1, 1, 5), columns=(1, 2, 1, 1, 2, 1), dtype=np.float64, special="nan")
@given(rows=windows(), columns=windows(), dtype=TYPES, special=st.sampled_from(["none", "nan", "ties", "-inf"]))
def test_max_pool(rows, columns, dtype, special):
    rng = np.random.default_rng(rows[0])
    x = rng.standard_normal((2, 3, rows[0], columns[0])).astype(dtype)
    if special == "nan":
        x[rng.random(x.shape) < 0.2] = np.nan
    elif special != "none":
        x = np.round(x) if special == "ties" else np.full_like(x, -np.inf)
    numbers = [v for pair in zip(rows[1:5], columns[1:5], strict=True) for v in pair]
    shape = (2, 3, rows[5], columns[5])
    (y, indices), (exact, places) = max_pool(cpu, x, shape, numbers), max_pool(reference, x, shape, numbers)
    np.testing.assert_array_equal(y, exact)
    np.testing.assert_array_equal(indices, places)
    grad = rng.standard_normal(shape).astype(dtype)
    back, expected = np.full_like(x, np.nan), np.empty_like(x)
    cpu.max_pool2d_backward(grad, indices, back)
    reference.max_pool2d_backward(grad, indices, expected)
    np.testing.assert_array_equal(back, expected)
    gathered, expected = np.full_like(y, np.nan), np.empty_like(y)
    cpu.max_pool2d_gather(x, indices, gathered)
    reference.max_pool2d_gather(x, indices, expected)
    np.testing.assert_array_equal(gathered, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride, dilation, pad", [(1, 1, 1), (1, 3, 1), (2, 1, 1), (2, 2, 0), (3, 1, 1), (5, 1, 0)])
def test_max_pool_of_about_a_vector_of_windows(stride, dilation, pad, dtype, rng):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for columns in (1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes + 3):
        width, numbers = (columns - 1) * stride + 2 * dilation + 1 - 2 * pad, (3, 3, 2, stride, pad, pad, 2, dilation)
        x = np.round(rng.standard_normal((2, 3, 9, width))).astype(dtype)
        x[rng.random(x.shape) < 0.1] = np.nan
        shape = (2, 3, (9 + 2 * pad - 5) // 2 + 1, columns)
        for out, exact in zip(*[max_pool(kernels, x, shape, numbers) for kernels in (cpu, reference)], strict=True):
            np.testing.assert_array_equal(out, exact)


@pytest.mark.parametrize("special", [0.0, np.nan, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_by_two_windows_with_ties_and_special_values(dtype, special, rng):
    """This case has a loop of its own."""
    numbers = (2, 2, 2, 2, 0, 0, 1, 1)
    for width in (2, 3, 4, 6, 9, 14, 21, 32, 55):  # of fewer windows than lanes, whole vectors, and others
        x = np.round(rng.standard_normal((2, 3, 9, width))).astype(dtype)
        x[rng.random(x.shape) < 0.4] = special
        pooled = [max_pool(kernels, x, (2, 3, 4, width // 2), numbers) for kernels in (cpu, reference)]
        for out, exact in zip(*pooled, strict=True):
            np.testing.assert_array_equal(out, exact)
        means, exact = np.full((2, 3, 4, width // 2), 7, dtype), np.empty((2, 3, 4, width // 2))
        cpu.avg_pool2d_forward(x, means, *numbers[:6], 1)
        reference.avg_pool2d_forward(x.astype(np.float64), exact, *numbers[:6], 1)
        np.testing.assert_allclose(means, exact, rtol=10 * TOLERANCE[dtype], atol=TOLERANCE[dtype])
        for height in (8, 9):  # with and without a row that belongs to no window
            back, expected = np.full((2, 3, height, width), 7, dtype), np.empty((2, 3, height, width), dtype)
            cpu.avg_pool2d_backward(means, back, *numbers[:6], 1)
            reference.avg_pool2d_backward(means, expected, *numbers[:6], 1)
            np.testing.assert_array_equal(back, expected)


@settings(max_examples=40)
@given(rows=windows(), columns=windows(), dtype=TYPES, include=st.integers(0, 1))
def test_avg_pool(rows, columns, dtype, include):
    rng = np.random.default_rng(rows[0])
    numbers = [v for pair in zip(rows[1:4], columns[1:4], strict=True) for v in pair]
    shapes = [(2, 3, rows[0], columns[0]), (2, 3, rows[5], columns[5])]
    for name, given_shape, out_shape in [("forward", *shapes), ("backward", *shapes[::-1])]:
        x = rng.standard_normal(given_shape).astype(dtype)
        out, exact = np.full(out_shape, np.nan, dtype), np.empty(out_shape)
        getattr(cpu, f"avg_pool2d_{name}")(x, out, *numbers, include)
        getattr(reference, f"avg_pool2d_{name}")(x.astype(np.float64), exact, *numbers, include)
        np.testing.assert_allclose(out, exact, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel, stride, pad, include", [
    (3, 1, 1, 1), (3, 1, 1, 0), (2, 1, 0, 1), (3, 2, 1, 0), (2, 2, 1, 1), (5, 2, 2, 0), (1, 2, 0, 1), (3, 3, 1, 1),
    (4, 3, 2, 0), (2, 5, 0, 1), (7, 7, 0, 1), (20, 1, 0, 1), (19, 1, 9, 0), (21, 2, 3, 1), (40, 3, 0, 0)])
def test_avg_pool_of_about_a_vector_of_windows(kernel, stride, pad, include, dtype, rng):
    """One NaN reaches its own windows, one of the gradient its own pixels."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for columns in (1, 2, lanes // 4 + 1, lanes - 1, lanes, lanes + 1, 2 * lanes + 3):
        for rest in (0, stride - 1):
            width = (columns - 1) * stride + kernel - 2 * pad + rest
            if width < 1:
                continue
            of_rows = (2, 2, 7, width), (2, 2, 4, columns), (3, kernel, 2, stride, 1, pad, include)
            of_column = (2, 2, width, 1), (2, 2, columns, 1), (kernel, 3, stride, 2, pad, 1, include)
            for *shapes, numbers in (of_rows, of_column):
                for name, given_shape, out_shape in [("forward", *shapes), ("backward", *shapes[::-1])]:
                    x = rng.standard_normal(given_shape).astype(dtype)
                    x[0, 1, given_shape[2] // 2, given_shape[3] // 2] = np.nan
                    out, exact = np.full(out_shape, 7, dtype), np.empty(out_shape)
                    getattr(cpu, f"avg_pool2d_{name}")(x, out, *numbers)
                    getattr(reference, f"avg_pool2d_{name}")(x.astype(np.float64), exact, *numbers)
                    np.testing.assert_allclose(out, exact, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("size, kernel, stride, pad, count", [(2, 2, 3, 1, 2), (5, 2, 3, 1, 3), (3, 2, 2, 1, 3),
                                                              (3, 1, 1, 1, 5), (2, 1, 3, 2, 2), (2, 1, 2, 3, 4)])
def test_windows_in_the_padding_alone(size, kernel, stride, pad, count, include, dtype, rng):
    """No op asks for such windows, but the kernels know what they give: zeros."""
    for rows, columns in ((True, True), (True, False), (False, True)):
        h, w = [(size, kernel, stride, pad, count) if axis else (4, 2, 1, 0, 3) for axis in (rows, columns)]
        numbers = [v for pair in zip(h[1:4], w[1:4], strict=True) for v in pair]
        shapes = [(2, 3, h[0], w[0]), (2, 3, h[4], w[4])]
        for name, given_shape, out_shape in [("forward", *shapes), ("backward", *shapes[::-1])]:
            x = rng.standard_normal(given_shape).astype(dtype)
            out, exact = np.full(out_shape, 7, dtype), np.empty(out_shape)
            getattr(cpu, f"avg_pool2d_{name}")(x, out, *numbers, include)
            getattr(reference, f"avg_pool2d_{name}")(x.astype(np.float64), exact, *numbers, include)
            np.testing.assert_allclose(out, exact, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("planes, size", [(1, (7, 7)), (63, (1, 1)), (1000, (3, 5)), (130, (2, 9)), (70, (17, 16)),
                                          (3, (100, 100))])
def test_global_means(planes, size, dtype, rng):
    x, out = rng.standard_normal((planes, 1, *size)).astype(dtype), np.empty((planes, 1, 1, 1), dtype)
    x[-1, 0, 0, 0] = np.nan
    cpu.adaptive_avg_pool2d_forward(x, out)
    exact = x.astype(np.float64).mean((2, 3), keepdims=True)
    np.testing.assert_allclose(out, exact, rtol=0, atol=20 * TOLERANCE[dtype])
    back = np.empty_like(x)
    cpu.adaptive_avg_pool2d_backward(out, back)
    np.testing.assert_allclose(back, np.broadcast_to(exact / x[0].size, x.shape), rtol=0, atol=20 * TOLERANCE[dtype])


@settings(max_examples=30)
@given(size=st.tuples(*[st.integers(1, 12)] * 2), outputs=st.tuples(*[st.integers(1, 12)] * 2), dtype=TYPES)
def test_adaptive_avg_pool(size, outputs, dtype):
    rng = np.random.default_rng(size[0])
    for name, given_shape, out_shape in [("forward", size, outputs), ("backward", outputs, size)]:
        x = rng.standard_normal((2, 2, *given_shape)).astype(dtype)
        out, exact = np.full((2, 2, *out_shape), np.nan, dtype), np.empty((2, 2, *out_shape))
        getattr(cpu, f"adaptive_avg_pool2d_{name}")(x, out)
        getattr(reference, f"adaptive_avg_pool2d_{name}")(x.astype(np.float64), exact)
        np.testing.assert_allclose(out, exact, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("height, width, kernel, stride, rows", [
    (14, 14, 14, 14, 1), (5, 20, 2, 2, 3), (9, 7, 3, 2, 4), (8, 33, 3, 1, 6), (6, 1, 2, 2, 3), (3, 70, 3, 3, 1),
    (8, 9, 2, 3, 3)])
def test_windows_as_wide_as_the_image(height, width, kernel, stride, rows, dtype, rng):
    """Windows may overlap, leave rows out and hang over the edge. One plane is NaN."""
    window = kernel, width, stride, width, 0, 0
    for numbers, op in [((*window, 1), "avg_pool2d"), ((*window, 0), "avg_pool2d"), ((), "adaptive_avg_pool2d")]:
        for name, given_shape, out_shape in [("forward", (height, width), (rows, 1)),
                                             ("backward", (rows, 1), (height, width))]:
            x = rng.standard_normal((2, 3, *given_shape)).astype(dtype)
            x[0, 0] = np.nan
            out, exact = np.full((2, 3, *out_shape), 7, dtype), np.empty((2, 3, *out_shape))
            getattr(cpu, f"{op}_{name}")(x, out, *numbers)
            getattr(reference, f"{op}_{name}")(x.astype(np.float64), exact, *numbers)
            np.testing.assert_allclose(out, exact, rtol=0, atol=20 * TOLERANCE[dtype])
            assert np.isfinite(out[0, 1:]).all()


@pytest.mark.parametrize("columns, include", [(2, 1), (3, 0)])
def test_more_columns_of_windows_than_fit(columns, include, rng):
    """As wide as the image, and further ones hang over its edge."""
    x, numbers = rng.standard_normal((2, 3, 5, 4)).astype(np.float32), (2, 4, 2, 1, 0, 0, include)
    out, exact = np.full((2, 3, 2, columns), np.nan, np.float32), np.empty((2, 3, 2, columns))
    cpu.avg_pool2d_forward(x, out, *numbers)
    reference.avg_pool2d_forward(x.astype(np.float64), exact, *numbers)
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-6)
    grad, back, expected = out, np.full(x.shape, np.nan, np.float32), np.empty(x.shape)
    cpu.avg_pool2d_backward(grad, back, *numbers)
    reference.avg_pool2d_backward(grad.astype(np.float64), expected, *numbers)
    np.testing.assert_allclose(back, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("numbers", [(2, 2, 2, 2, 0, 0, 1, 1), (3, 3, 2, 2, 1, 1, 1, 1)])
def test_many_planes_in_parallel_give_the_same_bits(numbers, rng):
    x = rng.standard_normal((8, 10, 32, 32)).astype(np.float32)
    y, indices = max_pool(cpu, x, (8, 10, 16, 16), numbers)
    back, again = np.empty_like(x), np.empty_like(x)
    cpu.max_pool2d_backward(y, indices, back)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        y_1, indices_1 = max_pool(cpu, x, (8, 10, 16, 16), numbers)
        cpu.max_pool2d_backward(y, indices, again)
    finally:
        numba.set_num_threads(threads)
    for one, other in [(y, y_1), (indices, indices_1), (back, again)]:
        np.testing.assert_array_equal(one, other)
    small = slice(7, 8)
    np.testing.assert_array_equal(y[small], max_pool(reference, x[small], (1, 10, 16, 16), numbers)[0])
