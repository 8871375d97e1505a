"""Vector code for windows of 2 x 2 elements side by side: what pooling and batch normalisation before it are made of.

The rows of a real image are short (14 or 7 windows) and every other element belongs to the same column, so LLVM's own
loop leaves most windows to its scalar remainder. Here a vector is two loads taken apart into even and odd elements.
Positions are in elements, in pairs ``array, at`` (see ``simd``): `top` and
`bottom` are where the two rows of the windows begin, `count` is the number of windows.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from minigrad.kernels.cpu.emitter import INDEX, MOST_LANES, vectorised


def _over_windows(emit, count, step):
    """Call step(emit, j, rest) for vectors of windows j, j + 1, ... that cover all of them.

    Where the row is no multiple of the vector the last one goes back and overlaps the one before it, since a masked
    store costs some 40 instructions without AVX-512; rows shorter than a vector are covered by one or two of half its
    size. In rows shorter still `rest` windows are left for masks.
    """
    builder = emit.builder

    def at_least(lanes):
        return builder.if_else(builder.icmp_signed(">=", count, ir.Constant(INDEX, lanes)))

    with at_least(emit.lanes) as (long, short):
        with long:
            _overlapping(emit, count, step)
        with short:
            half = emit.narrowed(max(emit.lanes // 2, 2))
            with at_least(half.lanes) as (halves, tiny):
                with halves:
                    _overlapping(half, count, step)
                with tiny:
                    step(emit, ir.Constant(INDEX, 0), count)


def _overlapping(emit, count, step):
    """At least a vector of windows, in one loop: a copy of the step for the last vector takes longer to compile."""
    builder, lanes = emit.builder, ir.Constant(INDEX, emit.lanes)
    last = builder.sub(count, lanes)
    with cgutils.for_range(builder, builder.sdiv(builder.add(count, ir.Constant(INDEX, emit.lanes - 1)), lanes),
                           intp=INDEX) as loop:
        j = builder.mul(loop.index, lanes)
        step(emit, builder.select(builder.icmp_signed("<", j, last), j, last), None)


def _pairs(emit, array, at, j, rest):
    """The even and the odd of the next 2 * lanes elements of a row; nothing is read behind the last window."""
    builder, lanes = emit.builder, emit.lanes
    source = emit.at(array, at, builder.mul(j, ir.Constant(INDEX, 2)))
    if rest is None:
        low, high = emit.load_vector(source), emit.load_vector(emit.at(source, lanes))
    else:
        low_mask, high_mask = _pair_masks(emit, rest)
        low, high = emit.load_masked(source, low_mask), emit.load_masked(emit.at(source, lanes), high_mask)
    return emit.shuffle(low, high, list(range(0, 2 * lanes, 2))), emit.shuffle(low, high, list(range(1, 2 * lanes, 2)))


def _pair_masks(emit, rest):
    elements = emit.builder.mul(rest, ir.Constant(INDEX, 2))
    return emit.mask(elements), emit.mask(emit.builder.sub(elements, ir.Constant(INDEX, emit.lanes)))


def _put_pairs(emit, elements, out, top, bottom, j, rest):
    """The counterpart of `_pairs` for both rows: store the even and odd elements of each."""
    lanes, masks = emit.lanes, (None, None) if rest is None else _pair_masks(emit, rest)
    for row, pair in ((top, elements[:2]), (bottom, elements[2:])):
        target = emit.at(out, row, emit.builder.mul(j, ir.Constant(INDEX, 2)))
        for half, mask in enumerate(masks):
            order = [half * lanes // 2 + i // 2 + i % 2 * lanes for i in range(lanes)]
            emit.store(emit.shuffle(*pair, order), emit.at(target, half * lanes), mask)


def _first_lanes(emit, value):
    """A vector that may be wider than the emitter's, cut to its lanes."""
    return value if value.type == emit.vector else emit.shuffle(value, value, list(range(emit.lanes)))


