"""The vector code at every width, and its twins in plain NumPy: each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from minigrad.kernels.cpu import simd
from minigrad.kernels.cpu.compile import OPTIONS, KernelCompiler, inline
from minigrad.kernels.cpu.parallel import parallel_for

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
PROGRAM = """
import numpy as np
from minigrad.kernels import cpu, reference
from minigrad.kernels.cpu import simd

def compare(name, inputs, shape, numbers):
    if name == "matmul":
        size = 1, 1, cpu.matmul_workspace(*[v.shape for v in inputs], *numbers, inputs[0].itemsize)
    else:
        size = getattr(cpu, name + "_workspace")(*inputs, *shape, *numbers)
    work = np.full(size, np.nan, inputs[0].dtype)
    out, exact = np.full(shape, np.nan, inputs[0].dtype), np.empty(shape)
    more = (out.ravel()[:0],) if name == "conv2d_grad_weight" else ()
    getattr(cpu, name)(*inputs, out, *more, work, *numbers)
    getattr(reference, name)(*(v.astype(np.float64) for v in inputs), exact, *more, exact[:0], *numbers)
    tolerance = 1e-5 if out.dtype == np.float32 else 1e-12
    error = np.abs(out - exact).max() / np.abs(exact).max()
    assert error < tolerance, (name, shape, numbers, error)

