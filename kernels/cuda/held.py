"""Parts of rows or columns that a thread holds in its registers, between a reduction and what is made of its result.

So x (M, R, K), reduced over R, is read once. A thread holds up to 8 elements, or where rows can be read four elements
at a time up to 4 of these quads, loaded one right after the other: 64 bytes on their way per thread, where the memory
of an H100 needs about 8 from each of the 2,048 that a multiprocessor runs (3.35 TB/s, an assumed 600 ns).
"""

from minigrad.kernels.cuda.language import THREADS, cuda, device_function, int32, load4, store4
from minigrad.kernels.cuda.reduce_blocks import plan, tiles, wide

ITEMS = 8, 4  # that a thread holds: elements, quads
LARGE = 1024  # the most threads of the blocks that read by four what is too long to be held
HOLDING = THREADS, 512  # the most threads of a block that holds: elements, quads


def fours(length, inner, *arrays):
    """Whether the rows of all arrays can be read by four, and R in items: quads or elements."""
    four = inner == 1 and not any([not wide(array, length) for array in arrays])
    return four, length // 4 if four else length


def held_plan(rows, length, inner, four):
    """The `Plan` with which threads hold `length` items of an output, or None if there are too many.

    A thread holds as many as it can: what is handed from thread to thread costs more than another element.
    """
    p = plan(rows, tiles(length, ITEMS[four]), inner, split=False, threads=HOLDING[four])
    return p if tiles(length, p.block[1]) <= ITEMS[four] else None


def long_plan(rows, length, inner, four, dtype):
    """The `Plan` for what is too long to be held.

    By four a row gets a large block where there are enough rows for all blocks: the fewer rows are under way, the more
    of them the caches keep for the second reading. float64 takes up to 70 registers, too many for 1024 threads.
    """
    p = plan(rows, length, inner)
    threads = LARGE if dtype.itemsize == 4 else LARGE // 2
    return plan(rows, length, inner, split=False, threads=threads) if four and p.parts == 1 else p


def loader(by_four, items):
    """A device function: v = `items` items of a thread, `rest` for those that are not there.

    The first one is number r of `stop` and begins at x[at], the following are `down` items further on each.
    """

    @device_function
    def load(v, x, at, r, stop, inner, rest):
        down = int32(cuda.blockDim.y)
        for j in range(items):
            if by_four:
                if r + j * down < stop:
                    v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3] = load4(x, int32(at + 4 * j * down))
                else:
                    v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3] = rest, rest, rest, rest
            else:
                v[j] = x[int32(at + j * (down * inner))] if r + j * down < stop else rest

    return load


def storer(by_four, items):
    """A device function: the same places of an array = v."""

    @device_function
    def store(v, out, at, r, stop, inner):
        down = int32(cuda.blockDim.y)
        for j in range(items):
            if r + j * down < stop:
                if by_four:
                    store4(out, int32(at + 4 * j * down), v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3])
                else:
                    out[int32(at + j * (down * inner))] = v[j]

    return store