def wins(emit, value, best):
    """Whether a value becomes the largest: a larger one does, and NaN does."""
    larger = emit.builder.fcmp_ordered(">", value, best)
    return emit.builder.or_(larger, emit.builder.fcmp_unordered("uno", value, value))


def _winners(emit, elements):
    """The largest of the elements, and for every one but the first where it replaces those before it."""
    best, where = elements[0], []
    for value in elements[1:]:
        where.append(wins(emit, value, best))
        best = emit.builder.select(where[-1], value, best)
    return best, where


def _corners(x, top, bottom, count):
    x = x.reshape(-1)
    return [x[row + column : row + column + 2 * count : 2][:count] for row in (top, bottom) for column in (0, 1)]


def _winners_twin(corners):
    best, winner = corners[0].copy(), np.zeros(corners[0].size, np.int64)
    for i, value in enumerate(corners[1:], 1):
        taken = (value > best) | (value != value)
        best[taken], winner[taken] = value[taken], i
    return best, winner


def _max_windows_twin(x, top, bottom, count, out, at):
    out.reshape(-1)[at : at + count] = _winners_twin(_corners(x, top, bottom, count))[0]


@vectorised(_max_windows_twin)
def max_windows(emit, x, top, bottom, count, out, at):
    """``out[at + j]`` = the largest element of window j; NaN beats every number."""

    def step(emit, j, rest):
        elements = (*_pairs(emit, x, top, j, rest), *_pairs(emit, x, bottom, j, rest))
        emit.store(_winners(emit, elements)[0], emit.at(out, at, j), None if rest is None else emit.mask(rest))

    _over_windows(emit, count, step)


def _argmax_windows_twin(x, top, bottom, count, out, at, places, first, width):
    best, winner = _winners_twin(_corners(x, top, bottom, count))
    out.reshape(-1)[at : at + count] = best
    places.reshape(-1)[at : at + count] = first + 2 * np.arange(count) + np.array([0, 1, width, width + 1])[winner]


@vectorised(_argmax_windows_twin)
def argmax_windows(emit, x, top, bottom, count, out, at, places, first, width):
    """As `max_windows`, and ``places[at + j]`` = where it is, when `first` is where window 0 begins.

    `places` holds integers as wide as the floats; of equal elements the first counts, of several NaN the last.
    """
    builder, bits = emit.builder, 8 * emit.itemsize

    def step(emit, j, rest):
        elements = (*_pairs(emit, x, top, j, rest), *_pairs(emit, x, bottom, j, rest))
        best, taken_by = _winners(emit, elements)
        even = ir.Constant(ir.VectorType(ir.IntType(bits), emit.lanes), list(range(0, 2 * emit.lanes, 2)))
        one = ir.Constant(even.type, [1] * emit.lanes)
        place = builder.add(emit.everywhere(builder.add(first, builder.mul(j, ir.Constant(INDEX, 2))), bits), even)
        below = builder.add(place, emit.everywhere(width, bits))
        for taken, other in zip(taken_by, (builder.add(place, one), below, builder.add(below, one)), strict=True):
            place = builder.select(taken, other, place)
        mask = None if rest is None else emit.mask(rest)
        emit.store(best, emit.at(out, at, j), mask)
        target = builder.bitcast(emit.at(places, at, j), emit.scalar.as_pointer())
        emit.store(builder.bitcast(place, emit.vector), target, mask)

    _over_windows(emit, count, step)


def _spread_windows_twin(x, top, bottom, count, grad, at, out):
    winner = _winners_twin(_corners(x, top, bottom, count))[1]
    for i, corner in enumerate(_corners(out, top, bottom, count)):
        corner[...] = np.where(winner == i, grad.reshape(-1)[at : at + count], 0)


