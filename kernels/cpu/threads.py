"""How many threads the parallel loops use."""

import numba

from minigrad.kernels.cpu import parallel  # noqa: F401 - its import starts the threads


def most_threads():
    """The threads that were started: one per processor, or what ``NUMBA_NUM_THREADS`` says."""
    return numba.config.NUMBA_NUM_THREADS


def get_num_threads():
    """How many of them the loops use."""
    return numba.get_num_threads()


def set_num_threads(count):
    """Use `count` threads, from 1 to `most_threads`."""
    numba.set_num_threads(count)
