"""Matrix products on CUDA against the definition: every tile, layout and edge, slices of the depth, batches."""

import sys

import numpy as np
import pytest
from agreement import FLOATS
from cuda_agreement import run_fresh

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import array, gemm_tiles
from minigrad.kernels.cuda.matmul import launch

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
BOTH = pytest.mark.parametrize("dtype", FLOATS)
FLAGS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def operands(rng, dtype, batch_a, batch_b, m, n, k, transpose_a, transpose_b):
    a = rng.standard_normal((*batch_a, k, m) if transpose_a else (*batch_a, m, k)).astype(dtype)
    b = rng.standard_normal((*batch_b, n, k) if transpose_b else (*batch_b, k, n)).astype(dtype)
    return a, b


def product(a, b, transpose_a, transpose_b):
    m, n = a.shape[-1 if transpose_a else -2], b.shape[-2 if transpose_b else -1]
    batch = () if a.ndim == 2 else (max(a.shape[0], b.shape[0]),)
    out = np.empty((*batch, m, n), a.dtype)
    return run_fresh("matmul", [a, b, out, np.empty(0, a.dtype), transpose_a, transpose_b], {2})[2]


def exact(a, b, transpose_a, transpose_b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        return (a.swapaxes(-2, -1) if transpose_a else a) @ (b.swapaxes(-2, -1) if transpose_b else b)


def check(out, wanted, depth):
    np.testing.assert_allclose(out, wanted, rtol=0, atol=TOLERANCE[out.dtype.type] * 4 * max(1, depth) ** 0.5)


@BOTH
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 33, 5), (36, 8, 20), (33, 12, 40)])
def test_every_layout_of_ragged_shapes(dtype, flags, shape, rng):
    a, b = operands(rng, dtype, (), (), *shape, *flags)
    check(product(a, b, *flags), exact(a, b, *flags), shape[2])


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("batches", [(2, 2), (3, 1), (1, 2)])
def test_batches(batches, flags, rng):
    for m, n, k in ((4, 8, 12), (5, 3, 2)):
        a, b = operands(rng, np.float32, batches[:1], batches[1:], m, n, k, *flags)
        check(product(a, b, *flags), exact(a, b, *flags), k)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 5, 0)])
def test_nothing_to_do(shape, rng):
    a, b = operands(rng, np.float32, (2,), (2,), *shape, 0, 0)
    np.testing.assert_array_equal(product(a, b, 0, 0), np.zeros((2, *shape[:2]), np.float32))
    x, weight = operands(rng, np.float32, (), (), *shape, 0, 1)
    bias = rng.standard_normal(shape[1]).astype(np.float32)
    out = run_fresh("linear_forward", [x, weight, bias, np.empty(shape[:2], np.float32), bias[:0]], {3})[3]
    np.testing.assert_allclose(out, np.broadcast_to(bias, shape[:2]) + x @ weight.T, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("shape", [(1, 5, 300), (3, 12, 256), (5, 4, 131), (5, 12, 256), (6, 5, 203)])
def test_slices_of_the_depth_are_added(dtype, shape, rng):
    assert gemm_tiles.choose(*shape, 1, 4)[1] > 1
    for flags in ((0, 0), (0, 1)):
        a, b = operands(rng, dtype, (), (), *shape, *flags)
        check(product(a, b, *flags), exact(a, b, *flags), shape[2])


@BOTH
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 12, 16), (33, 10, 7), (2, 5, 200)])
def test_linear_adds_the_bias(dtype, shape, rng):
    m, n, k = shape
    x, weight = operands(rng, dtype, (), (), m, n, k, 0, 1)
    for bias in (rng.standard_normal(n).astype(dtype), np.empty(0, dtype)):
        out = run_fresh("linear_forward", [x, weight, bias, np.empty((m, n), dtype), bias[:0]], {3})[3]
        check(out, exact(x, weight, 0, 1) + (bias if bias.size else 0), k)