@vectorised(_spread_windows_twin)
def spread_windows(emit, x, top, bottom, count, grad, at, out):
    """In `out`, laid out as `x`: ``grad[at + j]`` where the largest element of window j is, zeros beside it."""
    builder = emit.builder

    def step(emit, j, rest):
        elements = (*_pairs(emit, x, top, j, rest), *_pairs(emit, x, bottom, j, rest))
        (second, third, fourth) = _winners(emit, elements)[1]
        source = emit.at(grad, at, j)
        left = emit.load_vector(source) if rest is None else emit.load_masked(source, emit.mask(rest))
        shares = []
        for taken in (fourth, third, second):
            shares.append(builder.select(taken, left, emit.zero))
            left = builder.select(taken, emit.zero, left)
        _put_pairs(emit, (left, *shares[::-1]), out, top, bottom, j, rest)

    _over_windows(emit, count, step)


# Behind an affine map and a ReLU: y = max(z, 0), z = (x - middle) * scale + shift, all of them finite. `affine` holds
# middle, scale and shift. Of a window the element of the largest z is the one of the largest y, unless that is 0 and
# nobody has a gradient.


def _affine_twin(x, top, bottom, count, grad, at, affine):
    middle, scale, shift = affine[:3]
    centred, above = [corner - middle for corner in _corners(x, top, bottom, count)], grad.reshape(-1)[at : at + count]
    best, winner = _winners_twin([corner * scale + shift for corner in centred])
    return centred, winner, np.where(best <= 0, 0, above)


def _through_affine(emit, x, top, bottom, grad, at, affine, j, rest):
    """Of the windows of a vector: the elements less the middle, which of them replace those before, and the gradient
    by the largest z."""
    builder, (middle, scale, shift) = emit.builder, affine
    elements = (*_pairs(emit, x, top, j, rest), *_pairs(emit, x, bottom, j, rest))
    centred = [builder.fsub(element, middle) for element in elements]
    best, *others = [emit.multiply_add(value, scale, shift) for value in centred]
    replaces = []
    for value in others:
        replaces.append(builder.fcmp_ordered(">", value, best))
        best = builder.select(replaces[-1], value, best)
    source = emit.at(grad, at, j)
    above = emit.load_vector(source) if rest is None else emit.load_masked(source, emit.mask(rest))
    return centred, replaces, builder.select(builder.fcmp_ordered("<=", best, emit.zero), emit.zero, above)


def _constants(emit, affine, count):
    return [emit.broadcast(emit.builder.load(emit.at(affine, i))) for i in range(count)]


def _affine_sums_twin(x, top, bottom, count, grad, at, affine, sums):
    centred, winner, passed = _affine_twin(x, top, bottom, count, grad, at, affine)
    sums[0] += passed.sum()
    sums[MOST_LANES] += (passed * np.choose(winner, centred)).sum()
    sums[2 * MOST_LANES] += sum(centred).sum()


@vectorised(_affine_sums_twin)
def affine_windows_sums(emit, x, top, bottom, count, grad, at, affine, sums):
    """Add up the gradient by z over the largest elements of the windows, its product with x - middle over the same, and
    x - middle over all elements, which tells whether they are finite.

    `grad` belongs to the largest y of each window. What is to be added up in the end is ``sums[:MOST_LANES]``, the next
    `MOST_LANES`, and the next.
    """
    builder, lanes, constants = emit.builder, ir.Constant(INDEX, emit.lanes), _constants(emit, affine, 3)

    def step(j, rest):
        centred, replaces, passed = _through_affine(emit, x, top, bottom, grad, at, constants, j, rest)
        distance = centred[0]
        for taken, other in zip(replaces, centred[1:], strict=True):
            distance = builder.select(taken, other, distance)
        a, b, c, d = centred
        every = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        for number, value in enumerate((passed, builder.fmul(passed, distance), every)):
            target = emit.at(sums, number * MOST_LANES)
            emit.store_vector(builder.fadd(emit.load_vector(target), value), target)

    whole = builder.sdiv(count, lanes)
    with cgutils.for_range(builder, whole, intp=INDEX) as loop:
        step(builder.mul(loop.index, lanes), None)
    done = builder.mul(whole, lanes)
    with builder.if_then(builder.icmp_signed("!=", done, count)):
        step(done, builder.sub(count, done))  # nothing is stored under a mask


