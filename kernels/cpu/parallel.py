"""A loop over blocks on several threads, without ``prange``.

``prange`` compiles its body as a kernel of its own, wrapper included, and optimises it together with the serial
version beside it: four to seven times the compile time of the serial loop (batch_norm_forward: 1.7 s against 0.34 s),
and a training step meets dozens of kernels for the first time. ``parallel_for`` hands one compiled function to
`thread_pool`, or calls it in a row; there is one copy of the loop, and blocks are the same on any number of threads.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, compiler
from numba.core.targetconfig import ConfigStack
from numba.extending import intrinsic

from minigrad.kernels.cpu.compile import kernel
from minigrad.kernels.cpu.thread_pool import SYMBOL, serialised

if numba.config.DISABLE_JIT:

    def parallel_for(body, count, parallel, arguments):
        for block in range(count):
            body(block, *arguments)

    def scratch(like, size):
        return np.empty(size, type(like))

    def thread_count():
        return 1

    def flat(x):
        return x.reshape(x.size)

    def only_float32(body, arguments):
        return arguments[0].itemsize == 4 and body(*arguments)

else:
    @intrinsic
    def parallel_for(typingctx, body, count, parallel, arguments):
        """Call body(block, *arguments) for block = 0 ... count - 1: on the thread pool if `parallel`, else in a row.

        `body` is a function compiled by ``inline``; it returns nothing.
        """

        def emit(context, builder, _, values):
            _, total, in_parallel, packed = values
            compiled = _part_of_kernel(context, body, arguments.types, types.none, types.intp)
            worker = _worker(context, builder.module, compiled, arguments, body.dispatcher.py_func.__code__)
            integer, pointer = ir.IntType(64), ir.PointerType(ir.IntType(8))
            # The pools' interface is that of Numba's generalised ufuncs, which step through arrays: here one of bytes
            # at address 0, so that the "address" of an element is its number.
            bases = cgutils.alloca_once_value(builder, integer(0).inttoptr(pointer))
            steps = cgutils.alloca_once_value(builder, integer(1))
            counts = cgutils.alloca_once_value(builder, total)
            failed = cgutils.alloca_once_value(builder, ir.IntType(8)(0))
            data = cgutils.pack_struct(builder, [packed, failed])
            data = builder.bitcast(cgutils.alloca_once_value(builder, data), pointer)
            with builder.if_else(cgutils.is_true(builder, in_parallel)) as (then, otherwise):
                with then:
                    threads = cgutils.get_or_insert_function(
                        builder.module, ir.FunctionType(integer, []), "get_num_threads"
                    )
                    launch = cgutils.get_or_insert_function(
                        builder.module, ir.FunctionType(ir.VoidType(), [integer] * 4), SYMBOL
                    )
                    function, packed = builder.ptrtoint(worker, integer), builder.ptrtoint(data, integer)
                    builder.call(launch, [function, total, packed, builder.call(threads, [])])
                with otherwise:
                    builder.call(worker, [bases, counts, steps, data])
            with cgutils.if_unlikely(builder, cgutils.is_true(builder, builder.load(failed))):
                context.call_conv.return_user_exc(builder, IndexError, ("a kernel read or wrote outside its arrays",))
            return context.get_dummy_value()

        return types.void(body, types.intp, types.boolean, arguments), emit

    def _part_of_kernel(context, body, kinds, result, *before):
        """A body compiled into the kernel's own library, with its options: linked as a library of its own, it would be
        optimised and turned into machine code twice."""
        flags = ConfigStack().top().copy()
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.nrt = True
        return compiler.compile_internal(context.typing_context, context, context.active_code_library,
                                         body.dispatcher.py_func, (*before, *kinds), result, flags, {})

    @intrinsic
    def only_float32(typingctx, body, arguments):
        """What ``body(*arguments)``, a truth value, returns if the first of them is an array of float32, else False.

        An ``overload`` that is copied into its caller would be compiled on its own as well: with Winograd's method in
        it, ``correlate`` took 9.0 s instead of 5.7.
        """

        def emit(context, builder, _, values):
            if arguments.types[0].dtype != types.float32:
                return context.get_constant(types.boolean, False)
            compiled = _part_of_kernel(context, body, arguments.types, types.boolean)
            status, result = context.call_conv.call_function(
                builder, context.declare_function(builder.module, compiled.fndesc), compiled.signature.return_type,
                compiled.signature.args, [builder.extract_value(values[1], i) for i in range(len(arguments.types))])
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return result

        return types.boolean(body, arguments), emit

    def _worker(context, module, compiled, arguments, code):
        """The function that the pool calls: the body for each of counts[0] blocks from block bases[0] on.

        A body raises only under NUMBA_BOUNDSCHECK; it then sets the flag behind the arguments.
        """
        integer, pointer = ir.IntType(64), ir.PointerType(ir.IntType(8))
        parameters = [ir.PointerType(pointer), ir.PointerType(integer), ir.PointerType(integer), pointer]
        name = module.get_unique_name("parallel_for_worker")
        worker = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), name)
        worker.linkage = "internal"
        builder = ir.IRBuilder(worker.append_basic_block("entry"))
        if ConfigStack().top().dbg_directives_only:  # LLVM drops the lines of what it inlines into a function without
            lines = context.DIBuilder(module, code.co_filename, context, directives_only=True)
            lines.mark_subprogram(worker, name, (), (), code.co_firstlineno)
            lines.mark_location(builder, code.co_firstlineno)
            lines.finalize()
        bases, counts, _, data = worker.args
        first = builder.ptrtoint(builder.load(bases), integer)
        count = builder.load(counts)
        layout = ir.LiteralStructType([context.get_value_type(arguments), pointer])
        content = builder.load(builder.bitcast(data, ir.PointerType(layout)))
        packed, failed = builder.extract_value(content, 0), builder.extract_value(content, 1)
        unpacked = [builder.extract_value(packed, i) for i in range(len(arguments.types))]
        called = context.declare_function(module, compiled.fndesc)
        with cgutils.for_range(builder, count, intp=integer) as loop:
            status, _ = context.call_conv.call_function(
                builder,
                called,
                compiled.signature.return_type,
                compiled.signature.args,
                [builder.add(first, loop.index), *unpacked],
            )
            with cgutils.if_unlikely(builder, status.is_error):
                builder.store(ir.IntType(8)(1), failed)
        builder.ret_void()
        return worker

    @intrinsic
    def thread_count(typingctx):
        """How many threads `parallel_for` would use: for the shape of blocks that no result depends on.

        Numba's own get_num_threads bakes an address into the code, which a kernel from the cache does not survive.
        """

        def emit(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.IntType(64), [])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, "get_num_threads"), [])

        return types.intp(), emit

    def _line(context, builder, kind, data, count):
        """An array of one dimension: `count` numbers at `data`."""
        array, itemsize = context.make_array(kind)(context, builder), context.get_constant(
            types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        context.populate_array(array, data=data, shape=[count], strides=[itemsize], itemsize=itemsize, meminfo=None)
        return array._getvalue()

    @intrinsic
    def scratch(typingctx, like, size):
        """An uninitialised array of `size` (a literal) numbers of the type of the number `like`, on the stack.

        It begins at a line of the cache: where the stack happened to be, every other vector lay across two, and the
        gradient of batch normalisation took (256, 100) 1.15 to 1.3 times as long (Emerald Rapids, 32-byte vectors).
        Made of ``carray`` and compiled as a function, each size took 60 ms of compile time instead of 7.
        """
        if not isinstance(size, types.IntegerLiteral):
            raise numba.TypingError("scratch: the size must be a literal")
        kind = types.Array(like, 1, "C")

        def emit(context, builder, signature, arguments):
            data = cgutils.alloca_once(builder, context.get_data_type(like), size=size.literal_value)
            data.align = 64
            return _line(context, builder, kind, data, context.get_constant(types.intp, size.literal_value))

        return kind(like, size), emit

    @intrinsic
    def flat(typingctx, x):
        """``x.reshape(x.size)`` of a C-contiguous array, compiled sooner: 20 of them in 0.09 s instead of 0.25."""
        if x.layout != "C":
            raise numba.TypingError("flat: the array must be C-contiguous")
        kind = x.copy(ndim=1)

        def emit(context, builder, signature, arguments):
            array = context.make_array(x)(context, builder, arguments[0])
            return _line(context, builder, kind, array.data, array.nitems)

        return kind(x), emit


def merged(function):
    """A helper that Numba copies into its caller before typing it: one compilation less than ``inline`` (about 20 %
    of a kernel's), but the caller's fast-math flags apply."""
    return numba.njit(function, inline="always")


def parallel_kernel(function=None, *, name=None):
    """Compile a kernel that calls `parallel_for`: as ``kernel``, and safe to call from several Python threads."""
    if function is None:
        return lambda f: parallel_kernel(f, name=name)
    return serialised(kernel(function, name=name))
