"""Freed memory is kept for the next step instead of being handed back to the operating system.

A training step frees about as much as it allocates. The C library gives large blocks back at once, so that the next
step pays for them again, page by page: net B (two convolutions, batch 64) took 3,900 page faults and 26 to 28 ms a
step, 18.5 ms with this setting. A pool of our own would do the same for our arrays alone, but every array would then be
a view of a block, and neither NumPy nor the engine could tell by ``array.base`` whether it owns its memory.
"""

import ctypes
import os
import sys

KEPT = 1 << 30  # bytes: more than that at the end of the heap goes back
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt (malloc.h)


def keep_freed_memory():
    """Tell glibc's allocator to keep up to `KEPT` bytes, unless the environment has its own settings.

    Other C libraries are left as they are.
    """
    decided = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if decided or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, KEPT) and mallopt(_TRIM_THRESHOLD, KEPT))
