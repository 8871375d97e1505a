"""Launches from Python without Numba's dispatcher.

The dispatcher finds out the types of the arguments anew at every call, packs them into a tuple and unpacks it again:
0.32 us for one of three arrays. Here a kernel that is called often gets a small function of its own, with the types
that it was called with built in: it compares four words per array, reads address and extents out of the array objects
and calls the kernel's machine code. What does not fit (another dtype, a number of another type, a read-only array) goes
on to the dispatcher. Measured on `mul` of 8 elements: 0.14 us a launch instead of 0.32, a recorded op 2.4 us instead of
2.7, its gradient in a chain 8.3 instead of 9.7.
"""

import ctypes
import functools
import sys
import sysconfig

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import CPUDispatcher
from numba.np.numpy_support import as_dtype

from minigrad.kernels.cpu.compile import machine_code

WORD, HALF, POINTER = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
OFTEN = 32  # calls before a kernel gets a function of its own, which takes 4 to 13 ms to make
MOST = 4  # functions for one kernel, of different types

# Where CPython and NumPy keep what is read here, in bytes from an object's start (object.h, cpython/tupleobject.h and
# numpy/ndarraytypes.h). NumPy's are the same since 1.0; a tuple's items follow its head, which grew in Python 3.14.
TYPE, ITEMS = 8, tuple.__basicsize__
DATA, NDIM, EXTENTS, STRIDES, DTYPE, FLAGS = 16, 24, 32, 40, 56, 64
USABLE = 0x0001 | 0x0100 | 0x0400  # NPY_ARRAY_C_CONTIGUOUS, ALIGNED, WRITEABLE
METH_FASTCALL = 0x0080
NAME = b"kernel"  # of every method


def possible():
    """Whether objects lie in memory as this file takes it for granted."""
    if (numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK or sys.implementation.name != "cpython"
            or sys.maxsize < 2**32 or object.__basicsize__ != 16 or sysconfig.get_config_var("Py_GIL_DISABLED")):
        return False
    x, pair = np.zeros((2, 3), np.float32), (int, float)
    word, half = ctypes.c_int64.from_address, ctypes.c_int32.from_address
    extents, strides = word(id(x) + EXTENTS).value, word(id(x) + STRIDES).value
    return (
        word(id(x) + TYPE).value == id(np.ndarray) and word(id(x) + DATA).value == x.ctypes.data
        and half(id(x) + NDIM).value == 2 and half(id(x) + FLAGS).value & USABLE == USABLE
        and [word(extents + 8 * i).value for i in range(2)] == [2, 3]
        and [word(strides + 8 * i).value for i in range(2)] == [12, 4]
        and word(id(x) + DTYPE).value == id(np.dtype(np.float32))
        and [word(id(pair) + ITEMS + 8 * i).value for i in range(2)] == [id(int), id(float)]
    )  # fmt: skip


class Launcher:
    """A kernel as Python code calls it: its dispatcher, until one signature turns out to be frequent.

    Parameters
    ----------
    dispatcher : numba dispatcher
    module : module
    name : str
        The kernel's in the module, where this launcher is put, and later what it makes.
    """

    def __init__(self, dispatcher, module, name):
        self.dispatcher, self.module, self.__name__ = dispatcher, module, name
        self.run = dispatcher
        self.calls, self.front = 0, {}  # the functions made so far by their types, the latest last
        setattr(module, name, self)

    def __call__(self, *arguments):
        self.run(*arguments)
        self.calls += 1
        if self.calls % OFTEN == 0:
            self._specialise(arguments)

    def _specialise(self, arguments):
        """Make a function for these types, unless it is there and somebody just holds on to this launcher."""
        kinds = tuple([numba.typeof(a) for a in arguments])
        compiled = self.dispatcher.overloads.get(kinds)
        in_place = [self, *self.front.values()]
        if (not returns_nothing(compiled) or kinds in self.front or len(self.front) == MOST
                or not all(map(_is_plain, arguments, kinds)) or getattr(self.module, self.__name__) not in in_place):
            return
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        method = method_at(_code(kinds))
        _kept.append(method)
        self.front[kinds] = builtin(method, (in_place[-1], address))
        setattr(self.module, self.__name__, self.front[kinds])


