"""What the machine code of somebody else's kernel depends on, as a hash: the key of `compile.KernelCache` for it.

Numba compiles a function's bytecode and takes globals and captured variables as constants. So these are hashed,
through all functions that the kernel calls; and beside them the files that the functions stand in, for what is reached
by other ways (an ``overload`` of a function). A function that was typed in has no file, and its bytecode still counts.
"""

import hashlib
import inspect
from pathlib import Path
from types import BuiltinFunctionType, CodeType, ModuleType

import numpy as np
from numba import types
from numba.core.dispatcher import Dispatcher

OURS = "minigrad.kernels"
VERSIONED = ("numpy", "numba", "math", "builtins", "operator", "cmath")  # a new version of them is another key already


class Unknown(TypeError):
    """Something whose changes could not be seen: a kernel that depends on it is not kept."""


def fingerprint(function, files_of):
    """The hash of all that a function's machine code depends on.

    Parameters
    ----------
    function : function
    files_of : callable
        The files that one of the project's own functions comes from, read once per process.

    Raises
    ------
    Unknown
        If it uses a value of which it is not known how to hash it.
    """
    walk = _Walk(files_of)
    walk.function(function)
    return walk.digest.hexdigest()


class _Walk:
    def __init__(self, files_of):
        self.files_of, self.seen = files_of, set()
        self.digest = hashlib.sha256()

    def add(self, *things):
        self.digest.update(repr(things).encode())

    def file(self, path):
        if path not in self.seen:
            self.seen.add(path)
            if Path(path).is_file():
                self.digest.update(Path(path).read_bytes())

    def function(self, function):
        """A Python function with all that it refers to."""
        if function in self.seen:
            return
        self.seen.add(function)
        self.add(function.__module__, function.__qualname__)
        if function.__module__ and function.__module__.startswith(OURS):
            for path in sorted(self.files_of(function)):
                self.file(path)
            for cell in function.__closure__ or ():  # exp and tanh are the same function but for these
                inner = getattr(cell.cell_contents, "py_func", cell.cell_contents)
                if inspect.isfunction(inner):
                    self.function(inner)
            return
        self.file(inspect.getfile(function))
        self.value(function.__defaults__)
        for cell in function.__closure__ or ():
            self.value(cell.cell_contents)
        self.code(function.__code__, function.__globals__)

    def code(self, code, names):
        """Bytecode, its constants, and the globals that it names."""
        self.add(code.co_code, code.co_names, code.co_varnames, code.co_freevars)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.code(constant, names)
            else:
                self.value(constant)
        for name in code.co_names:
            if name in names:
                self.value(names[name], code.co_names)

    def value(self, value, attributes=()):
        """A constant, a function or a module; of a module those of `attributes` that it has."""
        if value is None or value is ... or isinstance(value, (bool, int, float, complex, str, bytes, types.Type)):
            self.add(value)
        elif isinstance(value, (tuple, list)):
            self.add(type(value).__name__, len(value))
            for item in value:
                self.value(item)
        elif isinstance(value, frozenset):
            self.add(sorted(map(repr, value)))
        elif isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
            self.add(value.dtype.str, value.shape, value.tobytes())
        elif isinstance(value, Dispatcher):
            self.add(sorted(value.targetoptions.items(), key=str))
            self.function(value.py_func)
        elif inspect.isfunction(value):
            self.function(value)
        elif isinstance(value, ModuleType):
            self.module(value, attributes)
        elif isinstance(value, (type, np.dtype, np.ufunc, BuiltinFunctionType)):
            self.add(getattr(value, "__module__", ""), getattr(value, "__qualname__", str(value)))
        elif inspect.isfunction(getattr(value, "_defn", None)):  # an intrinsic
            self.function(value._defn)
        else:
            raise Unknown(f"{type(value).__name__}")

    def module(self, module, attributes):
        self.add(module.__name__)
        if module.__name__.startswith(OURS):
            for path in sorted(self.files_of(module)):
                self.file(path)
        elif module.__name__.split(".")[0] not in VERSIONED:
            for name in attributes:
                if hasattr(module, name):
                    self.value(getattr(module, name), attributes)
