"""Elementwise kernels."""

from minigrad.kernels.cuda.language import THREADS, Float, Int, Pointer, blocks, kernel, thread_index


@kernel
def _fill(out: Pointer, n: Int, value: Float):
    i = thread_index()
    if i < n:
        out[i] = value


def fill(out, value):
    """out = value."""
    _fill[blocks(out.size), THREADS](out, out.size, value)
