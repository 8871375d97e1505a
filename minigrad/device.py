"""Where arrays live and which kernels compute on them.

Everything that a training step computes goes through ``device.kernels``, into arrays that come from
``device.empty``: one seam, at which a step can later be recorded and replayed.
"""

import importlib

import numpy as np

from minigrad.compiling import show_compilations


class Device:
    """A place for arrays with the kernels that work there.

    Attributes
    ----------
    name : str
        ``"cpu"``; what ``str(device)`` shows and `get_device` takes.
    kernels : module
        ``minigrad.kernels.cpu``, imported at the first use, since that brings in Numba.
    """

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        # Reached only while the attribute is missing, so the seam costs a plain attribute look-up later.
        if attribute == "kernels":
            self.kernels = importlib.import_module(f"minigrad.kernels.{self.name}")
            show_compilations(importlib.import_module(f"minigrad.kernels.{self.name}.compile").compile_listeners)
            return self.kernels
        raise AttributeError(attribute)

    def __repr__(self):
        return f"device({self.name!r})"

    def __str__(self):
        return self.name

    def __eq__(self, other):
        return self.name == other or (isinstance(other, Device) and self.name == other.name)

    def __hash__(self):
        return hash(self.name)

    def __reduce__(self):
        return get_device, (self.name,)

    empty = staticmethod(np.empty)
    """``empty(shape, dtype)``: an uninitialised C-contiguous array."""

    def full(self, shape, value, dtype):
        """A new array with every element set to `value`."""
        out = self.empty(shape, dtype)
        self.kernels.fill(out.ravel(), value)
        return out

    def workspace(self, kernel, dtype, *arguments):
        """The scratch array that ``kernels.<kernel>`` asks for, given its inputs and numbers."""
        return self.empty(getattr(self.kernels, kernel + "_workspace")(*arguments), dtype)

    @staticmethod
    def from_numpy(array):
        """The device's array with the values of a NumPy array; the same memory where that is possible."""
        if array.flags.c_contiguous and array.flags.writeable and array.flags.aligned:
            return array
        return np.array(array, order="C")

    @staticmethod
    def to_numpy(array):
        """The values as a NumPy array; the same memory where that is possible."""
        return array

    @staticmethod
    def write(array, values):
        """Overwrite an array of the device with values from the host: numbers, or an array of the same shape."""
        np.copyto(array, values)


    # -- for recorded steps: see minigrad.recording ------------------------------------------------------------

    @staticmethod
    def owner_of(array):
        """The array that owns the memory of an array, and how many bytes behind its start the array begins."""
        owner = array.base if isinstance(array.base, np.ndarray) else array
        return owner, array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]

    @staticmethod
    def memory(size):
        """A piece of memory of `size` bytes, and the offset in it at which an aligned buffer may begin."""
        array = np.empty(size + ALIGNMENT, np.uint8)
        return array, -array.__array_interface__["data"][0] % ALIGNMENT

    @staticmethod
    def view(owner, offset, shape, dtype):
        """An array of some shape and dtype in the memory of another, from a number of bytes on."""
        return np.ndarray(shape, dtype, owner, offset)

    def sequence(self, launches):
        """A function that repeats launches, given as (name, kernel, arguments), in order and without the engine."""
        return importlib.import_module(f"minigrad.kernels.{self.name}.sequence").sequence(launches)


ALIGNMENT = 64  # bytes: a cache line, and the widest vector

cpu = Device("cpu")


def get_device(device):
    """The `Device` of a name, or the device itself.

    Raises
    ------
    ValueError
        If there is no device of that name.
    """
    if isinstance(device, Device):
        return device
    if device is None or device == "cpu":
        return cpu
    raise ValueError(f"device: expected 'cpu', got {device!r}")
