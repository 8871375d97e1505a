"""Tests of the exercises of chapter 8."""

import numpy as np
import pytest

from minigrad.kernels.cpu.language import kernel


@pytest.mark.parametrize("nbytes, operations, seconds, bound", [
    (100e9, 1e9, 5.0, "memory"), (1e9, 800e9, 8.0, "compute"), (20e9, 100e9, 1.0, "memory"), (8, 1, 4e-10, "memory"),
])  # fmt: skip
def test_1_the_floor(chapter, nbytes, operations, seconds, bound):
    found = chapter.floor(nbytes, operations, 20e9, 100e9)
    assert found == (pytest.approx(seconds), bound)


def test_1_a_linear_layer(chapter):
    assert chapter.linear_cost(1, 1, 1) == (16, 3)
    numbers = 64 * 784 + 784 * 256 + 256 + 64 * 256
    assert chapter.linear_cost(64, 784, 256) == (4 * numbers, 2 * 64 * 784 * 256 + 64 * 256)


def test_1_large_batches_are_bound_by_arithmetic(chapter):
    bounds = [chapter.floor(*chapter.linear_cost(n, 1024, 1024), 20e9, 100e9)[1] for n in (1, 256)]
    assert bounds == ["memory", "compute"]


@pytest.mark.parametrize("n, m, tile", [(8, 5, 4), (7, 3, 4), (1, 1, 16), (20, 33, 8)])
def test_2_the_product(chapter, rng, n, m, tile):
    x, out = rng.standard_normal((n, m)), np.full((n, n), np.nan)
    kernel(chapter.gram)(x, out, tile)
    np.testing.assert_allclose(out, x @ x.T, rtol=1e-12, atol=1e-12)


class Watched:
    """An array that notes which rows are read."""

    def __init__(self, array, rows):
        self.array, self.rows, self.shape, self.dtype = array, rows, array.shape, array.dtype

    def __getitem__(self, index):
        self.rows.append(index[0])
        return self.array[index]


def test_2_the_order(chapter, rng):
    """Tiles come one after the other: from one pair to the next there are (n / tile)^2 changes at most."""
    n, tile, rows = 12, 4, []
    x, out = rng.standard_normal((n, 3)), np.empty((n, n))
    chapter.gram(Watched(x, rows), out, tile)
    np.testing.assert_allclose(out, x @ x.T, rtol=1e-12)
    pairs = [frozenset((a // tile, b // tile)) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    changes = 1 + sum([a != b for a, b in zip(pairs, pairs[1:], strict=False)])
    assert changes <= (n // tile) ** 2
