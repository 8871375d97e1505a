"""Vector code: the few primitives that LLVM does not find in plain loops.

A numba ``@intrinsic`` emits LLVM vectors itself: a tile of accumulators that stays in registers while the loop over
the depth runs, a transposition in registers, a masked copy. Everything clever about matrix products and convolution
is here; the kernels built on it are loops over tiles.

Every function takes flat or n-D C-contiguous arrays and positions in elements, in pairs ``array, at``, so that no
view is ever built. Under ``NUMBA_DISABLE_JIT`` each is replaced by its twin in plain NumPy.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.emitter import FREE_MASKS, INDEX, PIXELS, ROWS, VECTOR_BYTES, VECTORS, vectorised

__all__ = [
    "CACHE_LINE", "FREE_MASKS", "PIXELS", "ROWS", "VECTORS", "VECTOR_BYTES", "add_constant", "ask_to_write",
    "channels_tile", "copy_block", "copy_even", "copy_vector", "copy_window", "copy_windows", "dot_rows",
    "filter_tile", "gather_tile", "keep_scalar", "lanes_of", "put_integer", "row_tile", "transpose_block",
    "transpose_whole", "vectors_for", "zero_vector",
]

CACHE_LINE = 64  # bytes


def lanes_of(array):
    """Elements of `array` in a vector; a constant in compiled code."""
    return VECTOR_BYTES // array.itemsize


def vectors_for(rest, lanes):
    """Vectors of the next tile when `rest` columns are left: 3, but 2 and 2 rather than 3 and 1."""
    vectors = (rest + lanes - 1) // lanes
    return 2 if vectors == 4 else min(vectors, VECTORS)


if not numba.config.DISABLE_JIT:
    lanes_of, vectors_for = inline(lanes_of), inline(vectors_for)


def _keep_scalar_twin(array):
    pass


@vectorised(_keep_scalar_twin)
def keep_scalar(emit, array):
    """Inside a loop that is not worth it, keeps LLVM from vectorising and unrolling; costs no instruction.

    A prange body is compiled four times over (numba's wrappers), so that such loops are paid for in seconds.
    """
    emit.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)


def _ask_to_write_twin(array, at):
    pass


@vectorised(_ask_to_write_twin)
def ask_to_write(emit, array, at):
    """Ask for the line of an element, to be written soon."""
    emit.prefetch(emit.at(array, at), writing=True)


def _put_integer_twin(table, at, value):
    table.view(np.int32 if table.itemsize == 4 else np.int64)[at] = value


@vectorised(_put_integer_twin)
def put_integer(emit, table, at, value):
    """Keep an integer in an array of floats, in an integer of the float's width: tables live in scratch memory."""
    emit.store_integer(value, emit.at(table, at))


def _multiply_panels(a, b, c, c_at, step, add, rows, columns):
    """``c (+)= a.T @ b`` for the twins, cut to the valid part; `a` (depth, ROWS), `b` (depth, columns)."""
    flat = c.reshape(-1)
    with np.errstate(all="ignore"):
        product = (a[:, :rows, None] * b[:, None, :columns]).sum(axis=0)
        for r in range(product.shape[0]):
            line = flat[c_at + r * step : c_at + r * step + product.shape[1]]
            line[...] = line + product[r] if add else product[r]


def transpose_block(size):
    """A square transposed in registers: ``f(x, x_at, x_step, rows, columns, out, out_at, out_step)``.

    ``out[out_at + j * out_step + i] = x[x_at + i * x_step + j]`` for i < size and j < min(size, columns), with zeros
    for i >= rows; `size` is a power of two.
    """

    def twin(x, x_at, x_step, rows, columns, out, out_at, out_step):
        x, out = x.reshape(-1), out.reshape(-1)
        for j in range(min(size, columns)):
            for i in range(size):
                out[out_at + j * out_step + i] = x[x_at + i * x_step + j] if i < rows else 0

    @vectorised(twin, size)
    def block(emit, x, x_at, x_step, rows, columns, out, out_at, out_step):
        builder, lanes = emit.builder, range(size)
        x, out = emit.at(x, x_at), emit.at(out, out_at)
        flags = emit.mask(columns)
        loaded = []
        for i in lanes:
            valid = builder.icmp_signed("<", ir.Constant(INDEX, i), rows)
            line = emit.at(x, builder.mul(x_step, ir.Constant(INDEX, i)))
            loaded.append(emit.load_masked(line, emit.mask_and(flags, valid)))
        for j, column in enumerate(emit.transpose(loaded)):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(INDEX, j), columns)):
                emit.store_vector(column, emit.at(out, builder.mul(out_step, ir.Constant(INDEX, j))))

    return block


