"""Products that are cut along the depth, so that all processors have work: the sums of the slices, added in order."""

from minigrad.kernels.cuda.language import THREADS, Int, Pointer, blocks, div32, int32, kernel, rem32, thread_index


@kernel
def _add_slices(parts: Pointer, bias: Pointer, out: Pointer, size: Int, splits: Int, plane: Int, channels: Int,
                biased: Int):
    i = thread_index()
    if i < size:
        total = parts[i]
        for s in range(1, splits):
            total += parts[int32(s * size + i)]
        if biased:
            total += bias[rem32(div32(i, plane), channels)]
        out[i] = total


def add_slices(parts, bias, out, splits, plane=1):
    """``out = parts.sum(0) + bias``; `parts` (splits, ...), `out` (..., C, plane), `bias` (C,), (0,) or None."""
    biased = bias is not None and bias.size > 0
    _add_slices[blocks(out.size), THREADS](parts, bias if biased else parts, out, out.size, splits, plane,
                                           bias.size if biased else 1, int(biased))
