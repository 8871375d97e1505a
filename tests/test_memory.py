"""Memory: what a step frees serves the next one, and arrays begin at lines of the cache."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

import minigrad as mg
from minigrad.device import ALIGNMENT, LEAST, Device, get_device
from minigrad.kernels.cpu import memory
from minigrad.kernels.cpu.memory import keep_freed_memory

COUNT = """
import resource
import minigrad as mg

def work():
    x = [mg.zeros(1_000_000) for _ in range(5)]  # 20 MB, freed when the function returns

for _ in range(20):  # often enough for everything that is made once
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(**environment):
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, timeout=300,
                          cwd=Path(mg.__file__).parent.parent, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc, or its settings are the user's")
def test_steps_cause_no_page_faults():
    assert page_faults() < 100 < page_faults(MALLOC_TRIM_THRESHOLD_="131072")  # 49,000 pages of 4 KiB are written


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    assert keep_freed_memory() is False


needs_alignment = pytest.mark.skipif(
    memory._context(ALIGNMENT, LEAST) is None, reason="NumPy's allocator can't be replaced here")
BIG = LEAST // 4  # elements of float32


def starts(*tensors):
    return [t.numpy().ctypes.data % 64 for t in tensors]


@pytest.mark.skipif(not memory._is_glibc() or not getattr(sys, "_is_gil_enabled", lambda: True)(),
                    reason="needs glibc's malloc and the interpreter's lock")
def test_the_allocator_of_numpy_is_found():
    context = memory._context(ALIGNMENT, LEAST)
    assert context is not None
    # where the caller has an allocator of its own too
    assert context.run(memory._context.__wrapped__, ALIGNMENT, LEAST) is not None


@needs_alignment
def test_arrays_begin_at_a_line_of_the_cache():
    """Of odd sizes too, whatever lies between them; each owns its memory."""
    made = []
    for size in (BIG, BIG + 1, 3 * BIG + 5, 7 * BIG + 3):
        made += [mg.zeros(size), np.empty(24 + size, np.float32)]  # as likely as not at another multiple of 16
    x = made[2] + 1.0
    copies = [mg.tensor(np.zeros(2 * BIG, np.float32)[1:]), mg.from_numpy(np.zeros((BIG, 2), np.float32).T)]
    assert starts(*made[::2], x, x.exp(), *copies) == [0] * 8
    assert all(t.numpy().base is None for t in (*made[::2], x, *copies))


@needs_alignment
@pytest.mark.parametrize("size", [LEAST, LEAST + 1, (1 << 22) - 1, 1 << 22, (1 << 22) + 70])
def test_from_the_smallest_on_that_is_aligned(size):
    """From 4 MiB on NumPy asks for huge pages."""
    device, made = get_device("cpu"), []
    for _ in range(10):
        made += [device.empty((size,), np.uint8), np.empty(size + 24, np.uint8)]
    assert {array.ctypes.data % 64 for array in made[::2]} == {0}


@pytest.mark.parametrize("values", [
    np.arange(LEAST, dtype=">f4"), np.arange(2 * LEAST, dtype=np.float64)[::-2], np.arange(LEAST) % 3 == 0,
    np.broadcast_to(np.float32(2), (3, LEAST)), np.arange(LEAST, dtype=np.int32).reshape(2, -1).T,
], ids=["big-endian", "strided", "bool", "read-only", "transposed"])
def test_large_arrays_are_copied_and_converted(values):
    for dtype in (mg.float32, mg.float64, mg.int64):
        got = mg.tensor(values, dtype=dtype)
        np.testing.assert_array_equal(got.numpy(), values.astype(dtype))
        again = mg.tensor(got)
        assert not np.shares_memory(got.numpy(), values) and not np.shares_memory(again.numpy(), got.numpy())
        assert again.numpy().dtype == dtype and again.numpy().flags.c_contiguous and again.numpy().flags.writeable


def test_a_recorder_that_comes_meanwhile_is_not_thrown_out(monkeypatch):
    """One thread looks for the allocator for the first time, or after a recording, while another begins to record."""
    device, hook = Device("cpu"), object()

    def found_too_late(alignment, least):
        device.empty = hook
        return np.empty

    monkeypatch.setattr(memory, "allocator", found_too_late)
    assert device.empty is hook


@needs_alignment
def test_the_allocator_of_others_is_left_alone():
    x = mg.zeros(BIG).numpy()
    assert [get_handler_name(a) for a in (x, np.empty(BIG, np.float32), x.copy())] == [
        "minigrad", "default_allocator", "default_allocator"]


@needs_alignment
@pytest.mark.parametrize("old", [0, 3, LEAST - 1, LEAST, 5 * LEAST, 70 * LEAST])
def test_arrays_are_resized(old):
    for new in (0, 5, LEAST - 1, LEAST, 3 * LEAST, 80 * LEAST):
        array = get_device("cpu").empty((old,), np.uint8)
        array[:] = np.arange(old) % 251
        array.resize(new, refcheck=False)
        kept = min(old, new)
        np.testing.assert_array_equal(array[:kept], np.arange(kept) % 251)
        array.resize(old + 1, refcheck=False)
        np.testing.assert_array_equal(array[:kept], np.arange(kept) % 251)


@pytest.mark.parametrize("jit", ["0", "1"])
def test_arrays_outlive_the_interpreter(jit):
    """Those that are still alive at the end too, where nothing is compiled as well."""
    code = f"import sys, minigrad as mg; sys.modules['kept'] = [mg.zeros(n) for n in (3, {BIG}, {100 * BIG})]; print(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
                          cwd=Path(mg.__file__).parent.parent, env={**os.environ, "NUMBA_DISABLE_JIT": jit})
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["1"], "")


@needs_alignment
def test_threads_allocate_at_the_same_time():
    def work(size):
        return all(starts(*[mg.zeros(size + i) for i in range(20)]) == [0] * 20 for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(BIG, BIG + 8)))


def test_numpy_allocates_where_its_allocator_cannot_be_replaced(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    memory._context.cache_clear()
    try:
        assert memory.allocator(ALIGNMENT, LEAST) is np.empty
    finally:
        memory._context.cache_clear()
