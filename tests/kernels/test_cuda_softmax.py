"""The CUDA kernels of the softmax family against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import beside, check

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import array
from minigrad.kernels.cuda.held import fours, held_plan

# Rows and columns that are held, some that are too long for it, some of these of several blocks; by four and not.
SHAPES = ((1, 1, 1), (64, 10, 1), (40, 32, 1), (5, 33, 1), (3, 1000, 1), (2, 2100, 1), (1, 9000, 1), (1, 9001, 1),
          (4, 10, 33), (2, 7, 130), (2, 90, 35), (1, 1100, 5), (100, 12, 1), (0, 4, 5), (4, 5, 0))  # fmt: skip
BOUNDARIES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 63, 64, 65, 68, 127, 128, 129, 132, 255, 256, 257,
              511, 512, 513, 516)  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ("logsumexp", "softmax", "log_softmax"))
def test_softmax(name, dtype):
    for shape in (*SHAPES, (2, 0, 3)):
        x = numbers(shape, dtype)
        if shape[1] > 1 and x.size:
            x[0, 0, 0] = -np.inf
            x[-1, 1, -1] = 200  # exp overflows without the shift
        out = empty((shape[0], shape[2]) if name == "logsumexp" else shape, dtype)
        check(name, (x, out), {1}, 8, 1)


@pytest.mark.parametrize("shape", ((3, 5, 1), (3, 100, 1), (3, 5, 4), (3, 2100, 1), (3, 1200, 4)))
def test_softmax_of_infinities(shape):
    for dtype in FLOATS:
        x = numbers(shape, dtype)
        x[0], x[1, 2], x[2, 0] = -np.inf, np.inf, np.nan
        check("logsumexp", (x, empty((3, shape[2]), dtype)), {1}, 8)
        check("softmax", (x, empty(shape, dtype)), {1}, 8)
        check("log_softmax", (x, empty(shape, dtype)), {1}, 8)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_gradients(dtype):
    for shape in SHAPES:
        grad, y = numbers(shape, dtype, 1), numbers(shape, dtype)
        shifted = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        check("softmax_grad", (np.exp(shifted), grad, empty(shape, dtype)), {2}, 16, 16)
        check("log_softmax_grad", (shifted, grad, empty(shape, dtype)), {2}, 16, 16)


def _all_of_a_width(rows, length, dtype):
    shape = rows, length, 1
    x, grad = numbers(shape, dtype), numbers(shape, dtype, 1)
    for name in ("logsumexp", "softmax", "log_softmax"):
        check(name, (x, empty((rows, 1) if name == "logsumexp" else shape, dtype)), {1}, 8, 1)
    shifted = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    check("softmax_grad", (np.exp(shifted), grad, empty(shape, dtype)), {2}, 16, 16)
    check("log_softmax_grad", (shifted, grad, empty(shape, dtype)), {2}, 16, 16)


@pytest.mark.parametrize("length", BOUNDARIES)
def test_widths(length):
    _all_of_a_width(3, length, np.float32)


@pytest.mark.parametrize("length", (2047, 2048, 2049, 4096, 8188, 8192, 8196, 32768 + 4))
def test_wide_rows(length):
    """Up to 2048 elements are held, up to 8192 by four; the last ones have several blocks."""
    _all_of_a_width(1, length, np.float32)


def test_long_rows_of_float64():
    """Their blocks have half as many threads."""
    _all_of_a_width(1, 8196, np.float64)


def test_rows_that_do_not_begin_at_a_multiple_of_16_bytes():
    shape = 3, 12, 1
    hosts = numbers(shape, np.float32), numbers(shape, np.float32, 1)
    for name, count in (("logsumexp", 1), ("softmax", 1), ("log_softmax", 1), ("softmax_grad", 2),
                        ("log_softmax_grad", 2)):  # fmt: skip
        wanted = np.empty((3, 1) if name == "logsumexp" else shape, np.float32)
        getattr(reference, name)(*hosts[:count], wanted)
        for misplaced in range(count + 1):
            places = [beside if i == misplaced else array.from_host for i in range(count + 1)]
            *inputs, out = [place(host) for place, host in zip(places, (*hosts[:count], wanted), strict=True)]
            assert not fours(12, 1, *inputs, out)[0]
            getattr(cuda, name)(*inputs, out)
            np.testing.assert_allclose(out.numpy(), wanted, rtol=2e-6, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("length, inner, four, held, threads", (
    (10, 1, False, True, 2), (100, 1, True, True, 8), (1000, 1, True, True, 64), (1001, 1, False, True, 128),
    (2047, 1, False, True, 256), (2049, 1, False, False, None), (4096, 1, True, True, 256),
    (8192, 1, True, True, 512), (8196, 1, True, False, None), (8, 64, False, True, 1), (64, 64, False, True, 8),
    (65, 64, False, False, None), (528, 1, True, True, 64), (9, 1, False, True, 2),
))  # fmt: skip
def test_what_is_held(length, inner, four, held, threads):
    """What is held is read once."""
    x = array.empty((2, length, inner), np.float32)
    found, items = fours(length, inner, x)
    p = held_plan(2, items, inner, found)
    assert (found, p is not None, p and p.block[1]) == (four, held, threads)
