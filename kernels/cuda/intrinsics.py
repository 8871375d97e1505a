"""Instructions that Python has no word for, each with a twin in plain Python that the emulator runs.

``TWINS`` maps what a kernel refers to to what it means in the emulator.
"""

import numpy as np

from minigrad.kernels.cuda import toolkit

TWINS = {}

if toolkit.HAS_COMPILER:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.cuda.extending import intrinsic

    def instruction(twin):
        """Make an intrinsic of the function below the decorator, with a twin."""

        def decorate(function):
            made = intrinsic(function)
            TWINS[made] = twin
            return made

        return decorate
else:

    def instruction(twin):
        """Without the compiler the twin is all there is."""

        def decorate(function):
            TWINS[twin] = twin
            return twin

        return decorate


def _unsigned(operation):
    """A 32-bit unsigned operation: of 64 bits, as Numba makes it of int32, an index split takes 296 instructions
    and a call; of 32 bits 48."""

    def typed(typingctx, a, b):
        def emit(context, builder, signature, arguments):
            word = ir.IntType(32)
            a, b = [context.cast(builder, value, kind, types.uint32)
                    for value, kind in zip(arguments, signature.args, strict=True)]
            return getattr(builder, operation)(a, b) if a.type == word else None

        return types.int32(a, b), emit

    return typed


def _div32(a, b):
    return int(a) // int(b)


def _rem32(a, b):
    return int(a) % int(b)


div32 = instruction(_div32)(_unsigned("udiv"))
rem32 = instruction(_rem32)(_unsigned("urem"))


@instruction(None)  # the emulator's own
def thread_index(typingctx):
    """blockIdx.x * blockDim.x + threadIdx.x, an int32."""

    def emit(context, builder, signature, arguments):
        word = ir.IntType(32)
        kind = ir.FunctionType(word, [])
        read = [
            builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.nvvm.read.ptx.sreg.{name}.x"), [])
            for name in ("ctaid", "ntid", "tid")
        ]
        return builder.add(builder.mul(read[0], read[1]), read[2])

    return types.int32(), emit


def _pointer_to(context, builder, kind, value, index, index_kind, width):
    """A pointer to a vector of `width` elements at ``value[index]``, of a pointer or of a shared or local array."""
    index = context.cast(builder, index, index_kind, types.intp)
    if not isinstance(kind, types.CPointer):
        value = cgutils.create_struct_proxy(kind)(context, builder, value).data
    at = builder.gep(value, [index])
    vector = ir.VectorType(context.get_data_type(kind.dtype), width)
    return builder.bitcast(at, ir.PointerType(vector, at.type.addrspace)), vector


def _load4(x, i):
    return x[i], x[i + 1], x[i + 2], x[i + 3]


def _store4(x, i, a, b, c, d):
    x[i], x[i + 1], x[i + 2], x[i + 3] = a, b, c, d


def _width(kind):
    """How many elements one instruction moves, and what their address must be a multiple of."""
    width = 2 if kind.dtype.bitwidth == 64 else 4
    return width, width * kind.dtype.bitwidth // 8


@instruction(_load4)
def load4(typingctx, x, i):
    """x[i], x[i + 1], x[i + 2], x[i + 3] of a pointer or of a one-dimensional array, by 128-bit loads.

    The address must be a multiple of 16 bytes: i a multiple of 4, the array one that begins an allocation. Four bytes
    are one 32-bit load, and their address a multiple of 4.
    """

    def emit(context, builder, signature, arguments):
        (width, alignment), items = _width(x), []
        for part in range(0, 4, width):
            at, _ = _pointer_to(context, builder, x, arguments[0],
                                builder.add(arguments[1], arguments[1].type(part)), signature.args[1], width)
            vector = builder.load(at, align=alignment)
            items += [builder.extract_element(vector, ir.IntType(32)(k)) for k in range(width)]
        return context.make_tuple(builder, signature.return_type, items)

    return types.UniTuple(x.dtype, 4)(x, i), emit


@instruction(_store4)
def store4(typingctx, x, i, a, b, c, d):
    """The same for storing."""

    def emit(context, builder, signature, arguments):
        (width, alignment), values = _width(x), arguments[2:]
        for part in range(0, 4, width):
            at, vector = _pointer_to(context, builder, x, arguments[0],
                                     builder.add(arguments[1], arguments[1].type(part)), signature.args[1], width)
            packed = vector(ir.Undefined)
            for k in range(width):
                packed = builder.insert_element(packed, values[part + k], ir.IntType(32)(k))
            builder.store(packed, at, align=alignment)
        return context.get_dummy_value()

    return types.void(x, i, *[x.dtype] * 4), emit


def _divide(a, b):
    return a / b


def _reciprocal_root(x):
    return type(x)(1) / x**0.5


def _float_instruction(text, wide, arguments):
    """An operation of float32 by one instruction of PTX, of float64 by `wide` (builder, arguments)."""

    def emit(context, builder, signature, values):
        values = [context.cast(builder, value, kind, signature.return_type)
                  for value, kind in zip(values, signature.args, strict=True)]
        if signature.return_type == types.float64:
            return wide(context, builder, values)
        single = ir.FloatType()
        function = ir.FunctionType(single, [single] * arguments)
        return builder.call(ir.InlineAsm(function, text, "=f" + ",f" * arguments, side_effect=False), values)

    return emit


