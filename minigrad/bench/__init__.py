"""Compares minigrad with NumPy, PyTorch and JAX on this machine: ``minigrad bench``.

Every library works in a process of its own and they take turns, so that noise and heat hit all of them alike; nothing
is timed before its result has been checked. `rows` is the table of what is compared, `harness` does the timing,
`report` and `markdown` show what came out.
"""

from minigrad.bench.harness import LIBRARIES, installed_libraries, run
from minigrad.bench.rows import ROWS, Row, select

__all__ = ["LIBRARIES", "ROWS", "Row", "installed_libraries", "run", "select"]
