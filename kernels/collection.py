"""Python's garbage collection, which stands still while Numba compiles."""

import contextlib
import gc


@contextlib.contextmanager
def without_collection():
    """Collect no garbage in this block, if it was being collected: Numba makes many objects and little garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