def _affine_gradient_twin(x, top, bottom, count, grad, at, affine, out):
    centred, winner, passed = _affine_twin(x, top, bottom, count, grad, at, affine)
    scale, offset, factor = affine[1], affine[3], affine[4]
    for i, (corner, value) in enumerate(zip(_corners(out, top, bottom, count), centred, strict=True)):
        corner[...] = scale * ((np.where(winner == i, passed, 0) - offset) - value * factor)


@vectorised(_affine_gradient_twin)
def affine_windows_gradient(emit, x, top, bottom, count, grad, at, affine, out):
    """In `out`, laid out as `x`: ``scale * ((d - offset) - (x - middle) * factor)``, d the gradient by z.

    `grad` belongs to the largest y of each window, so d is 0 at the other elements. Offset and factor stand behind the
    shift in `affine`.
    """
    builder, constants = emit.builder, _constants(emit, affine, 5)

    def step(emit, j, rest):
        middle, scale, shift, offset, factor = [_first_lanes(emit, value) for value in constants]
        centred, replaces, left = _through_affine(emit, x, top, bottom, grad, at, (middle, scale, shift), j, rest)
        minus, results = builder.fneg(factor), []
        for taken, value in zip((*replaces[::-1], None), centred[::-1], strict=True):
            d = builder.select(taken, left, emit.zero) if taken else left
            left = builder.select(taken, emit.zero, left) if taken else left
            results.append(builder.fmul(scale, emit.multiply_add(value, minus, builder.fsub(d, offset))))
        _put_pairs(emit, results[::-1], out, top, bottom, j, rest)

    _over_windows(emit, count, step)


def _mean_windows_twin(x, top, bottom, count, out, at):
    total = sum(_corners(x, top, bottom, count)[1:], _corners(x, top, bottom, count)[0])
    out.reshape(-1)[at : at + count] = total * x.dtype.type(0.25)


@vectorised(_mean_windows_twin)
def mean_windows(emit, x, top, bottom, count, out, at):
    """``out[at + j]`` = the mean of window j."""
    builder = emit.builder

    def step(emit, j, rest):
        (a, b), (c, d) = _pairs(emit, x, top, j, rest), _pairs(emit, x, bottom, j, rest)
        total = builder.fadd(builder.fadd(builder.fadd(a, b), c), d)
        mask = None if rest is None else emit.mask(rest)
        quarter = ir.Constant(emit.vector, [0.25] * emit.lanes)
        emit.store(builder.fmul(total, quarter), emit.at(out, at, j), mask)

    _over_windows(emit, count, step)


def _share_windows_twin(grad, at, count, out, top, bottom):
    for corner in _corners(out, top, bottom, count):
        corner[...] = grad.reshape(-1)[at : at + count] * grad.dtype.type(0.25)


@vectorised(_share_windows_twin)
def share_windows(emit, grad, at, count, out, top, bottom):
    """In `out`, a quarter of ``grad[at + j]`` in each element of window j: the adjoint of `mean_windows`."""
    builder = emit.builder

    def step(emit, j, rest):
        source = emit.at(grad, at, j)
        value = emit.load_vector(source) if rest is None else emit.load_masked(source, emit.mask(rest))
        share = builder.fmul(value, ir.Constant(emit.vector, [0.25] * emit.lanes))
        masks = (None, None) if rest is None else _pair_masks(emit, rest)
        for half, mask in enumerate(masks):
            twice = emit.shuffle(share, share, [half * emit.lanes // 2 + i // 2 for i in range(emit.lanes)])
            for row in (top, bottom):
                target = emit.at(out, row, builder.mul(j, ir.Constant(INDEX, 2)))
                emit.store(twice, emit.at(target, half * emit.lanes), mask)

    _over_windows(emit, count, step)