def dispatcher_of(kernel):
    """Numba's dispatcher of what a device's kernels hold."""
    while isinstance(kernel, type(len)):
        kernel = kernel.__self__[0]
    return getattr(kernel, "dispatcher", kernel)


def returns_nothing(compiled):
    """Whether there is a compiled kernel, and one that keeps to the contract: what it returned would be written where
    there is no room for it."""
    return compiled is not None and compiled.signature.return_type == types.none


def _is_plain(value, kind):
    """Whether a function would know the argument again."""
    if isinstance(kind, types.Array):
        usable = kind.layout == "C" and kind.mutable and kind.aligned
        return usable and type(value) is np.ndarray and value.dtype is as_dtype(kind.dtype)
    return type(value) in (int, float)


class _MethodDef(ctypes.Structure):
    """PyMethodDef of methodobject.h."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p))


_kept = []  # method definitions and machine code: functions refer to them, also when the interpreter ends
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))


def method_at(address):
    """The definition of a method whose machine code, ``(bound, arguments, how many) -> result``, is at an address; as
    bytes, which the garbage collector does not take apart before the function that refers to them."""
    return bytes(_MethodDef(NAME, address, METH_FASTCALL, None))


def builtin(method, bound):
    """A builtin function of Python, which gives its code `bound` as the first argument. Somebody has to keep the
    definition for as long as the function exists; `bound` may."""
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return kind(("PyCFunction_NewEx", ctypes.pythonapi))(ctypes.cast(method, ctypes.c_void_p), bound, None)


def python(builder, name, result, *arguments):
    """Emit a call of a function of Python's C interface with words."""
    address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(builder.inttoptr(WORD(address), kind.as_pointer()), arguments)


def functions_made():
    """How many pieces of code there are by now; whoever times launches asks whether one has made another."""
    return len(_kept)


@functools.cache
def _code(kinds):
    """The address of the machine code for arguments of these types: (bound, arguments, how many) -> None."""
    module = ir.Module(f"minigrad_launch_{len(_kept)}")
    module.triple = llvm.get_process_triple()
    function = ir.Function(module, ir.FunctionType(WORD, [WORD, WORD.as_pointer(), WORD]), module.name)
    _Emission(function, kinds).emit()
    engine = machine_code(module)
    _kept.append(engine)
    return engine.get_function_address(module.name)


