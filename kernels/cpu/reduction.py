"""Reductions of x (M, R, K) over R.

Sums run in the array's type over at most 1,024 neighbours or 64 rows, and those partial sums in float64: as accurate as
pairwise summation, and the same on any number of threads, because the pieces depend on the shape alone. Short rows, and
extremes of wide columns, go through the tiles of ``reduce_tiles``: on (100, 100, 100), with two threads, the sum over
the last axis takes 72 us instead of 152, the maxima over the three axes 73, 85 and 92 us instead of 590, 520 and 710.
Sums of columns do not: a tile's 64 columns are too few of a row for memory to be read ahead, and against PyTorch in the
same run tiles reached 0.90 where four whole rows at a time reach 1.18.
"""

import numpy as np
from numba import types
from numba.extending import overload

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL
from minigrad.kernels.cpu.parallel import merged, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.reduce_tiles import COLUMN_VECTORS, MAX, MIN, SQUARES, SUM, columns_tile, rows_tile
from minigrad.kernels.cpu.simd import VECTOR_BYTES, lanes_of
from minigrad.kernels.cpu.vector_math import strict

larger, smaller = max, min  # the builtins: this module gives both names to kernels
CHUNK = 1024  # neighbours summed in float32: 64 lanes of 16 additions
ROWS = 64  # rows summed in float32
STRIP = 256  # columns that a task sums side by side
WIDE = 64  # columns from which on a row is a loop of its own
FOLD = 128  # rows shorter than this are summed several at once
PARTS = 16  # pieces of a long reduction with few results
FEW = 4  # fewer (rows, strips) of results than this are cut into pieces
PARTIALS = FEW * STRIP * PARTS
BESTS = FEW * PARTS
PIECE = 256  # neighbours of each of several rows summed in float32: at most 32 in a lane
VECTOR = VECTOR_BYTES // 4


def widen(x):
    """x as a float64, but an integer as it is."""
    return np.float64(x) if isinstance(x, np.floating) else x


@overload(widen)
def _widen(x):
    return (lambda x: np.float64(x)) if isinstance(x, types.Float) else (lambda x: x)


def vectorises(x):
    """Whether the tiles serve arrays of this type; a constant in compiled code."""
    return x.dtype.kind == "f"


@overload(vectorises)
def _vectorises(x):
    return (lambda x: True) if isinstance(x.dtype, types.Float) else (lambda x: False)


def for_floats(tile):
    """A tile for arrays of floats, and nothing for integers (of which it is never asked)."""

    def call(x, x_at, x_step, count, center, center_at, out, out_at):
        tile(x, x_at, x_step, count, center, center_at, out, out_at)

    @overload(call)
    def choose(x, x_at, x_step, count, center, center_at, out, out_at):
        if isinstance(x.dtype, types.Float):
            return lambda x, x_at, x_step, count, center, center_at, out, out_at: tile(
                x, x_at, x_step, count, center, center_at, out, out_at)
        return lambda x, x_at, x_step, count, center, center_at, out, out_at: None

    return call


