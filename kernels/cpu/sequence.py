"""A sequence of launches as one native function: straight-line machine code that calls one kernel after the other.

What a kernel is called with (addresses, sizes, numbers) is known when a step has been recorded, so a launch becomes a
call with constant arguments: about 20 ns instead of the 0.4 to 1 us that Numba's dispatcher and the Python around it
take. The function is emitted here, not compiled by Numba, which would link and optimise every kernel again.
"""

import ctypes
import itertools

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types

from minigrad.kernels.cpu import thread_pool
from minigrad.kernels.cpu.compile import machine_code
from minigrad.kernels.cpu.launch import dispatcher_of, returns_nothing

INDEX, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
_names = itertools.count()


def sequence(launches):
    """A function that repeats launches.

    Parameters
    ----------
    launches : list of (str, kernel, sequence)
        Each kernel's name, the kernel, and the arguments that it is called with every time: arrays, ints, floats.

    Returns
    -------
    callable
        Takes nothing, returns nothing. It keeps the arrays alive.
    """
    parts = [(_Sequence if native else _OneByOne)(list(group)) for native, group in itertools.groupby(launches, _fits)]
    return parts[0] if len(parts) == 1 else lambda: [part() for part in parts] and None


def _fits(launch):
    """Whether a launch can be a call in machine code. A kernel that `minigrad.register_kernel` was given may not: one
    with explicit signatures, say, or that takes a tuple."""
    _, kernel, arguments = launch
    if numba.config.DISABLE_JIT:
        return False
    compiled, arguments = _compiled(kernel, arguments)
    return returns_nothing(compiled) and all(
        isinstance(kind, (types.Array, types.Boolean, types.Integer, types.Float)) for kind in compiled.signature.args)


def _compiled(kernel, arguments):
    """The machine code that a kernel runs for arguments, None if it has none for exactly their types."""
    if hasattr(kernel, "choose"):
        kernel, arguments = kernel.choose(*arguments)
    return dispatcher_of(kernel).overloads.get(tuple([numba.typeof(a) for a in arguments])), arguments


class _OneByOne:
    def __init__(self, launches):
        self.launches = launches

    def __call__(self):
        for _, kernel, arguments in self.launches:
            kernel(*arguments)


class _Sequence:
    def __init__(self, launches):
        self.launches = launches  # keeps kernels and arrays alive
        module = ir.Module(f"minigrad_sequence_{next(_names)}")
        module.triple = llvm.get_process_triple()
        function = ir.Function(module, ir.FunctionType(INDEX, []), module.name)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        result = builder.alloca(POINTER)
        error = builder.alloca(POINTER)
        for number, (_, kernel, arguments) in enumerate(launches):
            _emit_call(builder, number, kernel, arguments, result, error)
        builder.ret(INDEX(-1))
        self._engine = machine_code(module)
        self._call = ctypes.CFUNCTYPE(ctypes.c_int64)(self._engine.get_function_address(module.name))

    def __call__(self):
        with thread_pool.one_at_a_time:
            failed = self._call()
        if failed >= 0:
            raise IndexError(f"replay: kernel {self.launches[failed][0]} (launch {failed}) reported an error")


def _emit_call(builder, number, kernel, arguments, result, error):
    """Call a compiled kernel with constants; leave the function with the launch's number if it reports an error."""
    compiled, arguments = _compiled(kernel, arguments)
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    values = []
    for argument, kind in zip(arguments, compiled.signature.args, strict=True):
        values += _constants(argument, kind)
    kind = ir.FunctionType(ir.IntType(32), [result.type, error.type, *[v.type for v in values]])
    status = builder.call(builder.inttoptr(INDEX(address), kind.as_pointer()), [result, error, *values])
    failed = builder.icmp_signed("!=", status, ir.IntType(32)(0))
    with builder.if_then(failed, likely=False):
        builder.ret(INDEX(number))


def _constants(argument, kind):
    """An argument as Numba passes it: a number, or the fields of an array one by one."""
    if isinstance(argument, np.ndarray):
        null, address = POINTER(None), argument.__array_interface__["data"][0]
        element = numba.core.registry.cpu_target.target_context.get_value_type(kind.dtype)
        data = INDEX(address).inttoptr(element.as_pointer())
        numbers = [INDEX(n) for n in (*argument.shape, *argument.strides)]
        return [null, null, INDEX(argument.size), INDEX(argument.itemsize), data, *numbers]
    if isinstance(kind, types.Boolean):
        return [ir.IntType(8)(int(argument))]
    if isinstance(kind, types.Integer):
        return [ir.IntType(kind.bitwidth)(int(argument))]
    return [(ir.DoubleType() if kind == types.float64 else ir.FloatType())(float(argument))]
