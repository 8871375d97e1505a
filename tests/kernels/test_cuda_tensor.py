"""Tensor cores: a warp's product by the PTX manual's layout, each product and convolution in tf32, 3xtf32 and bf16."""

import re
import sys

import numpy as np
import pytest
from test_cuda_conv import NAMES, defined, problem
from test_cuda_conv import run as convolve
from test_cuda_matmul import FLAGS, direct, exact, operands, product

from minigrad.kernels.cuda import array, conv, emulator, gemm_tiles, toolkit
from minigrad.kernels.cuda.language import (
    Int,
    Pointer,
    T,
    cuda,
    kernel,
    load4,
    mma_bf16_sync,
    mma_tf32_sync,
    pack_bf16,
    round_tf32,
    store4,
)
from minigrad.kernels.precision import matmul_precision

SIZES = {"big": 0, "middle": 1, "small": 2}
SHAPES = [(1, 1, 1), (7, 33, 5), (8, 12, 7), (36, 8, 20), (33, 12, 40), (5, 12, 256)]
# Sums are cut off, not rounded, at each 8 or 16 steps of the depth, of which no test has more than 32.
FLOAT32 = 4e-6


@pytest.fixture(params=["high", "3xtf32", "medium"])
def precision(request):
    token = matmul_precision.set(request.param)
    yield request.param
    matmul_precision.reset(token)


