"""Claims on what is to be compiled: of several processes that need a kernel one compiles it, the others wait.

A claim is a lock on a file beside the kernel's in the cache. The system takes it back when a process ends, however it
ends. A process compiles one kernel at a time (Numba sees to it), so it has one claim at most.
"""

import contextlib
import os
import time

try:
    import fcntl
except ImportError:  # Windows: each process compiles for itself
    fcntl = None

PATIENCE = 120  # seconds: no kernel takes that long, so something is wrong with the claim of another process

_held = None  # (path, descriptor)


def claim(file, patience=0):
    """Whether a kernel may be compiled now.

    Parameters
    ----------
    file : Path
        Where the compiled kernel is going to be.
    patience : float
        Seconds to wait while another process has a claim on it. After them the kernel may be compiled all the same.

    Returns
    -------
    bool
        False if another process has a claim and there was no waiting for it.
    """
    global _held
    path = f"{file}.lock"
    if _held and _held[0] == path:
        return True
    release()
    if not fcntl:
        return True
    try:
        os.makedirs(file.parent, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # a folder that cannot be written to: nobody can leave a claim, nor a kernel
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            os.close(descriptor)
            return patience > 0
        except OSError:  # a file system without locks
            os.close(descriptor)
            return True
        _held = path, descriptor
        return True


def is_held():
    """Whether this process has a claim: not where none can be left, nor after patience has ended."""
    return _held is not None


def release():
    """Give up the claim, if there is one: the kernel is in the cache, or could not be compiled."""
    global _held
    if _held:
        path, descriptor = _held
        _held = None
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):  # for a fork, too, that took over the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
