"""Kernels: written once, compiled or emulated for each combination of element types, launched."""

import functools
import inspect

import numpy as np

from minigrad.kernels.cuda import toolkit
from minigrad.kernels.cuda.parts import Float, Int, Pointer, Unsigned

if toolkit.EMULATED:
    from minigrad.kernels.cuda import emulator as backend
else:
    from minigrad.kernels.cuda import driver as backend

compile_listeners = []
"""Called as listener(event, name, signature) around every compilation, event being "start" or "end"."""

KERNELS = []  # the package's, in the order of their definition: what docs/cuda-kernels.md is made of


class Kernel:
    """What every thread runs: ``kernel[grid, block](*arguments)``.

    Attributes
    ----------
    function : callable
        The Python function.
    parameters : list of (str, object)
        Names and kinds of the arguments, from the annotations.
    examples : tuple of tuple of str
        For machine code that is looked at without a launch: types of the plain pointers, float32 for all by default.
    promises : tuple of str
        Instructions that the machine code must have, ``LDG.E.128`` say.
    doubles : bool
        Whether float64 arithmetic is meant to be in it even for float32 arrays.
    """

    def __init__(self, function, examples, promises, doubles):
        functools.update_wrapper(self, function)
        self.function, self.promises, self.doubles = function, promises, doubles
        self.parameters = [(p.name, _kind(function, p)) for p in inspect.signature(function).parameters.values()]
        self.examples = examples or (("float32",) * len([k for _, k in self.parameters if _is_plain(k)]),)
        self._plain = [i for i, (_, kind) in enumerate(self.parameters) if _is_plain(kind)]
        self._ready = {}
        if function.__module__.startswith(__package__):
            KERNELS.append(self)

    def __getitem__(self, shape):
        return functools.partial(self.launch, *shape)

    def launch(self, grid, block, *arguments):
        """Run the kernel on `grid` blocks of `block` threads (ints or tuples of up to three)."""
        key = tuple([arguments[i].dtype for i in self._plain])
        ready = self._ready.get(key)
        if ready is None:
            for listener in compile_listeners:
                listener("start", self.__name__, key)
            ready = self._ready[key] = backend.prepare(self, key)
            for listener in compile_listeners:
                listener("end", self.__name__, key)
        ready(grid, block, arguments)

    def element_type(self, key):
        """T for these types of the plain pointers."""
        return key[0] if key else np.dtype(np.float32)


def _kind(function, parameter):
    """What an annotation says; `Pointer` without brackets is the same as `Pointer()`."""
    kind = parameter.annotation
    if kind is Pointer or isinstance(kind, Pointer):
        return kind() if kind is Pointer else kind
    if kind not in (Int, Unsigned, Float):
        got = "none" if kind is parameter.empty else repr(kind)
        hint = "; annotations are texts under `from __future__ import annotations`" if isinstance(kind, str) else ""
        raise TypeError(f"kernel {function.__name__}: expected {parameter.name} to be annotated as Pointer, Int, "
                        f"Unsigned or Float, got {got}{hint}")
    return kind


def _is_plain(kind):
    return isinstance(kind, Pointer) and kind.dtype is None


def kernel(function=None, *, examples=None, promises=(), doubles=False):
    """Make a kernel of a function, see `language`; the options are the attributes of `Kernel`."""
    if function is None:
        return lambda f: Kernel(f, examples, promises, doubles)
    return Kernel(function, examples, promises, doubles)