def tf32(x):
    """Rounded to 11 significant bits, ties away from zero: by the definition, not by bits."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    rounded = np.trunc(np.abs(mantissa) * 2**11 + 0.5) / 2**11
    return np.where(np.isfinite(x), np.copysign(np.ldexp(rounded, exponent), mantissa), x).astype(np.float32)


def bf16(x):
    """Rounded to 8 significant bits, fewer where they would be below 2^-133, ties to even: by the definition, too."""
    _, exponent = np.frexp(x.astype(np.float64))
    spacing = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    with np.errstate(over="ignore"):  # what is too large becomes infinity
        return np.where(np.isfinite(x), np.rint(x / spacing) * spacing, x).astype(np.float32)


ROUNDED = {"high": tf32, "medium": bf16}  # what becomes of operands


def rounded(x, precision):
    """An operand as it is multiplied."""
    return ROUNDED[precision](x) if precision in ROUNDED else x


def check(out, a, b, flags, precision, bias=0.0):
    """Against the exact product, of rounded operands where these are rounded."""
    a, b = rounded(a, precision), rounded(b, precision)
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
def _multiply_bf16(a: Pointer, b: Pointer, out: Pointer, missing: Int):
    lane = cuda.threadIdx.x
    g, t = lane // 4, lane % 4
    if lane != missing:
        d0, d1, d2, d3 = mma_bf16_sync(
            pack_bf16(a[g * 16 + 2 * t], a[g * 16 + 2 * t + 1]),
            pack_bf16(a[(g + 8) * 16 + 2 * t], a[(g + 8) * 16 + 2 * t + 1]),
            pack_bf16(a[g * 16 + 2 * t + 8], a[g * 16 + 2 * t + 9]),
            pack_bf16(a[(g + 8) * 16 + 2 * t + 8], a[(g + 8) * 16 + 2 * t + 9]),
            pack_bf16(b[2 * t * 8 + g], b[(2 * t + 1) * 8 + g]),
            pack_bf16(b[(2 * t + 8) * 8 + g], b[(2 * t + 9) * 8 + g]),
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


@kernel
def _pack(low: Pointer, high: Pointer, out: Pointer):
    i = cuda.threadIdx.x
    out[i] = pack_bf16(low[i], high[i])


@kernel
def _pack_below_two(low: Pointer, out: Pointer):
    out[0] = pack_bf16(low[0], T(2))


@kernel
def _pack_and_carry(low: Pointer, high: Pointer, out: Pointer):
    slab, held = cuda.shared.array(4 * 32, T, alignment=16), cuda.local.array(4, T)
    i = cuda.threadIdx.x
    for q in range(4):
        held[q] = pack_bf16(low[4 * i + q], high[4 * i + q])
    store4(slab, 4 * i, held[0], held[1], held[2], held[3])
    cuda.syncthreads()
    held[0], held[1], held[2], held[3] = load4(slab, 4 * (31 - i))
    for q in range(4):
        out[4 * i + q] = held[q]


@pytest.mark.parametrize("multiply, depth, of, cut", [(_multiply, 8, tf32, 1e-6), (_multiply_bf16, 16, bf16, 2e-6)],
                         ids=["tf32", "bf16"])
def test_a_warp_multiplies_16_by_8_by_8_words(multiply, depth, of, cut, rng):
    a, b = rng.standard_normal((16, depth)).astype(np.float32), rng.standard_normal((depth, 8)).astype(np.float32)
    out = array.empty((16, 8), np.float32)
    multiply[1, 32](array.from_host(a), array.from_host(b), out, -1)
    np.testing.assert_allclose(out.numpy(), of(a).astype(np.float64) @ of(b) + 1, rtol=0, atol=cut)


@pytest.mark.skipif("emulator" not in sys.modules["minigrad.kernels.cuda.memory"].backend.__name__,
                    reason="a GPU hangs or computes anything")
def test_all_lanes_must_take_part_with_rounded_operands():
    ones, out = array.from_host(np.ones(256, np.float32)), array.empty((128,), np.float32)
    for multiply in (_multiply, _multiply_bf16):
        with pytest.raises(emulator.Divergence, match="a warp operation is not reached by all threads"):
            multiply[1, 32](ones, ones, out, 5)
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


def samples(rng, count):
    """All sorts of float32 numbers, and what is rounded to bfloat16 in a way of its own."""
    x = (rng.standard_normal(count) * 10.0 ** rng.integers(-42, 38, count)).astype(np.float32)
    x[:13] = [1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 1 + 2.0**-8 + 2.0**-23, 0.0, -0.0, np.inf, -np.inf, np.nan,
              3.4e38, -3.4e38, 2.0**-134, 3 * 2.0**-134]
    return x


def test_two_numbers_in_a_word_rounded_to_nearest_with_ties_to_even(rng):
    low, high = samples(rng, 64), rng.permutation(samples(rng, 64))
    out = array.empty((64,), np.float32)
    _pack[1, 64](array.from_host(low), array.from_host(high), out)
    words = out.numpy().view(np.uint32)
    for x, bits in ((low, words & 0xFFFF), (high, words >> 16)):
        got = (bits << 16).view(np.float32)
        np.testing.assert_array_equal(got, bf16(x))
        np.testing.assert_array_equal(np.signbit(got[x == 0]), np.signbit(x[x == 0]))
        assert (bits[np.isnan(x)] == 0x7FFF).all()
    assert list((words[:4] << 16).view(np.float32)) == [1, 1 + 2.0**-6, -1, 1 + 2.0**-7]


@pytest.mark.skipif(not toolkit.HAS_COMPILER, reason="numba-cuda and cuda-core are not installed")
def test_the_instruction_names_the_upper_half_first():
    """So says the PTX ISA; what runs here is a twin that does not know."""
    from minigrad.kernels.cuda import compile

    ptx = compile.ptx_of(_pack_below_two, (np.dtype(np.float32),) * 2)
    two = re.search(r"mov\.\w+\s+(%\w+), 0f40000000;", ptx).group(1)
    assert re.search(rf"cvt\.rn\.bf16x2\.f32 %\w+, {two}, %\w+;", ptx), ptx


def test_words_that_look_like_nan_keep_their_bits(rng):
    """Infinity above anything is a signalling NaN as a float32, which a conversion would make another one."""
    low, high = samples(rng, 128), np.where(np.arange(128) % 3, np.inf, -np.inf).astype(np.float32)
    high[::5] = np.nan
    words, moved = array.empty((128,), np.float32), array.empty((128,), np.float32)
    low, high = array.from_host(low), array.from_host(high)
    _pack[1, 128](low, high, words)
    _pack_and_carry[1, 32](low, high, moved)
    wanted = words.numpy().view(np.uint32).reshape(32, 4)[::-1]
    assert np.isnan(wanted.view(np.float32)).mean() > 0.9
    np.testing.assert_array_equal(moved.numpy().view(np.uint32).reshape(32, 4), wanted)


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
    depth = max(20, tile.depth + 4)  # more than one slab
    a, b = operands(rng, np.float32, (), (), tile.rows + 4, tile.columns // 2 + 4, depth, *flags)
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
    for precision in ("highest", "3xtf32", "high", "medium"):
        tile = gemm_tiles.TILES[precision][SIZES["small"]]
        errors[precision] = np.abs(direct(tile, 1, a, b, a[0, :0], (0, 0)) / wanted - 1).max()
    assert errors["3xtf32"] < 2 * errors["highest"] < errors["high"] < errors["medium"], errors


def test_float64_stays_float64(precision, rng):
    a, b = operands(rng, np.float64, (), (), 7, 9, 20, 0, 0)
    np.testing.assert_allclose(product(a, b, 0, 0), exact(a, b, 0, 0), rtol=0, atol=1e-13)


def check_convolution(name, inputs, shape, numbers, precision):
    """One of the three kernels against its definition, of rounded operands where these are rounded."""
    wanted = defined(name, [*[rounded(v, precision) for v in inputs[:2]], *inputs[2:]], shape, numbers)[0]
    out = convolve(name, inputs, shape, numbers)[0]  # the gradient by the bias, the second one, is no product
    np.testing.assert_allclose(out, wanted, rtol=0, atol=FLOAT32 * 10 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NAMES[:2])
def test_pointwise_convolution(precision, name, rng):
    numbers = (1, 1, 0, 0, 1, 1, 1)
    check_convolution(name, *problem(rng, np.float32, 1, 12, 2, 2, 12, (1, 1), numbers)[name], numbers, precision)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("numbers", [(1, 1, 1, 1, 1, 1, 1), (2, 2, 1, 0, 1, 1, 1), (1, 1, 1, 1, 1, 2, 2)])
def test_convolution(precision, name, numbers, rng):
    check_convolution(name, *problem(rng, np.float32, 2, 12, 6, 7, 10, (3, 3), numbers)[name], numbers, precision)


@pytest.mark.parametrize("size", ["big", "middle"])
@pytest.mark.parametrize("name", NAMES)
def test_large_tiles_of_convolutions(precision, name, size, rng, monkeypatch):
    """More than one slab each; pixels, channels and taps that are odd in number."""
    monkeypatch.setattr(conv, "choose", lambda *shape: (gemm_tiles.TILES[precision][SIZES[size]], 1))
    for arguments in ((5, 9, 5, 4, 20, (2, 2), (2, 1, 1, 0, 1, 1, 1)),
                      (5, 36, 2, 4, 37, (1, 1), (1, 1, 0, 0, 1, 1, 1))):
        check_convolution(name, *problem(rng, np.float32, *arguments)[name], arguments[-1], precision)