def copy_block(size):
    """A short run copied, then zeros: ``f(x, x_at, count, out, out_at)`` writes `size` elements, or a vector if 0."""

    def twin(x, x_at, count, out, out_at):
        width = size or lanes_of(out)
        count = max(0, min(count, width))
        line = out.reshape(-1)[out_at : out_at + width]
        line[:count] = x.reshape(-1)[x_at : x_at + count]
        line[count:] = 0

    @vectorised(twin, size)
    def copy(emit, x, x_at, count, out, out_at):
        emit.store_vector(emit.load_masked(emit.at(x, x_at), emit.mask(count)), emit.at(out, out_at))

    return copy


def copy_window():
    """One vector copied, zeros outside a window of lanes: ``f(x, x_at, low, high, out, out_at)``.

    Lane i of the vector at `out_at` gets ``x[x_at + i]`` if low <= i < high, else 0; no other element of `x` is read.
    """

    def twin(x, x_at, low, high, out, out_at):
        width = lanes_of(out)
        low, high = max(low, 0), min(high, width)
        line = out.reshape(-1)[out_at : out_at + width]
        line[...] = 0
        if low < high:
            line[low:high] = x.reshape(-1)[x_at + low : x_at + high]

    @vectorised(twin)
    def copy(emit, x, x_at, low, high, out, out_at):
        inside = emit.builder.and_(emit.builder.not_(emit.mask(low)), emit.mask(high))
        emit.store_vector(emit.load_masked(emit.at(x, x_at), inside), emit.at(out, out_at))

    return copy


def copy_windows():
    """`copy_window` for one row after the other, zeros above and below: a function of
    ``(x, x_at, x_step, low, high, above, inside, rows, out, out_at, out_step)``.

    Of `rows` rows, those from `above` on are copied, `inside` of them, the first from `x_at`. Rows are written in
    ascending order. With the masks made once, a row of 14 takes 2.2 ns, a call of `copy_window` 6.5 to 7.7.
    """

    def twin(x, x_at, x_step, low, high, above, inside, rows, out, out_at, out_step):
        x, out, lanes = x.reshape(-1), out.reshape(-1), lanes_of(out)
        for i in range(rows):
            line = out[out_at + i * out_step : out_at + i * out_step + lanes]
            line[...] = 0
            if above <= i < above + inside:
                source = x_at + (i - above) * x_step
                line[low:high] = x[source + low : source + min(high, lanes)]

    @vectorised(twin)
    def copy(emit, x, x_at, x_step, low, high, above, inside, rows, out, out_at, out_step):
        builder = emit.builder
        window = builder.and_(builder.not_(emit.mask(low)), emit.mask(high))
        x, out, end = emit.at(x, x_at), emit.at(out, out_at), builder.add(above, inside)

        def line(i):
            return emit.at(out, builder.mul(i, out_step))

        with cgutils.for_range(builder, above, intp=INDEX) as row:
            emit.store_vector(emit.zero, line(row.index))
        with cgutils.for_range(builder, inside, intp=INDEX) as row:
            source = emit.at(x, builder.mul(row.index, x_step))
            emit.store_vector(emit.load_masked(source, window), line(builder.add(above, row.index)))
        with cgutils.for_range(builder, builder.sub(rows, end), intp=INDEX) as row:
            emit.store_vector(emit.zero, line(builder.add(end, row.index)))

    return copy


