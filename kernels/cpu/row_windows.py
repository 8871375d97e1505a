"""Vector code for windows of any size: those of neighbouring outputs in the lanes, element by element of the window;
for the gradient of their means neighbouring pixels.

A branch per element, on values that nobody can foresee, takes a processor some ten cycles: max pooling of 3 x 3 in
steps of 2 took 4.6 ms so for 32 x 32 planes of 28 x 28 (two Zen 3 cores), PyTorch's takes 4.1. Here lanes are chosen
instead: 0.8 ms. What lies outside of the image is masked, so that padding and the ends of rows need no loops of their
own. Positions are in elements, in pairs ``array, at`` (see ``simd``).
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from minigrad.kernels.cpu.emitter import INDEX, vectorised
from minigrad.kernels.cpu.parallel import merged
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


def _read(emit, line, first, known_step, step, width, whole):
    """The elements of a row at columns first, first + step, ...; for those outside of the row anything. If `whole`, the
    next ``known_step * lanes`` columns all lie in it."""
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
        if whole:
            vectors.append(emit.load_vector(emit.at(line, begin)))
        else:
            neighbours = _columns(emit, begin, ir.Constant(INDEX, 1))
            vectors.append(emit.load_masked(emit.at(line, begin), _inside(emit, neighbours, width)))
    return emit.shuffle(vectors[0], vectors[-1], [known_step * i for i in range(emit.lanes)])


def _each_element(emit, plane, size, corner, steps, kernel, dilation, visit, whole=False):
    """Call ``visit(value, columns, start)`` for the elements of a vector of windows, one of each at a time: columns
    `columns` of the row that begins at `start` in the plane. Those outside of the image are to be left out.

    `size`, `corner`, `kernel` and `dilation` are pairs, rows first; `steps` are the known step and the step; `whole` is
    that of `_read`.
    """
    builder, (height, width), (top, left), (known_step, step) = emit.builder, size, corner, steps
    with cgutils.for_range(builder, kernel[0], intp=INDEX) as row:
        h = builder.add(top, builder.mul(row.index, dilation[0]))
        inside = builder.and_(builder.icmp_signed(">=", h, ir.Constant(INDEX, 0)), builder.icmp_signed("<", h, height))
        with builder.if_then(inside):
            start = builder.mul(h, width)
            line = emit.at(plane, start)
            with cgutils.for_range(builder, kernel[1], intp=INDEX) as column:
                first = builder.add(left, builder.mul(column.index, dilation[1]))
                visit(_read(emit, line, first, known_step, step, width, whole), _columns(emit, first, step), start)


def _divisor(emit, first, kernel_w, down, least, limit):
    """What the sums of windows that begin at the columns `first` are divided by: `down` times the number of their
    columns from `least` to limit - 1, at least 1."""
    builder = emit.builder

    def either(sign, a, b):
        return builder.select(builder.icmp_signed(sign, a, b), a, b)

    end = either("<", builder.add(first, emit.everywhere(kernel_w)), emit.everywhere(limit))
    along = either(">", builder.sub(end, either(">", first, emit.everywhere(least))),
                   emit.everywhere(ir.Constant(INDEX, 1)))
    down, along = builder.sitofp(emit.everywhere(down), emit.vector), builder.sitofp(along, emit.vector)
    return builder.fmul(down, along)  # as floats, which do not overflow


def _store_windows(emit, count, pairs):
    """Store the first `count` lanes, at most all of them, of vectors: pairs of vector and address."""
    builder, stored = emit.builder, emit.mask(count)
    with builder.if_else(builder.icmp_signed(">=", count, ir.Constant(INDEX, emit.lanes))) as (all_lanes, some):
        for block, mask in ((all_lanes, None), (some, stored)):
            with block:
                for value, target in pairs:
                    emit.store(value, target, mask)


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
        nowhere = ir.Constant(kind, [-1] * emit.lanes)
        best, place = cgutils.alloca_once(builder, emit.vector), cgutils.alloca_once(builder, kind)
        builder.store(ir.Constant(emit.vector, [float("-inf")] * emit.lanes), best)
        builder.store(nowhere, place)

        def compare(value, columns, start):
            known, known_place = builder.load(best), builder.load(place)
            better = builder.or_(wins(emit, value, known), builder.icmp_signed("==", known_place, nowhere))
            taken = builder.and_(_inside(emit, columns, width), better)
            builder.store(builder.select(taken, value, known), best)
            found = builder.add(columns, emit.everywhere(start))
            builder.store(builder.select(taken, found, known_place), place)

        _each_element(emit, emit.at(x, at), (height, width), (top, left), (known_step, step), (kernel_h, kernel_w),
                      (dilation_h, dilation_w), compare)
        where = builder.load(place)
        where = where if emit.itemsize == 4 else builder.sext(where, ir.VectorType(INDEX, emit.lanes))
        target = builder.bitcast(emit.at(places, out_at), emit.scalar.as_pointer())
        _store_windows(emit, count, ((builder.load(best), emit.at(out, out_at)),
                                     (builder.bitcast(where, emit.vector), target)))

    return maxima


def window_means(known_step):
    """A function of ``(x, at, height, width, top, left, step, kernel_h, kernel_w, down, least, limit, count, out,
    out_at)``: the means of a vector of windows, `step` columns from each other.

    The windows are those of `window_maxima` without dilation. The sum of window j is divided by `down` times the number
    of its columns from `least` to limit - 1; that of one without any is 0.
    """

    def twin(x, at, height, width, top, left, step, kernel_h, kernel_w, down, least, limit, count, out, out_at):
        plane, out = x.reshape(-1)[at : at + height * width].reshape(height, width), out.reshape(-1)
        for j in range(min(count, lanes_of(out))):
            first, end = left + step * j, left + step * j + kernel_w
            total = out.dtype.type(0)
            for h in range(max(top, 0), min(top + kernel_h, height)):
                for w in range(max(first, 0), min(end, width)):
                    total += plane[h, w]
            out[out_at + j] = total / out.dtype.type(down * max(min(end, limit) - max(first, least), 1))

    @vectorised(twin)
    def means(emit, x, at, height, width, top, left, step, kernel_h, kernel_w, down, least, limit, count, out, out_at):
        builder = emit.builder
        step, one = ir.Constant(INDEX, known_step) if known_step else step, ir.Constant(INDEX, 1)
        total = cgutils.alloca_once_value(builder, emit.zero)
        geometry = (emit.at(x, at), (height, width), (top, left), (known_step, step), (kernel_h, kernel_w), (one, one))

        def add(value, columns, start):
            value = builder.select(_inside(emit, columns, width), value, emit.zero)
            builder.store(builder.fadd(builder.load(total), value), total)

        def add_all(value, columns, start):
            builder.store(builder.fadd(builder.load(total), value), total)

        if known_step is None:
            _each_element(emit, *geometry, add)
        else:
            behind = builder.add(builder.add(left, kernel_w), ir.Constant(INDEX, known_step * emit.lanes - 1))
            whole = builder.and_(builder.icmp_signed(">=", left, ir.Constant(INDEX, 0)),
                                 builder.icmp_signed("<=", behind, width))
            with builder.if_else(whole) as (inside, over_the_edge):
                with inside:
                    _each_element(emit, *geometry, add_all, whole=True)
                with over_the_edge:
                    _each_element(emit, *geometry, add)
        divisor = _divisor(emit, _columns(emit, left, step), kernel_w, down, least, limit)
        _store_windows(emit, count, [(builder.fdiv(builder.load(total), divisor), emit.at(out, out_at))])

    return means


def _quotients(emit, first, divisor):
    """``first // divisor``, ``(first + 1) // divisor``, ... in lanes; a divisor below 2^24. No processor divides
    integers in lanes: what is left of the first one's division is small enough for floats to be exact."""
    builder = emit.builder
    quotient = builder.udiv(first, divisor)
    rest = _columns(emit, builder.sub(first, builder.mul(quotient, divisor)), ir.Constant(INDEX, 1))
    ratio = builder.fdiv(builder.sitofp(rest, emit.vector), builder.sitofp(emit.everywhere(divisor), emit.vector))
    return builder.add(emit.everywhere(quotient), builder.fptosi(ratio, rest.type))


