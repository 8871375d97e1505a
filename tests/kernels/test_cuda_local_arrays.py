"""The emulator's local arrays: strict about places, of their type, and quiet about NaN like the hardware."""

import numpy as np
import pytest

from minigrad.kernels.cuda import array, emulator
from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, kernel

FOUR, ROW = 4, (2, 3)


@kernel
def _line(out: Pointer, i: Int):
    values = cuda.local.array(FOUR, T)
    for k in range(FOUR - 1):
        values[k] = T(k)
    values[i] = values[i] + T(0.1)
    out[0] = values[i]


@kernel
def _rows(out: Pointer, i: Int):
    values = cuda.local.array(ROW, T)
    values[1, i] = T(1)
    out[0] = values[1, i]


@kernel
def _infinity_times_zero(out: Pointer):
    out[0] = T(np.inf) * T(0)




def run(kernel, *arguments):
    out = array.empty((1,), np.float32)
    kernel[1, 1](out, *arguments)
    return out.numpy()[0]


def test_places():
    assert run(_line, 2) == np.float32(2) + np.float32(0.1)
    assert run(_rows, 2) == 1
    for wrong in (4, -1):
        with pytest.raises(emulator.OutOfBounds):
            run(_line, wrong)
    with pytest.raises(emulator.OutOfBounds):
        run(_rows, 3)
    with pytest.raises(emulator.Unwritten):
        run(_line, 3)


def test_nan_is_no_warning():
    assert np.isnan(run(_infinity_times_zero))
