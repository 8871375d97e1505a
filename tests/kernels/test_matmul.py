"""Matrix products against the definition, on shapes off every tile and block."""

import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad.kernels import cpu, reference

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def product(kernels, a, b, transpose_a, transpose_b):
    batch = max(a.shape[0], b.shape[0])
    m, n = a.shape[2 if transpose_a else 1], b.shape[1 if transpose_b else 2]
    out = np.full((batch, m, n), np.nan, a.dtype)
    size = kernels.matmul_workspace(a.shape, b.shape, transpose_a, transpose_b, a.itemsize)
    work = np.full((1, 1, size), np.nan, a.dtype)
    kernels.matmul(a, b, out, work, transpose_a, transpose_b)
    return out


def operands(rng, dtype, batch_a, batch_b, m, n, k, transpose_a, transpose_b):
    a = rng.standard_normal((batch_a, k, m) if transpose_a else (batch_a, m, k)).astype(dtype)
    b = rng.standard_normal((batch_b, n, k) if transpose_b else (batch_b, k, n)).astype(dtype)
    return a, b


def check(out, a, b, transpose_a, transpose_b):
    exact = product(reference, a.astype(np.float64), b.astype(np.float64), transpose_a, transpose_b)
    scale = max(1.0, np.sqrt(a.shape[1 if transpose_a else 2]))
    np.testing.assert_allclose(out, exact, rtol=0, atol=TOLERANCE[out.dtype.type] * 4 * scale)


@settings(max_examples=60)
@given(
    batches=st.sampled_from([(1, 1), (2, 2), (3, 1), (1, 2)]),
    m=st.sampled_from([0, 1, 7, 8, 17, 33, 70]),
    n=st.sampled_from([0, 1, 10, 16, 17, 33, 47, 48, 49, 64, 100]),
    k=st.sampled_from([0, 1, 5, 8, 17, 33, 130]),
    flags=st.tuples(st.booleans(), st.booleans()),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_every_layout_of_every_shape(batches, m, n, k, flags, dtype):
    a, b = operands(np.random.default_rng(m * n + k), dtype, *batches, m, n, k, *flags)
    check(product(cpu, a, b, *map(int, flags)), a, b, *flags)


@BOTH
@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("shape", [(130, 250, 600), (100, 403, 1040), (60, 100, 784), (16, 500, 90), (2, 700, 400),
                                   (700, 1, 900), (130, 530, 1100), (40, 1100, 530), (1, 5000, 90), (1, 40, 12000),
                                   (2, 9, 2048), (1, 5, 2049), (2, 1, 40), (1, 15, 3), (400, 60, 301),
                                   (130, 128, 70), (20, 1024, 40), (30, 70, 600), (54, 96, 100)])
def test_several_blocks_and_slices_give_the_same_bits_on_any_number_of_threads(dtype, shape, flags, rng):
    a, b = operands(rng, dtype, 1, 1, *shape, *flags)
    out = product(cpu, a, b, *flags)
    check(out, a, b, *flags)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(out, product(cpu, a, b, *flags))
    finally:
        numba.set_num_threads(threads)


@BOTH
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 17, 33), (64, 10, 128), (9, 1, 33), (9, 50, 0),
                                   (0, 3, 4), (130, 70, 600)])
def test_linear_adds_the_bias(dtype, bias, shape, rng):
    m, n, k = shape
    x, weight = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
    offset = rng.standard_normal(n if bias else 0).astype(dtype)
    out, exact = np.full((m, n), np.nan, dtype), np.empty((m, n))
    size = cpu.linear_forward_workspace(x.shape, weight.shape, x.itemsize)
    cpu.linear_forward(x, weight, offset, out, np.full((1, size), np.nan, dtype))
    reference.linear_forward(*(v.astype(np.float64) for v in (x, weight, offset)), exact, exact[:0])
    np.testing.assert_allclose(out, exact, rtol=0, atol=TOLERANCE[dtype] * 4 * max(1, k) ** 0.5)


@BOTH
@pytest.mark.parametrize(("columns", "column"), [(50, 11), (10, 7), (3, 1), (3, 0)])
def test_nan_and_infinity_reach_exactly_their_row_and_column(dtype, columns, column, rng):
    a, b = operands(rng, dtype, 1, 1, 20, columns, 30, False, False)
    a[0, 3, 4], b[0, 7, column], a[0, 5, 0] = np.nan, np.inf, np.inf
    out = product(cpu, a, b, 0, 0)[0]
    exact = product(reference, a, b, 0, 0)[0]
    assert np.isnan(out[3]).all()
    np.testing.assert_array_equal(np.isnan(out), np.isnan(exact))
    np.testing.assert_array_equal(np.isinf(out), np.isinf(exact))
    assert np.isfinite(np.delete(np.delete(out, [3, 5], axis=0), column, axis=1)).all()


