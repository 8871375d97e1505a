"""Kernels that are not the project's, see `minigrad.register_kernel`: compiled if need be, and held to the contract."""

import numba
from numba.core.registry import CPUDispatcher

from minigrad.kernels.cpu import launch
from minigrad.kernels.cpu.compile import kernel

# What Numba says where an array is made in a kernel that is compiled without its counting of references.
ALLOCATES = "Only accept returning of array passed into the function", "NRT required"


def put(module, name, function):
    """Make a function or a dispatcher an attribute of the module of all kernels."""
    compiled = function if isinstance(function, CPUDispatcher) else kernel(function)
    if launch.possible() and isinstance(compiled, CPUDispatcher):
        Launcher(compiled, module, name)
    else:
        setattr(module, name, Checked(compiled, name))


class Checked:
    """A kernel whose first calls show whether it keeps to the contract.

    Attributes
    ----------
    dispatcher : numba dispatcher
        What is called; a Python function where the JIT is off.
    """

    def __init__(self, dispatcher, name):
        self.dispatcher, self.__name__ = dispatcher, name

    def __call__(self, *arguments):
        try:
            result = self.dispatcher(*arguments)
        except numba.core.errors.NumbaError as error:
            if any(said in str(error) for said in ALLOCATES):
                raise TypeError(f"{self.__name__}: a kernel allocates no arrays; take scratch as an argument, made by "
                                "device.empty in forward") from error
            raise
        if result is not None:
            raise TypeError(f"{self.__name__}: expected the kernel to return nothing, got {type(result).__name__}; "
                            "write the result into an array that is passed in")


class Launcher(launch.Launcher):
    """A launcher (see `launch`) that checks as long as it goes through the dispatcher."""

    def __init__(self, dispatcher, module, name):
        super().__init__(dispatcher, module, name)
        self.run = Checked(dispatcher, name)
