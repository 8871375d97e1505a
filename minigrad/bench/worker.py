"""One library's process: ``python -m minigrad.bench.worker LIBRARY THREADS``.

Reads commands from standard input and answers on standard output, both as lines of JSON:

======================================= ===============================================================
``{"command": "about"}``                versions and settings
``{"command": "prepare", "row": name,   builds the row, runs it once and saves its results in that file
"file": path}``
``{"command": "calibrate"}``            ``{"seconds": ...}``: about how long one call takes
``{"command": "time", "calls": n,       ``{"seconds": [...]}``: per batch of n calls, the time of one call;
"batches": m, "warm": seconds}``        calls before that, for so many seconds, are not timed
======================================= ===============================================================

An answer ``{"error": sentence}`` says that a command failed.
"""

import contextlib
import gc
import json
import os
import sys
import time

import numpy as np

from minigrad.bench.environment import end_with_parent
from minigrad.bench.rows import ROWS
from minigrad.bench.timing import LONG, WARM_SECONDS


def open_library(name):
    """The object that prepares rows for a library; ``reference`` is NumPy at float64."""
    if name in ("numpy", "reference"):
        from minigrad.bench.numpy_library import NumpyLibrary

        return NumpyLibrary(np.dtype("float64" if name == "reference" else "float32"))
    if name == "jax":
        from minigrad.bench.jax_library import JaxLibrary

        return JaxLibrary()
    from minigrad.bench.torch_like import TorchLike

    return TorchLike(name)


class Commands:
    """What the parent may ask for; each method is a command."""

    def __init__(self, library):
        self.library = library
        self.call = None

    def about(self):
        return self.library.about()

    def prepare(self, row, file):
        self.call = None  # let the previous row's memory go first
        gc.collect()
        row = ROWS[row]
        self.call, results = self.library.prepare(row)
        for _ in range(row.checked_calls):
            self.call()
        np.savez(file, *results())
        return {}

    def calibrate(self):
        calls, warm, seconds = 1, WARM_SECONDS, self.time(1, 1, warm=0)["seconds"][0]
        while seconds < LONG:
            seconds = min(self.time(calls, 3, warm)["seconds"])
            if seconds * calls > 0.005:
                return {"seconds": seconds}
            calls, warm = 4 * calls, 0
        return {"seconds": seconds}

    def time(self, calls, batches, warm):
        call = self.call
        end = time.perf_counter() + warm
        while time.perf_counter() < end:
            call()
        samples = []
        for _ in range(batches):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            samples.append((time.perf_counter() - start) / calls)
        return {"seconds": samples}


def main(name, threads):
    end_with_parent()
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if commands is None:
                library = open_library(name)
                library.set_threads(threads)
                commands = Commands(library)
            answer = getattr(commands, message.pop("command"))(**message)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1], int(sys.argv[2]))