def test_scratch_memory_is_not_overrun(rng):
    for m, n, k in [(9, 65, 7), (1, 1, 1), (33, 33, 33), (130, 530, 1100)]:
        for flags in [(0, 0), (0, 1), (1, 0)]:
            a, b = operands(rng, np.float32, 2, 1, m, n, k, *flags)
            size = cpu.matmul_workspace(a.shape, b.shape, *flags, 4)
            work, out = np.full((1, 1, size + 256), 7, np.float32), np.empty((2, m, n), np.float32)
            cpu.matmul(a, b, out, work[:, :, :size], *flags)
            assert (work[:, :, size:] == 7).all()


def test_asking_for_the_size_of_scratch_memory_compiles_nothing(monkeypatch):
    """Python called compiled functions for it, which took the first product of 64 x 256 by 64 x 784 0.24 s."""
    module = sys.modules["minigrad.kernels.cpu.matmul"]
    compiled = [name for name, value in vars(module).items() if isinstance(value, numba.core.dispatcher.Dispatcher)]
    assert numba.config.DISABLE_JIT or {"_way", "_vectors", "_area"} <= set(compiled)
    for name in compiled:
        monkeypatch.setattr(module, name, None)
    functions = [module.way, module.packing, module.area]
    while functions and not numba.config.DISABLE_JIT:
        function = functions.pop()
        assert not isinstance(function, numba.core.dispatcher.Dispatcher)
        functions += [cell.cell_contents for cell in function.__closure__ or ()]
    assert cpu.linear_forward_workspace((60, 100), (100, 100), 4) > 0
    assert cpu.linear_forward_workspace((60, 784), (100, 784), 4) == 0
    assert cpu.matmul_workspace((64, 256), (64, 784), 1, 0, 4) > 0


@pytest.mark.parametrize("m, k, n, packed", [
    (128, 100, 128, True), (127, 100, 128, False), (128, 100, 136, False), (128, 60, 128, False),
    (16, 40, 1024, True), (15, 40, 1024, False), (16, 8, 1024, False), (128, 600, 16, False)])
def test_operands_whose_rows_share_sets_of_the_cache_are_packed(m, k, n, packed):
    assert (cpu.matmul_workspace((m, k), (k, n), 0, 0, 4) > 0) == packed


@BOTH
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 7, 9, 10, 15, 17])
def test_few_columns_write_nothing_beside_the_output(dtype, columns, rng):
    a, b = operands(rng, dtype, 1, 1, 20, columns, 30, False, False)
    out = np.full((22, columns), 7, dtype)
    cpu.matmul(a[0], b[0], out[1:-1], np.empty((1, 0), dtype), 0, 0)
    check(out[None, 1:-1], a, b, 0, 0)
    assert (out[[0, -1]] == 7).all()


def test_scratch_memory_for_one_thread_is_enough(rng):
    a, b = operands(rng, np.float32, 2, 1, 130, 530, 1100, False, True)
    size = cpu.matmul_workspace(a.shape, b.shape, 0, 1, 4) // numba.config.NUMBA_NUM_THREADS
    work, out = np.full((1, 1, size + 256), 7, np.float32), np.empty((2, 130, 530), np.float32)
    cpu.matmul(a, b, out, work[:, :, :size], 0, 1)
    check(out, a, b, 0, 1)
    assert (work[:, :, size:] == 7).all()


@BOTH
def test_no_two_shares_write_the_same_element(dtype, rng):
    """What one adds to pass by pass, another must not overwrite meanwhile: two of 37,000 random products were wrong."""
    module = sys.modules["minigrad.kernels.cpu.matmul"]
    lanes = module.VECTOR_BYTES // np.dtype(dtype).itemsize
    for n in (lanes, 2 * lanes + 1, 3 * lanes, 3 * lanes + 1, 4 * lanes, 5 * lanes - 1):
        m, k = 13, module.DEPTH + 9
        a, b = operands(rng, dtype, 1, 1, m, n, k, 0, 0)
        writers = np.zeros((m, n), int)
        for task in range(3):
            out = np.full((m, n), np.nan, dtype)
            module._multiply_shares(task, 3, a.ravel(), b.ravel(), out[0, :0], out.ravel(), out[0, :0], 1,
                                    (1, 1, m, n, k), (k, 1, 1, n), (False, False), (1, 3))
            written = ~np.isnan(out)
            writers += written
            np.testing.assert_allclose(out[written], (a[0] @ b[0])[written], rtol=0, atol=1e-3)
        assert (writers == 1).all(), n