def copy_vector():
    """One vector copied: ``f(x, x_at, out, out_at)``."""

    def twin(x, x_at, out, out_at):
        width = lanes_of(out)
        out.reshape(-1)[out_at : out_at + width] = x.reshape(-1)[x_at : x_at + width]

    @vectorised(twin)
    def copy(emit, x, x_at, out, out_at):
        emit.store_vector(emit.load_vector(emit.at(x, x_at)), emit.at(out, out_at))

    return copy


def zero_vector():
    """One vector of zeros: ``f(out, out_at)``."""

    def twin(out, out_at):
        out.reshape(-1)[out_at : out_at + lanes_of(out)] = 0

    @vectorised(twin)
    def clear(emit, out, out_at):
        emit.store_vector(emit.zero, emit.at(out, out_at))

    return clear


def copy_even():
    """Every second number of a line: ``f(x, x_at, out, out_at)``, ``out[out_at + i] = x[x_at + 2 * i]``, i < lanes."""

    def twin(x, x_at, out, out_at):
        width = lanes_of(out)
        out.reshape(-1)[out_at : out_at + width] = x.reshape(-1)[x_at : x_at + 2 * width - 1 : 2]

    @vectorised(twin)
    def copy(emit, x, x_at, out, out_at):
        x, lanes = emit.at(x, x_at), emit.lanes
        first, second = emit.load_vector(x), emit.load_vector(emit.at(x, lanes - 1))  # reads nothing beyond the last
        half = [2 * i for i in range(lanes // 2)]
        emit.store_vector(emit.shuffle(first, second, half + [lanes + 1 + i for i in half]), emit.at(out, out_at))

    return copy


def add_constant(whole=True):
    """One vector plus a number: ``f(x, x_at, y, y_at, count, out, out_at)``, ``out[out_at + i] = x[x_at + i] +
    y[y_at]`` for all lanes if `whole`, else for i < count."""

    def twin(x, x_at, y, y_at, count, out, out_at):
        width = lanes_of(out) if whole else min(count, lanes_of(out))
        with np.errstate(all="ignore"):
            out.reshape(-1)[out_at : out_at + width] = x.reshape(-1)[x_at : x_at + width] + y.reshape(-1)[y_at]

    @vectorised(twin)
    def add(emit, x, x_at, y, y_at, count, out, out_at):
        constant = emit.broadcast(emit.builder.load(emit.at(y, y_at)))
        total = emit.builder.fadd(emit.load_vector(emit.at(x, x_at)), constant)
        emit.store(total, emit.at(out, out_at), None if whole else emit.mask(count))

    return add


def dot_rows(count):
    """Sums of products along rows: ``f(x, x_at, x_step, table, table_at, y, y_at, y_step, rows, columns, c, c_at)``.

    ``c[c_at + t * lanes + l] += sum over i and j = l, l + lanes, ... of y[y_at + i * y_step + j] *
    x[x_at + table[table_at + t] + i * x_step + j]`` for t < count, i < rows, j < columns: neighbouring pixels in the
    lanes, whose sums are left to the caller. Nothing beyond a row is read.
    """

    def twin(x, x_at, x_step, table, table_at, y, y_at, y_step, rows, columns, c, c_at):
        lanes = lanes_of(c)
        integers = table.view(np.int32 if table.itemsize == 4 else np.int64)
        with np.errstate(all="ignore"):
            for t in range(count):
                for i in range(rows):
                    for j in range(columns):
                        c[c_at + t * lanes + j % lanes] += (
                            y[y_at + i * y_step + j] * x[x_at + int(integers[table_at + t]) + i * x_step + j])

    @vectorised(twin)
    def dot(emit, x, x_at, x_step, table, table_at, y, y_at, y_step, rows, columns, c, c_at):
        builder = emit.builder
        x, y, c = emit.at(x, x_at), emit.at(y, y_at), emit.at(c, c_at)
        lines = [emit.at(x, emit.load_integer(emit.at(table, table_at, t))) for t in range(count)]
        sums = [cgutils.alloca_once(builder, emit.vector) for _ in range(count)]
        for t in range(count):
            builder.store(emit.load_vector(emit.at(c, t * emit.lanes)), sums[t])
        lanes = ir.Constant(INDEX, emit.lanes)
        whole = builder.sdiv(columns, lanes)
        done = builder.mul(whole, lanes)
        rest = builder.sub(columns, done)

        def add(first, second):
            for t in range(count):
                builder.store(emit.multiply_add(first, second(t), builder.load(sums[t])), sums[t])

        with cgutils.for_range(builder, rows) as row:
            down, across = builder.mul(row.index, x_step), emit.at(y, builder.mul(row.index, y_step))
            with cgutils.for_range(builder, whole) as vector:
                j = builder.mul(vector.index, lanes)
                add(emit.load_vector(emit.at(across, j)), lambda t: emit.load_vector(emit.at(lines[t], down, j)))
            with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(INDEX, 0))):
                mask = emit.mask(rest)
                add(emit.load_masked(emit.at(across, done), mask),
                    lambda t: emit.load_masked(emit.at(lines[t], down, done), mask))
        for t in range(count):
            emit.store_vector(builder.load(sums[t]), emit.at(c, t * emit.lanes))

    return dot


