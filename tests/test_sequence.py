"""Sequences of launches as one function: who fails, who else may run meanwhile, what is kept."""

import sys
import threading
import time

import numba
import numpy as np
import pytest

from minigrad.kernels.cpu.sequence import relocatable, sequence

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="launches go one by one here")


@numba.njit(nogil=True)
def count(x):
    x[0] += 1


@numba.njit(nogil=True)
def count_up_to(x, limit):
    if x[0] >= limit:
        raise ValueError("that is enough")
    x[0] += 1


@numba.njit(nogil=True)
def wait(x, rounds):
    for _ in range(rounds):
        x[0] = np.sin(x[0]) + 1.0


def test_a_launch_that_fails_is_named_and_the_last():
    first, second, third = [np.zeros(1, np.int64) for _ in range(3)]
    count(first)
    count_up_to(second, 3)
    run = sequence([("count", count, (first,)), ("count_up_to", count_up_to, (second, 3)), ("count", count, (third,))])
    run()
    run()
    for _ in range(2):
        with pytest.raises(IndexError, match=r"replay: kernel count_up_to \(launch 1\) reported an error"):
            run()
    assert (first[0], second[0], third[0]) == (5, 3, 2)


def test_memory_elsewhere():
    arrays = [np.zeros(4, np.int64) for _ in range(3)]
    for array in arrays:
        count(array)
    run = relocatable([("count", count, (a,)) for a in arrays[:2]], [(arrays[0], 1), (arrays[1], 1)])
    if run is None:
        pytest.skip("needs CPython and no checks of bounds")
    before = sys.getrefcount(arrays[0]), sys.getrefcount(arrays[2])
    for _ in range(100):
        assert run(arrays[2], arrays[0]) is None
    assert [a[0] for a in arrays] == [101, 1, 101]
    assert before == (sys.getrefcount(arrays[0]), sys.getrefcount(arrays[2]))


def test_other_threads_of_python_run_meanwhile():
    x, ticks, done = np.ones(1), [0], threading.Event()
    wait(x, 1)
    start = time.perf_counter()
    wait(x, 1_000_000)
    rounds = int(1_000_000 * 0.5 / (time.perf_counter() - start))
    run = sequence([("wait", wait, (x, rounds))])

    def tick():
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks[0]
    run()
    after = ticks[0]
    done.set()
    thread.join()
    assert after - before > 10  # one that waits for the interpreter would make a step or two
