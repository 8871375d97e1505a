"""The tiles of reductions: as many rows as a vector has lanes, eight vectors of columns, one row at a time, or a block
of rows and columns, their running results in registers.

LLVM keeps such results in memory if they are an array, and does not find the vectors of many short rows at all. The
kinds of reduction are `SUM`, `SQUARES` (about a center) and, NaN included, `MAX` and `MIN`.
"""

import numpy as np
from llvmlite import ir

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.emitter import INDEX, VECTOR_BYTES, vectorised
from minigrad.kernels.cpu.gemm_tiles import loop
from minigrad.kernels.cpu.simd import lanes_of

SUM, SQUARES, MAX, MIN = "sum", "squares", "max", "min"
COLUMN_VECTORS = 8  # accumulators: they hide the latency of the addition
ROW_VECTORS = 4  # accumulators of a single row
SHORT = 256  # rows up to this length are taken several at once: from 200 on one at a time is as fast, below slower


def _twin(kind, values, center):
    """The reduction over the first axis."""
    with np.errstate(all="ignore"):
        if kind in (MAX, MIN):
            reduce, start = (np.max, -np.inf) if kind == MAX else (np.min, np.inf)
            return reduce(values, axis=0, initial=start)
        return (values if kind == SUM else (values - center) * (values - center)).sum(axis=0)


def _neutral(emit, kind):
    value = {MAX: float("-inf"), MIN: float("inf")}.get(kind, 0.0)
    return ir.Constant(emit.vector, [value] * emit.lanes)


def _combine(emit, kind, total, value, center):
    """total (+) value, vectors."""
    builder = emit.builder
    if kind == SUM:
        return builder.fadd(total, value)
    if kind == SQUARES:
        distance = builder.fsub(value, center)
        return emit.multiply_add(distance, distance, total)
    wins = builder.select(builder.fcmp_ordered(">" if kind == MAX else "<", value, total), value, total)
    return builder.select(builder.fcmp_unordered("uno", value, value), value, wins)  # NaN wins, and stays


