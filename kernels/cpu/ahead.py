"""Other processes that compile, meanwhile, what a training step is going to need.

With an empty cache the first step of a small convolutional net is half a minute or more of Numba, kernel after kernel.
When one is missing that nets begin with, other processors start on what usually follows it (`usual`); who comes to a
kernel that another process is compiling waits for it (`claims`). The processes end with the program. Net B's first step
with one of them: 37.5 s instead of 43.8, on two hardware threads that share a core.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys

# What Conv2d (two kernels) and Linear launch first. What follows one includes the kernels behind it.
BEGINNINGS = "correlate_lines_forward", "correlate", "product"
MOST = 3  # processes: with more of them the longest kernel would be waited for all the same

_begun = set()
_helpers = []


def count():
    """How many processes compile beside this one: ``$MINIGRAD_COMPILERS``, or one per other processor, at most 3."""
    chosen = os.environ.get("MINIGRAD_COMPILERS", "")
    if chosen.isdecimal():
        return int(chosen)
    if multiprocessing.parent_process():  # one of many, perhaps
        return 0
    return min(MOST, usable_processors() - 1)


def usable_processors():
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_python(executable):
    """Whether it is an interpreter, not a program with one inside, which would run a second time."""
    return "python" in os.path.basename(executable or "").lower() and not getattr(sys, "frozen", False)


def begin(name):
    """A kernel has to be compiled: if it is one that nets begin with, have others compile what usually follows it."""
    if name not in BEGINNINGS or name in _begun or not _is_python(sys.executable):
        return
    free = count() - sum([helper.poll() is None for helper in _helpers])
    if free < 1:
        return
    _begun.update(BEGINNINGS[BEGINNINGS.index(name):])
    if not _helpers:
        atexit.register(_end, os.getpid())
    command = [sys.executable, "-P", "-m", "minigrad.kernels.cpu.usual", name]
    environment = {**os.environ, "MINIGRAD_COMPILERS": "0"}
    for _ in range(free):
        try:
            # Their standard input ends when this process does, even if it is killed.
            helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
        except OSError:  # no more processes allowed: this one compiles everything
            return
        _helpers.append(helper)


def _end(owner):
    """End those that are still at work, unless this is a fork of the process that they belong to."""
    if os.getpid() == owner:
        for helper in _helpers:
            helper.kill()
            helper.stdin.close()
            helper.wait()
