"""Arrays handed to and taken from other libraries without a copy, by the DLPack protocol.

The structures are those of dlpack.h, version 0.8 (https://dmlc.github.io/dlpack/latest/c_api.html).
"""

import ctypes

import numpy as np

from minigrad.kernels.cuda import memory
from minigrad.kernels.cuda.array import DeviceArray, countable

CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
TYPES = {(2, 32): "float32", (2, 64): "float64", (0, 64): "int64", (6, 8): "bool"}  # of code and bits: what is taken
WIDEST = 16  # bytes that one instruction moves


class _Tensor(ctypes.Structure):
    """DLManagedTensor, with DLTensor's fields in it."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    ]  # fmt: skip


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
NAME, USED = b"dltensor", b"used_dltensor"  # kept here: a capsule does not copy its name

_exported = {}  # address of a structure to what has to live as long as it does


@_Deleter
def _forget(address):
    """Whoever took the tensor is done with it; what it has launched may still read the memory."""
    kept = _exported.pop(address, None)
    if kept is not None:
        memory.backend.wait_for_all()


# Another library may give a tensor back when this module is gone, at the end of the process.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_forget))


@_Destructor
def _destroy(capsule):
    """A capsule goes: whoever took the tensor has renamed it, otherwise nobody wants it any more."""
    if _is_valid(capsule, NAME):
        _exported.pop(_pointer_at(capsule, NAME), None)


def export(array, stream=None):
    """A capsule with the array, ready on another library's `stream` (its number, None for the default)."""
    memory.backend.hand_over(stream)
    shape = (ctypes.c_int64 * len(array.shape))(*array.shape)
    kind = array.dtype.kind
    tensor = _Tensor(
        array.address if array.size else None, *memory.backend.DLPACK_DEVICE, array.ndim, CODES[kind],
        array.itemsize * 8, 1, shape, None, 0, None, ctypes.cast(_forget, ctypes.c_void_p),
    )  # fmt: skip
    address = ctypes.addressof(tensor)
    _exported[address] = tensor, shape, array.memory
    return _new(address, NAME, ctypes.cast(_destroy, ctypes.c_void_p))


class _Foreign:
    """Memory that another library owns; it is told when nobody here refers to it and nothing launched reads it."""

    def __init__(self, tensor, address, size):
        self.tensor, self.address, self.size = tensor, address, size
        memory.backend.adopt(self)

    def __del__(self):
        if self.tensor.deleter:
            try:
                memory.synchronize()  # what uses the memory next is in another library's order, not in our stream's
            finally:
                _Deleter(self.tensor.deleter)(ctypes.addressof(self.tensor))


def take(capsule):
    """The array in another library's capsule.

    Raises
    ------
    ValueError
        If it is on another kind of device, is not in C order, or has elements of a type that there is none of here.
    """
    tensor = _Tensor.from_address(_pointer(capsule, NAME))
    device = tensor.device_type, tensor.device_id
    if device != memory.backend.DLPACK_DEVICE:
        raise ValueError(f"from_dlpack: expected an array on device {memory.backend.DLPACK_DEVICE}, got {device}")
    shape = tuple(tensor.shape[: tensor.ndim]) if tensor.ndim else ()
    name = TYPES.get((tensor.code, tensor.bits))
    if name is None or tensor.lanes != 1:
        raise ValueError(f"from_dlpack: expected float32, float64, int64 or bool, got DLPack's type {tensor.code} of "
                         f"{tensor.bits} bits")
    step = 1
    for extent, stride in zip(shape[::-1], tensor.strides[: tensor.ndim][::-1] if tensor.strides else (), strict=False):
        if stride != step and extent > 1:
            raise ValueError("from_dlpack: expected an array in C order; make it contiguous first")
        step *= extent
    array = countable(DeviceArray(shape, np.dtype(name), None))
    _rename(capsule, USED)
    # The memory begins at an address that wide instructions can use: whether an array is aligned, its offset tells.
    start = (tensor.data or 0) + tensor.byte_offset if array.size else 0
    array.offset = start % WIDEST
    array.memory = _Foreign(tensor, start - array.offset, array.nbytes + array.offset)
    return array
