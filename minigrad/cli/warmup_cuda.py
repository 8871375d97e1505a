"""The CUDA kernels ahead of time, on all processors: for this machine's GPU, or for another one, without any."""

import argparse
import contextlib
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor, as_completed

MOST = 8  # processes
OLDEST = 8.0  # what the kernels' instructions take


def capability(text):
    """The compute capability that ``--architecture`` names, (9, 0) for ``9.0``; without it that of the GPU.

    Raises
    ------
    RuntimeError
        If there is no GPU to ask.
    """
    if text:
        return tuple([int(number) for number in text.split(".")])
    if os.environ.get("MINIGRAD_CUDA") == "emulate":
        raise RuntimeError("warmup: the emulator (MINIGRAD_CUDA=emulate) compiles nothing; --architecture 9.0 does, "
                           "for a GPU of that compute capability")
    from minigrad.kernels.cuda.driver import ARCHITECTURE

    return tuple(ARCHITECTURE)


def compute_capability(text):
    """The type of the option."""
    if not re.fullmatch(r"\d+\.\d", text) or float(text) < OLDEST:
        raise argparse.ArgumentTypeError(f"expected a compute capability of at least {OLDEST}, got {text!r}")
    return text


def jobs(dtypes):
    """What there is to compile, and where it goes: (number of a kernel, its name, the types of its arrays), a folder.

    Raises
    ------
    RuntimeError
        If there is no compiler.
    """
    from minigrad.kernels.cuda import toolkit
    from minigrad.kernels.cuda.kernel import KERNELS

    if not toolkit.HAS_COMPILER:
        raise RuntimeError(f"warmup: the packages numba-cuda and cuda-core are not installed; {toolkit.EXTRA}")
    from minigrad.kernels.cuda.compile import cache_folder

    wide = [dtype == "float64" for dtype in dtypes]
    table = [(number, kernel.__name__.strip("_"), example) for number, kernel in enumerate(KERNELS)
             for example in kernel.examples if ("float64" in example) in wide]
    return table, cache_folder()


def compile_one(job, target):
    """Compile one kernel for arrays of some types, unless that is in the cache; in a process of its own."""
    import numpy as np

    from minigrad.kernels.cuda.compile import compile_kernel
    from minigrad.kernels.cuda.kernel import KERNELS

    number, _, example = job
    compile_kernel(KERNELS[number], tuple([np.dtype(name) for name in example]), target)


@contextlib.contextmanager
def compilers():
    """A pool of processes that define the kernels without a GPU."""
    outside = os.environ.get("MINIGRAD_CUDA")
    os.environ["MINIGRAD_CUDA"] = "emulate"  # who compiles needs no GPU
    pool = ProcessPoolExecutor(min(MOST, os.cpu_count() or 1), multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        if outside is None:
            del os.environ["MINIGRAD_CUDA"]
        else:
            os.environ["MINIGRAD_CUDA"] = outside


def compile_all(pool, table, target, compiled):
    """Compile a table of `jobs`, calling ``compiled(name)`` after each."""
    waiting = {pool.submit(compile_one, job, target): job[1] for job in table}
    for done in as_completed(waiting):
        done.result()
        compiled(waiting[done])
