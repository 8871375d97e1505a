"""Vector code: the few primitives that LLVM does not find in plain loops.

A numba ``@intrinsic`` emits LLVM vectors itself: a tile of accumulators that stays in registers while the loop over
the depth runs, a transposition in registers, a masked copy. Everything clever about matrix products and convolution
is here; the kernels built on it are loops over tiles.

Every function takes flat or n-D C-contiguous arrays and positions in elements, in pairs ``array, at``, so that no
view is ever built. Under ``NUMBA_DISABLE_JIT`` each is replaced by its twin in plain NumPy.

The width of the vectors is the processor's: 64 bytes with AVX-512, 32 with AVX2, else 16 (NEON, SSE). The variable
``MINIGRAD_LANES`` forces one of 64, 32 and 16, to test each width on one machine.
"""

import inspect
import os

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INDEX = ir.IntType(64)


def _vector_bytes():
    forced = os.environ.get("MINIGRAD_LANES")
    if forced:
        if forced not in ("64", "32", "16"):
            raise ValueError(f"MINIGRAD_LANES expects the bytes of a vector, 64, 32 or 16, got {forced!r}")
        return int(forced)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        return 64
    return 32 if features.get("avx2") else 16


VECTOR_BYTES = _vector_bytes()
_features = llvm.get_host_cpu_features()
# Masked loads and stores are single instructions at no extra cost with AVX-512; elsewhere whole tiles avoid them.
FREE_MASKS = bool(_features.get("avx512vl"))
# AVX-512 (at any width) and ARM have 32 vector registers, the others 16.
_many_registers = FREE_MASKS or bool(_features.get("neon"))
# A tile of ROWS x VECTORS accumulators, VECTORS operands and one broadcast fill the registers: 24 + 3 + 1 of 32, or
# 12 + 3 + 1 of 16. At least 8 accumulators are needed to hide the latency of the multiply-add.
ROWS = 8 if _many_registers else 4
VECTORS = 3


