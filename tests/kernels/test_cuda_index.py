"""The CUDA kernels for strided copies and rows picked by number against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import check
from test_index import DISTINCT, REPEATED

from minigrad.kernels import cuda
from minigrad.kernels.cuda import array, emulator, maps

# Views whose neighbours lie along another axis than the last one, with ragged tiles
TRANSPOSED = (
    ((1, 1, 1, 40, 37), 3, (0, 0, 0, 1, 40)),
    ((1, 1, 2, 9, 33), 0, (0, 0, 297, 1, 9)),
    ((1, 10, 3, 2, 9), 0, (0, 1, 180, 10, 20)),
    ((8, 2, 1, 3, 8), 5, (1, 8, 0, 128, 16)),
)
WIDE = (((1, 1, 2, 3, 8), 4, (0, 0, 100, 12, 1)), ((1, 1, 2, 3, 8), 2, (0, 0, 100, 12, 1)),
        ((1, 1, 1, 3, 8), 24, (0, 0, 0, -8, 1)))  # fmt: skip


@pytest.fixture(params=(maps.WAVE, 8), ids=("single", "wide"), autouse=True)
def wave(request, monkeypatch):
    """Every test runs with a thread per element, and again with the loops and tiles of large arrays."""
    monkeypatch.setattr(maps, "WAVE", request.param)


@pytest.mark.parametrize("dtype", (*FLOATS, np.int64, np.bool_))
def test_strided_copy(dtype):
    x = (numbers(1600, np.float64) * 10).astype(dtype)
    for shape, offset, strides in (*DISTINCT, *REPEATED, *WIDE, *TRANSPOSED):
        if np.prod(shape) <= 1500:
            check("strided_copy", (x, empty(shape, dtype), offset, *strides), {1}, 0)


@pytest.mark.parametrize("dtype", (*FLOATS, np.bool_))
def test_strided_scatter(dtype):
    x = (numbers(1600, np.float64) * 10).astype(dtype)
    for shape, offset, strides in (*DISTINCT, *WIDE, *TRANSPOSED):
        part = (numbers(shape, np.float64, 1) * 10).astype(dtype)
        check("strided_scatter", (part, x, offset, *strides), set(), 0, in_place={1})


@pytest.mark.parametrize("dtype", FLOATS)
def test_take(dtype):
    for rows, width, count in ((1, 1, 1), (7, 3, 0), (10, 33, 50), (5, 8, 9)):
        indices = np.random.default_rng(0).integers(-rows, rows, count)
        check("take", (numbers((rows, width), dtype), indices, empty((count, width), dtype)), {2}, 0)


def test_indices_that_are_no_rows_touch_nothing_else():
    """Whoever calls has the next read of a value say so; until then no memory of others is read or written."""
    indices = np.array([0, 4, -5, 2**20, 3])
    out, found, total = array.empty((5, 2), np.float32), array.from_host(indices), array.empty((4, 2), np.float32)
    cuda.take(array.from_host(np.ones((4, 2), np.float32)), found, out)
    cuda.take_backward(array.from_host(np.ones((5, 2), np.float32)), found, total)
    assert out.numpy()[[0, 4]].tolist() == [[1.0, 1.0]] * 2
    assert total.numpy().tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_take_backward(dtype):
    for rows, width, count in ((1, 1, 1), (7, 3, 0), (3, 2, 140), (300, 1, 270), (4, 131, 37)):
        indices = np.random.default_rng(0).integers(-rows, rows, count)
        arguments = (numbers((count, width), dtype, special=True), indices, empty((rows, width), dtype))
        check("take_backward", arguments, {2}, 0)


def test_take_backward_adds_in_order():
    """1e8 + 1 - 1e8 in float32 is 0 in this order and 1 in another, whatever the order of threads."""
    grad = np.array([[1e8], [1.0], [-1e8]], np.float32)
    for seed in range(5):
        emulator.set_seed(seed)
        got = check("take_backward", (grad, np.zeros(3, np.int64), empty((2, 1), np.float32)), {2}, 0)
        assert got[2].tolist() == [[0.0], [0.0]]
    emulator.set_seed(0)
