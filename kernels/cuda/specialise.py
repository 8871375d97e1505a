"""A kernel's function with other meanings for the names that it uses.

The same function is compiled with ``T`` as a Numba type and device functions as Numba's, and emulated with ``T`` as a
NumPy type, ``cuda`` and ``math`` as the emulator's.
"""

from types import CellType, CodeType, FunctionType


def names_of(code):
    """All global names of a code object and of those inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_of(constant)
    return names


def specialise(function, substitute):
    """A copy of a function in which every global or captured object is replaced by ``substitute(object)``."""
    names = function.__globals__
    meanings = {name: substitute(names[name]) for name in sorted(names_of(function.__code__)) if name in names}
    meanings["__name__"] = function.__module__  # Numba asks for it
    cells = tuple([CellType(substitute(cell.cell_contents)) for cell in function.__closure__ or ()])
    copy = FunctionType(function.__code__, meanings, function.__name__, function.__defaults__, cells or None)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy
