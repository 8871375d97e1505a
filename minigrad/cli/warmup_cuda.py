"""The CUDA kernels ahead of time, by several processes: for this machine's GPU, or for another one, without any."""

import argparse
import contextlib
import os
import re
import signal

MOST = 8  # processes, each of which takes 0.3 GB
OLDEST = 8.0  # the first compute capability that has the kernels' instructions
BESIDE = {"eq": [("int64", "int64")], "fill": [("float64",)]}  # what training launches beside the kernels' examples


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
    try:
        from minigrad.kernels.cuda.driver import ARCHITECTURE
    except RuntimeError as error:
        raise RuntimeError(f"{error}; minigrad warmup --architecture 9.0 compiles without one") from None
    return tuple(ARCHITECTURE)


def compute_capability(text):
    """The type of the option."""
    if not re.fullmatch(r"\d+\.\d", text) or float(text) < OLDEST:
        raise argparse.ArgumentTypeError(f"expected a compute capability of at least {OLDEST}, got {text!r}")
    return text


def jobs():
    """What there is to compile: a list of (number of a kernel, its name, the types of its arrays).

    Raises
    ------
    RuntimeError
        If there is no compiler.
    """
    from minigrad.kernels.cuda import toolkit
    from minigrad.kernels.cuda.kernel import KERNELS

    if not toolkit.HAS_COMPILER:
        raise RuntimeError(f"warmup: the packages numba-cuda and cuda-core are not installed; {toolkit.EXTRA}")
    names = [kernel.__name__.strip("_") for kernel in KERNELS]
    return [(number, name, example) for number, name in enumerate(names)
            for example in (*KERNELS[number].examples, *BESIDE.get(name, ()))]


def compile_one(job, target):
    """Compile one kernel for arrays of some types, in a process of its own.

    Returns
    -------
    file : pathlib.Path
    made : bool
        Whether it was not in the cache.
    """
    import numpy as np

    from minigrad.kernels.cuda.compile import compile_kernel, file_of
    from minigrad.kernels.cuda.kernel import KERNELS

    number, _, example = job
    arguments = KERNELS[number], tuple([np.dtype(name) for name in example]), target
    file = file_of(*arguments)
    if file.exists():
        return file, False
    try:
        compile_kernel(*arguments)
    except Exception as error:
        if "UNRECOGNIZED_ARCH" in str(error):
            raise RuntimeError(f"warmup: there is no compute capability {'.'.join(map(str, target))}") from None
        raise
    if not file.exists():
        raise OSError(f"warmup: the folder {file.parent} cannot be written")
    return file, True


@contextlib.contextmanager
def compilers():
    """A pool of processes that define the kernels without a GPU."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from minigrad.kernels.cpu.ahead import usable_processors

    outside = os.environ.get("MINIGRAD_CUDA")
    os.environ["MINIGRAD_CUDA"] = "emulate"  # who compiles needs no GPU
    pool = ProcessPoolExecutor(min(MOST, usable_processors()), multiprocessing.get_context("spawn"),
                               initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        if outside is None:
            del os.environ["MINIGRAD_CUDA"]
        else:
            os.environ["MINIGRAD_CUDA"] = outside


def compile_all(pool, table, target, show):
    """Compile a table of `jobs`, calling ``show(name)`` after each; returns what `compile_one` did."""
    from concurrent.futures import as_completed

    waiting, results = {pool.submit(compile_one, job, target): job[1] for job in table}, []
    for done in as_completed(waiting):
        results.append(done.result())
        show(waiting[done])
    return results