def _covering(emit, grad, w, known_step, step, tap, count):
    """For the pixels w, w + 1, ..., counted from where window 0 begins: the window that begins last among those that do
    not begin behind the pixel, less `tap`; whether there is such a window; its element of `grad`."""
    builder, lanes = emit.builder, emit.lanes
    if known_step is None:
        windows = builder.sub(_quotients(emit, w, step), emit.everywhere(tap))
        there, value = _inside(emit, windows, count), emit.zero
        safe = builder.select(there, windows, ir.Constant(windows.type, [0] * lanes))
        for lane in range(lanes):
            place = ir.Constant(SMALL, lane)
            element = builder.load(emit.at(grad, builder.zext(builder.extract_element(safe, place), INDEX)))
            value = builder.insert_element(value, element, place)
        return windows, there, value
    first = builder.sub(builder.udiv(w, ir.Constant(INDEX, known_step)), tap)
    few = emit.narrowed(max(lanes // known_step, 2))
    neighbours = _columns(few, first, ir.Constant(INDEX, 1))
    value = few.load_masked(few.at(grad, first), _inside(few, neighbours, count))
    each = [lane // known_step for lane in range(lanes)]
    windows = emit.shuffle(neighbours, neighbours, each)
    return windows, _inside(emit, windows, count), emit.shuffle(value, value, each)


def window_shares(known_step):
    """A function of ``(grad, at, count, step, kernel_w, pad, down, least, limit, out, out_at, w, width, rows)``: what
    pixels w, w + 1, ... of a row get from a row of windows, whose adjoint `window_means` is.

    Window j of `count` begins at column ``step * j - pad`` and shares ``grad[at + j]`` out over its elements, divided
    as the sums in `window_means`. The pixels get the sum of what the windows over them share, in the row that begins at
    ``out[out_at]`` and the following, `rows` together. As many pixels as there are lanes, those below 0 and from
    `width` on left out; with a known step of 2, ``w + pad`` is even.
    """

    def twin(grad, at, count, step, kernel_w, pad, down, least, limit, out, out_at, w, width, rows):
        grad, out = grad.reshape(-1)[at : at + count], out.reshape(-1)[out_at : out_at + rows * width]
        for pixel in range(max(w, 0), min(w + lanes_of(out), width)):
            share = out.dtype.type(0)
            for j in range(count):
                first, end = step * j - pad, step * j - pad + kernel_w
                if first <= pixel < end:
                    share += grad[j] / out.dtype.type(down * max(min(end, limit) - max(first, least), 1))
            out.reshape(rows, width)[:, pixel] += share

    @vectorised(twin)
    def shares(emit, grad, at, count, step, kernel_w, pad, down, least, limit, out, out_at, w, width, rows):
        builder, zero, one = emit.builder, ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        step = ir.Constant(INDEX, known_step) if known_step else step
        begin, total = builder.add(w, pad), cgutils.alloca_once_value(builder, emit.zero)
        # The windows over a pixel: the last that may cover it less 0, 1, ... taps, as far as there are such windows.
        first_tap = builder.sub(builder.udiv(begin, step), builder.sub(count, one))
        first_tap = builder.select(builder.icmp_signed(">", first_tap, zero), first_tap, zero)
        taps = builder.udiv(builder.add(kernel_w, builder.sub(step, one)), step)
        begun = builder.add(builder.udiv(builder.add(begin, ir.Constant(INDEX, emit.lanes - 1)), step), one)
        taps = builder.select(builder.icmp_signed("<", begun, taps), begun, taps)
        with cgutils.for_range_slice(builder, first_tap, taps, one, intp=INDEX) as (tap, _):
            windows, there, value = _covering(emit, emit.at(grad, at), begin, known_step, step, tap, count)
            starts = builder.mul(windows, emit.everywhere(step))
            behind = builder.sub(_columns(emit, begin, one), starts)
            covered = builder.and_(there, _inside(emit, behind, kernel_w))
            first = builder.sub(starts, emit.everywhere(pad))
            share = builder.fdiv(value, _divisor(emit, first, kernel_w, down, least, limit))
            share = builder.select(covered, share, emit.zero)
            builder.store(builder.fadd(builder.load(total), share), total)
        share, stored = builder.load(total), _inside(emit, _columns(emit, w, one), width)
        last = builder.add(w, ir.Constant(INDEX, emit.lanes))
        whole = builder.and_(builder.icmp_signed(">=", w, ir.Constant(INDEX, 0)),
                             builder.icmp_signed("<=", last, width))
        with builder.if_else(whole) as (all_lanes, some):
            for block, mask in ((all_lanes, None), (some, stored)):
                with block, cgutils.for_range(builder, rows, intp=INDEX) as row:
                    target = emit.at(out, out_at, builder.mul(row.index, width), w)
                    before = emit.load_vector(target) if mask is None else emit.load_masked(target, mask)
                    emit.store(builder.fadd(before, share), target, mask)

    return shares


def by_step(make):
    """A function of a step and a tuple of arguments, for which it calls what `make` made for this step.

    It is merged into its caller: called, averages took twice as long.
    """
    neighbours, of_second, apart = make(1), make(2), make(None)

    @merged
    def function(step, arguments):
        if step == 1:
            neighbours(*arguments)
        elif step == 2:
            of_second(*arguments)
        else:
            apart(*arguments)

    return function
