"""Kernels from outside the package: `register_kernel` puts them beside the built-in ones at the seam of a device.

Whatever listens at that seam (`minigrad.capture`, `minigrad.study.trace`) so sees them as it sees the others.
"""

import dis
import functools
import importlib
import importlib.util
import inspect
import keyword
import pkgutil
import sys
import threading
from typing import NamedTuple

lock = threading.RLock()  # held while a device's kernels are first imported, so that none is left out
_kernels: dict = {}  # name to Registration
_modules: dict = {}  # name of a device in use to the module of its kernels


class Registration(NamedTuple):
    """A kernel that is not the project's: one function per device and the definition, None where none was given."""

    name: str
    cpu: object
    cuda: object
    reference: object


def register_kernel(name, cpu=None, cuda=None, reference=None):
    """Make a kernel of your own available as ``device.kernels.<name>``, where a `Function`'s forward finds it.

    Nothing is imported or compiled by it: that happens when a device is first used, and when the kernel is.

    Parameters
    ----------
    name : str
        An identifier that no kernel of the project has. Registering the same functions (by module and qualified name)
        again replaces them, so that a notebook's cell can run twice.
    cpu : function or Numba dispatcher, optional
        A plain Python function is compiled as the project's own kernels are and kept on disk; a dispatcher
        (``numba.njit``) is taken as it is. Words for fast ones: `minigrad.kernels.cpu.language`.
    cuda : function, optional
        A function that launches kernels, written with the words of `minigrad.kernels.cuda.language`. That module needs
        CUDA's packages or the emulator, so import it inside a function.
    reference : function, optional
        The definition in NumPy, with the outputs passed in. `minigrad.testing.kernelcheck` compares the others with it;
        `minigrad.study` takes the arguments' names from it.

    Raises
    ------
    TypeError
        If something is not a function, returns a value (a kernel writes into arrays), has default arguments, or takes
        another number of arguments than the other functions.
    ValueError
        If the name is no identifier or is taken.

    Notes
    -----
    The arguments are arrays of the device, C-contiguous, in the order inputs, outputs, then ints and floats. A kernel
    writes every element of its outputs, nothing into its inputs, and allocates nothing; scratch arrays come from
    ``device.empty``. A step that `minigrad.capture` has recorded keeps the kernels that it was recorded with.

    Examples
    --------
    >>> def double(x, out):
    ...     for i in range(x.size):
    ...         out[i] = 2 * x[i]
    >>> minigrad.register_kernel("double", cpu=double)
    """
    new = Registration(_check_name(name), cpu, cuda, reference)
    if cpu is None and cuda is None:
        raise TypeError(f"register_kernel: expected a function for cpu or cuda for {name!r}, got neither")
    if not (cpu is None or _is_dispatcher(cpu) or inspect.isfunction(cpu)):
        raise TypeError(f"register_kernel: expected cpu of {name!r} to be a Python function or one compiled by "
                        f"numba.njit, got {type(cpu).__name__}")
    for place in ("cuda", "reference"):
        function = getattr(new, place)
        if not (function is None or callable(function)):
            raise TypeError(f"register_kernel: expected {place} of {name!r} to be a function, got "
                            f"{type(function).__name__}")
    _check_arguments(new)
    with lock:
        old = _kernels.get(name)
        if old is not None and not _same_definition(old, new):
            raise ValueError(f"register_kernel: there is a kernel {name!r} already, by {_origin(old)}; choose another "
                             "name")
        _kernels[name] = new
        for device, module in _modules.items():
            _put(device, module, new)


def attach(device, module):
    """Put what is registered among a device's kernels, now and from now on; the caller holds the `lock`."""
    _modules[device] = module
    for registration in _kernels.values():
        _put(device, module, registration)


def registered(name):
    """The `Registration` of a name, None if it is not a registered kernel's."""
    return _kernels.get(name)


