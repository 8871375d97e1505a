"""Nested arguments and results taken apart into their tensors and everything else."""

from minigrad.tensor import Tensor


class Leaf:
    """Stands for tensor number `index` in a structure."""

    def __init__(self, index):
        self.index = index

    def __repr__(self):
        return f"<tensor {self.index}>"


def flatten(value, tensors):
    """The structure of a value, each tensor replaced by a `Leaf` and appended to `tensors`.

    Tuples, lists and dicts are looked into; anything else is part of the structure.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return Leaf(len(tensors) - 1)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[flatten(item, tensors) for item in value])
    if isinstance(value, (tuple, list)):
        return type(value)([flatten(item, tensors) for item in value])
    if isinstance(value, dict):
        return {key: flatten(item, tensors) for key, item in value.items()}
    return value


def unflatten(structure, tensors):
    """The value again, with these tensors in place of the leaves."""
    if isinstance(structure, Leaf):
        return tensors[structure.index]
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*[unflatten(item, tensors) for item in structure])
    if isinstance(structure, (tuple, list)):
        return type(structure)([unflatten(item, tensors) for item in structure])
    if isinstance(structure, dict):
        return {key: unflatten(item, tensors) for key, item in structure.items()}
    return structure


def key_of(value, tensors):
    """What a recording for this value is found by, and in `tensors` its tensors, in the order of `flatten`.

    Tensors by shape, dtype and device; containers by their contents; other objects by equality, or by identity if
    they have no hash.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.data.shape, value.data.dtype.char, value.device.name
    if isinstance(value, (tuple, list)):
        return type(value), tuple([key_of(item, tensors) for item in value])
    if isinstance(value, dict):
        return dict, tuple([(key, key_of(item, tensors)) for key, item in value.items()]) if value else ()
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return type(value), value


class _Identity:
    """An object compared by identity, and kept alive so that the identity stays its own."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self):
        return id(self.value)