rng = np.random.default_rng(0)
for dtype in TYPES:
    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)
    for m, n, k in [(7, 17, 33), (9, 35, 8), (13, 70, 5), (1, 19, 21), (2, 90, 11), (13, 3, 21), (20, 10, 1)]:
        for flags in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            a, b = draw(1, *((k, m) if flags[0] else (m, k))), draw(1, *((n, k) if flags[1] else (k, n)))
            compare("matmul", (a, b), (1, m, n), flags)
    plain, mixed, depthwise = (1, 1, 1, 1, 1, 1, 1), (2, 1, 2, 0, 1, 2, 2), (1, 2, 1, 1, 1, 1, 4)
    one_each, two_groups = (1, 1, 1, 1, 1, 1, 4), (1, 1, 1, 1, 1, 1, 2)
    for numbers, c, o, size in [(plain, 3, 9, 7), (mixed, 4, 26, 11), (plain, 3, 4, 7), (depthwise, 4, 4, 33),
                                (one_each, 4, 4, 11), (two_groups, 4, 4, 9)]:
        weight, x = draw(o, c // numbers[-1], 3, 3), draw(2, c, size, size)
        rows = (size + 2 * numbers[2] - 2 * numbers[4] - 1) // numbers[0] + 1
        columns = (size + 2 * numbers[3] - 2 * numbers[5] - 1) // numbers[1] + 1
        grad = draw(2, o, rows, columns)
        compare("conv2d_forward", (x, weight, draw(o)), grad.shape, numbers)
        if GRADIENTS:
            compare("conv2d_grad_input", (grad, weight), x.shape, numbers)
        compare("conv2d_grad_weight", (grad, x), weight.shape, numbers)
    weight, x, bias = draw(9, 3, 1, 1), draw(17, 3, 3, 5), draw(9)
    compare("conv2d_forward", (x, weight, bias), (17, 9, 3, 5), (1, 1, 0, 0, 1, 1, 1))
    compare("conv2d_forward", (x, weight, bias), (17, 9, 2, 3), (2, 2, 0, 0, 1, 1, 1))
    for stride in (1, 2, 3):
        x, columns = np.round(draw(2, 3, 9, 40)), (40 - 1) // stride + 1
        results = []
        for kernels in (cpu, reference):
            out = np.empty((2, 3, (9 - 1) // stride + 1, columns), dtype)
            results.append((out, np.empty(out.shape, np.int32 if dtype == np.float32 else np.int64)))
            kernels.max_pool2d_forward(x, *results[-1], 3, 3, stride, stride, 1, 1, 1, 1)
        for got, exact in zip(*results):
            np.testing.assert_array_equal(got, exact)
    for size in (2, 3, 6, 8, 14, 18, 33, 40):  # of 1 to 20 windows a row
        x, one, grad = draw(3, 2, size, size), np.ones(2, dtype), draw(3, 2, size // 2, size // 2)
        results = []
        for kernels in (cpu, reference):
            results.append([np.empty_like(x), np.empty(2, dtype), np.empty(2, dtype)])
            kernels.batch_norm_backward(x, 0 * one, one, -one, one, grad, *results[-1], 0.0, 0, 0.0, 1)
        tolerance = 1e-4 if dtype == np.float32 else 1e-11
        for got, exact in zip(*results):
            np.testing.assert_allclose(got, exact, rtol=tolerance, atol=tolerance)
print(simd.VECTOR_BYTES)
"""


def run(types, gradients, **variables):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), **variables}
    program = f"import numpy as np\nTYPES, GRADIENTS = [{types}], {gradients}\n{PROGRAM}"
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=root, env=environment,
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return int(result.stdout)


@pytest.mark.skipif(not JIT, reason="needs the compiler")
@pytest.mark.parametrize("width", [width for width in (16, 32, 64) if width < simd.VECTOR_BYTES])
def test_narrower_vectors_compute_the_same(width):
    """The processor's own width is what all other tests run."""
    assert run("np.float32", False, MINIGRAD_LANES=str(width)) == width


def test_plain_twins_compute_the_same():
    run("np.float32, np.float64", True, NUMBA_DISABLE_JIT="1")


def test_an_unknown_width_is_an_error():
    environment = {**os.environ, "MINIGRAD_LANES": "24", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", "import minigrad.kernels.cpu.simd"], env=environment,
                            capture_output=True, text=True, timeout=120)
    assert "MINIGRAD_LANES expects the bytes of a vector, 64, 32 or 16, got '24'" in result.stderr


@inline
def take_roots(line):
    for i in range(line.size):
        line[i] = np.sqrt(line[i])


@inline
def one_more(block, x):
    line = x[64 * block : 64 * block + 64]
    for i in range(line.size):
        line[i] += 1
    take_roots(line)


def half_the_root_of_one_more(x):
    parallel_for(one_more, x.size // 64, x.size > 4096, (x,))
    for i in range(x.size):
        x[i] *= 0.5


@pytest.mark.skipif(not JIT, reason="needs the compiler")
def test_loops_are_made_of_vectors_of_the_same_width():
    """A kernel's, those of what `parallel_for` runs, and a helper's: LLVM prefers 32 bytes on Intel's AVX-512."""
    kernel = numba.njit(half_the_root_of_one_more, _nrt=False, pipeline_class=KernelCompiler, **OPTIONS)
    x = np.full(128, 3, np.float32)
    kernel(x)
    np.testing.assert_array_equal(x, np.ones(128))
    (code,), vector = kernel.inspect_llvm().values(), f"<{simd.VECTOR_BYTES // 4} x float>"
    assert f'"prefer-vector-width"="{8 * simd.VECTOR_BYTES}"' in code
    for operation in ("fadd", "fmul", "@llvm.sqrt"):
        assert any(operation in line and vector in line for line in code.splitlines())


_row = simd.row_tile(4, 2)


@inline
def call_row(a, x, table, y, many, count, c, c_step):
    _row(a, 0, x, 1, table, 0, 3, y, 0, many, count, c, 2, c_step)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("many", (0, 3, 4))
@pytest.mark.parametrize("behind", (1, 3, 0))
def test_a_row_tile_writes_what_it_is_told_to(dtype, many, behind):
    """`many` rows and all lanes of two vectors but the last `behind`; what is beside them stays."""
    lanes, rng = simd.VECTOR_BYTES // np.dtype(dtype).itemsize, np.random.default_rng(0)
    count, offsets = 2 * lanes - min(behind, lanes - 1), np.array([5, 0, 2])
    a, y, x = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 4), 4, 2 * lanes + 6))
    table = offsets.astype(np.int32 if dtype == np.float32 else np.int64).view(dtype)
    c = np.full(4 * 40 + 2, 7, dtype)
    call_row(a.ravel(), x, table, y, many, count, c, 40)
    expected = np.full_like(c, 7)
    for i in range(many):
        parts = [a[k, i] * x[1 + offset : 1 + offset + count] for k, offset in enumerate(offsets)]
        expected[2 + 40 * i : 2 + 40 * i + count] = y[i] + sum(parts)
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14)