class _Emission:
    """Writes one function: are the arguments what they should be, then the kernel, else the one behind."""

    def __init__(self, function, kinds):
        self.bound, self.arguments, self.count = function.args
        self.kinds = kinds
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.other = function.append_basic_block("other")

    def emit(self):
        builder = self.builder
        self.require(builder.icmp_signed("==", self.count, WORD(len(self.kinds))))
        objects = [builder.load(builder.gep(self.arguments, [WORD(i)])) for i in range(len(self.kinds))]
        for value, kind in zip(objects, self.kinds, strict=True):
            self.check(value, kind)
        integers = [v for v, kind in zip(objects, self.kinds, strict=True) if kind == types.int64]
        self.numbers = {value: self.integer(value) for value in integers}
        values = [v for value, kind in zip(objects, self.kinds, strict=True) for v in self.unpacked(value, kind)]
        places = [builder.alloca(POINTER), builder.alloca(POINTER)]  # of a result and an exception: there are none
        number = self.word(self.bound, ITEMS + 8)
        address = self.python("PyLong_AsLongLong", WORD, number)
        kind = ir.FunctionType(HALF, [places[0].type, places[1].type, *[v.type for v in values]])
        state = self.python("PyEval_SaveThread", WORD)
        status = builder.call(builder.inttoptr(address, kind.as_pointer()), [*places, *values])
        self.python("PyEval_RestoreThread", ir.VoidType(), state)
        self.require(builder.icmp_signed("==", status, HALF(0)))  # or the dispatcher meets the error again and raises
        none = WORD(id(None))
        self.python("Py_IncRef", ir.VoidType(), none)
        builder.ret(none)
        builder.position_at_end(self.other)
        behind = self.word(self.bound, ITEMS)
        builder.ret(self.python("PyObject_Vectorcall", WORD, behind, builder.ptrtoint(self.arguments, WORD),
                                self.count, WORD(0)))

    def require(self, condition):
        """Go on to the one behind unless a condition holds."""
        block = self.builder.append_basic_block()
        self.builder.cbranch(condition, block, self.other)
        self.builder.position_at_end(block)

    def word(self, address, offset, kind=WORD):
        """The word (or another number) some bytes behind an address."""
        return self.builder.load(self.builder.inttoptr(self.builder.add(address, WORD(offset)), kind.as_pointer()))

    def python(self, name, result, *arguments):
        """Call a function of Python's C interface with words."""
        return python(self.builder, name, result, *arguments)

    def check(self, value, kind):
        """Require an object to be of exactly the type that Numba has compiled for."""
        equal = functools.partial(self.builder.icmp_signed, "==")
        array = isinstance(kind, types.Array)
        expected = np.ndarray if array else int if kind == types.int64 else float
        self.require(equal(self.word(value, TYPE), WORD(id(expected))))
        if array:
            self.require(equal(self.word(value, DTYPE), WORD(id(as_dtype(kind.dtype)))))  # NumPy keeps one of each
            self.require(equal(self.word(value, NDIM, HALF), HALF(kind.ndim)))
            flags = self.builder.and_(self.word(value, FLAGS, HALF), HALF(USABLE))
            self.require(equal(flags, HALF(USABLE)))

    def integer(self, value):
        """An int as a word; what does not fit into one is the dispatcher's to refuse."""
        number = self.python("PyLong_AsLongLong", WORD, value)
        failed = self.builder.icmp_signed("==", number, WORD(-1))
        with self.builder.if_then(failed, likely=False):  # or it is -1
            error = self.python("PyErr_Occurred", WORD)
            self.python("PyErr_Clear", ir.VoidType())
            self.require(self.builder.icmp_signed("==", error, WORD(0)))
        return number

    def unpacked(self, value, kind):
        """An object as Numba passes it: a number, or the fields of an array one by one."""
        builder = self.builder
        if kind == types.int64:
            return [self.numbers[value]]
        if kind == types.float64:
            return [self.python("PyFloat_AsDouble", ir.DoubleType(), value)]
        null = POINTER(None)
        extents, strides = self.word(value, EXTENTS), self.word(value, STRIDES)
        shape = [self.word(extents, 8 * i) for i in range(kind.ndim)]
        size = functools.reduce(builder.mul, shape, WORD(1))
        element = numba.core.registry.cpu_target.target_context.get_value_type(kind.dtype)
        data = builder.inttoptr(self.word(value, DATA), element.as_pointer())
        steps = [self.word(strides, 8 * i) for i in range(kind.ndim)]
        return [null, null, size, WORD(as_dtype(kind.dtype).itemsize), data, *shape, *steps]


def install(module):
    """Put launchers in the place of a module's kernels, and of those that its ``chosen`` ones choose from."""
    if not possible():
        return
    for name, kernel in list(vars(module).items()):
        if isinstance(kernel, CPUDispatcher):
            Launcher(kernel, module, name)
        elif hasattr(kernel, "choose"):
            home = sys.modules[kernel.choose.__module__]
            for used in kernel.choose.__code__.co_names:
                if isinstance(getattr(home, used, None), CPUDispatcher):
                    Launcher(getattr(home, used), home, used)
