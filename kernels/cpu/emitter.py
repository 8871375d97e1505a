"""LLVM code for vectors, written by hand: what the intrinsics in ``simd`` are made of.

The width of the vectors is the processor's: 64 bytes with AVX-512, 32 with AVX2, else 16 (NEON, SSE). The variable
``MINIGRAD_LANES`` forces one of 64, 32 and 16, to test each width on one machine.
"""

import inspect
import os

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
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
MOST_LANES = 16  # of any processor: float32 with AVX-512
_features = llvm.get_host_cpu_features()
# Masked loads and stores are single instructions at no extra cost with AVX-512; elsewhere whole tiles avoid them.
FREE_MASKS = bool(_features.get("avx512vl"))
# AVX-512 (at any width) and ARM have 32 vector registers, the others 16.
_many_registers = FREE_MASKS or bool(_features.get("neon"))
# A tile of ROWS x VECTORS accumulators, VECTORS operands and one broadcast fill the registers: 24 + 3 + 1 of 32, or
# 12 + 3 + 1 of 16. At least 8 accumulators are needed to hide the latency of the multiply-add.
ROWS = 8 if _many_registers else 4
VECTORS = 3
# The same for two vectors of channels: 16 + 2 + 1 of 32 (more would need more addresses than there are registers), or
# 12 + 2 + 1 of 16.
PIXELS = 8 if _many_registers else 6


class Emitter:
    """The pieces of LLVM code that the intrinsics share, for arrays of one float type."""

    def __init__(self, context, builder, dtype, lanes):
        self.context, self.builder, self.dtype = context, builder, dtype
        self.itemsize = 4 if dtype == types.float32 else 8
        self.lanes = lanes or VECTOR_BYTES // self.itemsize
        self.scalar = ir.FloatType() if self.itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.itemsize}"
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def narrowed(self, lanes):
        """An emitter of vectors of so many lanes."""
        return Emitter(self.context, self.builder, self.dtype, lanes)

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

    def prefetch(self, pointer, writing=False, level=1):
        """Ask for the line of a pointer, to be read or written, in the first or second cache; it may lie anywhere."""
        small = ir.IntType(32)
        pointer = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        function = self.builder.module.declare_intrinsic(
            "llvm.prefetch.p0", fnty=ir.FunctionType(ir.VoidType(), [pointer.type, small, small, small]))
        self.builder.call(function, [pointer, *[small(number) for number in (int(writing), 4 - level, 1)]])

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
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, mask)

    def everywhere(self, number, bits=32):
        """An index in every lane, in so many bits."""
        kind = ir.IntType(bits)
        return self.broadcast(number if number.type == kind else self.builder.trunc(number, kind))

    def shuffle(self, a, b, lanes):
        """A vector of the chosen lanes of `a` (from 0) and `b` (from the number of lanes)."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def transpose(self, rows):
        """A square of vectors, transposed: first 4 x 4 inside the 128-bit lanes, which costs one instruction a
        shuffle, then ever larger halves of pairs of rows swapped."""
        size, rows, distance = len(rows), list(rows), 1
        if size >= 4:
            def pick(*four):
                return [j + i % size + (i >= size) * size for j in range(0, size, 4) for i in four]

            for i in range(0, size, 4):
                a, b, c, d = rows[i : i + 4]
                low, high = (0, size, 1, size + 1), (2, size + 2, 3, size + 3)
                ab, cd = self.shuffle(a, b, pick(*low)), self.shuffle(c, d, pick(*low))
                more_ab, more_cd = self.shuffle(a, b, pick(*high)), self.shuffle(c, d, pick(*high))
                first, second = pick(0, 1, size, size + 1), pick(2, 3, size + 2, size + 3)
                rows[i : i + 4] = (self.shuffle(ab, cd, first), self.shuffle(ab, cd, second),
                                   self.shuffle(more_ab, more_cd, first), self.shuffle(more_ab, more_cd, second))
            distance = 4
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
        every = self.everywhere(count)
        return self.builder.icmp_signed("<", ir.Constant(every.type, list(range(self.lanes))), every)

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

    def store(self, value, pointer, mask):
        """All lanes if there is no mask."""
        if mask is None:
            self.store_vector(value, pointer)
        else:
            self.store_masked(value, pointer, mask)

    def accumulate(self, rows, vectors, depth, a_element, b_vector, start=None):
        """Loop over the depth with rows x vectors accumulators in registers, from `start` or zero; returns them."""
        builder = self.builder
        before, loop, after = builder.block, builder.append_basic_block("depth"), builder.append_basic_block("done")
        zero, one = ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
        start = start or [[self.zero] * vectors] * rows
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
                sums[r][v].add_incoming(start[r][v], before)
                sums[r][v].add_incoming(results[r][v], loop)
            final.append([builder.phi(self.vector) for _ in range(vectors)])
        for r in range(rows):
            for v in range(vectors):
                final[r][v].add_incoming(start[r][v], before)
                final[r][v].add_incoming(results[r][v], loop)
        return final


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
                emitter = Emitter(context, builder, dtype, lanes)
                emit(emitter, *(emitter.data(kind, value) if isinstance(kind, types.Array) else value
                                for kind, value in zip(kinds, arguments, strict=True)))
                return context.get_dummy_value()

            return types.void(*kinds), codegen

        typer.__name__ = emit.__name__
        parameters = inspect.signature(emit).parameters.values()  # the first, the emitter, stands for typingctx
        typer.__signature__ = inspect.Signature(list(parameters))
        return intrinsic(typer)

    return decorate