def direct(tile, splits, a, b, bias, flags):
    """One product by a tile that the shape would not choose."""
    m, n, k = a.shape[1 if flags[0] else 0], b.shape[0 if flags[1] else 1], a.shape[0 if flags[0] else 1]
    out = array.empty((m, n), a.dtype)
    launch(tile, splits, array.from_host(a), array.from_host(b), array.from_host(bias), out, 1, m, n, k, 0, 0,
           not flags[0], bool(flags[1]))
    return out.numpy()


@pytest.mark.parametrize("flags", FLAGS[:3])
def test_big_tile(flags, rng):
    a, b = operands(rng, np.float32, (), (), 132, 68, 20, *flags)
    bias = rng.standard_normal(68).astype(np.float32)
    check(direct(gemm_tiles.BIG, 1, a, b, bias, flags), exact(a, b, *flags) + bias, 20)


def test_big_tile_unaligned(rng):
    a, b = operands(rng, np.float32, (), (), 130, 70, 10, 0, 1)
    check(direct(gemm_tiles.BIG, 1, a, b, a[0, :0], (0, 1)), exact(a, b, 0, 1), 10)


@BOTH
@pytest.mark.parametrize("flags", FLAGS[:3])
def test_middle_tile(dtype, flags, rng):
    for m, n, k, splits in ((68, 36, 40, 2), (65, 3, 17, 1)):
        a, b = operands(rng, dtype, (), (), m, n, k, *flags)
        check(direct(gemm_tiles.MIDDLE, splits, a, b, a[0, :0], flags), exact(a, b, *flags), k)


def test_views_that_begin_off_sixteen_bytes(rng):
    values = rng.standard_normal(1 + 8 * 12 + 12 * 4).astype(np.float32)
    whole = array.from_host(values)
    a, b = whole[1:97].reshape(8, 12), whole[97:].reshape(12, 4)
    out = array.empty((33,), np.float32)[1:].reshape(8, 4)
    cuda.matmul(a, b, out, out, 0, 0)
    check(out.numpy(), exact(values[1:97].reshape(8, 12), values[97:].reshape(12, 4), 0, 0), 12)


def test_nan_and_infinity_reach_exactly_their_row_and_column(rng):
    a, b = operands(rng, np.float32, (), (), 20, 40, 30, 0, 0)
    a[3, 4], b[7, 11], a[5, 0] = np.nan, np.inf, np.inf
    out, wanted = product(a, b, 0, 0), exact(a, b, 0, 0)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(out), np.isinf(wanted))


def test_large_products_get_large_tiles_and_small_ones_many_blocks():
    assert gemm_tiles.choose(4096, 4096, 4096, 1, 4) == (gemm_tiles.BIG, 1)
    assert gemm_tiles.choose(4096, 4096, 4096, 1, 8) == (gemm_tiles.MIDDLE, 1)
    assert gemm_tiles.choose(512, 512, 8192, 1, 4) == (gemm_tiles.BIG, 16)
    assert gemm_tiles.choose(512, 512, 512, 1, 4) == (gemm_tiles.MIDDLE, 2)
    for m, n, k in ((60, 100, 784), (1, 1000, 4096), (512, 512, 512), (64, 64, 65536)):
        tile, splits = gemm_tiles.choose(m, n, k, 1, 4)
        assert -(-m // tile.rows) * -(-n // tile.columns) * splits >= 96, (tile, splits)


def test_reference_agrees_on_workspaces():
    assert cuda.matmul_workspace((2, 3), (3, 4), 0, 0, 4) == reference.matmul_workspace((2, 3), (3, 4), 0, 0, 4) == 0
    assert cuda.linear_forward_workspace((2, 3), (4, 3), 4) == 0


def test_more_tiles_of_columns_than_a_grid_has(rng, monkeypatch):
    """Larger tiles then, and a sentence where these are too many too."""
    monkeypatch.setattr(sys.modules["minigrad.kernels.cuda.matmul"], "MOST", 1)  # the package has a kernel of that name
    a, b = operands(rng, np.float32, (), (), 3, 70, 5, 0, 0)
    np.testing.assert_allclose(product(a, b, 0, 0), a @ b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="matmul: expected at most 128 columns on cuda, got 129"):
        product(a, np.ones((5, 129), np.float32), 0, 0)
