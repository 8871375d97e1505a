"""The transforms of Winograd's convolution F(4x4, 3x3), its products, and the copies into and out of its layout.

Lavin and Gray, arXiv 1509.09308: a 4x4 patch of outputs is ``A.T [(G w G.T) * (B.T d B)] A`` of the 3x3 weights w and
the 6x6 patch d of inputs: 36 multiplications instead of 144. The gradient by the weight is the transposed map,
``G.T [(A g A.T) * (B.T d B)] G``. Channels are in the lanes (images are copied to (row, column, lanes of channels)), so
that a patch is 36 plain vectors wherever it lies, and a transform is the same few additions on each of them.

Only for float32: a transposition works on 128-bit quarters of a vector, four numbers each.
"""

import numpy as np
from llvmlite import ir

from minigrad.kernels.cpu.emitter import INDEX, vectorised
from minigrad.kernels.cpu.simd import lanes_of

PATCH, OUTPUT, KERNEL = 6, 4, 3  # sides of the input patch, of the output patch and of the weights
FREQUENCIES = PATCH * PATCH

# Interpolation points 0, 1, -1, 2, -2 and infinity.
INPUT = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0],
                  [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]], np.float32)
WEIGHT = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
                   [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], np.float32)
RESULT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32)


class _Line:
    """Arithmetic on vectors, with numbers as factors."""

    def __init__(self, emit):
        self.emit, self.builder = emit, emit.builder

    def constant(self, value):
        return ir.Constant(self.emit.vector, [float(np.float32(value))] * self.emit.lanes)

    def times(self, factor, x, plus=None):
        if plus is None:
            return self.builder.fmul(x, self.constant(factor))
        return self.emit.multiply_add(x, self.constant(factor), plus)

    def input(self, d):
        """``INPUT @ d``"""
        add, sub, times = self.builder.fadd, self.builder.fsub, self.times
        a, b = times(-4, d[2], d[4]), times(-4, d[1], d[3])
        c, e = sub(d[4], d[2]), sub(d[3], d[1])
        return [times(-5, d[2], times(4, d[0], d[4])), add(a, b), sub(a, b), times(2, e, c), times(-2, e, c),
                times(-5, d[3], times(4, d[1], d[5]))]

    def result(self, m):
        """``RESULT @ m``"""
        add, sub, times = self.builder.fadd, self.builder.fsub, self.times
        s, d, t, e = add(m[1], m[2]), sub(m[1], m[2]), add(m[3], m[4]), sub(m[3], m[4])
        return [add(m[0], add(s, t)), times(2, e, d), times(4, t, s), add(times(8, e, d), m[5])]

    def weight(self, w):
        """``WEIGHT @ w``"""
        add, times = self.builder.fadd, self.times
        ends, outer = times(-1 / 6, add(w[0], w[2])), times(1 / 24, times(4, w[2], w[0]))
        return [times(1 / 4, w[0]), times(-1 / 6, w[1], ends), times(1 / 6, w[1], ends), times(1 / 12, w[1], outer),
                times(-1 / 12, w[1], outer), w[2]]

    def grad(self, g):
        """``RESULT.T @ g``"""
        add, sub, times = self.builder.fadd, self.builder.fsub, self.times
        even, odd = add(g[0], g[2]), add(g[1], g[3])
        even2, odd2 = times(4, g[2], g[0]), times(4, g[3], g[1])
        return [g[0], add(even, odd), sub(even, odd), times(2, odd2, even2), times(-2, odd2, even2), g[3]]

    def grad_weight(self, s):
        """``WEIGHT.T @ s``"""
        add, sub, times = self.builder.fadd, self.builder.fsub, self.times
        a, b, c, d = add(s[1], s[2]), sub(s[2], s[1]), add(s[3], s[4]), sub(s[3], s[4])
        return [times(1 / 4, s[0], times(-1 / 6, a, times(1 / 24, c))), times(1 / 6, b, times(1 / 12, d)),
                times(1 / 6, sub(c, a), s[5])]


def _both_ways(side, load, line, store):
    """A square of vectors transformed along its columns, then along its rows."""
    columns = [line([load(i, j) for i in range(side)]) for j in range(side)]
    for i in range(len(columns[0])):
        for j, value in enumerate(line([column[i] for column in columns])):
            store(i, j, value)


