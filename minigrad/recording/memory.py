"""Where the buffers of a recorded step lie: those whose lives do not overlap share memory."""

from typing import NamedTuple

from minigrad.device import ALIGNMENT


class Life(NamedTuple):
    """A buffer of some bytes that is in use from one launch to another, both included."""

    size: int
    first: int
    last: int


def plan(lives):
    """Offsets into one piece of memory, and the bytes that it needs.

    The largest buffers are placed first, each at the lowest offset where no buffer lies that is alive at the same time
    ("greedy by size": Pisarchyk and Lee, arXiv 2001.03288, section 4.2).

    Parameters
    ----------
    lives : list of Life

    Returns
    -------
    offsets : list of int
    size : int
    """
    offsets, placed, total = [0] * len(lives), [], 0
    for index in sorted(range(len(lives)), key=lambda i: (-lives[i].size, lives[i].first)):
        life = lives[index]
        size = -(-life.size // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, other in placed:  # in ascending order of their start
            if other.first <= life.last and life.first <= other.last:
                if start >= offset + size:
                    break
                offset = max(offset, end)
        offsets[index] = offset
        placed.append((offset, offset + size, life))
        placed.sort(key=lambda item: item[:2])
        total = max(total, offset + size)
    return offsets, total
