"""Strided copies and rows picked by number against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, check, empty, numbers

# (shape, offset, strides) of views of 600 numbers: identity, permutation, reversed slice, broadcast, steps, empty
DISTINCT = (
    ((2, 3, 4, 5, 5), 0, (300, 100, 25, 5, 1)),
    ((5, 5, 4, 3, 2), 0, (1, 5, 25, 100, 300)),
    ((1, 1, 1, 24, 25), 0, (0, 0, 0, 1, 24)),
    ((1, 1, 5, 10, 6), 599, (0, 0, -60, -1, -10)),
    ((1, 1, 1, 3, 4), 7, (0, 0, 0, 100, 2)),
    ((1, 1, 1, 0, 30), 600, (0, 0, 0, 1, 20)),
)
REPEATED = (((2, 2, 2, 2, 3), 5, (0, 3, 0, 50, 0)), ((1, 1, 3, 1, 40), 0, (0, 0, 40, 0, 0)),
            ((1, 1, 1, 20, 30), 7, (0, 0, 0, 3, 0)), ((1, 1, 1, 1, 500), 599, (0, 0, 0, 0, 0)),
            ((1, 1, 1, 1, 1), 3, (0, 0, 0, 0, 0)))  # fmt: skip


@pytest.mark.parametrize("dtype", (*FLOATS, np.int64, np.bool_))
def test_strided_copy(dtype):
    x = (numbers(600, np.float64) * 10).astype(dtype)
    for shape, offset, strides in (*DISTINCT, *REPEATED):
        check("strided_copy", (x, empty(shape, dtype), offset, *strides), {1}, 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_large_strided_copies(dtype):
    x = numbers(300 * 310, dtype)
    for shape, strides in (((1, 1, 1, 300, 310), (0, 0, 0, 1, 300)), ((3, 1, 100, 31, 10), (31_000, 0, 310, 10, 1)),
                           ((1, 310, 3, 10, 10), (0, 1, 310, 930, 9300))):  # fmt: skip
        check("strided_copy", (x, empty(shape, dtype), 0, *strides), {1}, 0, threads=True)
        check("strided_scatter", (numbers(shape, dtype, 1), x, 0, *strides), {1}, 0, threads=True)
    for shape, strides in (((1, 1, 1, 300, 310), (0, 0, 0, 1, 0)), ((1, 1, 1, 1, 93_001), (0, 0, 0, 0, 0))):
        check("strided_copy", (x, empty(shape, dtype), 11, *strides), {1}, 0, threads=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_strided_scatter(dtype):
    for shape, offset, strides in DISTINCT:
        check("strided_scatter", (numbers(shape, dtype, 1), numbers(600, dtype), offset, *strides), {1}, 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_take(dtype):
    for rows, width, count in ((1, 1, 1), (7, 3, 0), (10, 33, 50), (500, 64, 3000)):
        indices = np.random.default_rng(0).integers(0, rows, count)
        check(
            "take", (numbers((rows, width), dtype), indices, empty((count, width), dtype)), {2}, 0, threads=count > 50
        )
        arguments = (numbers((count, width), dtype), indices, empty((rows, width), dtype))
        check("take_backward", arguments, {2}, 4, 32, threads=count > 50)


def test_take_backward_adds_in_order():
    """1e8 + 1 - 1e8 in float32 is 0 in this order and 1 in another."""
    grad = np.array([[1e8], [1.0], [-1e8]], np.float32)
    got = check("take_backward", (grad, np.zeros(3, np.int64), empty((2, 1), np.float32)), {2}, 0)
    assert got[2].tolist() == [[0.0], [0.0]]