def patch_transform(matrix):
    """A patch of vectors transformed: ``f(x, x_at, row_step, step, out, out_at, out_step)``.

    The patch's vector (i, j) lies at ``x_at + i * row_step + j * step``; element (i, j) of ``M p M.T`` goes to
    ``out_at + (i * rows of M + j) * out_step``. M is INPUT, WEIGHT or the transposes of RESULT and WEIGHT.
    """
    rows, side = matrix.shape
    name = {(6, 6): "input", (6, 3): "weight", (6, 4): "grad", (3, 6): "grad_weight"}[rows, side]

    def twin(x, x_at, row_step, step, out, out_at, out_step):
        x, out, lanes = x.reshape(-1), out.reshape(-1), np.arange(lanes_of(out))
        line = np.arange(side)
        patch = x[x_at + row_step * line[:, None, None] + step * line[:, None] + lanes]
        result = np.einsum("ai,ijl,bj->abl", matrix, patch, matrix)
        out[out_at + out_step * np.arange(rows * rows)[:, None] + lanes] = result.reshape(rows * rows, -1)

    @vectorised(twin)
    def transform(emit, x, x_at, row_step, step, out, out_at, out_step):
        x, out, mul = emit.at(x, x_at), emit.at(out, out_at), emit.builder.mul
        across = [mul(step, ir.Constant(INDEX, j)) for j in range(side)]
        lines = [emit.at(x, mul(row_step, ir.Constant(INDEX, i))) for i in range(side)]
        _both_ways(side, lambda i, j: emit.load_vector(emit.at(lines[i], across[j])), getattr(_Line(emit), name),
                   lambda i, j, value: emit.store_vector(
                       value, emit.at(out, mul(out_step, ir.Constant(INDEX, i * rows + j)))))

    return transform


def result_transform():
    """The products of a patch to its outputs: ``f(m, m_at, step, bias, bias_at, out, out_at, row_step, check_at)``.

    Element (i, j) of ``RESULT p RESULT.T + bias`` goes to ``out_at + i * row_step + j * lanes``. Zero times each of
    them is added to the vector at ``check_at`` of `out`: it stays zero as long as they are finite.
    """

    def twin(m, m_at, step, bias, bias_at, out, out_at, row_step, check_at):
        m, bias, out, lanes = m.reshape(-1), bias.reshape(-1), out.reshape(-1), np.arange(lanes_of(out))
        patch = m[m_at + step * np.arange(FREQUENCIES)[:, None] + lanes].reshape(PATCH, PATCH, -1)
        with np.errstate(all="ignore"):
            result = np.einsum("ai,ijl,bj->abl", RESULT, patch, RESULT) + bias[bias_at + lanes]
            line = np.arange(OUTPUT)
            out[out_at + row_step * line[:, None, None] + len(lanes) * line[:, None] + lanes] = result
            out[check_at + lanes] += (0 * result).sum((0, 1))

    @vectorised(twin)
    def transform(emit, m, m_at, step, bias, bias_at, out, out_at, row_step, check_at):
        m, check, out, mul = emit.at(m, m_at), emit.at(out, check_at), emit.at(out, out_at), emit.builder.mul
        constant = emit.load_vector(emit.at(bias, bias_at))
        flags = [emit.load_vector(check)]

        def load(i, j):
            value = emit.load_vector(emit.at(m, mul(step, ir.Constant(INDEX, PATCH * i + j))))
            # The point 1 is in all outputs alike: adding there adds to each of them.
            return emit.builder.fadd(value, constant) if i == j == 1 else value

        def store(i, j, value):
            emit.store_vector(value, emit.at(out, mul(row_step, ir.Constant(INDEX, i)), j * emit.lanes))
            flags.append(emit.multiply_add(value, emit.zero, flags[-1]))

        _both_ways(PATCH, load, _Line(emit).result, store)
        emit.store_vector(flags[-1], check)

    return transform


def product_tile(rows, vectors):
    """A matrix product's tile: ``f(a, a_at, a_row, a_depth, b, b_at, b_step, depth, c, c_at, c_step, add)``.

    ``c[i, j] (+)= sum over k of a[i * a_row + k * a_depth] * b[k * b_step + j]`` for i < rows, j < vectors * lanes.
    """

    def twin(a, a_at, a_row, a_depth, b, b_at, b_step, depth, c, c_at, c_step, add):
        a, b, c, width = a.reshape(-1), b.reshape(-1), c.reshape(-1), np.arange(vectors * lanes_of(c))
        m, k = np.arange(rows)[:, None], np.arange(depth)
        with np.errstate(all="ignore"):
            product = a[a_at + a_row * m + a_depth * k] @ b[b_at + b_step * k[:, None] + width]
            place = c_at + c_step * m + width
            c[place] = c[place] + product if add else product

    @vectorised(twin)
    def tile(emit, a, a_at, a_row, a_depth, b, b_at, b_step, depth, c, c_at, c_step, add):
        a, b, c, builder = emit.at(a, a_at), emit.at(b, b_at), emit.at(c, c_at), emit.builder
        lines = [emit.at(a, builder.mul(a_row, ir.Constant(INDEX, r))) for r in range(rows)]

        def b_vector(k):
            row = emit.at(b, builder.mul(k, b_step))
            return [emit.load_vector(emit.at(row, v * emit.lanes)) for v in range(vectors)]

        sums = emit.accumulate(rows, vectors, depth, lambda k, r: emit.at(lines[r], builder.mul(k, a_depth)), b_vector)
        targets = [[emit.at(c, builder.mul(c_step, ir.Constant(INDEX, r)), v * emit.lanes) for v in range(vectors)]
                   for r in range(rows)]
        with builder.if_else(builder.icmp_signed("!=", add, ir.Constant(INDEX, 0))) as (more, first):
            for branch, adding in ((more, True), (first, False)):
                with branch:
                    for r in range(rows):
                        for v in range(vectors):
                            value, target = sums[r][v], targets[r][v]
                            value = builder.fadd(emit.load_vector(target), value) if adding else value
                            emit.store_vector(value, target)

    return tile


