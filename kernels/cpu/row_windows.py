"""Vector code for windows of any size: those of neighbouring outputs in the lanes, element by element of the window.

A branch per element, on values that nobody can foresee, takes a processor some ten cycles: max pooling of 3 x 3 in
steps of 2 took 4.6 ms so for 32 x 32 planes of 28 x 28 (two Zen 3 cores), PyTorch's takes 4.1. Here lanes are chosen
instead: 0.8 ms. What lies outside of the image is masked, so that padding and the ends of rows need no loops of their
own. Positions are in elements, in pairs ``array, at`` (see ``simd``).
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from minigrad.kernels.cpu.emitter import INDEX, vectorised
from minigrad.kernels.cpu.simd import lanes_of
from minigrad.kernels.cpu.windows import wins

SMALL = ir.IntType(32)


def _columns(emit, first, step):
    """The columns first, first + step, ... of the lanes."""
    numbers = ir.Constant(ir.VectorType(SMALL, emit.lanes), list(range(emit.lanes)))
    return emit.builder.add(emit.everywhere(first), emit.builder.mul(emit.everywhere(step), numbers))


def _inside(emit, columns, width):
    """Which columns lie in a row: less than 0 is a large number without a sign."""
    return emit.builder.icmp_unsigned("<", columns, emit.everywhere(width))


def _read(emit, line, first, known_step, step, width):
    """The elements of a row at columns first, first + step, ...; for those outside of the row anything."""
    builder, vectors = emit.builder, []
    if known_step is None:
        value = emit.zero
        for lane in range(emit.lanes):
            column = builder.add(first, builder.mul(step, ir.Constant(INDEX, lane)))
            column = builder.select(builder.icmp_unsigned("<", column, width), column, ir.Constant(INDEX, 0))
            value = builder.insert_element(value, builder.load(emit.at(line, column)), ir.Constant(SMALL, lane))
        return value
    for v in range(known_step):  # whole vectors of neighbours, of which every one or every other column is taken
        begin = builder.add(first, ir.Constant(INDEX, v * emit.lanes))
        neighbours = _columns(emit, begin, ir.Constant(INDEX, 1))
        vectors.append(emit.load_masked(emit.at(line, begin), _inside(emit, neighbours, width)))
    return emit.shuffle(vectors[0], vectors[-1], [known_step * i for i in range(emit.lanes)])


def window_maxima(known_step):
    """A function of ``(x, at, height, width, top, left, step, kernel_h, kernel_w, dilation_h, dilation_w, count, out,
    out_at, places)``: the largest elements of a vector of windows, `step` columns from each other.

    Of the plane (height, width) at `at`, window j covers rows top, top + dilation_h, ... and columns left + step * j,
    left + step * j + dilation_w, ..., as far as they lie in it. For j < count, but for no more windows than there are
    lanes, ``out[out_at + j]`` gets its largest element and ``places[out_at + j]`` where that is in the plane: the first
    of equal ones, the last NaN; -inf and -1 if it has none. `places` holds integers as wide as the floats. `known_step`
    is 1 or 2, else None: then each lane is loaded by itself. A plane has fewer than 2^31 elements.
    """

    def twin(x, at, height, width, top, left, step, kernel_h, kernel_w, dilation_h, dilation_w, count, out, out_at,
             places):
        plane, out, places = x.reshape(-1)[at : at + height * width], out.reshape(-1), places.reshape(-1)
        for j in range(min(count, lanes_of(out))):
            best, place = -np.inf, -1
            for h in range(top, top + kernel_h * dilation_h, dilation_h):
                for w in range(left + step * j, left + step * j + kernel_w * dilation_w, dilation_w):
                    if 0 <= h < height and 0 <= w < width:
                        value = plane[h * width + w]
                        if place < 0 or value > best or value != value:
                            best, place = value, h * width + w
            out[out_at + j], places[out_at + j] = best, place

    @vectorised(twin)
    def maxima(emit, x, at, height, width, top, left, step, kernel_h, kernel_w, dilation_h, dilation_w, count, out,
               out_at, places):
        builder, kind = emit.builder, ir.VectorType(SMALL, emit.lanes)
        step = ir.Constant(INDEX, known_step) if known_step else step
        nowhere, zero = ir.Constant(kind, [-1] * emit.lanes), ir.Constant(INDEX, 0)
        best, place = cgutils.alloca_once(builder, emit.vector), cgutils.alloca_once(builder, kind)
        builder.store(ir.Constant(emit.vector, [float("-inf")] * emit.lanes), best)
        builder.store(nowhere, place)
        plane = emit.at(x, at)
        with cgutils.for_range(builder, kernel_h, intp=INDEX) as row:
            h = builder.add(top, builder.mul(row.index, dilation_h))
            inside = builder.and_(builder.icmp_signed(">=", h, zero), builder.icmp_signed("<", h, height))
            with builder.if_then(inside):
                start = builder.mul(h, width)
                line = emit.at(plane, start)
                with cgutils.for_range(builder, kernel_w, intp=INDEX) as column:
                    first = builder.add(left, builder.mul(column.index, dilation_w))
                    columns = _columns(emit, first, step)
                    value = _read(emit, line, first, known_step, step, width)
                    known, known_place = builder.load(best), builder.load(place)
                    better = builder.or_(wins(emit, value, known), builder.icmp_signed("==", known_place, nowhere))
                    taken = builder.and_(_inside(emit, columns, width), better)
                    builder.store(builder.select(taken, value, known), best)
                    found = builder.add(columns, emit.everywhere(start))
                    builder.store(builder.select(taken, found, known_place), place)
        where = builder.load(place)
        where = where if emit.itemsize == 4 else builder.sext(where, ir.VectorType(INDEX, emit.lanes))
        target = builder.bitcast(emit.at(places, out_at), emit.scalar.as_pointer())
        whole, stored = builder.icmp_signed(">=", count, ir.Constant(INDEX, emit.lanes)), emit.mask(count)
        with builder.if_else(whole) as (all_lanes, some):
            for block, mask in ((all_lanes, None), (some, stored)):
                with block:
                    emit.store(builder.load(best), emit.at(out, out_at), mask)
                    emit.store(builder.bitcast(where, emit.vector), target, mask)

    return maxima
