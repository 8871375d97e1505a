"""The threads that share out blocks: every block once, whoever asks, and nobody left waiting."""

import os
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest

from minigrad.kernels.cpu import thread_pool
from minigrad.kernels.cpu.atomics import add, load, now
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel

own = pytest.mark.skipif(not thread_pool.pool, reason="needs threads of our own: Linux, compiled kernels")


@inline
def _count(block, seen):
    seen[block] += 1


@parallel_kernel(name="count_blocks")
def count_blocks(seen):
    parallel_for(_count, seen.size, True, (seen,))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17, 100, 10_007])
def test_every_block_runs_once(count):
    seen = np.zeros(count, np.int64)
    count_blocks(seen)
    np.testing.assert_array_equal(seen, 1)


def test_many_launches_after_one_another():
    rng = np.random.default_rng(0)
    for count in rng.integers(1, 60, 5000):
        seen = np.zeros(count, np.int64)
        count_blocks(seen)
        assert seen.min() == seen.max() == 1


@pytest.mark.parametrize("callers", [2, 5])
def test_several_python_threads_at_once(callers):
    wrong = []

    def work(seed):
        for count in np.random.default_rng(seed).integers(1, 3000, 400):
            seen = np.zeros(count, np.int64)
            count_blocks(seen)
            if not (seen == 1).all():
                wrong.append(count)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@inline
def _meet(block, address, met):
    add(address, 1)
    start = now()
    while load(address) < met.size and now() - start < 20_000_000_000:
        pass
    met[block] = load(address)


@parallel_kernel(name="meet")
def meet(address, met):
    parallel_for(_meet, met.size, True, (address, met))


@own
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_two_threads_are_at_work_at_once():
    """Each of two blocks waits until the other has begun."""
    words, met = np.zeros(1, np.int64), np.zeros(2, np.int64)
    meet(words.__array_interface__["data"][0], met)
    np.testing.assert_array_equal(met, 2)


@own
def test_a_look_at_the_clock_takes_no_stack():
    """A helper takes millions in its life, inside one call."""

    @numba.njit
    def look(times):
        before = now()
        for _ in range(times):
            before = min(before, now())
        return before

    assert look(3_000_000) > 0


@own
@pytest.mark.parametrize("allowed", [0, 1])
def test_threads_that_cannot_be_started_are_done_without(allowed):
    result = _run(f"""
        import threading, numpy as np
        start, started = threading.Thread.start, []
        def limited(thread):
            if len(started) == {allowed}:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)
        threading.Thread.start = limited
        from minigrad.device import cpu
        x = np.ones(1 << 20, np.float32)
        cpu.kernels.add(x, x, x)
        print(x.sum() == 2 << 20, len(started))
    """, NUMBA_NUM_THREADS="3")
    assert result == f"True {allowed}"


@own
def test_fewer_blocks_than_threads():
    result = _run("""
        import time, numpy as np, numba
        from minigrad.kernels.cpu.compile import inline
        from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel
        @inline
        def count(block, seen):
            seen[block] += 1
        @parallel_kernel(name="count_blocks")
        def blocks(seen):
            parallel_for(count, seen.size, True, (seen,))
        for threads in (40, 3, 2, 40):
            numba.set_num_threads(threads)
            for size in (2, 3, 5, 39, 41):
                for pause in (0, 0.002):  # awake, asleep
                    time.sleep(pause)
                    seen = np.zeros(size, np.int64)
                    blocks(seen)
                    assert (seen == 1).all()
        print("done")
    """, NUMBA_NUM_THREADS="40")
    assert result == "done"


@own
def test_one_thread_uses_no_helper():
    before = numba.get_num_threads()
    jobs = thread_pool.pool.memory.copy()
    numba.set_num_threads(1)
    try:
        count_blocks(np.zeros(100, np.int64))
        np.testing.assert_array_equal(thread_pool.pool.memory[: thread_pool.LINE], jobs[: thread_pool.LINE])
    finally:
        numba.set_num_threads(before)


def _run(code, **environment):
    """What a fresh process prints."""
    lines = code.strip("\n").split("\n")
    indent = len(lines[0]) - len(lines[0].lstrip())
    done = subprocess.run([sys.executable, "-c", "\n".join([line[indent:] for line in lines])], text=True, timeout=300,
                          capture_output=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


STEP = """
        import os, sys, numpy as np, minigrad as mg
        def step():
            x = mg.tensor(np.linspace(-1, 1, 200 * 300, dtype=np.float32).reshape(200, 300), requires_grad=True)
            (x @ x.T).tanh().sum().backward()
            return x.grad.numpy().tobytes()
        first = step()
"""


@own
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own():
    result = _run(STEP + """
        child = os.fork()
        if child == 0:
            os._exit(0 if step() == first else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), step() == first)
    """)
    assert result == "0 True"


@own
def test_numbas_threads_give_the_same():
    show = STEP + """
        import hashlib
        from minigrad.kernels.cpu import thread_pool
        print(thread_pool.layer(), hashlib.sha256(first).hexdigest())
    """
    ours, theirs = _run(show).split(), _run(show, MINIGRAD_THREAD_POOL="numba").split()
    assert theirs[0] == "numba"
    assert ours[-1] == theirs[-1]


@own
def test_a_process_ends_while_helpers_wait_and_after():
    result = _run("""
        import atexit, numpy as np
        from minigrad.device import cpu
        x = np.ones(1 << 20, np.float32)
        def late():
            cpu.kernels.add(x, x, x)
            print(x.sum() == 2 << 20)
        atexit.register(late)  # before the pool's, so it runs after it
        cpu.kernels
    """)
    assert result == "True"
