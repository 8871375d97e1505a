"""The element types of tensors and how they mix."""

import numpy as np

float32 = np.dtype("float32")
float64 = np.dtype("float64")
int64 = np.dtype("int64")
bool = np.dtype("bool")  # the field's name for it; this module is used as minigrad.bool, never star-imported

DTYPES = (float32, float64, int64, bool)
_RANK = {bool: 0, int64: 1, float32: 2, float64: 3}


def is_float(dtype):
    """Whether tensors of this type can carry a gradient."""
    return dtype.kind == "f"


def as_dtype(dtype):
    """The dtype of a name, a NumPy scalar type or a Python type (``float`` means float32, ``int`` int64)."""
    if dtype is float:
        return float32
    if dtype is int:
        return int64
    try:
        found = None if dtype is None else np.dtype(dtype)
    except TypeError:
        found = None
    if found not in _RANK:
        raise TypeError(f"dtype: expected float32, float64, int64 or bool, got {dtype!r}")
    return found


def promote(a, b):
    """The type of the result of an op on two tensors: the later one of bool, int64, float32, float64."""
    return a if a == b or _RANK[a] >= _RANK[b] else b


def of_values(array):
    """The tensor type that holds the values of any NumPy array: Python floats become float32."""
    if array.dtype in _RANK:
        return array.dtype
    if array.dtype.kind in "iu":
        return int64
    if array.dtype.kind == "f":
        return float32
    raise TypeError(f"tensor: expected numbers or booleans, got an array of type {array.dtype}")