def _transpose(emit, rows):
    """A square of vectors transposed: 4x4 inside each 128-bit quarter, then the quarters themselves.

    Two instructions that stay inside the quarters, then one that crosses them, per vector of AVX2.
    """
    lanes = len(rows)
    firsts = range(0, lanes, 4)

    def inside(a, b, picks):
        return emit.shuffle(a, b, [first + (i if i < 4 else lanes + i - 4) for first in firsts for i in picks])

    done = [None] * lanes
    for first in firsts:
        a, b, c, d = rows[first : first + 4]
        for half, picks in enumerate(([0, 4, 1, 5], [2, 6, 3, 7])):
            left, right = inside(a, b, picks), inside(c, d, picks)
            done[first + 2 * half] = inside(left, right, [0, 1, 4, 5])
            done[first + 2 * half + 1] = inside(left, right, [2, 3, 6, 7])
    distance = 4
    while distance < lanes:
        for i in range(lanes):
            if not i & distance:
                low, high = done[i], done[i + distance]
                done[i] = emit.shuffle(low, high, [lanes + j - distance if j & distance else j for j in range(lanes)])
                done[i + distance] = emit.shuffle(
                    low, high, [lanes + j if j & distance else j + distance for j in range(lanes)])
        distance *= 2
    return done


def channels_to_lanes():
    """A square of pixels into the lanes: ``f(x, x_at, x_step, channels, columns, out, out_at)``.

    ``out[out_at + j * lanes + i] = x[x_at + i * x_step + j]`` for i, j < lanes, zeros for i >= channels and
    j >= columns; nothing of `x` is read there.
    """

    def twin(x, x_at, x_step, channels, columns, out, out_at):
        lanes, x = lanes_of(out), x.reshape(-1)
        square = np.zeros((lanes, lanes), out.dtype)
        i, j = np.arange(min(channels, lanes)), np.arange(min(columns, lanes))
        square[: len(j), : len(i)] = x[x_at + x_step * i + j[:, None]]
        out.reshape(-1)[out_at : out_at + lanes * lanes] = square.reshape(-1)

    @vectorised(twin)
    def copy(emit, x, x_at, x_step, channels, columns, out, out_at):
        x, out, builder, lanes = emit.at(x, x_at), emit.at(out, out_at), emit.builder, emit.lanes
        lines = [emit.at(x, builder.mul(x_step, ir.Constant(INDEX, i))) for i in range(lanes)]

        def send(rows):
            for j, value in enumerate(_transpose(emit, rows)):
                emit.store_vector(value, emit.at(out, j * lanes))

        with builder.if_else(_whole(emit, channels, columns)) as (inside, edge):
            with inside:
                send([emit.load_vector(line) for line in lines])
            with edge:
                mask = emit.mask(columns)
                send([emit.load_masked(line, emit.mask_and(
                    mask, builder.icmp_signed(">", channels, ir.Constant(INDEX, i)))) for i, line in enumerate(lines)])

    return copy


def lanes_to_channels():
    """A square of pixels out of the lanes: ``f(x, x_at, channels, columns, out, out_at, out_step)``.

    ``out[out_at + i * out_step + j] = x[x_at + j * lanes + i]`` for i < channels and j < columns.
    """

    def twin(x, x_at, channels, columns, out, out_at, out_step):
        lanes, out = lanes_of(out), out.reshape(-1)
        square = x.reshape(-1)[x_at : x_at + lanes * lanes].reshape(lanes, lanes)
        i, j = np.arange(min(channels, lanes))[:, None], np.arange(min(columns, lanes))
        out[out_at + out_step * i + j] = square[j, i]

    @vectorised(twin)
    def copy(emit, x, x_at, channels, columns, out, out_at, out_step):
        x, out, builder, lanes = emit.at(x, x_at), emit.at(out, out_at), emit.builder, emit.lanes
        rows = _transpose(emit, [emit.load_vector(emit.at(x, j * lanes)) for j in range(lanes)])
        targets = [emit.at(out, builder.mul(out_step, ir.Constant(INDEX, i))) for i in range(lanes)]
        with builder.if_else(_whole(emit, channels, columns)) as (inside, edge):
            with inside:
                for row, target in zip(rows, targets, strict=True):
                    emit.store_vector(row, target)
            with edge:
                mask = emit.mask(columns)
                for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
                    valid = builder.icmp_signed(">", channels, ir.Constant(INDEX, i))
                    emit.store_masked(row, target, emit.mask_and(mask, valid))

    return copy


def _whole(emit, channels, columns):
    lanes = ir.Constant(INDEX, emit.lanes)
    return emit.builder.and_(emit.builder.icmp_signed(">=", channels, lanes),
                             emit.builder.icmp_signed(">=", columns, lanes))
