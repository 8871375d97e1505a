"""The memory of one training step: ``python -m minigrad.bench.step_memory LIBRARY ROW THREADS`` prints it in bytes.

What counts is by how much the process grows at its highest, while a net is built and takes its steps: parameters,
gradients, momentum, the batch, activations and whatever the library keeps for the next step. The code is there before:
the same net has taken steps with a batch of 2 and has been dropped.
"""

import ctypes
import dataclasses
import gc
import sys
from pathlib import Path

from minigrad.bench.rows import ROWS
from minigrad.bench.worker import open_library

SMALL = 2
STEPS = 40  # a Sequential that is called so often repeats its passes
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_growth(function):
    """By how many bytes the process grows, at the highest, while `function` runs."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free belongs to the system, so that using it again counts
    except (AttributeError, OSError, TypeError):
        pass  # not the GNU C library
    try:
        CLEAR.write_text("5")  # Linux: the peak starts anew from what is in use now
        before, peak = _status("VmRSS"), lambda: _status("VmHWM")
    except OSError:
        # The peak of the whole process, which no warm-up with a batch of 2 will have raised by much.
        before, peak = _peak_of_process(), _peak_of_process
    function()
    return peak() - before


def _status(name):
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return 1024 * int(line.split()[1])


def _peak_of_process():
    try:
        import resource
    except ImportError:
        raise SystemExit("peak memory can't be measured on this system") from None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(name, row, threads):
    """Print the peak growth of a row's steps."""
    library = open_library(name)
    library.set_threads(threads)

    def steps(row):
        call, results = library.prepare(row)
        for _ in range(STEPS):
            call()
        float(results()[0])  # a library that computes later has to compute now

    steps(dataclasses.replace(row, params={**row.params, "batch": SMALL}))
    print(peak_growth(lambda: steps(row)))


if __name__ == "__main__":
    main(sys.argv[1], ROWS[sys.argv[2]], int(sys.argv[3]))
