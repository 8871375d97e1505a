"""Arrays in a device's memory."""

import numpy as np

from minigrad.kernels.cuda import memory


class DeviceArray:
    """A C-contiguous array on a device: where it is, its shape and the type of its elements.

    It has what the engine asks of a `numpy.ndarray`, and nothing that computes.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    size, nbytes : int
    memory : Memory
        The allocation that it lies in; it lives as long as an array refers to it.
    offset : int
        Bytes from the start of the allocation to the first element.
    base : DeviceArray or None
        The array that this one is a view of.
    """

    __slots__ = ("shape", "dtype", "size", "memory", "offset", "base", "__weakref__")

    def __init__(self, shape, dtype, memory, offset=0, base=None):
        size = 1
        for extent in shape:
            size *= extent
        self.shape, self.dtype, self.size = shape, dtype, size
        self.memory, self.offset, self.base = memory, offset, base

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self):
        return self.dtype.itemsize

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def address(self):
        """The address of the first element on the device."""
        return self.memory.address + self.offset

    def _view(self, shape, offset=0):
        return DeviceArray(shape, self.dtype, self.memory, self.offset + offset,
                           self if self.base is None else self.base)

    def ravel(self):
        """The elements in one row, the same memory."""
        return self._view((self.size,))

    def reshape(self, *shape):
        """Another shape of as many elements, the same memory; one extent may be -1."""
        shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if -1 in shape:
            known = 1
            for extent in shape:
                known *= extent if extent != -1 else 1
            shape = tuple([self.size // known if extent == -1 else extent for extent in shape])
        view = self._view(shape)
        if view.size != self.size:
            raise ValueError(f"reshape: expected a shape of {self.size} elements, got {shape}")
        return view

    def __getitem__(self, index):
        """A slice of a one-dimensional array, the same memory."""
        start, stop, step = index.indices(self.size)
        if len(self.shape) != 1 or step != 1:
            raise ValueError(f"expected a slice without a step of a one-dimensional array, got {index} of {self.shape}")
        return self._view((max(stop - start, 0),), start * self.dtype.itemsize)

    def __len__(self):
        return self.shape[0]

    def numpy(self):
        """A copy in the host's memory."""
        return memory.to_host(self)

    @property
    def __cuda_array_interface__(self):
        """Version 3 of the protocol: CuPy, Numba and PyTorch read the array without a copy."""
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address if self.size else 0, False),
            "strides": None, "version": 3, "stream": memory.stream_number(),
        }

    def __repr__(self):
        return f"<array of shape {self.shape}, {self.dtype}, on the GPU>"


MOST = 2**31 - 2**13
"""Elements of an array: kernels count in int32, the last threads a little beyond the end."""


def empty(shape, dtype):
    """An uninitialised array; `shape` may be an int."""
    array = countable(DeviceArray((shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype), None))
    array.memory = memory.allocate(array.nbytes)
    return array


def countable(array):
    """The array, or a ValueError if kernels cannot count its elements."""
    if array.size >= MOST:
        raise ValueError(f"cuda: expected fewer than {MOST} elements, got an array of shape {array.shape}")
    return array


def from_host(values):
    """An array with the values of a NumPy array."""
    array = empty(values.shape, values.dtype)
    memory.from_host(array, np.ascontiguousarray(values))
    return array
