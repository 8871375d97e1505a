"""What the kernels that reduce (M, R, K) over R are made of.

A block is a box of threads, (x, y, z): x goes along K, y along R, z along M. Neighbouring threads read neighbouring
elements, whether rows are reduced (K = 1, all threads along y), columns (K large, at least a warp along x) or something
in between, and the y of one output are combined at the end: by warp shuffles, then in shared memory. Extents are powers
of two. Where there are few outputs, several blocks share an output and leave their parts in scratch memory.
"""

from functools import lru_cache
from typing import NamedTuple

from minigrad.kernels.cuda.language import THREADS, WARP, T, cuda, device_function, div32, int32

ALL = 0xFFFFFFFF  # lanes of a warp operation
DEPTH = 64  # the largest extent of a block along z
BUSY = 1024  # blocks that fill a GPU: 8 of 256 threads on each of about 130 multiprocessors
FEWEST = 16  # elements that each thread of a part gets at least, to be worth a second launch (estimated)


class Plan(NamedTuple):
    """How a kernel covers (M, R, K): what it is launched with, and who does what.

    Attributes
    ----------
    grid, block : tuple of int
        Along x of the grid go the outputs, along y the parts.
    chunk : int
        Of R, how much a part is.
    parts : int
        Blocks that share an output.
    strips : int
        Of K: the blocks that take it side by side.
    """

    grid: tuple
    block: tuple
    chunk: int
    parts: int
    strips: int


def power(n):
    """The smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length() if n > 1 else 1


def tiles(extent, size):
    """How many pieces of `size` an extent has, the last one perhaps smaller."""
    return -(-extent // size)


@lru_cache(4096)
def plan(rows, length, inner, split=True, threads=THREADS):
    """The `Plan` for an array of (rows, length, inner) with blocks of at most so many threads.

    Without `split` an output has one block; with more than 256 threads it has a block to itself where it can fill one.
    """
    across = min(power(inner), WARP)
    down = min(power(length), threads // across)
    across = min(power(inner), max(THREADS // down, 1))
    group = across * down
    deep = min(max(min(power(rows), THREADS // group), WARP // group, 1), DEPTH)
    strips = tiles(inner, across)
    outputs = tiles(rows, deep) * strips
    parts = max(1, min(tiles(BUSY, max(outputs, 1)), length // (FEWEST * down))) if split and 2 * outputs <= BUSY else 1
    chunk = tiles(tiles(length, parts), down) * down
    parts = max(1, tiles(length, chunk)) if chunk else 1
    return Plan((outputs, parts), (across, down, deep), chunk, parts, strips)


@device_function
def place(rows, inner, strips):
    """Where the thread works: its m and k, pulled inside the array, and whether they were inside."""
    bundle = div32(cuda.blockIdx.x, strips)
    strip = int32(cuda.blockIdx.x - bundle * strips)
    m = int32(bundle * cuda.blockDim.z + cuda.threadIdx.z)
    k = int32(strip * cuda.blockDim.x + cuda.threadIdx.x)
    return int32(min(m, rows - 1)), int32(min(k, inner - 1)), (m < rows) & (k < inner)


@device_function
def thread_of_block():
    """The thread's number in its block."""
    return int32((cuda.threadIdx.z * cuda.blockDim.y + cuda.threadIdx.y) * cuda.blockDim.x + cuda.threadIdx.x)


@device_function
def unchanged(value):
    """For `folded`: a shuffle takes the element type as it is."""
    return value


def folded(combine, word=unchanged):
    """A device function of a value of each thread: those of an output combined, right in the threads of y = 0.

    All threads of a block have to call it. A shuffle moves what `word` makes of a value.
    """

    @device_function
    def fold(value):
        across, group = int32(cuda.blockDim.x), int32(cuda.blockDim.x * cuda.blockDim.y)
        for step in range(5):  # unrolled; a loop of unknown length would make each shuffle a call
            other = T(cuda.shfl_down_sync(ALL, word(value), WARP >> (step + 1)))
            if across <= WARP >> (step + 1) < group:
                value = combine(value, other)
        stride = int32(max(across, WARP))  # of what is left to combine
        if group > stride:
            shared = cuda.shared.array(THREADS, T)
            t = thread_of_block()
            shared[t] = value
            cuda.syncthreads()
            if cuda.threadIdx.y == 0:
                i = int32(t + stride)  # not a range with a step: that divides
                while i < t + group:
                    value = combine(value, shared[i])
                    i = int32(i + stride)
        return value

    return fold


def spread(combine, threads=THREADS):
    """The same, right in all threads, however often it is called, in blocks of at most so many threads.

    It takes the element type as it is.
    """

    @device_function
    def fold(value):
        across, group = int32(cuda.blockDim.x), int32(cuda.blockDim.x * cuda.blockDim.y)
        for step in range(5):
            other = cuda.shfl_xor_sync(ALL, value, WARP >> (step + 1))
            if across <= WARP >> (step + 1) < group:
                value = combine(value, other)
        stride = int32(max(across, WARP))
        if group > stride:
            shared = cuda.shared.array(threads, T)
            t = thread_of_block()
            cuda.syncthreads()  # the call before may still be read
            shared[t] = value
            cuda.syncthreads()
            i = int32(t & (stride - 1) | t & ~(group - 1))  # the group's first value of this column, then the others
            end = int32(i + group)
            value = shared[i]
            i = int32(i + stride)
            while i < end:
                value = combine(value, shared[i])
                i = int32(i + stride)
        return value

    return fold


@device_function
def folded_pair(a, b):
    """The sums of an output's threads, in all of them, of two things at once. All threads of a block call it, once."""
    across, group = int32(cuda.blockDim.x), int32(cuda.blockDim.x * cuda.blockDim.y)
    first, second = cuda.shared.array(THREADS, T), cuda.shared.array(THREADS, T)
    for step in range(5):
        distance = WARP >> (step + 1)
        more_a, more_b = cuda.shfl_down_sync(ALL, a, distance), cuda.shfl_down_sync(ALL, b, distance)
        if across <= distance < group:
            a, b = a + more_a, b + more_b
    t = thread_of_block()
    first[t], second[t] = a, b
    cuda.syncthreads()
    stride, i = int32(max(across, WARP)), int32(t - cuda.threadIdx.y * across)
    end = int32(i + group)
    a, b = first[i], second[i]
    i = int32(i + stride)
    while i < end:
        a, b = a + first[i], b + second[i]
        i = int32(i + stride)
    return a, b


@device_function
def added(a, b):
    """a + b."""
    return a + b


@device_function
def larger(a, b):
    """The larger one; NaN if one is NaN."""
    return b if (b > a) | (b != b) else a


@device_function
def smaller(a, b):
    """The smaller one; NaN if one is NaN."""
    return b if (b < a) | (b != b) else a


def wide(array, *extents):
    """Whether 128-bit loads of four elements are in order: the address and all extents are multiples."""
    return array.address % 16 == 0 and not any([extent % 4 for extent in extents])
