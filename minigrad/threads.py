"""The number of threads that the CPU kernels use. No result depends on it, not even in its last bit."""

import importlib
import operator


def _pool():
    return importlib.import_module("minigrad.kernels.cpu.threads")


def get_num_threads():
    """How many threads the CPU kernels use, when called from this Python thread."""
    return _pool().get_num_threads()


def set_num_threads(count):
    """Let CPU kernels that are called from this Python thread use `count` threads.

    Parameters
    ----------
    count : int
        From 1 to the number of processors (or the environment's ``NUMBA_NUM_THREADS``).

    Raises
    ------
    ValueError
        If there are not that many.
    """
    try:
        count = operator.index(count)
    except TypeError:
        raise TypeError(f"set_num_threads: expected an int, got {type(count).__name__}") from None
    most = _pool().most_threads()
    if not 1 <= count <= most:
        raise ValueError(
            f"set_num_threads: expected 1 to {most} threads, got {count}; NUMBA_NUM_THREADS, set before the program "
            "starts, allows more"
        )
    _pool().set_num_threads(count)
