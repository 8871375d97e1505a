"""The tiles of matrix products: accumulators that stay in registers while the depth runs.

`broadcast_tile` reads `a` by broadcast through any strides, so that `a` needs no packing; `dot_tile` multiplies rows by
rows, both as they lie, and adds up across the lanes at the end. Neither masks a store: rows beyond the last are the
last one again (the same value, written again), and ragged columns are the caller's to avoid by starting early. Fewer
columns than a vector has lanes are the `narrow_tile`'s, which masks what it has to.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from minigrad.kernels.cpu.emitter import INDEX, ROWS, VECTOR_BYTES, Emitter, vectorised

# TILE_ROWS x 2 accumulators, two vectors of b and a broadcast: 12 + 3 of 16 registers, or 24 + 3 of 32.
TILE_ROWS = 6 if ROWS == 4 else 12
TILE_VECTORS = 2
HALF_ROWS = TILE_ROWS // 2  # of the tile for what is left at the end of a share: 100 rows are 102 then, not 108
# Steps of the depth to a round of a tile's loop: beside loads and multiply-adds, only the pointer into b moves in each.
# Idle it makes no difference, there the multiply-adds are the limit; a core that is another's too (hyper-threading) has
# no slots to spare. AVX2, one thread, beside others: 0.89 to 0.97 of the time.
STEPS = 4
NARROW_ROWS = 6  # by one vector of columns, twice: 12 accumulators on every processor
ZERO, BIAS, SUM = 0, 1, 2  # what a tile's sums start from: nothing, the bias, or what `out` holds
# 12 accumulators, three vectors and one of 16 registers, or 24 + 6 + 1 of 32, which loads 10 vectors for 24
# multiply-adds instead of 14: 0.91 to 0.94 of the time, of rows that begin anywhere 0.70 to 0.77 (64 x 784 x 128,
# 256 x 784 x 100, 16 x 256 x 1024; two Emerald Rapids cores). The few rows behind the last six have tiles of three.
DOT_ROWS, FEW_DOT_ROWS, DOT_COLUMNS = 3 if ROWS == 4 else 6, 3, 4


def _clamped(builder, rows, limit):
    """0 ... rows - 1, each at most limit - 1."""
    last = builder.sub(limit, ir.Constant(INDEX, 1))
    numbers = [ir.Constant(INDEX, r) for r in range(rows)]
    return [numbers[0], *[builder.select(builder.icmp_signed("<", r, last), r, last) for r in numbers[1:]]]


def loop(builder, count, values, step):
    """``values = step(values)``, `count` times; returns the last ones. `values` may hold vectors and pointers, `step` a
    loop of its own."""
    before, loop, after = builder.block, builder.append_basic_block("steps"), builder.append_basic_block("done")
    zero, one = ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
    builder.cbranch(builder.icmp_signed(">", count, zero), loop, after)
    builder.position_at_end(loop)
    number = builder.phi(INDEX)
    number.add_incoming(zero, before)
    inside = []
    for value in values:
        inside.append(builder.phi(value.type))
        inside[-1].add_incoming(value, before)
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)  # else unrolled: registers run out
    results = step(inside)
    following, end = builder.add(number, one), builder.block
    number.add_incoming(following, end)
    for phi, result in zip(inside, results, strict=True):
        phi.add_incoming(result, end)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    final = []
    for value, result in zip(values, results, strict=True):
        final.append(builder.phi(value.type))
        final[-1].add_incoming(value, before)
        final[-1].add_incoming(result, end)
    return final


def _opaque(builder, value):
    """The same number or pointer, but LLVM doesn't know: else it keeps an address for every row (of a, of b) of every
    step of a round, more than there are registers."""
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], side_effect=False)


def _call(emit, name, arguments, body):
    """Emit `body` as a function of its own and call it: the tile gets all registers, and is compiled once a kernel."""
    module, builder = emit.builder.module, emit.builder
    name = f"minigrad_{name}_{emit.suffix}"
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [a.type for a in arguments]), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        body(Emitter(emit.context, inner, types.float32 if emit.itemsize == 4 else types.float64, 0), *function.args)
        inner.ret_void()
    builder.call(function, arguments)


def _zeros(emit, count):
    """A pointer to `count` zeros."""
    zeros = ir.Constant(ir.ArrayType(emit.scalar, count), [0.0] * count)
    constant = cgutils.global_constant(emit.builder.module, "minigrad_zeros", zeros)
    return emit.builder.bitcast(constant, emit.scalar.as_pointer())


def line_update(depth):
    """``f(a, a_at, a_step, b, b_at, b_step, columns, out, out_at)``: one row of a product, rows of `b` as they lie.

    ``out[out_at + j] += sum over k < depth of a[a_at + k * a_step] * b[b_at + k * b_step + j]`` for j < columns, which
    is at least a vector. The last vector starts early and leaves alone what has its sum already.
    """

    def twin(a, a_at, a_step, b, b_at, b_step, columns, out, out_at):
        k = np.arange(depth)
        right = b[b_at + k[:, None] * b_step + np.arange(columns)]
        out[out_at : out_at + columns] += (a[a_at + k * a_step][:, None] * right).sum(axis=0)

    def body(emit, a, a_step, b, b_step, columns, out):
        builder, lanes = emit.builder, ir.Constant(INDEX, emit.lanes)
        left = [emit.broadcast(builder.load(emit.at(a, builder.mul(a_step, ir.Constant(INDEX, k)))))
                for k in range(depth)]
        lines = [emit.at(b, builder.mul(b_step, ir.Constant(INDEX, k))) for k in range(depth)]

        def more(position):
            """The sum of a vector's products: two chains, for a row of few vectors waits for them."""
            chains = []
            for k in range(min(depth, 2)):
                total = builder.fmul(left[k], emit.load_vector(emit.at(lines[k], position)))
                for i in range(k + 2, depth, 2):
                    total = emit.multiply_add(left[i], emit.load_vector(emit.at(lines[i], position)), total)
                chains.append(total)
            return builder.fadd(*chains) if depth > 1 else chains[0]

        def step(values):
            (position,) = values
            target = emit.at(out, position)
            emit.store_vector(builder.fadd(emit.load_vector(target), more(position)), target)
            return [builder.add(position, lanes)]

        (done,) = loop(builder, builder.sdiv(columns, lanes), [ir.Constant(INDEX, 0)], step)
        rest = builder.sub(columns, done)
        with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(INDEX, 0))):
            position = builder.sub(columns, lanes)
            target = emit.at(out, position)
            known = emit.load_vector(target)
            finished = emit.mask(builder.sub(lanes, rest))
            emit.store_vector(builder.select(finished, known, builder.fadd(known, more(position))), target)

    @vectorised(twin)
    def update(emit, a, a_at, a_step, b, b_at, b_step, columns, out, out_at):
        _call(emit, f"line_{depth}", [emit.at(a, a_at), a_step, emit.at(b, b_at), b_step, columns,
                                      emit.at(out, out_at)], body)

    return update