def gather_tile(rows, vectors):
    """A convolution's tile: ``f(a, a_at, x, x_at, table, table_at, depth, c, c_at)``.

    ``c[i, j] = sum over k of a[k, i] * x[x_at + table[k] + j]`` for i < rows and j < vectors * lanes: neighbouring
    pixels in the lanes. `a` is packed as (depth, rows), `c` is (rows, vectors * lanes); `table` holds integers of the
    floats' width.
    """

    def twin(a, a_at, x, x_at, table, table_at, depth, c, c_at):
        width = vectors * lanes_of(c)
        offsets = table.view(np.int32 if table.itemsize == 4 else np.int64)[table_at : table_at + depth]
        left = a.reshape(-1)[a_at : a_at + depth * rows].reshape(depth, rows)
        right = x.reshape(-1)[x_at + offsets.astype(np.int64)[:, None] + np.arange(width)]
        _multiply_panels(left, right, c, c_at, width, False, rows, width)

    @vectorised(twin)
    def tile(emit, a, a_at, x, x_at, table, table_at, depth, c, c_at):
        a, x, table, c = emit.at(a, a_at), emit.at(x, x_at), emit.at(table, table_at), emit.at(c, c_at)

        def a_element(k, r):
            return emit.at(a, emit.builder.mul(k, ir.Constant(INDEX, rows)), r)

        def x_vector(k):
            line = emit.at(x, emit.load_integer(emit.at(table, k)))
            return [emit.load_vector(emit.at(line, v * emit.lanes)) for v in range(vectors)]

        sums = emit.accumulate(rows, vectors, depth, a_element, x_vector)
        for r in range(rows):
            for v in range(vectors):
                emit.store_vector(sums[r][v], emit.at(c, (r * vectors + v) * emit.lanes))

    return tile