def sums(term, centered, kind=None):
    """The reduction Σ term(x, center) over R as a function (x, center, out, divisor); `kind` is its name with tiles."""
    term = strict(term)
    several_rows = for_floats(rows_tile(kind or SUM))
    tiled = kind is not None

    @inline
    def rows_task(block, x, center, out, partials, reduced, parts, count, divisor):
        """Some rows of neighbours, or one part of a row."""
        first_row, last_row = block // parts * count, smaller((block // parts + 1) * count, out.size)
        if tiled and vectorises(x) and parts == 1:
            zero, lanes = x.dtype.type(0), lanes_of(x)
            several, wide = scratch(zero, VECTOR), scratch(widen(zero), VECTOR)
            while first_row + lanes <= last_row:
                for i in range(lanes):
                    wide[i] = widen(zero)
                for start in range(0, reduced, PIECE):
                    several_rows(x, first_row * reduced + start, reduced, smaller(PIECE, reduced - start), center,
                                 first_row if centered else 0, several, 0)
                    for i in range(lanes):
                        wide[i] += widen(several[i])
                for i in range(lanes):
                    out[first_row + i] = finish(wide[i], divisor)
                first_row += lanes
        for m in range(first_row, last_row):
            part = block % parts
            middle, total = center[m] if centered else x.dtype.type(0), widen(x.dtype.type(0))
            stop = m * reduced + reduced * (part + 1) // parts
            for first in range(m * reduced + reduced * part // parts, stop, CHUNK):
                piece, some = x[first : smaller(first + CHUNK, stop)], x.dtype.type(0)
                for i in range(piece.size):
                    some += term(piece[i], middle)
                total += widen(some)
            if parts == 1:
                out[m] = finish(total, divisor)
            else:
                partials[part * out.size + m] = total

    @inline
    def columns_task(number, x, center, out, partials, shape, parts, strips, divisor):
        """A strip of columns of one m, or one part of their rows."""
        reduced, inner = shape
        part, m, k = number % parts, number // parts // strips, number // parts % strips * STRIP
        low, high, width = reduced * part // parts, reduced * (part + 1) // parts, smaller(STRIP, inner - k)
        zero = x.dtype.type(0)
        some, middle, totals = scratch(zero, STRIP), scratch(zero, STRIP), scratch(widen(zero), STRIP)
        together = FOLD // inner if inner < FOLD else 1  # short rows: several make a longer one
        wide, stride = width * together, inner * together
        first, last = (m * reduced + low) * inner + k, (m * reduced + high) * inner
        if width >= WIDE:  # four rows at a time, each in one piece, as memory is read ahead
            for j in range(width):
                totals[j] = widen(zero)
            for j in range(width):
                middle[j] = center[m * inner + k + j] if centered else zero
            for r in range(low, high, ROWS):
                for j in range(width):
                    some[j] = zero
                stop, at = smaller(r + ROWS, high), (m * reduced + r) * inner + k
                for _ in range((stop - r) // 4):
                    row, second = x[at : at + width], x[at + inner : at + inner + width]
                    at += 2 * inner
                    third, fourth = x[at : at + width], x[at + inner : at + inner + width]
                    at += 2 * inner
                    for j in range(width):
                        c = middle[j]
                        some[j] += (term(row[j], c) + term(second[j], c)) + (term(third[j], c) + term(fourth[j], c))
                for _ in range((stop - r) % 4):
                    row = x[at : at + width]
                    for j in range(width):
                        some[j] += term(row[j], middle[j])
                    at += inner
                for j in range(width):
                    totals[j] += widen(some[j])
            first = last
            wide = width
        else:
            for j in range(wide):
                middle[j] = center[m * inner + k + j % width] if centered else zero
                totals[j] = widen(zero)
        while first < last:
            for j in range(wide):
                some[j] = zero
            for _ in range(ROWS):
                row = x[first : smaller(first + wide, last)]
                for j in range(row.size):  # of a wide row's last one only a part may be left
                    some[j] += term(row[j], middle[j])
                first += stride
                if first >= last:
                    break
            for j in range(wide):
                totals[j] += widen(some[j])
        for j in range(width, wide):
            totals[j % width] += totals[j]
        for j in range(width):
            if parts == 1:
                out[m * inner + k + j] = finish(totals[j], divisor)
            else:
                partials[part * out.size + m * inner + k + j] = totals[j]

    @merged
    def reduce(x, center, out, divisor):
        rows, reduced, inner = x.shape
        values, results, parallel = x.reshape(x.size), out.reshape(out.size), x.size >= PARALLEL
        strips = (inner + STRIP - 1) // STRIP
        parts = PARTS if rows * strips < FEW and parallel else 1
        partials = scratch(widen(x.dtype.type(0)), PARTIALS)
        if inner == 1:
            count = larger(1, BLOCK // larger(1, reduced)) if parts == 1 else 1
            arguments = (values, center, results, partials, reduced, parts, count, divisor)
            parallel_for(rows_task, (rows + count - 1) // count * parts, parallel, arguments)
        else:
            wide = (values, center, results, partials, (reduced, inner), parts, strips, divisor)
            parallel_for(columns_task, rows * strips * parts, parallel, wide)
        if parts > 1:
            for i in range(results.size):
                total = partials[i]
                for part in range(1, parts):
                    total += partials[part * results.size + i]
                results[i] = finish(total, divisor)

    return reduce


def finish(total, divisor):
    """total / divisor, or the total itself if the divisor is False."""
    return total if isinstance(divisor, bool) else total / divisor


@overload(finish)
def _finish(total, divisor):
    return (lambda total, divisor: total) if divisor == types.boolean else (lambda total, divisor: total / divisor)


total_of = sums(lambda x, center: x, False, SUM)
deviations_from = sums(lambda x, center: x - center, True)
squares_about = sums(lambda x, center: (x - center) * (x - center), True, SQUARES)


@parallel_kernel
def sum(x, out):
    total_of(x, out.reshape(out.size), out, False)


@parallel_kernel
def mean(x, out):
    total_of(x, out.reshape(out.size), out, np.float64(x.shape[1]))


@parallel_kernel
def variance(x, mean, out, correction):
    squares_about(x, mean.reshape(mean.size), out, np.float64(larger(x.shape[1] - correction, 0)))


squares_of = sums(lambda x, center: x * x, False)


@parallel_kernel
def sum_of_squares(x, out):
    squares_of(x.reshape((1, x.size, 1)), out, out, False)


LANES = 64  # neighbours that a search along a row keeps apart: four AVX-512 vectors of float32


def extreme(better):
    """The tasks of max (or min) of integers and argmax (or argmin); better(a, b): whether a replaces b."""

    @merged
    def along(x, start, stop):
        """The best of x[start:stop]."""
        best = scratch(x[start], LANES)
        for lane in range(LANES):
            best[lane] = x[start]
        many = (stop - start) // LANES
        for i in range(many):
            piece = x[start + i * LANES : start + (i + 1) * LANES]
            for lane in range(LANES):
                best[lane] = piece[lane] if better(piece[lane], best[lane]) else best[lane]
        top = best[0]
        for lane in range(1, LANES):
            top = best[lane] if better(best[lane], top) else top
        for i in range(start + many * LANES, stop):
            top = x[i] if better(x[i], top) else top
        return top

    @inline
    def value_task(block, x, out, reduced, inner, count):
        for m in range(block * count, smaller((block + 1) * count, out.size // inner)):
            if inner == 1:
                out[m] = along(x, m * reduced, (m + 1) * reduced)
            else:
                best = out[m * inner : (m + 1) * inner]
                first = x[m * reduced * inner : (m * reduced + 1) * inner]
                for k in range(inner):
                    best[k] = first[k]
                for r in range(m * reduced + 1, (m + 1) * reduced):
                    row = x[r * inner : (r + 1) * inner]
                    for k in range(inner):
                        best[k] = row[k] if better(row[k], best[k]) else best[k]

    @inline
    def index_task(block, x, out, reduced, inner, count):
        for m in range(block * count, smaller((block + 1) * count, out.size // inner)):
            if inner == 1:
                top = along(x, m * reduced, (m + 1) * reduced)
                r = 0
                while better(top, x[m * reduced + r]):  # NaN is not equal to itself, but nothing replaces it
                    r += 1
                out[m] = r
            else:
                for start in range(0, inner, STRIP):
                    width = smaller(STRIP, inner - start)
                    best = scratch(x[0], STRIP)
                    target = out[m * inner + start : m * inner + start + width]
                    for k in range(width):
                        best[k] = x[m * reduced * inner + start + k]
                        target[k] = 0
                    for r in range(1, reduced):
                        row = x[(m * reduced + r) * inner + start : (m * reduced + r) * inner + start + width]
                        for k in range(width):
                            wins = better(row[k], best[k])
                            best[k] = row[k] if wins else best[k]
                            target[k] = r if wins else target[k]

    return value_task, index_task


def extremes(kind, better):
    """The reduction of floats to their max or min, as a function (x, out)."""
    several_rows, columns = for_floats(rows_tile(kind)), for_floats(columns_tile(kind))

    @merged
    def along(x, start, stop):
        """The best of x[start:stop]: of as many pieces as a vector has lanes, and of the rest."""
        best, top, length = scratch(x[start], VECTOR), x[start], (stop - start) // lanes_of(x)
        several_rows(x, start, length, length, x, 0, best, 0)
        for lane in range(lanes_of(x) if length else 0):
            top = best[lane] if better(best[lane], top) else top
        for i in range(start + length * lanes_of(x), stop):
            top = x[i] if better(x[i], top) else top
        return top

    @inline
    def rows_task(block, x, out, partials, reduced, parts, count):
        if parts > 1:
            m, part = block // parts, block % parts
            start, stop = reduced * part // parts, reduced * (part + 1) // parts
            partials[block] = along(x, m * reduced + start, m * reduced + stop)
            return
        m, last, lanes = block * count, smaller((block + 1) * count, out.size), lanes_of(x)
        while m + lanes <= last:
            several_rows(x, m * reduced, reduced, reduced, x, 0, out, m)
            m += lanes
        for row in range(m, last):
            out[row] = along(x, row * reduced, (row + 1) * reduced)

    @inline
    def columns_task(number, x, out, reduced, inner, strips):
        m, k = number // strips, number % strips * STRIP
        width, first, tile = smaller(STRIP, inner - k), m * reduced * inner + k, COLUMN_VECTORS * lanes_of(x)
        if width >= tile:
            for start in range(0, width, tile):
                j = smaller(start, width - tile)
                columns(x, first + j, inner, reduced, x, 0, out, m * inner + k + j)
        else:
            best = scratch(x[0], STRIP)
            for j in range(width):
                best[j] = x[first + j]
            for r in range(1, reduced):
                row = x[first + r * inner : first + r * inner + width]
                for j in range(width):
                    best[j] = row[j] if better(row[j], best[j]) else best[j]
            for j in range(width):
                out[m * inner + k + j] = best[j]

    @merged
    def reduce(x, out):
        rows, reduced, inner = x.shape
        values, results, parallel = x.reshape(x.size), out.reshape(out.size), x.size >= PARALLEL
        if inner == 1:
            parts = PARTS if rows < FEW and parallel else 1
            partials = scratch(values[0], BESTS)
            count = larger(1, BLOCK // reduced)
            parallel_for(rows_task, rows * parts if parts > 1 else (rows + count - 1) // count, parallel,
                         (values, results, partials, reduced, parts, count))
            if parts > 1:
                for m in range(rows):
                    results[m] = along(partials, m * parts, (m + 1) * parts)
        else:
            strips = (inner + STRIP - 1) // STRIP
            parallel_for(columns_task, rows * strips, parallel, (values, results, reduced, inner, strips))

    return reduce


def search(name, task, of_floats=None):
    """The kernel of such a task, or of `of_floats` where the type allows it."""

    @parallel_kernel(name=name)
    def body(x, out):
        rows, reduced, inner = x.shape
        if of_floats is not None and vectorises(x):
            if out.size > 0:
                of_floats(x, out)
        elif out.size > 0:
            count = larger(1, BLOCK // larger(1, reduced * inner))
            many = (rows + count - 1) // count
            parallel_for(
                task, many, x.size >= PARALLEL, (x.reshape(x.size), out.reshape(out.size), reduced, inner, count)
            )

    return body


# NaN replaces a number; a number never replaces NaN, for a comparison with NaN is False.
_above = strict(lambda a, b: (a > b) | ((a != a) & (b == b)))
_below = strict(lambda a, b: (a < b) | ((a != a) & (b == b)))
_max_task, _argmax_task = extreme(_above)
_min_task, _argmin_task = extreme(_below)
max = search("max", _max_task, extremes(MAX, _above))
min = search("min", _min_task, extremes(MIN, _below))
argmax = search("argmax", _argmax_task)
argmin = search("argmin", _argmin_task)


def logical(name, combine, neutral):
    """The kernel of any or all."""

    @inline
    def task(block, x, out, reduced, inner, count):
        for m in range(block * count, smaller((block + 1) * count, out.size // inner)):
            target = out[m * inner : (m + 1) * inner]
            for k in range(inner):
                target[k] = neutral
            for r in range(m * reduced, (m + 1) * reduced):
                row = x[r * inner : (r + 1) * inner]
                for k in range(inner):
                    target[k] = combine(target[k], row[k])

    return search(name, task)


any = logical("any", strict(lambda a, b: a | b), False)
all = logical("all", strict(lambda a, b: a & b), True)
