"""Vectors end where arrays do: in a process of its own, arrays have a page beside them that may not be touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GUARDED = """
import ctypes, itertools, mmap
import numpy as np
from minigrad.kernels import cpu

def guarded(*shape, front=False):
    size, page = 4 * int(np.prod(shape)), mmap.PAGESIZE
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + (0 if front else room)), page, 0) == 0
    x = np.frombuffer(memory, np.float32, size // 4, offset=page if front else room - size).reshape(shape)
    x[:] = 1
    return x
"""

MATMUL = """
for m, n, k in itertools.product((1, 3, 7, 13), (1, 2, 3, 5, 9, 10, 17), (1, 2, 9, 33)):
    for ta, tb in itertools.product((0, 1), (0, 1)):
        a, b, out = guarded(*((k, m) if ta else (m, k))), guarded(*((n, k) if tb else (k, n))), guarded(m, n)
        work = np.empty((1, cpu.matmul_workspace(a.shape, b.shape, ta, tb, 4)), np.float32)
        cpu.matmul(a, b, out, work, ta, tb)
        assert (out == k).all(), (m, n, k, ta, tb)
"""

CONVOLUTION = """
for n, c, h, w in ((1, 9, 2, 3), (2, 9, 6, 8), (3, 9, 4, 4), (1, 16, 7, 9), (1, 10, 1, 1), (1, 10, 8, 8)):
    x, weight, bias, out = guarded(n, c, h, w), guarded(10, c, 1, 1), guarded(10), guarded(n, 10, h, w)
    numbers = 1, 1, 0, 0, 1, 1, 1
    size = cpu.conv2d_forward_workspace(x, weight, bias, *out.shape, *numbers)
    cpu.conv2d_forward(x, weight, bias, out, guarded(size), *numbers)
    assert (out == c + 1).all(), (n, c, h, w)
    grad = guarded(n, 10, h, w)
    size = cpu.conv2d_grad_input_workspace(grad, weight, *x.shape, *numbers)
    cpu.conv2d_grad_input(grad, weight, x, guarded(size), *numbers)
    assert (x == 10).all(), (n, c, h, w)
"""

POOLING = """
for size, kernel, stride, pad, front in itertools.product((3, 5, 8, 15, 22), (2, 3), (1, 2, 3), (0, 1), (False, True)):
    rows = (size + 2 * pad - kernel) // stride + 1
    x, out, places = [guarded(2, 1, n, n, front=front) for n in (size, rows, rows)]
    out[:], places = 0, places.view(np.int32)
    cpu.max_pool2d_forward(x, out, places, kernel, kernel, stride, stride, pad, pad, 1, 1)
    assert (out == 1).all() and (0 <= places).all() and (places < size * size).all(), (size, kernel, stride, pad)
    cpu.avg_pool2d_forward(x, out, kernel, kernel, stride, stride, pad, pad, 0)
    assert (out == 1).all(), (size, kernel, stride, pad)
    cpu.avg_pool2d_backward(out, x, kernel, kernel, stride, stride, pad, pad, 0)
    assert np.isclose(x.sum(), out.size), (size, kernel, stride, pad)
for size, pixels, front in itertools.product((3, 5, 8, 15, 17), (1, 2, 3), (False, True)):
    x, out = [guarded(2, 3, n, n, front=front) for n in (size, pixels)]
    out[:] = 0
    cpu.adaptive_avg_pool2d_forward(x, out)
    assert (out == 1).all(), (size, pixels)
    cpu.adaptive_avg_pool2d_backward(out, x)
    assert np.isclose(x.sum(), out.size), (size, pixels)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("code", [MATMUL, CONVOLUTION, POOLING], ids=["matmul", "convolution", "pooling"])
def test_nothing_is_read_or_written_beyond_the_ends(code):
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", GUARDED + code], cwd=root,
                            env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
