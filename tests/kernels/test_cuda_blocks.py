"""Division and roots of one instruction, and how blocks of threads cover an array that is reduced."""

import numpy as np
import pytest

from minigrad.kernels import cuda
from minigrad.kernels.cuda import array, toolkit
from minigrad.kernels.cuda.language import Int, Pointer, T, divide, int32, kernel, reciprocal_root, thread_index
from minigrad.kernels.cuda.reduce_blocks import plan

assert cuda


@kernel
def _quotients(x: Pointer, out: Pointer, n: Int):
    i = thread_index()
    if i < n:
        out[2 * i] = divide(x[i], T(i + 2))
        out[2 * i + 1] = reciprocal_root(x[i])


def test_division_and_root():
    for dtype in (np.float32, np.float64):
        x = np.array([4, 0.25, 0, np.inf, np.nan, 3], dtype)
        out = array.empty((12,), dtype)
        _quotients[1, 32](array.from_host(x), out, 6)
        with np.errstate(all="ignore"):
            wanted = np.stack([x / np.arange(2, 8).astype(dtype), 1 / np.sqrt(x)], 1).reshape(-1)
        np.testing.assert_allclose(out.numpy(), wanted, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.skipif(not toolkit.HAS_COMPILER, reason="numba-cuda and cuda-core are not installed")
def test_division_and_root_are_no_calls():
    from minigrad.kernels.cuda import code

    found = code.report(_quotients, ("float32", "float32"), (9, 0))
    assert "div.full.f32" in code.ptx_of(_quotients, (np.dtype("float32"),) * 2)
    assert found.doubles == [] and found.calls == []
    assert found.instructions is None or found.count("CALL") == 0


@kernel
def _numbers(out: Pointer["int32"]):
    out[thread_index()] = int32(2**31 + thread_index())


def test_int32_wraps_around():
    out = array.empty((32,), np.int32)
    _numbers[1, 32](out)
    np.testing.assert_array_equal(out.numpy(), np.arange(32) - 2**31)


def test_plans_cover_everything_once():
    extents = (1, 2, 3, 5, 31, 32, 33, 100, 1000, 70_000)
    for rows in extents:
        for length in (0, *extents):
            for inner in extents:
                p = plan(rows, length, inner)
                x, y, z = p.block
                assert x * y * z % 32 == 0 and x * y * z <= 256 and z <= 64, (rows, length, inner, p)
                assert all(extent & extent - 1 == 0 for extent in p.block)
                assert p.strips * x >= inner > (p.strips - 1) * x
                bundles = p.grid[0] // p.strips
                assert bundles * p.strips == p.grid[0] and bundles * z >= rows > (bundles - 1) * z
                assert p.grid[1] == p.parts <= 65_535
                assert p.parts * p.chunk >= length and (length == 0 or (p.parts - 1) * p.chunk < length)


def test_few_outputs_are_shared_by_many_blocks():
    assert plan(1, 10_000_000, 1).parts > 100
    assert plan(1, 1000, 1).parts == 1 and plan(5000, 1000, 1).parts == 1