def line_tile(phases, vectors):
    """``f(a, a_at, a_step, b, b_at, b_step, b_apart, depth, out, out_at)``: a short row of a product.

    ``out[out_at + j] += sum over k < depth of a[a_at + k * a_step] * b[b_at + k * b_step + j]``, for `vectors` vectors
    of columns whose first ones lie `b_apart` apart, in `out` as well. `depth` is a multiple of `phases`, each of which
    has sums of its own: few columns alone would wait for one multiply-add after the other.
    """

    def twin(a, a_at, a_step, b, b_at, b_step, b_apart, depth, out, out_at):
        k, lanes = np.arange(depth), VECTOR_BYTES // out.itemsize
        column = np.unique(b_apart * np.arange(vectors)[:, None] + np.arange(lanes))
        out[out_at + column] += (a[a_at + k * a_step][:, None] * b[b_at + k[:, None] * b_step + column]).sum(axis=0)

    def body(emit, a, a_step, b, b_step, b_apart, depth, out):
        builder = emit.builder
        down = [ir.Constant(INDEX, p) for p in range(phases)]
        across = [ir.Constant(INDEX, v) for v in range(vectors)]
        a_steps, b_steps = [builder.mul(p, a_step) for p in down], [builder.mul(p, b_step) for p in down]
        columns = [builder.mul(v, b_apart) for v in across]
        a_round, b_round = (builder.mul(ir.Constant(INDEX, phases), step) for step in (a_step, b_step))

        def step(values):
            x, y, *sums = values
            for p in range(phases):
                left, line = emit.broadcast(builder.load(emit.at(x, a_steps[p]))), emit.at(y, b_steps[p])
                for v in range(vectors):
                    right = emit.load_vector(emit.at(line, columns[v]))
                    sums[p * vectors + v] = emit.multiply_add(left, right, sums[p * vectors + v])
            return [emit.at(x, a_round), emit.at(y, b_round), *sums]

        rounds = builder.sdiv(depth, ir.Constant(INDEX, phases))
        _, _, *sums = loop(builder, rounds, [a, b, *[emit.zero] * (phases * vectors)], step)
        while len(sums) > vectors:
            half = len(sums) // 2
            sums = [builder.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
        targets = [emit.at(out, column) for column in columns]
        sums = [builder.fadd(emit.load_vector(target), total) for target, total in zip(targets, sums, strict=True)]
        for target, total in zip(targets, sums, strict=True):
            emit.store_vector(total, target)

    @vectorised(twin)
    def tile(emit, a, a_at, a_step, b, b_at, b_step, b_apart, depth, out, out_at):
        _call(emit, f"line_tile_{phases}_{vectors}", [emit.at(a, a_at), a_step, emit.at(b, b_at), b_step, b_apart,
                                                      depth, emit.at(out, out_at)], body)

    return tile


def broadcast_tile(rows, vectors, late=False, asking=False):
    """``f(a, a_at, a_row, a_depth, b, b_at, b_step, b_apart, depth, bias, bias_at, start, out, out_at, out_step,
    out_apart, m)``

    A tile of `rows` rows by `vectors` vectors of columns: ``out[i, j] = start + sum over k of
    a[a_at + i * a_row + k * a_depth] * b[b_at + k * b_step + j]`` for i < min(m, rows), where the vectors lie
    `b_apart` and `out_apart` elements apart; `start` is ZERO, BIAS (``bias[bias_at + j]``) or SUM (``out[i, j]``).
    If `late`, what the sums start from is added at the end, and asked for at the beginning: for an `out` that is not in
    the cache (1024 cubed: 6 % faster). A short depth does not repay it (64 x 10 x 2048 takes 1.4 times as long).
    If `asking`, the columns of `b` behind the tile are asked for meanwhile.
    """

    def twin(a, a_at, a_row, a_depth, b, b_at, b_step, b_apart, depth, bias, bias_at, start, out, out_at, out_step,
             out_apart, m):
        a, b, out, lanes = a.reshape(-1), b.reshape(-1), out.reshape(-1), VECTOR_BYTES // out.itemsize
        k = np.arange(depth)
        for v in range(vectors):
            right = b[b_at + v * b_apart + k[:, None] * b_step + np.arange(lanes)]
            for i in range(min(m, rows)):
                at = out_at + i * out_step + v * out_apart
                line, left = out[at : at + lanes], a[a_at + i * a_row + k * a_depth]
                first = bias_at + v * out_apart
                total = np.zeros_like(line) if start == ZERO else line if start == SUM else bias[first : first + lanes]
                line[...] = total + (left[:, None] * right).sum(axis=0)

    def body(emit, a, a_row, a_depth, b, b_step, b_apart, depth, source, source_step, source_apart,
             out, out_step, out_apart, m):
        builder = emit.builder
        numbers = _clamped(builder, rows, m)
        lines = [emit.at(a, builder.mul(i, a_row)) for i in numbers]
        apart = [builder.mul(out_apart, ir.Constant(INDEX, v)) for v in range(vectors)]
        first = [builder.mul(source_apart, ir.Constant(INDEX, v)) for v in range(vectors)]
        places = [emit.at(source, builder.mul(i, source_step), first[v]) for i in numbers for v in range(vectors)]
        if late:
            sums = [emit.zero] * len(places)
            for i in numbers:
                target = emit.at(out, builder.mul(i, out_step))
                emit.prefetch(target, writing=True)
                emit.prefetch(emit.at(target, apart[-1], emit.lanes - 1), writing=True)
        else:
            sums = [emit.load_vector(place) for place in places]
        distance = [builder.mul(b_apart, ir.Constant(INDEX, v)) for v in range(vectors)]

        def steps(values, count, a_depth):
            line, position, *sums = values
            for _ in range(count):
                right = [emit.load_vector(emit.at(line, distance[v])) for v in range(vectors)]
                for v in range(vectors, 2 * vectors if asking else vectors):
                    emit.prefetch(emit.at(line, v * emit.lanes), level=2)
                for r in range(rows):
                    left = emit.broadcast(builder.load(emit.at(lines[r], position)))
                    for v in range(vectors):
                        sums[r * vectors + v] = emit.multiply_add(left, right[v], sums[r * vectors + v])
                line, position = _opaque(builder, emit.at(line, b_step)), builder.add(position, a_depth)
                position = position if a_depth == one else _opaque(builder, position)
            return [line, position, *sums]

        one, none, several = (ir.Constant(INDEX, count) for count in (1, 0, STEPS))
        along, rounds = builder.icmp_signed("==", a_depth, one), builder.sdiv(depth, several)
        rest = builder.sub(depth, builder.mul(rounds, several))
        near, far = builder.select(along, rounds, none), builder.select(along, none, rounds)
        values = loop(builder, near, [b, none, *sums], lambda values: steps(values, STEPS, one))
        values = loop(builder, far, values, lambda values: steps(values, STEPS, a_depth))
        _, _, *sums = loop(builder, rest, values, lambda values: steps(values, 1, a_depth))
        if late:  # all is read before anything is written: rows beyond the last write the last one again
            sums = [builder.fadd(emit.load_vector(place), total) for place, total in zip(places, sums, strict=True)]
        for r, i in enumerate(numbers):
            target = emit.at(out, builder.mul(i, out_step))
            for v in range(vectors):
                emit.store_vector(sums[r * vectors + v], emit.at(target, apart[v]))

    @vectorised(twin)
    def tile(emit, a, a_at, a_row, a_depth, b, b_at, b_step, b_apart, depth, bias, bias_at, start, out, out_at,
             out_step, out_apart, m):
        builder = emit.builder
        a, b, out, bias = emit.at(a, a_at), emit.at(b, b_at), emit.at(out, out_at), emit.at(bias, bias_at)
        zeros = _zeros(emit, emit.lanes)
        nothing = ir.Constant(INDEX, 0)
        biased = builder.icmp_signed("==", start, ir.Constant(INDEX, BIAS))
        adding = builder.icmp_signed("==", start, ir.Constant(INDEX, SUM))
        source = builder.select(adding, out, builder.select(biased, bias, zeros))
        source_step = builder.select(adding, out_step, nothing)
        source_apart = builder.select(builder.or_(adding, biased), out_apart, nothing)
        _call(emit, f"tile_{rows}_{vectors}_{late:d}{asking:d}", [
            a, a_row, a_depth, b, b_step, b_apart, depth, source, source_step, source_apart, out, out_step, out_apart, m
        ], body)

    return tile


def narrow_tile(rows, phases):
    """``f(a, a_at, a_row, a_depth, b, b_at, b_step, whole, depth, bias, bias_at, start, out, out_at, out_step, columns,
    m)``

    A tile of `rows` rows by at most one vector of columns: ``out[i, j]`` as of `broadcast_tile`, for i < min(m, rows)
    and j < columns; `start` is ZERO or BIAS. The first `whole` vectors of `b` are read whole, also where a row has
    fewer columns: what the lanes beyond it make of the next row is not stored. The others are masked, so that nothing
    beyond the end of `b` is read. Each of `phases` steps of the depth has sums of its own: those of a few rows alone
    would wait for each other. One thread, AVX2: 60 x 100 x 5 in 1.9 us, packed and copied out of a square 2.8;
    64 x 2048 x 5 in 30 and 49.
    """

    def twin(a, a_at, a_row, a_depth, b, b_at, b_step, whole, depth, bias, bias_at, start, out, out_at, out_step,
             columns, m):
        a, b, out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
        k, columns = np.arange(depth), min(columns, VECTOR_BYTES // out.itemsize)
        right = b[b_at + k[:, None] * b_step + np.arange(columns)]
        for i in range(min(m, rows)):
            line = out[out_at + i * out_step :][:columns]
            first = bias[bias_at:][:columns] if start == BIAS else 0
            line[...] = first + (a[a_at + i * a_row + k * a_depth][:, None] * right).sum(axis=0)

    def body(emit, a, a_row, a_depth, b, b_step, whole, depth, first, out, out_step, columns, m):
        builder = emit.builder
        numbers = _clamped(builder, rows, m)
        lines = [emit.at(a, builder.mul(i, a_row)) for i in numbers]
        mask = emit.mask(columns)
        start = [emit.load_masked(first, mask)] * rows

        def steps(values, count, load):
            line, position, *sums = values
            for p in range(count):
                right = load(line)
                for r in range(rows):
                    left = emit.broadcast(builder.load(emit.at(lines[r], position)))
                    sums[p * rows + r] = emit.multiply_add(left, right, sums[p * rows + r])
                line, position = emit.at(line, b_step), _opaque(builder, builder.add(position, a_depth))
            return [line, position, *sums]

        rounds = builder.sdiv(whole, ir.Constant(INDEX, phases))
        rest = builder.sub(depth, builder.mul(rounds, ir.Constant(INDEX, phases)))
        values = [b, ir.Constant(INDEX, 0), *start, *[emit.zero] * (rows * (phases - 1))]
        values = loop(builder, rounds, values, lambda values: steps(values, phases, emit.load_vector))
        _, _, *sums = loop(builder, rest, values, lambda values: steps(values, 1, lambda p: emit.load_masked(p, mask)))
        while len(sums) > rows:
            half = len(sums) // 2
            sums = [builder.fadd(x, y) for x, y in zip(sums[:half], sums[half:], strict=True)]
        targets = [emit.at(out, builder.mul(i, out_step)) for i in numbers]
        full = builder.icmp_signed(">=", columns, ir.Constant(INDEX, emit.lanes))
        with builder.if_else(full) as (then, otherwise):
            with then:
                for total, target in zip(sums, targets, strict=True):
                    emit.store_vector(total, target)
            with otherwise:
                for total, target in zip(sums, targets, strict=True):
                    emit.store_masked(total, target, mask)

    @vectorised(twin)
    def tile(emit, a, a_at, a_row, a_depth, b, b_at, b_step, whole, depth, bias, bias_at, start, out, out_at, out_step,
             columns, m):
        a, b, out = emit.at(a, a_at), emit.at(b, b_at), emit.at(out, out_at)
        biased = emit.builder.icmp_signed("==", start, ir.Constant(INDEX, BIAS))
        first = emit.builder.select(biased, emit.at(bias, bias_at), _zeros(emit, emit.lanes))
        _call(emit, f"narrow_{rows}_{phases}", [a, a_row, a_depth, b, b_step, whole, depth, first, out, out_step,
                                                columns, m], body)

    return tile


def _across(emit, vectors):
    """The sums of the lanes of a few vectors (as many as fit into 16 bytes), as one vector of 16 bytes."""
    group, lanes = len(vectors), emit.lanes
    distance = group // 2
    while len(vectors) > 1:  # two vectors' lanes side by side within 16 bytes: unpack, unpack, add
        unit = group // len(vectors)
        parts = []
        for part in (0, distance):
            chosen = []
            for base in range(0, lanes, group):
                for i in range(0, group // 2, unit):
                    chosen += [base + (part + i + u) % group for u in range(unit)]
                    chosen += [lanes + base + (part + i + u) % group for u in range(unit)]
            parts.append(chosen)
        vectors = [emit.builder.fadd(emit.shuffle(x, y, parts[0]), emit.shuffle(x, y, parts[1]))
                   for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    (total,) = vectors
    while lanes > group:
        lanes //= 2
        total = emit.builder.fadd(emit.shuffle(total, total, list(range(lanes))),
                                  emit.shuffle(total, total, list(range(lanes, 2 * lanes))))
    return total


def dot_tile(rows, columns):
    """``f(a, a_at, a_row, b, b_at, b_row, depth, bias, bias_at, start, out, out_at, out_step, m)``

    ``out[i, j] = start + sum over k of a[a_at + i * a_row + k] * b[b_at + j * b_row + k]`` for i < min(m, rows) and all
    j < columns, a multiple of 4; `start` is ZERO or BIAS (``bias[bias_at + j]``).
    """

    def twin(a, a_at, a_row, b, b_at, b_row, depth, bias, bias_at, start, out, out_at, out_step, m):
        a, b, out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
        for i in range(min(m, rows)):
            for j in range(columns):
                left, right = a[a_at + i * a_row :][:depth], b[b_at + j * b_row :][:depth]
                first = bias[bias_at + j] if start == BIAS else 0
                out[out_at + i * out_step + j] = first + (left * right).sum()

    def body(emit, a, a_row, b, b_row, depth, first, out, out_step, m):
        builder = emit.builder
        numbers = _clamped(builder, rows, m)
        left = [emit.at(a, builder.mul(i, a_row)) for i in numbers]
        right = [emit.at(b, builder.mul(ir.Constant(INDEX, j), b_row)) for j in range(columns)]
        whole = builder.sdiv(depth, ir.Constant(INDEX, emit.lanes))

        def step(values, load=emit.load_vector):
            position, *sums = values
            x, results = [load(emit.at(line, position)) for line in left], list(sums)
            for j in range(columns):  # one at a time: rows + 1 registers beside the accumulators
                y = load(emit.at(right[j], position))
                for r in range(rows):
                    results[r * columns + j] = emit.multiply_add(x[r], y, sums[r * columns + j])
            return [builder.add(position, ir.Constant(INDEX, emit.lanes)), *results]

        values = loop(builder, whole, [ir.Constant(INDEX, 0), *[emit.zero] * (rows * columns)], step)
        rest = builder.sub(depth, values[0])
        mask = emit.mask(rest)
        more = builder.select(builder.icmp_signed(">", rest, ir.Constant(INDEX, 0)), ir.Constant(INDEX, 1),
                              ir.Constant(INDEX, 0))
        _, *sums = loop(builder, more, values, lambda values: step(values, lambda p: emit.load_masked(p, mask)))
        group = 16 // emit.itemsize
        for r, i in enumerate(numbers):
            target = emit.at(out, builder.mul(i, out_step))
            for j in range(0, columns, group):
                total = _across(emit, sums[r * columns + j : r * columns + j + group])
                few = total.type.as_pointer()
                start = builder.load(builder.bitcast(emit.at(first, j), few))
                store = builder.store(builder.fadd(start, total), builder.bitcast(emit.at(target, j), few))
                start.align = store.align = emit.itemsize

    @vectorised(twin)
    def tile(emit, a, a_at, a_row, b, b_at, b_row, depth, bias, bias_at, start, out, out_at, out_step, m):
        out = emit.at(out, out_at)
        biased = emit.builder.icmp_signed("==", start, ir.Constant(INDEX, BIAS))
        first = emit.builder.select(biased, emit.at(bias, bias_at), _zeros(emit, columns))
        _call(emit, f"dot_{rows}_{columns}", [emit.at(a, a_at), a_row, emit.at(b, b_at), b_row, depth, first, out,
                                              out_step, m], body)

    return tile