def columns_tile(kind):
    """``f(x, x_at, x_step, rows, center, center_at, out, out_at)``

    ``out[out_at + j]``: the reduction of ``x[x_at + i * x_step + j]`` over i < rows, for each j of COLUMN_VECTORS
    vectors; ``center[center_at + j]`` is what SQUARES are about.
    """

    def twin(x, x_at, x_step, rows, center, center_at, out, out_at):
        width = COLUMN_VECTORS * (VECTOR_BYTES // x.itemsize)
        values = x[x_at + np.arange(rows)[:, None] * x_step + np.arange(width)]
        about = center[center_at : center_at + width] if kind == SQUARES else 0
        out[out_at : out_at + width] = _twin(kind, values, about)

    @vectorised(twin)
    def tile(emit, x, x_at, x_step, rows, center, center_at, out, out_at):
        places = [v * emit.lanes for v in range(COLUMN_VECTORS)]
        x, center, out = emit.at(x, x_at), emit.at(center, center_at), emit.at(out, out_at)

        def step(values):
            line, *totals = values
            for v, place in enumerate(places):
                about = emit.load_vector(emit.at(center, place)) if kind == SQUARES else None
                totals[v] = _combine(emit, kind, totals[v], emit.load_vector(emit.at(line, place)), about)
            return [emit.at(line, x_step), *totals]

        _, *totals = loop(emit.builder, rows, [x, *[_neutral(emit, kind)] * COLUMN_VECTORS], step)
        for total, place in zip(totals, places, strict=True):
            emit.store_vector(total, emit.at(out, place))

    return tile


def rows_tile(kind):
    """``f(x, x_at, x_step, count, center, center_at, out, out_at)``

    ``out[out_at + i]``: the reduction of ``x[x_at + i * x_step + j]`` over j < count, for as many rows i as a vector
    has lanes; ``center[center_at + i]`` is what SQUARES are about.
    """

    def twin(x, x_at, x_step, count, center, center_at, out, out_at):
        lanes = VECTOR_BYTES // x.itemsize
        values = x[x_at + np.arange(lanes) * x_step + np.arange(count)[:, None]]
        about = center[center_at : center_at + lanes] if kind == SQUARES else 0
        out[out_at : out_at + lanes] = _twin(kind, values, about)

    @vectorised(twin)
    def tile(emit, x, x_at, x_step, count, center, center_at, out, out_at):
        builder, lanes = emit.builder, range(emit.lanes)
        x, out = emit.at(x, x_at), emit.at(out, out_at)
        lines = [emit.at(x, builder.mul(x_step, ir.Constant(INDEX, i))) for i in lanes]
        about = [None] * emit.lanes
        if kind == SQUARES:
            about = [emit.broadcast(builder.load(emit.at(center, center_at, i))) for i in lanes]
        start = _neutral(emit, kind)

        def step(values):
            position, *totals = values
            totals = [_combine(emit, kind, totals[i], emit.load_vector(emit.at(lines[i], position)), about[i])
                      for i in lanes]
            return [builder.add(position, ir.Constant(INDEX, emit.lanes)), *totals]

        whole = builder.sdiv(count, ir.Constant(INDEX, emit.lanes))
        position, *totals = loop(builder, whole, [ir.Constant(INDEX, 0), *[start] * emit.lanes], step)
        rest = builder.sub(count, position)
        mask = emit.mask(rest)

        def last(values):
            position, *totals = values
            results = []
            for i in lanes:
                value = emit.load_masked(emit.at(lines[i], position), mask)
                results.append(builder.select(mask, _combine(emit, kind, totals[i], value, about[i]), totals[i]))
            return [position, *results]

        more = builder.zext(builder.icmp_signed(">", rest, ir.Constant(INDEX, 0)), INDEX)
        _, *totals = loop(builder, more, [position, *totals], last)
        columns = emit.transpose(totals)
        merge = SUM if kind == SQUARES else kind
        while len(columns) > 1:
            columns = [_combine(emit, merge, a, b, None) for a, b in zip(columns[::2], columns[1::2], strict=True)]
        emit.store_vector(columns[0], out)

    return tile


def row_tile(kind):
    """``f(x, x_at, count, out, out_at)``: ``out[out_at]`` is the reduction (not SQUARES) of ``x[x_at + j]`` over
    j < count.

    As many pieces of the row as a vector has lanes, side by side in a `rows_tile`, end in as many masked steps: softmax
    of (1000, 1000) over its rows, which reduces each twice, took two Zen 4 cores 300 us with them, 248 with this.
    """

    def twin(x, x_at, count, out, out_at):
        out[out_at] = _twin(kind, x[x_at : x_at + count], 0)

    @vectorised(twin)
    def tile(emit, x, x_at, count, out, out_at):
        builder, lanes = emit.builder, ir.Constant(INDEX, emit.lanes)
        x, out = emit.at(x, x_at), emit.at(out, out_at)
        start, places = _neutral(emit, kind), [v * emit.lanes for v in range(ROW_VECTORS)]
        far = ir.Constant(INDEX, ROW_VECTORS * emit.lanes)

        def step(values):
            line, *totals = values
            totals = [_combine(emit, kind, total, emit.load_vector(emit.at(line, place)), None)
                      for total, place in zip(totals, places, strict=True)]
            return [emit.at(line, far), *totals]

        line, *totals = loop(builder, builder.sdiv(count, far), [x, *[start] * ROW_VECTORS], step)
        while len(totals) > 1:
            totals = [_combine(emit, kind, a, b, None) for a, b in zip(totals[::2], totals[1::2], strict=True)]
        rest = builder.srem(count, far)

        def single(values):
            line, total = values
            return [emit.at(line, lanes), _combine(emit, kind, total, emit.load_vector(line), None)]

        line, total = loop(builder, builder.sdiv(rest, lanes), [line, totals[0]], single)
        rest = builder.srem(rest, lanes)
        mask = emit.mask(rest)

        def last(values):
            value = emit.load_masked(line, mask)
            return [builder.select(mask, _combine(emit, kind, values[0], value, None), values[0])]

        more = builder.zext(builder.icmp_signed(">", rest, ir.Constant(INDEX, 0)), INDEX)
        (total,) = loop(builder, more, [total], last)
        builder.store(_all_lanes(emit, kind, total), out)

    return tile


def _all_lanes(emit, kind, total):
    """The reduction of a vector's lanes: again and again the upper half of those that count onto the lower."""
    width = emit.lanes
    while width > 1:
        width //= 2
        upper = emit.shuffle(total, total, [i + width if i < width else i for i in range(emit.lanes)])
        total = _combine(emit, kind, total, upper, None)
    return emit.builder.extract_element(total, ir.Constant(ir.IntType(32), 0))


def block_sum():
    """``f(x, x_at, x_step, rows, columns, out, out_at)``: ``out[out_at]`` is the sum of ``x[x_at + i * x_step + j]``
    over i < rows and j < columns; the columns in the lanes."""

    def twin(x, x_at, x_step, rows, columns, out, out_at):
        total = x.dtype.type(0)
        for i in range(rows):
            total += x[x_at + i * x_step : x_at + i * x_step + columns].sum()
        out[out_at] = total

    @vectorised(twin)
    def tile(emit, x, x_at, x_step, rows, columns, out, out_at):
        builder, lanes = emit.builder, ir.Constant(INDEX, emit.lanes)

        def strip(values):
            start, rest, total = values
            mask = emit.mask(rest)

            def step(values):
                line, total = values
                return [emit.at(line, x_step), builder.fadd(total, emit.load_masked(line, mask))]

            _, total = loop(builder, rows, [start, total], step)
            return [emit.at(start, lanes), builder.sub(rest, lanes), total]

        strips = builder.sdiv(builder.add(columns, ir.Constant(INDEX, emit.lanes - 1)), lanes)
        *_, total = loop(builder, strips, [emit.at(x, x_at), columns, emit.zero], strip)
        builder.store(_all_lanes(emit, SUM, total), emit.at(out, out_at))

    return tile


def of_rows(several, one):
    """A function (x, at, rows, length, results) that reduces rows of neighbours, from tiles of several rows and one."""

    @inline
    def each(x, at, rows, length, results):
        lanes = lanes_of(x)
        if length <= SHORT and rows >= lanes:
            for first in range(0, rows, lanes):
                m = min(first, rows - lanes)  # some rows are reduced twice
                several(x, at + m * length, length, length, x, 0, results, m)
        else:
            for m in range(rows):
                one(x, at + m * length, length, results, m)

    return each
