"""What a kernel is written with besides Numba's words: kinds of arguments, the element type, device functions."""

import functools


class T:
    """The element type of a kernel's arrays, a type inside kernels; never used as a class."""


class Pointer:
    """An argument that is an array: the kernel sees its elements in one row, ``x[i]``.

    ``Pointer[int64]`` has elements of that type, whatever T is.
    """

    def __init__(self, dtype=None):
        self.dtype = None if dtype is None else str(dtype)  # of one of Numba's types, their names are NumPy's

    def __class_getitem__(cls, dtype):
        return cls(dtype)


class Int:
    """An argument that is an int32."""


class Unsigned:
    """An argument that is a uint32."""


class Float:
    """An argument that is a number of type T: a Python float, or int or bool where T is one."""


class DeviceFunction:
    """A function that kernels call; it becomes part of each of them."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function


def device_function(function):
    """Make a function that kernels can call. It may use everything that a kernel may."""
    return DeviceFunction(function)
