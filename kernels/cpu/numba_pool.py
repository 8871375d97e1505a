"""Numba's own threads, for systems where `thread_pool` cannot run (or ``MINIGRAD_THREAD_POOL=numba``)."""

import contextlib
import functools
import os
import threading

import numba
from numba.np.ufunc import parallel


@contextlib.contextmanager
def _threads_wait_briefly():
    """Load OpenMP inside this block such that its threads spin for microseconds, unless the environment decides.

    GNU OpenMP's threads otherwise spin for milliseconds, and beside one other busy process every loop then waits for
    the scheduler. Measured on two cores: net B's step on an idle machine, beside a test run and beside a busy loop, and
    a 128 x 128 x 128 product. Spinning as by default: 11 ms, 205 ms, 27 ms, 23 us; 3,000 times: 13, 21, 21, 28; 1,000
    times: 12, not measured, 19, 22; not at all: 14, 16, 17, 88. The variable is read when the library is loaded, and
    taken back so that nobody else inherits it.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def launch():
    """Start the threads.

    Returns
    -------
    context manager
        To hold while a parallel kernel runs. Numba's fallback layer "workqueue" aborts the process when two Python
        threads are inside at once (numba#8563); TBB and OpenMP do not.
    """
    with _threads_wait_briefly():
        parallel._launch_threads()
    return threading.RLock() if numba.threading_layer() == "workqueue" else contextlib.nullcontext()


def serialised(dispatcher, lock):
    """A kernel that only one Python thread at a time can be inside."""

    @functools.wraps(dispatcher)
    def call(*arguments):
        with lock:
            return dispatcher(*arguments)

    call.dispatcher = dispatcher
    return call
