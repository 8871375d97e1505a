"""Kernels compiled with the lines of Python that each instruction comes from, their machine code unchanged."""

import inspect
import warnings
from types import CellType, FunctionType, ModuleType

import numba
from numba.core.errors import NumbaDebugInfoWarning
from numba.core.registry import CPUDispatcher

from minigrad.kernels.cpu.compile import OPTIONS, KernelCompiler
from minigrad.study.texts import global_names, names_of


class LineCompiler(KernelCompiler):
    """Numba's compiler with line numbers and nothing else that a debugger wants.

    Numba's ``debug=True`` keeps variables in memory and functions apart, so that it is other code: relu has 74
    instructions on vector registers instead of 137. With line numbers alone they are the same ones.
    """

    def __init__(self, typing, target, library, arguments, result, flags, local_types):
        flags.debuginfo = flags.dbg_directives_only = True
        super().__init__(typing, target, library, arguments, result, flags, local_types)


class Compiled:
    """A kernel compiled anew, for arguments of some types.

    Numba's cache, and the project's, hold neither LLVM IR nor lines. The functions that the kernel calls are compiled
    anew too: they have been without.

    Attributes
    ----------
    symbol : str
        The kernel's in its assembly.
    llvm, assembly : str
    """

    def __init__(self, function, types):
        self._copies, self._whole, self._merged = {}, [], []
        dispatcher = numba.njit(self._with_lines(function), _nrt=False, pipeline_class=LineCompiler, **OPTIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaDebugInfoWarning)  # of lambdas it does not find the first line
            dispatcher.compile(types)
        (signature,) = dispatcher.signatures
        self.symbol = dispatcher.overloads[signature].fndesc.llvm_func_name
        self.llvm, self.assembly = dispatcher.inspect_llvm(signature), dispatcher.inspect_asm(signature)

    def place(self, file, line):
        """Where a line is that Numba has put into a file.

        The lines of a function that it has copied into its caller it takes for the caller's file's.
        """
        if not any(file == own and first <= line <= last for own, first, last in self._whole):
            for own, first, last in self._merged:
                if first <= line <= last:
                    return own, line
        return file, line

    def _with_lines(self, function):
        """A copy of a function that calls copies, which are compiled with line numbers."""
        names = names_of(function.__code__)
        known = function.__globals__
        known = known | {n: self._copy(known[n], names) for n in global_names(function.__code__) if n in known}
        cells = tuple([CellType(self._copy(cell.cell_contents, names)) for cell in function.__closure__ or ()])
        copy = FunctionType(function.__code__, known, function.__name__, function.__defaults__, cells or None)
        copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
        self._whole.append(_extent(function))
        return copy

    def _copy(self, thing, names):
        if isinstance(thing, ModuleType) and thing.__name__.startswith("minigrad.kernels"):
            copy = self._copies.setdefault(thing, ModuleType(thing.__name__))
            for name in names:
                if hasattr(thing, name):
                    setattr(copy, name, self._copy(getattr(thing, name), names))
            return copy
        if not isinstance(thing, CPUDispatcher):
            return thing
        if thing not in self._copies:
            options = {name: value for name, value in thing.targetoptions.items() if name != "nopython"}
            if options.get("inline") == "always":
                self._merged.append(_extent(thing.py_func))
            self._copies[thing] = numba.njit(self._with_lines(thing.py_func), pipeline_class=LineCompiler, **options)
        return self._copies[thing]


def _extent(function):
    """The file of a function, its first line and its last."""
    lines, first = inspect.getsourcelines(function)
    return function.__code__.co_filename, first, first + len(lines) - 1