def row_tile(rows, vectors):
    """A tile of neighbouring pixels of several output channels, stored where they belong: a function of
    ``(a, a_at, x, x_at, table, table_at, depth, y, y_at, many, count, c, c_at, c_step)``.

    ``c[c_at + i * c_step + j] = y[y_at + i] + sum over k of a[k, i] * x[x_at + table[k] + j]`` for i < many, at most
    `rows`, and j < count, of which all vectors but the last are whole. `a` and `table` are those of `gather_tile`.
    """

    def twin(a, a_at, x, x_at, table, table_at, depth, y, y_at, many, count, c, c_at, c_step):
        width = vectors * lanes_of(c)
        offsets = table.view(np.int32 if table.itemsize == 4 else np.int64)[table_at : table_at + depth]
        left = a.reshape(-1)[a_at : a_at + depth * rows].reshape(depth, rows)
        right = x.reshape(-1)[x_at + offsets.astype(np.int64)[:, None] + np.arange(width)]
        with np.errstate(all="ignore"):
            result = left.T @ right
            for i in range(min(many, rows)):
                stored = min(count, width)
                c[c_at + i * c_step : c_at + i * c_step + stored] = result[i, :stored] + y[y_at + i]

    @vectorised(twin)
    def tile(emit, a, a_at, x, x_at, table, table_at, depth, y, y_at, many, count, c, c_at, c_step):
        builder, a, x, y = emit.builder, emit.at(a, a_at), emit.at(x, x_at), emit.at(y, y_at)
        table, c = emit.at(table, table_at), emit.at(c, c_at)

        def a_element(k, r):
            return emit.at(a, builder.mul(k, ir.Constant(INDEX, rows)), r)

        def x_vector(k):
            line = emit.at(x, emit.load_integer(emit.at(table, k)))
            return [emit.load_vector(emit.at(line, v * emit.lanes)) for v in range(vectors)]

        start = [[emit.broadcast(builder.load(emit.at(y, r)))] * vectors for r in range(rows)]
        sums = emit.accumulate(rows, vectors, depth, a_element, x_vector, start)
        mask = emit.mask(builder.sub(count, ir.Constant(INDEX, (vectors - 1) * emit.lanes)))
        for r in range(rows):
            with builder.if_then(builder.icmp_signed(">", many, ir.Constant(INDEX, r))):
                line = emit.at(c, builder.mul(c_step, ir.Constant(INDEX, r)))
                for v in range(vectors):
                    emit.store(sums[r][v], emit.at(line, v * emit.lanes), mask if v == vectors - 1 else None)

    return tile


def filter_tile(rows, whole=True):
    """A tile of one output channel: a function of
    ``(a, a_at, x, x_at, x_step, table, table_at, depth, y, y_at, count, c, c_at, c_step)``.

    ``c[c_at + i * c_step + j] = y[y_at] + sum over k of a[a_at + k] * x[x_at + table[k] + i * x_step + j]`` for
    i < rows and j < lanes, or j < count if not `whole`: `rows` rows of neighbouring pixels, stored where they belong.
    """

    def twin(a, a_at, x, x_at, x_step, table, table_at, depth, y, y_at, count, c, c_at, c_step):
        lanes = lanes_of(c)
        integers = table.view(np.int32 if table.itemsize == 4 else np.int64)[table_at : table_at + depth]
        with np.errstate(all="ignore"):
            for i in range(rows):
                line = np.full(lanes, y[y_at])
                for k in range(depth):
                    at = x_at + int(integers[k]) + i * x_step
                    line += a[a_at + k] * x[at : at + lanes]
                stored = lanes if whole else min(count, lanes)
                c[c_at + i * c_step : c_at + i * c_step + stored] = line[:stored]

    @vectorised(twin)
    def tile(emit, a, a_at, x, x_at, x_step, table, table_at, depth, y, y_at, count, c, c_at, c_step):
        mul, a, x, table = emit.builder.mul, emit.at(a, a_at), emit.at(x, x_at), emit.at(table, table_at)
        lines = [emit.at(x, mul(x_step, ir.Constant(INDEX, r))) for r in range(rows)]

        def x_vectors(k):
            offset = emit.load_integer(emit.at(table, k))
            return [emit.load_vector(emit.at(line, offset)) for line in lines]

        start = emit.broadcast(emit.builder.load(emit.at(y, y_at)))
        (sums,) = emit.accumulate(1, rows, depth, lambda k, r: emit.at(a, k), x_vectors, [[start] * rows])
        mask = None if whole else emit.mask(count)
        for r in range(rows):
            emit.store(sums[r], emit.at(c, c_at, mul(c_step, ir.Constant(INDEX, r))), mask)

    return tile


