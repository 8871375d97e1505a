"""What this machine can do at best, measured with the project's own kernels."""

import functools
import time
from typing import NamedTuple

import numpy as np

from minigrad.device import cpu
from minigrad.threads import get_num_threads

ROWS = 768  # of the square matrices: their product takes 2 to 10 ms, and all three lie in the caches
COPIED = 64 * 2**20  # bytes: more than the caches hold


class Machine(NamedTuple):
    """Attributes
    ----------
    gflops : float
        10^9 operations per second of a float32 matrix product.
    gbytes : float
        10^9 bytes per second that a copy of 64 MiB reads and writes. What fits into a cache can be faster.
    threads : int
    """

    gflops: float
    gbytes: float
    threads: int


def machine():
    """The `Machine`, measured once per number of threads in about half a second."""
    return _measured(get_num_threads())


@functools.cache
def _measured(threads):
    kernels, random = cpu.kernels, np.random.default_rng(0)
    a, b = (random.standard_normal((ROWS, ROWS), np.float32) for _ in range(2))
    out = np.empty_like(a)
    work = cpu.workspace("matmul", out.dtype, a.shape, b.shape, 0, 0, out.itemsize)
    product = _fastest(lambda: kernels.matmul(a, b, out, work.reshape(1, -1), 0, 0))
    source, target = np.ones(COPIED // 4, np.float32), np.empty(COPIED // 4, np.float32)
    copy = _fastest(lambda: kernels.copy(source, target))
    return Machine(2 * ROWS**3 / product / 1e9, 2 * COPIED / copy / 1e9, threads)


def _fastest(function, seconds=0.2):
    """The shortest time of a call: what is left when nothing else disturbs it."""
    function()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