class _Emitter:
    """The pieces of LLVM code that the intrinsics share, for arrays of one float type."""

    def __init__(self, context, builder, dtype, lanes):
        self.context, self.builder = context, builder
        self.itemsize = 4 if dtype == types.float32 else 8
        self.lanes = lanes or VECTOR_BYTES // self.itemsize
        self.scalar = ir.FloatType() if self.itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.itemsize}"
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def data(self, array_type, array):
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def at(self, pointer, *offsets):
        """The address `offsets` elements behind `pointer`."""
        for offset in offsets:
            offset = ir.Constant(INDEX, offset) if isinstance(offset, int) else offset
            pointer = self.builder.gep(pointer, [offset])
        return pointer

    def load_vector(self, pointer):
        value = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        value.align = self.itemsize
        return value

    def store_vector(self, value, pointer):
        store = self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()))
        store.align = self.itemsize

    def load_integer(self, pointer):
        """An integer kept in an array of floats: of the float's own width."""
        kind = ir.IntType(8 * self.itemsize)
        value = self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()))
        return value if self.itemsize == 8 else self.builder.sext(value, INDEX)

    def store_integer(self, value, pointer):
        kind = ir.IntType(8 * self.itemsize)
        value = value if self.itemsize == 8 else self.builder.trunc(value, kind)
        self.builder.store(value, self.builder.bitcast(pointer, kind.as_pointer()))

    def broadcast(self, scalar):
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, mask)

    def shuffle(self, a, b, lanes):
        """A vector of the chosen lanes of `a` (from 0) and `b` (from the number of lanes)."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def transpose(self, rows):
        """A square of vectors, transposed: swap ever larger halves of pairs of rows."""
        size, rows, distance = len(rows), list(rows), 1
        while distance < size:
            for i in range(size):
                if not i & distance:
                    low, high = rows[i], rows[i + distance]
                    rows[i] = self.shuffle(low, high, [size + j - distance if j & distance else j for j in range(size)])
                    rows[i + distance] = self.shuffle(
                        low, high, [size + j if j & distance else j + distance for j in range(size)])
            distance *= 2
        return rows

    def multiply_add(self, a, b, c):
        """``a * b + c``, fused where the processor can; elsewhere llvm.fma would be a library call per lane."""
        function = self.builder.module.declare_intrinsic(
            f"llvm.fmuladd.{self.suffix}", fnty=ir.FunctionType(self.vector, [self.vector] * 3))
        return self.builder.call(function, [a, b, c])

    def mask(self, count):
        """Which lanes are below `count`, compared in 32 bits: one instruction at any width."""
        small = ir.IntType(32)
        kind = ir.VectorType(small, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, self.builder.trunc(count, small), ir.Constant(small, 0))
        every = self.builder.shuffle_vector(one, undefined, ir.Constant(kind, [0] * self.lanes))
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(self.lanes))), every)

    def mask_and(self, mask, flag):
        """The mask where the scalar `flag` holds, else no lane."""
        return self.builder.select(flag, mask, ir.Constant(mask.type, [0] * self.lanes))

    def _masked(self, name, result, arguments):
        pointer = self.vector.as_pointer()
        flags = ir.VectorType(ir.IntType(1), self.lanes)
        kinds = {"load": [pointer, ir.IntType(32), flags, self.vector],
                 "store": [self.vector, pointer, ir.IntType(32), flags]}[name]
        function = self.builder.module.declare_intrinsic(
            f"llvm.masked.{name}.{self.suffix}.p0", fnty=ir.FunctionType(result, kinds))
        return self.builder.call(function, arguments)

    def load_masked(self, pointer, mask):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        align = ir.Constant(ir.IntType(32), self.itemsize)
        return self._masked("load", self.vector, [pointer, align, mask, self.zero])

    def store_masked(self, value, pointer, mask):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        align = ir.Constant(ir.IntType(32), self.itemsize)
        self._masked("store", ir.VoidType(), [value, pointer, align, mask])

    def accumulate(self, rows, vectors, depth, a_element, b_vector):
        """Loop over the depth with rows x vectors accumulators in registers; returns them."""
        builder = self.builder
        before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        zero, one = ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        builder.cbranch(builder.icmp_signed(">", depth, zero), loop, after)
        builder.position_at_end(loop)
        k = builder.phi(INDEX)
        k.add_incoming(zero, before)
        sums = [[builder.phi(self.vector) for _ in range(vectors)] for _ in range(rows)]
        b = b_vector(k)
        results = []
        for r in range(rows):
            a = self.broadcast(builder.load(a_element(k, r)))
            results.append([self.multiply_add(a, b[v], sums[r][v]) for v in range(vectors)])
        following = builder.add(k, one)
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        final = []
        for r in range(rows):
            for v in range(vectors):
                sums[r][v].add_incoming(self.zero, before)
                sums[r][v].add_incoming(results[r][v], loop)
            final.append([builder.phi(self.vector) for _ in range(vectors)])
        for r in range(rows):
            for v in range(vectors):
                final[r][v].add_incoming(self.zero, before)
                final[r][v].add_incoming(results[r][v], loop)
        return final

    def store_tile(self, sums, c, step, add, rows, columns):
        """Write the tile's first `rows` rows and `columns` columns to `c`, or add them to it."""
        builder, height, width = self.builder, len(sums), len(sums[0])
        adding = builder.icmp_signed("!=", add, ir.Constant(INDEX, 0))
        pointers = [self.at(c, builder.mul(step, ir.Constant(INDEX, r))) for r in range(height)]

        def masked():
            everything = builder.select(adding, columns, ir.Constant(INDEX, 0))
            for v in range(width):
                mask = self.mask(builder.sub(columns, ir.Constant(INDEX, v * self.lanes)))
                old_mask = self.mask(builder.sub(everything, ir.Constant(INDEX, v * self.lanes)))
                for r in range(height):
                    valid = builder.icmp_signed(">", rows, ir.Constant(INDEX, r))
                    target = self.at(pointers[r], v * self.lanes)
                    old = self.load_masked(target, self.mask_and(old_mask, valid))
                    self.store_masked(builder.fadd(sums[r][v], old), target, self.mask_and(mask, valid))

        def plain(before):
            for r in range(height):
                for v in range(width):
                    target = self.at(pointers[r], v * self.lanes)
                    value = builder.fadd(sums[r][v], self.load_vector(target)) if before else sums[r][v]
                    self.store_vector(value, target)

        if FREE_MASKS:
            masked()
            return
        whole = builder.and_(builder.icmp_signed(">=", rows, ir.Constant(INDEX, height)),
                             builder.icmp_signed(">=", columns, ir.Constant(INDEX, width * self.lanes)))
        with builder.if_else(whole) as (inside, edge):
            with inside, builder.if_else(adding) as (more, first):
                with more:
                    plain(True)
                with first:
                    plain(False)
            with edge:
                masked()