def _put(device, module, registration):
    """Set the attribute of a device's kernels: then finding it costs what finding a built-in one costs."""
    name, function = registration.name, getattr(registration, device)
    if function is None:
        setattr(module, name, _missing(name, device))
    else:
        importlib.import_module(f"minigrad.kernels.{device}.foreign").put(module, name, function)


def _missing(name, device):
    def missing(*arguments):
        raise NotImplementedError(
            f"{name}: no kernel for {device} was registered; give one by register_kernel({name!r}, {device}=...), or "
            "move the tensors to the other device"
        )

    return missing


@functools.cache
def _taken():
    """All names that mean something among the kernels already, found without importing a backend."""
    names = {"sys", "keep_freed_memory"}
    for place in ("reference", "cpu", "cuda"):
        names |= {m.name for m in pkgutil.iter_modules(
            importlib.util.find_spec(f"minigrad.kernels.{place}").submodule_search_locations)}
    return frozenset(names | set(vars(importlib.import_module("minigrad.kernels.reference"))))


def _check_name(name):
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"register_kernel: expected the name to be an identifier without a leading underscore, got "
                         f"{name!r}")
    if name.endswith("_workspace"):
        raise ValueError(f"register_kernel: expected the name of a kernel, got {name!r}: names in _workspace belong to "
                         "the built-in kernels' scratch; take an argument for it, made by device.empty in forward")
    if name in _taken():
        raise ValueError(f"register_kernel: expected a name of your own, got {name!r}, which is one of minigrad's")
    return name


def _is_dispatcher(function):
    registry = sys.modules.get("numba.core.registry")  # without it there are none
    return registry is not None and isinstance(function, registry.CPUDispatcher)


def _plain(function):
    """The Python function of a dispatcher, or the function itself."""
    return getattr(function, "py_func", function)


def _check_arguments(new):
    """Raise unless the functions look like kernels, and like each other."""
    counts = {}
    for place in ("cpu", "cuda", "reference"):
        function = _plain(getattr(new, place))
        if not inspect.isfunction(function):  # None, or a callable object: nothing is known of it
            continue
        calls = place != "cpu" and function.__name__ == "<lambda>"  # which is one expression: a call, say
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function) or (
                not calls and _returns(function)):
            raise TypeError(f"register_kernel: expected {place} of {new.name!r} to return nothing, and it returns a "
                            "value; write the result into an array that is passed in")
        parameters = inspect.signature(function).parameters.values()
        if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
            raise TypeError(f"register_kernel: expected {place} of {new.name!r} to take plain arguments without "
                            f"defaults, got ({', '.join(map(str, parameters))})")
        counts[place] = len(parameters)
    if len(set(counts.values())) > 1:
        said = ", ".join([f"{place} takes {count}" for place, count in counts.items()])
        raise TypeError(f"register_kernel: expected the same arguments on every device for {new.name!r}, but {said}")


def _returns(function):
    """Whether there is a ``return`` with anything but None in a function: read from its bytecode, as sources of
    functions that were typed in or executed are not there."""
    before = None
    for instruction in dis.get_instructions(function):
        if instruction.opname == "RETURN_CONST" and instruction.argval is not None:
            return True
        if instruction.opname == "RETURN_VALUE" and not (
                before is not None and before.opname == "LOAD_CONST" and before.argval is None):
            return True
        if instruction.opname not in ("NOP", "CACHE"):
            before = instruction
    return False


def _same_definition(old, new):
    pairs = [(a, b) for a, b in zip(old[1:], new[1:], strict=True) if a is not None and b is not None]
    return bool(pairs) and all(_identity(a) == _identity(b) for a, b in pairs)


def _identity(function):
    function = _plain(function)
    return getattr(function, "__module__", None), getattr(function, "__qualname__", id(function))


def _origin(registration):
    return ".".join(map(str, _identity(next(f for f in registration[1:] if f is not None))))
