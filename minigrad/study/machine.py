"""What this machine can do at best, measured with the project's own kernels."""

import functools
import time
from typing import NamedTuple

from minigrad.device import get_device
from minigrad.dtypes import as_dtype
from minigrad.threads import get_num_threads

ROWS = {"cpu": 768, "cuda": 4096}  # of the square matrices: on a CPU their product takes 2 to 10 ms, inside the caches
COPIED = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}  # bytes: more than the caches hold
SECONDS = 0.15  # that each of the two is tried for


class Machine(NamedTuple):
    """The two ends of the roofline.

    What is best is what `matmul` reaches on large square matrices, and `copy` on large arrays: figures that a kernel of
    the project has shown to be possible here, with the threads in use, and not those of a data sheet.

    Attributes
    ----------
    gflops : float
        10^9 operations per second of a matrix product.
    gbytes : float
        10^9 bytes per second that a copy reads and writes. What fits into a cache can be faster.
    threads : int or None
        Of the CPU's kernels; None on a GPU.
    device, dtype : str
    """

    gflops: float
    gbytes: float
    threads: int | None
    device: str = "cpu"
    dtype: str = "float32"

    def __str__(self):
        where = "this GPU" if self.threads is None else f"this machine, {self.threads} thread(s)"
        return (f"{where}: {self.gflops:.0f} GFLOP/s in a {self.dtype} matrix product, {self.gbytes:.1f} GB/s in a "
                f"copy of {COPIED[self.device] // 2**20} MiB")


def machine(device="cpu", dtype="float32"):
    """The `Machine`, measured once per type and number of threads in about 0.4 s."""
    device = get_device(device)
    return _measured(device.name, str(as_dtype(dtype)), get_num_threads() if device.name == "cpu" else None)


@functools.cache
def _measured(name, dtype, threads):
    device, rows = get_device(name), ROWS[name]
    kernels, dtype = device.kernels, as_dtype(dtype)
    a, b = (device.full((rows, rows), value, dtype) for value in (0.5, 2.0))
    out = device.empty((rows, rows), dtype)
    work = device.workspace("matmul", dtype, a.shape, b.shape, 0, 0, dtype.itemsize)
    product = _fastest(device, lambda: kernels.matmul(a, b, out, work.reshape(1, -1), 0, 0))
    source = device.full((COPIED[name] // dtype.itemsize,), 1.0, dtype)
    target = device.full(source.shape, 0.0, dtype)  # written once: its pages are there
    copy = _fastest(device, lambda: kernels.copy(source, target))
    return Machine(2 * rows**3 / product / 1e9, 2 * COPIED[name] / copy / 1e9, threads, name, str(dtype))


def _fastest(device, launch):
    """The shortest time of a launch: what is left when nothing else disturbs it."""
    launch()
    device.synchronize()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        launch()
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