def vectorised(twin, lanes=None):
    """Decorate ``emit(emitter, *arguments)``, which emits LLVM code, as an intrinsic of the same arguments.

    The arguments are arrays of one float type (`emit` gets the pointers to their data) and integers. `twin` is the
    same function in NumPy, for runs without a compiler. `lanes` is for vectors narrower than the widest.
    """

    def decorate(emit):
        if numba.config.DISABLE_JIT:
            return twin

        def typer(typingctx, *given):
            kinds = [kind if isinstance(kind, types.Array) else types.int64 for kind in given]
            dtype = next(kind.dtype for kind in kinds if isinstance(kind, types.Array))

            def codegen(context, builder, signature, arguments):
                emitter = _Emitter(context, builder, dtype, lanes)
                emit(emitter, *(emitter.data(kind, value) if isinstance(kind, types.Array) else value
                                for kind, value in zip(kinds, arguments, strict=True)))
                return context.get_dummy_value()

            return types.void(*kinds), codegen

        typer.__name__ = emit.__name__
        parameters = inspect.signature(emit).parameters.values()  # the first, the emitter, stands for typingctx
        typer.__signature__ = inspect.Signature(list(parameters))
        return intrinsic(typer)

    return decorate


def lanes_of(array):
    """Elements of `array` in a vector; a constant in compiled code."""
    return VECTOR_BYTES // array.itemsize


def vectors_for(rest, lanes):
    """Vectors of the next tile when `rest` columns are left: 3, but 2 and 2 rather than 3 and 1."""
    vectors = (rest + lanes - 1) // lanes
    return 2 if vectors == 4 else min(vectors, VECTORS)


if not numba.config.DISABLE_JIT:
    lanes_of, vectors_for = numba.njit(lanes_of), numba.njit(vectors_for)


def _keep_scalar_twin(array):
    pass


@vectorised(_keep_scalar_twin)
def keep_scalar(emit, array):
    """Inside a loop that is not worth it, keeps LLVM from vectorising and unrolling; costs no instruction.

    A prange body is compiled four times over (numba's wrappers), so that such loops are paid for in seconds.
    """
    emit.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)


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


def panel_tile(rows, vectors):
    """A matrix product's tile: ``f(a, a_at, b, b_at, b_step, depth, c, c_at, c_step, add, m, n)``.

    ``c[i, j] (+)= sum over k of a[k, i] * b[k, j]`` for i < m <= rows and j < n <= vectors * lanes, where `a` is packed
    as (depth, rows) and row k of `b` lies at ``b_at + k * b_step``. `add` says whether to add to `c`.
    """

    def twin(a, a_at, b, b_at, b_step, depth, c, c_at, c_step, add, m, n):
        a, b = a.reshape(-1), b.reshape(-1)
        width = vectors * lanes_of(c)
        left = a[a_at : a_at + depth * rows].reshape(depth, rows)
        right = b[b_at + b_step * np.arange(depth)[:, None] + np.arange(width)] if depth else b[:0].reshape(0, 0)
        _multiply_panels(left, right, c, c_at, c_step, add, min(m, rows), min(n, width))

    @vectorised(twin)
    def tile(emit, a, a_at, b, b_at, b_step, depth, c, c_at, c_step, add, m, n):
        a, b, c = emit.at(a, a_at), emit.at(b, b_at), emit.at(c, c_at)
        mul = emit.builder.mul

        def a_element(k, r):
            return emit.at(a, mul(k, ir.Constant(INDEX, rows)), r)

        def b_vector(k):
            row = emit.at(b, mul(k, b_step))
            return [emit.load_vector(emit.at(row, v * emit.lanes)) for v in range(vectors)]

        sums = emit.accumulate(rows, vectors, depth, a_element, b_vector)
        emit.store_tile(sums, c, c_step, add, m, n)

    return tile


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
    """A short run copied, then zeros: ``f(x, x_at, count, out, out_at)`` writes `size` elements."""

    def twin(x, x_at, count, out, out_at):
        count = max(0, min(count, size))
        line = out.reshape(-1)[out_at : out_at + size]
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


