"""One training step from the start of a process: ``python -m minigrad.bench.first_step LIBRARY ROW THREADS``.

All libraries pay for the import of minigrad's front (no Numba: a few hundredths of a second), whose table of nets
they share.
"""

import sys

from minigrad.bench.rows import ROWS
from minigrad.bench.worker import open_library

if __name__ == "__main__":
    name, row, threads = sys.argv[1], ROWS[sys.argv[2]], int(sys.argv[3])
    library = open_library(name)
    library.set_threads(threads)
    call, results = library.prepare(row)
    call()
    print(float(results()[0]))
