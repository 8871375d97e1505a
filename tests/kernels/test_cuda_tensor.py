"""Tensor cores: the warp's product by the PTX manual's layout, and every product and convolution in tf32 and 3xtf32."""

import sys

import numpy as np
import pytest
from test_cuda_conv import defined, problem
from test_cuda_conv import run as convolve
from test_cuda_matmul import FLAGS, direct, exact, operands, product

from minigrad.kernels.cuda import array, emulator, gemm_tiles
from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, kernel, mma_tf32_sync, round_tf32
from minigrad.kernels.precision import matmul_precision

SIZES = {"big": 0, "middle": 1, "small": 2}
SHAPES = [(1, 1, 1), (7, 33, 5), (36, 8, 20), (33, 12, 40), (5, 12, 256)]
# Sums are cut off, not rounded, at each 8 steps of the depth, of which no test has more than 32.
FLOAT32 = 4e-6


@pytest.fixture(params=["high", "3xtf32"])
def precision(request):
    token = matmul_precision.set(request.param)
    yield request.param
    matmul_precision.reset(token)


def tf32(x):
    """Rounded to 11 significant bits, ties away from zero: by the definition, not by bits."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    rounded = np.trunc(np.abs(mantissa) * 2**11 + 0.5) / 2**11
    return np.where(np.isfinite(x), np.copysign(np.ldexp(rounded, exponent), mantissa), x).astype(np.float32)


def check(out, a, b, flags, precision, bias=0.0):
    """Against the exact product, of rounded operands where these are rounded."""
    if precision == "high":
        a, b = tf32(a), tf32(b)
    scale = exact(np.abs(a), np.abs(b), *flags)
    error = np.abs(out - (exact(a, b, *flags) + bias))
    assert (error <= FLOAT32 * scale + 1e-6 * np.abs(bias)).all(), (error / np.maximum(scale, 1e-30)).max()


# -- the words ---------------------------------------------------------------------------------------------------------


@kernel
def _multiply(a: Pointer, b: Pointer, out: Pointer, missing: Int):
    lane = cuda.threadIdx.x
    g, t = lane // 4, lane % 4
    if lane != missing:
        d0, d1, d2, d3 = mma_tf32_sync(
            round_tf32(a[g * 8 + t]), round_tf32(a[(g + 8) * 8 + t]), round_tf32(a[g * 8 + t + 4]),
            round_tf32(a[(g + 8) * 8 + t + 4]), round_tf32(b[t * 8 + g]), round_tf32(b[(t + 4) * 8 + g]),
            T(1), T(1), T(1), T(1))
        out[g * 8 + 2 * t], out[g * 8 + 2 * t + 1] = d0, d1
        out[(g + 8) * 8 + 2 * t], out[(g + 8) * 8 + 2 * t + 1] = d2, d3


@kernel
def _multiply_unrounded(x: Pointer, out: Pointer):
    v = x[0]
    out[cuda.threadIdx.x] = mma_tf32_sync(v, v, v, v, v, v, v, v, v, v)[0]


@kernel
def _round(x: Pointer, out: Pointer):
    out[cuda.threadIdx.x] = round_tf32(x[cuda.threadIdx.x])


def test_a_warp_multiplies_16_by_8_by_8(rng):
    a, b = rng.standard_normal((16, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    out = array.empty((16, 8), np.float32)
    _multiply[1, 32](array.from_host(a), array.from_host(b), out, -1)
    np.testing.assert_allclose(out.numpy(), tf32(a).astype(np.float64) @ tf32(b) + 1, rtol=0, atol=1e-6)


@pytest.mark.skipif("emulator" not in sys.modules["minigrad.kernels.cuda.memory"].backend.__name__,
                    reason="a GPU hangs or computes anything")
def test_all_lanes_must_take_part_with_rounded_operands():
    ones, out = array.from_host(np.ones(128, np.float32)), array.empty((128,), np.float32)
    with pytest.raises(emulator.Divergence, match="a warp operation is not reached by all threads"):
        _multiply[1, 32](ones, ones, out, 5)
    with pytest.raises(emulator.KernelError, match="an operand is not rounded to tf32"):
        _multiply_unrounded[1, 32](array.from_host(np.full(1, 1 + 2.0**-11, np.float32)), out)


def test_rounding_to_nearest_with_ties_away_from_zero(rng):
    x = rng.standard_normal(32).astype(np.float32) * np.float32(10) ** rng.integers(-30, 30, 32)
    x[:8] = [1 + 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-11 - 2.0**-23, 0.0, np.inf, -np.inf, np.nan, np.float32(3.4e38)]
    x = x.astype(np.float32)
    out = array.empty((32,), np.float32)
    _round[1, 32](array.from_host(x), out)
    np.testing.assert_array_equal(out.numpy(), tf32(x))
    assert out.numpy()[0] == 1 + 2.0**-10 and out.numpy()[2] == 1


# -- products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_layout_of_ragged_shapes(precision, flags, shape, rng):
    a, b = operands(rng, np.float32, (), (), *shape, *flags)
    check(product(a, b, *flags), a, b, flags, precision)


@pytest.mark.parametrize("flags", FLAGS)
def test_a_matrix_times_few_vectors_stays_float32(precision, flags, rng):
    a, b = operands(rng, np.float32, (), (), 3, 12, 256, *flags)
    check(product(a, b, *flags), a, b, flags, "highest")


@pytest.mark.parametrize("batches", [(2, 2), (3, 1), (1, 2)])
def test_batches(precision, batches, rng):
    for flags in ((0, 1), (1, 0)):
        a, b = operands(rng, np.float32, batches[:1], batches[1:], 5, 8, 12, *flags)
        check(product(a, b, *flags), a, b, flags, precision)


@pytest.mark.parametrize("size, flags", [("big", (0, 0)), ("middle", (0, 1)), ("middle", (1, 0))])
def test_large_tiles(precision, size, flags, rng):
    tile = gemm_tiles.TILES[precision][SIZES[size]]
    a, b = operands(rng, np.float32, (), (), tile.rows + 4, tile.columns // 2 + 4, 20, *flags)
    bias = rng.standard_normal(tile.columns // 2 + 4).astype(np.float32)
    check(direct(tile, 1, a, b, bias, flags), a, b, flags, precision, bias)


def test_nan_and_infinity_reach_exactly_their_row_and_column(precision, rng):
    a, b = operands(rng, np.float32, (), (), 20, 40, 30, 0, 0)
    b[4, :7], b[0] = 1.0, np.where(b[0] == 0, 1, b[0])  # of tf32, so their small part is zero
    a[3, 4], b[7, 11], a[5, 0], a[8, 4] = np.nan, np.inf, np.inf, -np.inf
    out, wanted = product(a, b, 0, 0), exact(a, b, 0, 0)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(wanted))
    np.testing.assert_array_equal(np.where(np.isinf(out), out, 0), np.where(np.isinf(wanted), wanted, 0))


def test_three_products_are_as_exact_as_float32_over_a_long_depth(rng):
    a, b = [np.abs(x) for x in operands(rng, np.float32, (), (), 4, 8, 1024, 0, 0)]
    wanted, errors = exact(a, b, 0, 0), {}
    for precision in ("highest", "3xtf32", "high"):
        tile = gemm_tiles.TILES[precision][SIZES["small"]]
        errors[precision] = np.abs(direct(tile, 1, a, b, a[0, :0], (0, 0)) / wanted - 1).max()
    assert errors["3xtf32"] < 2 * errors["highest"] < errors["high"], errors


def test_float64_stays_float64(precision, rng):
    a, b = operands(rng, np.float64, (), (), 7, 9, 20, 0, 0)
    np.testing.assert_allclose(product(a, b, 0, 0), exact(a, b, 0, 0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["conv2d_forward", "conv2d_grad_input"])
def test_pointwise_convolution(precision, name, rng):
    numbers = (1, 1, 0, 0, 1, 1, 1)
    inputs, shape = problem(rng, np.float32, 1, 12, 2, 2, 12, (1, 1), numbers)[name]
    rounded = [tf32(v) for v in inputs[:2]] if precision == "high" else inputs[:2]
    wanted = defined(name, [*rounded, *inputs[2:]], shape, numbers)[0]
    out = convolve(name, inputs, shape, numbers)[0]
    np.testing.assert_allclose(out, wanted, rtol=0, atol=FLOAT32 * 10 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"])
@pytest.mark.parametrize("numbers", [(1, 1, 1, 1, 1, 1, 1), (2, 2, 1, 0, 1, 1, 1), (1, 1, 1, 1, 1, 2, 2)])
def test_convolution(precision, name, numbers, rng):
    inputs, shape = problem(rng, np.float32, 2, 12, 6, 7, 10, (3, 3), numbers)[name]
    rounded = [tf32(v) for v in inputs[:2]] if precision == "high" else inputs[:2]
    for i, (out, wanted) in enumerate(zip(convolve(name, inputs, shape, numbers),
                                          defined(name, [*rounded, *inputs[2:]], shape, numbers), strict=True)):
        if i == 0:  # the gradient by the bias is no product
            np.testing.assert_allclose(out, wanted, rtol=0, atol=FLOAT32 * 10 * np.abs(wanted).max())