def write_rows(vectors):
    """Part of a tile sent to its place: ``f(x, x_at, x_step, y, y_at, rows, columns, out, out_at, out_step)``.

    ``out[out_at + i * out_step + j] = x[x_at + i * x_step + j] + y[y_at + i]`` for i < rows and j < columns, where
    columns <= vectors * lanes.
    """

    def twin(x, x_at, x_step, y, y_at, rows, columns, out, out_at, out_step):
        x, y, out = x.reshape(-1), y.reshape(-1), out.reshape(-1)
        with np.errstate(all="ignore"):
            for i in range(rows):
                line = x[x_at + i * x_step : x_at + i * x_step + columns]
                out[out_at + i * out_step : out_at + i * out_step + columns] = line + y[y_at + i]

    @vectorised(twin)
    def write(emit, x, x_at, x_step, y, y_at, rows, columns, out, out_at, out_step):
        builder = emit.builder
        x, y, out = emit.at(x, x_at), emit.at(y, y_at), emit.at(out, out_at)
        for v in range(vectors):
            first = ir.Constant(INDEX, v * emit.lanes)
            with builder.if_then(builder.icmp_signed(">", columns, first)):
                mask = emit.mask(builder.sub(columns, first))
                with cgutils.for_range(builder, rows) as loop:
                    constant = emit.broadcast(builder.load(emit.at(y, loop.index)))
                    source = emit.at(x, builder.mul(loop.index, x_step), first)
                    target = emit.at(out, builder.mul(loop.index, out_step), first)
                    emit.store_masked(builder.fadd(emit.load_masked(source, mask), constant), target, mask)

    return write


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


def scatter_tile(rows, vectors):
    """A weight gradient's tile: ``f(x, x_at, table, row_at, depth_at, b, b_at, depth, c, c_at, c_step)``.

    ``c[i, j] += sum over k of x[x_at + table[row_at + i] + table[depth_at + k]] * b[k, j]`` for i < rows and
    j < vectors * lanes: output channels in the lanes, so that no sum across lanes is ever needed. `b` is packed as
    (depth, vectors * lanes); `table` holds integers of the floats' width.
    """

    def twin(x, x_at, table, row_at, depth_at, b, b_at, depth, c, c_at, c_step):
        width = vectors * lanes_of(c)
        integers = table.view(np.int32 if table.itemsize == 4 else np.int64)
        row, column = integers[row_at : row_at + rows], integers[depth_at : depth_at + depth]
        left = x.reshape(-1)[x_at + row.astype(np.int64) + column.astype(np.int64)[:, None]]
        right = b.reshape(-1)[b_at : b_at + depth * width].reshape(depth, width)
        _multiply_panels(left, right, c, c_at, c_step, True, rows, width)

    @vectorised(twin)
    def tile(emit, x, x_at, table, row_at, depth_at, b, b_at, depth, c, c_at, c_step):
        builder = emit.builder
        x, b, c, depths = emit.at(x, x_at), emit.at(b, b_at), emit.at(c, c_at), emit.at(table, depth_at)
        bases = [emit.at(x, emit.load_integer(emit.at(table, row_at, r))) for r in range(rows)]
        offset = {}

        def b_vector(k):
            offset[0] = emit.load_integer(emit.at(depths, k))
            line = emit.at(b, builder.mul(k, ir.Constant(INDEX, vectors * emit.lanes)))
            return [emit.load_vector(emit.at(line, v * emit.lanes)) for v in range(vectors)]

        sums = emit.accumulate(rows, vectors, depth, lambda k, r: emit.at(bases[r], offset[0]), b_vector)
        for r in range(rows):
            for v in range(vectors):
                target = emit.at(c, builder.mul(c_step, ir.Constant(INDEX, r)), v * emit.lanes)
                emit.store_vector(builder.fadd(emit.load_vector(target), sums[r][v]), target)

    return tile
