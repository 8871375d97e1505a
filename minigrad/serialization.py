"""Saving and loading: nested dicts of tensors, arrays, numbers and strings in one .npz file, without pickle.

The file is a zip archive of .npy arrays beside ``structure.json``, which says where each array belongs. The arrays of
a flat state dict keep their names, so ``numpy.load`` reads them too. Loading runs no code from the file.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from minigrad.creation import from_numpy
from minigrad.tensor import Tensor

STRUCTURE = "structure.json"
FORMAT = "minigrad-1"


def save(obj, path):
    """Write an object to a file. The old file stays as it was until the new one is complete.

    Parameters
    ----------
    obj : dict, list, tuple, Tensor, numpy.ndarray, number, str, bool or None, nested at will
        For instance ``{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}``. Keys of dicts
        are strings, ints, floats or bools.
    path : str or path
        By custom it ends in ``.npz``.

    Raises
    ------
    TypeError
        If something of another type is found; the sentence says where. Nothing is written then.
    FileNotFoundError
        If the folder does not exist.
    """
    path = Path(path)
    arrays = {}
    structure = _pack(obj, (), arrays)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: the folder {str(path.parent)!r} does not exist")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(STRUCTURE, json.dumps({"format": FORMAT, "content": structure}))
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the content does
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path, device=None):
    """Read what `save` wrote.

    Parameters
    ----------
    path : str or path
    device : Device or str, optional
        Where the tensors go; the CPU if left out.

    Returns
    -------
    object
        As it was saved; parameters and buffers come back as plain tensors.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or was not written by `save`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"load: there is no file {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"load: expected a file, got the folder {str(path)!r}")
    if not zipfile.is_zipfile(path):
        cut = path.stat().st_size == 0 or path.read_bytes()[:2] == b"PK"
        what = "is truncated" if cut else "was not written by minigrad.save"
        raise ValueError(f"load: the file {str(path)!r} {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            if STRUCTURE not in archive.namelist():
                raise _Foreign
            document = json.loads(archive.read(STRUCTURE))
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                raise _Foreign
            return _unpack(document["content"], archive, device)
    except _Foreign:
        raise ValueError(
            f"load: the file {str(path)!r} was not written by minigrad.save (numpy.load reads plain .npz files)"
        ) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError, NotImplementedError) as error:
        raise ValueError(f"load: the file {str(path)!r} is damaged: {error}") from None


class _Foreign(Exception):
    """The archive has no structure of ours."""


def _pack(obj, path, arrays):
    """An object as JSON, its arrays put aside under names made of the path that leads to them."""
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, (np.bool_, np.integer, np.floating)):
        return obj.item()
    if isinstance(obj, Tensor):
        return {"tensor": _put(obj.numpy(), path, arrays)}
    if isinstance(obj, np.ndarray):
        if obj.dtype.hasobject:
            raise TypeError(f"save: cannot store an array of Python objects at {_where(path)}")
        return {"array": _put(obj, path, arrays)}
    if isinstance(obj, (list, tuple)):
        kind = "list" if isinstance(obj, list) else "tuple"
        return {kind: [_pack(value, (*path, i), arrays) for i, value in enumerate(obj)]}
    if isinstance(obj, dict):
        for key in obj:
            if not isinstance(key, (str, int, float)):
                kind = type(key).__name__
                raise TypeError(f"save: expected keys to be strings or numbers, got {kind} at {_where(path)}")
        return {"dict": [[key, _pack(value, (*path, key), arrays)] for key, value in obj.items()]}
    raise TypeError(
        f"save: expected tensors, arrays, numbers, strings, dicts, lists and tuples, got {type(obj).__name__} at "
        f"{_where(path)}"
    )


def _where(path):
    return "/".join(map(str, path)) or "the top"


def _put(array, path, arrays):
    base = "/".join([str(part) for part in path]) or "data"
    if not base.isprintable() or "\\" in base:  # zip archives take no such names everywhere
        base = "array"
    name, number = base, 1
    while name in arrays or name + ".npy" == STRUCTURE:
        number += 1
        name = f"{base}~{number}"
    arrays[name] = array
    return name


def _unpack(node, archive, device):
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        return {key: _unpack(value, archive, device) for key, value in content}
    if kind in ("list", "tuple"):
        values = [_unpack(value, archive, device) for value in content]
        return values if kind == "list" else tuple(values)
    if kind not in ("tensor", "array"):
        raise ValueError(f"unknown entry {kind!r}")
    with archive.open(f"{content}.npy") as entry:
        array = np.lib.format.read_array(entry, allow_pickle=False)
        if entry.read(1):  # at the end of an entry zipfile compares the checksum
            raise ValueError(f"the array {content!r} is longer than it says")
    return from_numpy(array, device) if kind == "tensor" else array
