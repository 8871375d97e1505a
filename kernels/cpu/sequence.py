"""A sequence of launches as one native function: straight-line machine code that calls one kernel after the other.

What a kernel is called with (addresses, sizes, numbers) is known when a step has been recorded, so a launch becomes a
call with constant arguments: about 20 ns instead of the 0.4 to 1 us that Numba's dispatcher and the Python around it
take. The function is emitted here, not compiled by Numba, which would link and optimise every kernel again.
"""

import itertools

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types

from minigrad.kernels.cpu import thread_pool
from minigrad.kernels.cpu.compile import machine_code
from minigrad.kernels.cpu.launch import DATA, builtin, dispatcher_of, method_at, possible, python, returns_nothing

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


def relocatable(launches, pieces):
    """`sequence` for memory that lies elsewhere every time.

    Parameters
    ----------
    launches : list of (str, kernel, sequence)
    pieces : list of (array, int)
        Arrays apart from each other; what lies in them is used from the next multiple of so many bytes on. Arguments
        in the memory of one of them will be found in its successor; all others stay where they are.

    Returns
    -------
    callable or None
        Takes the successor of each piece, an array of as many bytes (None if no argument lies in it). None if one of
        the launches can't be a call in machine code.
    """
    return _Sequence(launches, pieces) if possible() and all(map(_fits, launches)) else None


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
    return getattr(dispatcher_of(kernel), "overloads", {}).get(tuple([numba.typeof(a) for a in arguments])), arguments


class _OneByOne:
    def __init__(self, launches):
        self.launches = launches

    def __call__(self):
        for _, kernel, arguments in self.launches:
            kernel(*arguments)


class _Sequence:
    def __init__(self, launches, pieces=()):
        self.names = [name for name, _, _ in launches]
        self._alive = [(kernel, [a for a in arguments if not _within(a, pieces)]) for _, kernel, arguments in launches]
        module = ir.Module(f"minigrad_sequence_{next(_names)}")
        module.triple = llvm.get_process_triple()
        kind = ir.FunctionType(INDEX, [INDEX, INDEX.as_pointer(), INDEX])
        function = ir.Function(module, kind, module.name)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        result, error, failed = builder.alloca(POINTER), builder.alloca(POINTER), builder.alloca(INDEX)
        builder.store(INDEX(-1), failed)
        used = {_within(a, pieces)[0] for _, _, arguments in launches for a in arguments if _within(a, pieces)}
        starts = [_start(builder, builder.load(builder.gep(function.args[1], [INDEX(number)])), alignment)
                  if number in used else None for number, (_, alignment) in enumerate(pieces)]
        state = python(builder, "PyEval_SaveThread", INDEX)
        end = function.append_basic_block("end")
        for number, (_, kernel, arguments) in enumerate(launches):
            status = _emit_call(builder, kernel, arguments, result, error, pieces, starts)
            with builder.if_then(builder.icmp_signed("!=", status, ir.IntType(32)(0)), likely=False):
                builder.store(INDEX(number), failed)
                builder.branch(end)
        builder.branch(end)
        builder.position_at_end(end)
        python(builder, "PyEval_RestoreThread", ir.VoidType(), state)
        builder.ret(python(builder, "PyLong_FromLongLong", INDEX, builder.load(failed)))
        self._engine = machine_code(module)
        method = method_at(self._engine.get_function_address(module.name))
        self._call = builtin(method, method)  # ctypes would take 0.15 us for each array

    def __call__(self, *arrays):
        with thread_pool.one_at_a_time:
            failed = self._call(*arrays)
        if failed >= 0:
            raise IndexError(f"replay: kernel {self.names[failed]} (launch {failed}) reported an error")


def _start(builder, array, alignment):
    """Where the memory of an array begins, given the object: `__array_interface__` would take 1.6 us to say so."""
    start = builder.load(builder.inttoptr(builder.add(array, INDEX(DATA)), INDEX.as_pointer()))
    return builder.and_(builder.add(start, INDEX(alignment - 1)), INDEX(-alignment))


def _within(argument, pieces):
    """The number of the piece of memory in which an array lies, and how far from its start; None if in none."""
    if isinstance(argument, np.ndarray):
        address = _address(argument)
        for number, (array, alignment) in enumerate(pieces):
            start = _address(array)
            if start <= address < start + array.nbytes:
                return number, address - start - -start % alignment
    return None


def _address(array):
    return array.__array_interface__["data"][0]


def _emit_call(builder, kernel, arguments, result, error, pieces, starts):
    """Call a compiled kernel with constants; returns its status, 0 unless it reports an error."""
    compiled, arguments = _compiled(kernel, arguments)
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    values = []
    for argument, kind in zip(arguments, compiled.signature.args, strict=True):
        values += _values(builder, argument, kind, pieces, starts)
    kind = ir.FunctionType(ir.IntType(32), [result.type, error.type, *[v.type for v in values]])
    return builder.call(builder.inttoptr(INDEX(address), kind.as_pointer()), [result, error, *values])


def _values(builder, argument, kind, pieces, starts):
    """An argument as Numba passes it: a number, or the fields of an array one by one."""
    if isinstance(argument, np.ndarray):
        found = _within(argument, pieces)
        address = INDEX(_address(argument)) if found is None else builder.add(starts[found[0]], INDEX(found[1]))
        element = numba.core.registry.cpu_target.target_context.get_value_type(kind.dtype)
        data = builder.inttoptr(address, element.as_pointer())
        null, numbers = POINTER(None), [INDEX(n) for n in (*argument.shape, *argument.strides)]
        return [null, null, INDEX(argument.size), INDEX(argument.itemsize), data, *numbers]
    if isinstance(kind, types.Boolean):
        return [ir.IntType(8)(int(argument))]
    if isinstance(kind, types.Integer):
        return [ir.IntType(kind.bitwidth)(int(argument))]
    return [(ir.DoubleType() if kind == types.float64 else ir.FloatType())(float(argument))]