def _wide_reciprocal_root(context, builder, values):
    double = ir.DoubleType()
    root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(double, [double]), "__nv_sqrt")
    return builder.fdiv(double(1.0), builder.call(root, values))


@instruction(_divide)
def divide(typingctx, a, b):
    """a / b of T, float32 within 2 units in the last place: IEEE division calls a routine for rare operands."""
    wide = types.float64 in (a, b)
    emit = _float_instruction("div.full.f32 $0, $1, $2;", lambda c, builder, values: builder.fdiv(*values), 2)
    return (types.float64 if wide else types.float32)(a, b), emit


@instruction(_reciprocal_root)
def reciprocal_root(typingctx, x):
    """1 / √x of T, float32 within 2 units in the last place."""
    return x(x), _float_instruction("rsqrt.approx.f32 $0, $1;", _wide_reciprocal_root, 1)


# -- tensor cores ------------------------------------------------------------------------------------------------------


BELOW_TF32 = np.uint32(0x1FFF)  # the bits of a float32 that tf32 has not


def _round_tf32(x):
    if not np.isfinite(x):
        return np.float32(x)
    bits = np.float32(x).view(np.uint32)  # a carry out of the mantissa is the next exponent, out of that infinity
    return ((bits + np.uint32(0x1000)) & ~BELOW_TF32).view(np.float32)


def _bits_of(x):
    return np.float32(x).view(np.uint32)


@instruction(_bits_of)
def bits_of(typingctx, x):
    """The bits of a float32, a uint32."""

    def emit(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), emit


def _bf16(x):
    """The bits of a number rounded to bfloat16, the upper half of a float32: to nearest, ties to even."""
    if np.isnan(x):
        return np.uint32(0x7FFF)
    bits = _bits_of(x)  # a carry out of the mantissa is the next exponent, out of that infinity
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


def _pack_bf16(low, high):
    return ((_bf16(high) << np.uint32(16)) | _bf16(low)).view(np.float32)


@instruction(_round_tf32)
def round_tf32(typingctx, x):
    """A float32 rounded to tf32: 10 bits of mantissa, to nearest, ties away from zero."""

    def emit(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
        word = builder.call(ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f", side_effect=False), arguments)
        return builder.bitcast(word, ir.FloatType())

    return types.float32(types.float32), emit


@instruction(_pack_bf16)
def pack_bf16(typingctx, low, high):
    """Two float32 numbers rounded to bfloat16 (7 bits of mantissa, to nearest, ties to even) in the halves of a word.

    The word is a float32 by type only, so that it may lie where float32 numbers do: move it, compute nothing with it.
    """

    def emit(context, builder, signature, arguments):
        single = ir.FloatType()
        kind = ir.FunctionType(ir.IntType(32), [single, single])
        text = "cvt.rn.bf16x2.f32 $0, $2, $1;"  # PTX names the upper half first
        return builder.bitcast(builder.call(ir.InlineAsm(kind, text, "=r,f,f", side_effect=False), arguments), single)

    return types.float32(types.float32, types.float32), emit


def _no_mma(*operands):
    raise NotImplementedError("mma_sync: 32 lanes make one product together; the emulator has words of its own")


def _mma(kinds):
    """Typing of a product of the warp by the PTX instruction for shape and types: six words and four sums to four."""

    def emit(context, builder, signature, arguments):
        single, word = ir.FloatType(), ir.IntType(32)
        kind = ir.FunctionType(ir.LiteralStructType([single] * 4), [word] * 6 + [single] * 4)
        text = (f"mma.sync.aligned.{kinds} "
                "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};")
        call = ir.InlineAsm(kind, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", side_effect=True)
        fragments = [builder.bitcast(value, word) for value in arguments[:6]]
        made = builder.call(call, fragments + list(arguments[6:]), attrs=("convergent",))
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(made, i) for i in range(4)])

    return types.UniTuple(types.float32, 4)(*[types.float32] * 10), emit


@instruction(_no_mma)  # the emulator's own
def mma_tf32_sync(typingctx, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """The four elements of c + a @ b that belong to this lane; a is 16 x 8, b 8 x 8, c 16 x 8, spread over the warp.

    With g = lane // 4 and t = lane % 4 a lane holds of a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); of b: (t, g),
    (t + 4, g); of c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). (PTX ISA, "Matrix Fragments for mma.m16n8k8",
    .tf32.) The elements of a and b must be of tf32.
    """
    return _mma("m16n8k8.row.col.f32.tf32.tf32.f32")


@instruction(_no_mma)  # the emulator's own
def mma_bf16_sync(typingctx, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """The same with words of two bfloat16 numbers in place of elements of a and b: a is 16 x 16, b 16 x 8.

    Word w of a row of a, or of a column of b, holds its elements 2w (the lower half) and 2w + 1, see `pack_bf16`. (PTX
    ISA, "Matrix Fragments for mma.m16n8k16 with floating point type", .bf16.)
    """
    return _mma("m16n8k16.row.col.f32.bf16.bf16.f32")