def channels_tile(rows, vectors, narrow=None):
    """A convolution's tile, channels in the lanes: a function of
    ``(x, x_at, table, row_at, target_at, depth_at, b, b_at, depth, add, s, s_at, c, c_at)``.

    ``c[table[target_at + i] + j] = start + sum over k of x[x_at + table[row_at + i] + table[depth_at + k]] * b[k, j]``
    for i < rows and j < vectors * lanes, where `start` is the old value if `add`, else ``s[s_at + j]``. The rows are
    any pixels (any taps, in the gradient by the weight), and no sum across lanes is ever needed. `b` is packed as
    (depth, vectors * lanes); `table` holds integers of the floats' width. `narrow` is a smaller number of lanes.
    """

    def twin(x, x_at, table, row_at, target_at, depth_at, b, b_at, depth, add, s, s_at, c, c_at):
        lanes = np.arange(vectors * (narrow or lanes_of(c)))
        integers = table.view(np.int32 if table.itemsize == 4 else np.int64).astype(np.int64)
        row, target = integers[row_at : row_at + rows], integers[target_at : target_at + rows]
        left = x.reshape(-1)[x_at + row + integers[depth_at : depth_at + depth, None]]
        right = b.reshape(-1)[b_at : b_at + depth * lanes.size].reshape(depth, lanes.size)
        places = c_at + target[:, None] + lanes
        with np.errstate(all="ignore"):
            start = c[places] if add else s[s_at + lanes]
            c[places] = start + (left[:, :, None] * right[:, None, :]).sum(axis=0)

    @vectorised(twin, narrow)
    def tile(emit, x, x_at, table, row_at, target_at, depth_at, b, b_at, depth, add, s, s_at, c, c_at):
        builder, width = emit.builder, vectors * emit.lanes
        x, b, s, c = emit.at(x, x_at), emit.at(b, b_at), emit.at(s, s_at), emit.at(c, c_at)
        rest, depths, targets = emit.at(table, row_at), emit.at(table, depth_at), emit.at(table, target_at)
        bases = [emit.at(x, emit.load_integer(emit.at(rest, r))) for r in range(rows)]
        adding = builder.icmp_signed("!=", add, ir.Constant(INDEX, 0))
        start = []
        for r in range(rows):
            source = builder.select(adding, emit.at(c, emit.load_integer(emit.at(targets, r))), s)
            start.append([emit.load_vector(emit.at(source, v * emit.lanes)) for v in range(vectors)])
        offset = {}

        def b_vector(k):
            offset[0] = emit.load_integer(emit.at(depths, k))
            line = emit.at(b, builder.mul(k, ir.Constant(INDEX, width)))
            return [emit.load_vector(emit.at(line, v * emit.lanes)) for v in range(vectors)]

        sums = emit.accumulate(rows, vectors, depth, lambda k, r: emit.at(bases[r], offset[0]), b_vector, start)
        for r in range(rows):
            target = emit.at(c, emit.load_integer(emit.at(targets, r)))
            for v in range(vectors):
                emit.store_vector(sums[r][v], emit.at(target, v * emit.lanes))

    return tile


def transpose_whole():
    """A square of lanes x lanes transposed in registers: ``f(x, x_at, x_step, out, out_at, out_step)``.

    ``out[out_at + j * out_step + i] = x[x_at + i * x_step + j]`` for i, j < lanes.
    """

    def twin(x, x_at, x_step, out, out_at, out_step):
        lanes = np.arange(lanes_of(out))
        out[out_at + lanes[:, None] * out_step + lanes] = x[x_at + lanes * x_step + lanes[:, None]]

    @vectorised(twin)
    def block(emit, x, x_at, x_step, out, out_at, out_step):
        x, out = emit.at(x, x_at), emit.at(out, out_at)
        mul, lanes = emit.builder.mul, range(emit.lanes)
        loaded = [emit.load_vector(emit.at(x, mul(x_step, ir.Constant(INDEX, i)))) for i in lanes]
        for j, column in enumerate(emit.transpose(loaded)):
            emit.store_vector(column, emit.at(out, mul(out_step, ir.Constant(INDEX, j))))

    return block
