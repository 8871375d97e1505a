"""Pooling on CUDA against the definition: overlaps, paddings, dilations, windows over the edge, NaN and ties."""

import numpy as np
import pytest
from agreement import FLOATS
from cuda_agreement import check, run_fresh

from minigrad.kernels import reference

BOTH = pytest.mark.parametrize("dtype", FLOATS)

# Extent, kernel, stride, padding, dilation, outputs of both axes.
WINDOWS = {
    "side by side": ((8, 2, 2, 0, 1, 4), (9, 2, 2, 0, 1, 4)),
    "overlapping": ((9, 3, 2, 1, 1, 5), (12, 3, 1, 1, 1, 12)),
    "dilated, apart": ((11, 2, 3, 1, 2, 4), (13, 3, 2, 0, 2, 5)),
    "over the edge": ((7, 4, 3, 2, 1, 4), (10, 3, 3, 1, 1, 4)),
    "one pixel": ((1, 1, 1, 0, 1, 1), (5, 4, 3, 2, 1, 2)),
}


def arguments(rows, columns, dilation=True):
    """The numbers of a kernel, the shape of its input and of its output."""
    last = 5 if dilation else 4
    numbers = [v for pair in zip(rows[1:last], columns[1:last], strict=True) for v in pair]
    return numbers, (2, 3, rows[0], columns[0]), (2, 3, rows[5], columns[5])


def image(rng, shape, dtype, special):
    x = rng.standard_normal(shape).astype(dtype)
    if special == "nan":
        x[rng.random(x.shape) < 0.2] = np.nan
    elif special == "ties":
        x = np.round(x)
    elif special == "-inf":
        x = np.full_like(x, -np.inf)
    return x


def places(dtype):
    return np.int32 if dtype == np.float32 else np.int64


@BOTH
@pytest.mark.parametrize("special", ["none", "nan", "ties", "-inf"])
@pytest.mark.parametrize("case", WINDOWS)
def test_max_pool(case, special, dtype, rng):
    numbers, given, wanted = arguments(*WINDOWS[case])
    x = image(rng, given, dtype, special)
    out, indices = check("max_pool2d_forward", [x, np.empty(wanted, dtype), np.empty(wanted, places(dtype)), *numbers],
                         {1, 2}, ulps=0)[1:3]
    grad = rng.standard_normal(wanted).astype(dtype)
    check("max_pool2d_backward", [grad, indices, np.empty_like(x)], {2}, ulps=0)
    check("max_pool2d_gather", [x, indices, np.empty_like(out)], {2}, ulps=0)


def test_windows_wholly_in_the_padding(rng):
    x = rng.standard_normal((1, 1, 3, 3)).astype(np.float32)
    shape = (1, 1, 4, 4)
    out, indices = check("max_pool2d_forward", [x, np.empty(shape, np.float32), np.empty(shape, np.int32),
                                                2, 2, 2, 2, 3, 3, 1, 1], {1, 2}, ulps=0)[1:3]
    assert (indices == -1).any() and np.isneginf(out).any()
    check("max_pool2d_backward", [np.ones_like(out), indices, np.empty_like(x)], {2}, ulps=0)
    check("max_pool2d_gather", [x, indices, np.empty_like(out)], {2}, ulps=0)


def test_gradients_of_many_windows_into_several_pieces_are_added_in_order(rng):
    """A plane of 24 x 24 is shared by three warps, and up to nine windows send to one place."""
    x = np.round(rng.standard_normal((1, 2, 24, 24))).astype(np.float32)
    shape = (1, 2, 24, 24)
    indices = np.empty(shape, np.int32)
    reference.max_pool2d_forward(x, np.empty(shape, np.float32), indices, 3, 3, 1, 1, 1, 1, 1, 1)
    grad = rng.standard_normal(shape).astype(np.float32)
    check("max_pool2d_backward", [grad, indices, np.empty_like(x)], {2}, ulps=0)
    indices[...] = 575
    check("max_pool2d_backward", [grad, indices, np.empty_like(x)], {2}, ulps=0)


@BOTH
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("case", WINDOWS)
def test_avg_pool(case, include, dtype, rng):
    numbers, given, wanted = arguments(*WINDOWS[case], dilation=False)
    x, grad = rng.standard_normal(given).astype(dtype), rng.standard_normal(wanted).astype(dtype)
    check("avg_pool2d_forward", [x, np.empty(wanted, dtype), *numbers, include], {1}, floor=2)
    check("avg_pool2d_backward", [grad, np.empty(given, dtype), *numbers, include], {1}, floor=2)


@BOTH
@pytest.mark.parametrize("size, outputs", [((7, 7), (1, 1)), ((5, 8), (2, 3)), ((3, 4), (5, 4)), ((1, 12), (1, 5)),
                                           ((9, 5), (1, 2))])
def test_adaptive_avg_pool(size, outputs, dtype, rng):
    x, grad = rng.standard_normal((2, 3, *size)).astype(dtype), rng.standard_normal((2, 3, *outputs)).astype(dtype)
    check("adaptive_avg_pool2d_forward", [x, np.empty_like(grad)], {1}, floor=2)
    check("adaptive_avg_pool2d_backward", [grad, np.empty_like(x)], {1}, floor=2)


def test_nan_and_infinity_reach_their_windows(rng):
    x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
    x[0, 0, 2, 2], x[0, 1, 0, 5] = np.nan, np.inf
    check("avg_pool2d_forward", [x, np.empty((1, 2, 3, 3), np.float32), 2, 2, 2, 2, 0, 0, 1], {1}, floor=2)
    check("adaptive_avg_pool2d_forward", [x, np.empty((1, 2, 4, 4), np.float32)], {1}, floor=2)
    check("adaptive_avg_pool2d_forward", [x, np.empty((1, 2, 1, 1), np.float32)], {1}, floor=2)


def test_nothing_to_do():
    x, none = np.zeros((0, 3, 4, 4), np.float32), np.zeros((0, 3, 2, 2), np.float32)
    run_fresh("max_pool2d_forward", [x, none, none.astype(np.int32), 2, 2, 2, 2, 0, 0, 1, 1], {1, 2})
    run_fresh("max_pool2d_backward", [none, none.astype(np.int32), x], {2})
    run_fresh("max_pool2d_gather", [x, none.astype(np.int32), none], {2})
    run_fresh("avg_pool2d_forward", [x, none, 2, 2, 2, 2, 0, 0, 1], {1})
    run_fresh("avg_pool2d_backward", [none, x, 2, 2, 2, 2, 0, 0, 1], {1})
    run_fresh("adaptive_avg_pool2d_forward", [x, none], {1})
    run_fresh("adaptive_avg_pool2d_backward", [none, x], {1})
