"""A matrix times few vectors on CUDA against the definition: both layouts of both operands, edges, slices, batches."""

import sys

import numpy as np
import pytest
from agreement import FLOATS
from cuda_agreement import run_fresh
from test_cuda_matmul import FLAGS, check, exact, operands, product

from minigrad.kernels import cuda
from minigrad.kernels.cuda import array, gemv, toolkit, watched

assert cuda
matmul = sys.modules["minigrad.kernels.cuda.matmul"]  # the package has a kernel of that name


@pytest.fixture
def no_tiles(monkeypatch):
    """A product that does not suit the kernels here is an error."""
    monkeypatch.setattr(matmul, "choose", None)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_layout(count, flags, rng, no_tiles):
    """More rows than a block has, a depth that ends within a turn; the vectors on either side."""
    dtype = FLOATS[count % 2]
    for rows, k in ((36, 300), (4, 128)):
        for m, n in ((count, rows), (rows, count)):
            a, b = operands(rng, dtype, (), (), m, n, k, *flags)
            check(product(a, b, *flags), exact(a, b, *flags), k)


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (9, 3), (2, 2)])
def test_rows_of_any_number_where_the_matrix_is_deep(shape, rng, no_tiles):
    for k in (132, 516, 1028):
        a, b = operands(rng, np.float32, (), (), *shape, k, 0, 1)
        check(product(a, b, 0, 1), exact(a, b, 0, 1), k)


@pytest.mark.parametrize("flags", FLAGS)
def test_slices_of_the_depth_are_added(flags, rng, no_tiles):
    for m, n, batch in ((2, 8, ()), (8, 1, (2,))):
        deep = flags[1] if m < n else not flags[0]
        k = 8192 + 4 if deep else 1024 + 8
        assert gemv.plan(8, k, 2, deep).splits > 1
        a, b = operands(rng, np.float32, batch, batch, m, n, k, *flags)
        check(product(a, b, *flags), exact(a, b, *flags), k)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("batches", [(2, 2), (3, 1), (1, 2)])
def test_batches(batches, flags, rng):
    for m, n in ((1, 40), (12, 3)):
        a, b = operands(rng, np.float32, batches[:1], batches[1:], m, n, 140, *flags)
        check(product(a, b, *flags), exact(a, b, *flags), 140)


@pytest.mark.parametrize("shape", [(1, 10, 256), (4, 7, 132), (9, 1, 200), (7, 4, 128), (2, 3, 8200)])
def test_linear_adds_the_bias(shape, rng, no_tiles):
    m, n, k = shape
    x, weight = operands(rng, np.float32, (), (), m, n, k, 0, 1)
    for bias in (rng.standard_normal(n).astype(np.float32), np.empty(0, np.float32)):
        out = run_fresh("linear_forward", [x, weight, bias, np.empty((m, n), np.float32), bias[:0]], {3})[3]
        check(out, exact(x, weight, 0, 1) + (bias if bias.size else 0), k)


@pytest.mark.parametrize("deep", [0, 1])
def test_the_matrix_is_read_once(deep, rng, no_tiles, monkeypatch):
    if not toolkit.EMULATED:
        pytest.skip("counts reads in the emulator")
    reads = []
    get = watched.Pointer.__getitem__
    monkeypatch.setattr(watched.Pointer, "__getitem__", lambda self, i: (reads.append(self.name), get(self, i))[1])
    product(*operands(rng, np.float32, (), (), 4, 40, 516, 0, deep), 0, deep)
    assert reads.count("matrix") == 40 * 516


def test_operands_that_cannot_be_read_by_128_bits_take_a_tile(rng):
    values = rng.standard_normal(1 + 200 + 200 * 8).astype(np.float32)
    whole = array.from_host(values)
    out = array.empty((1, 8), np.float32)
    cuda.matmul(whole[1:201].reshape(1, 200), whole[201:].reshape(200, 8), out, out, 0, 0)
    check(out.numpy(), exact(values[1:201].reshape(1, 200), values[201:].reshape(200, 8), 0, 0), 200)
    for m, n, k, flags in ((1, 8, 130, (0, 1)), (2, 9, 200, (0, 0)), (9, 2, 200, (1, 0))):
        assert not gemv.suits(m, n, k, not flags[0], flags[1], True)
        a, b = operands(rng, np.float32, (), (), m, n, k, *flags)
        check(product(a, b, *flags), exact(a, b, *flags), k)


def test_what_suits():
    for m, n, k, suits in ((1, 1000, 4096, True), (5, 1000, 4096, False), (1000, 4, 128, True), (4, 4, 64, False)):
        assert gemv.suits(m, n, k, True, True, True) == suits


def test_plans_cover_rows_and_depth_once():
    for rows in (1, 2, 5, 31, 33, 1000, 70_000):
        for k in (128, 132, 1000, 4096, 100_000, 10_000_000):
            for batch in (1, 3, 500):
                for deep in (0, 1):
                    p = gemv.plan(rows, k, batch, deep)
                    height = gemv.WARPS >> p.shift if deep else gemv.ROWS
                    assert p.across * height >= rows > (p.across - 1) * height
                    assert p.splits * p.share >= k > (p.splits - 1) * p.share and p.share % 4 == 0
                    assert p.splits <= 65_535 and (deep or p.shift == 0)
    assert gemv.plan(1000, 4096, 1, 1) == (1000, 1, 4096, 3)
    assert gemv.plan(10, 4096, 1, 0).splits == 8
