"""CIFAR-10 in the forms it is found in: binary batches, the archive of them, Python pickles, or one .npz file.

Every reader returns uint8 images of shape (N, 3, 32, 32) and int64 labels of shape (N,).
The formats are described on https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import io
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from minigrad.data.errors import DataError

SHAPE = (3, 32, 32)
ARCHIVE = "cifar-10-binary.tar.gz"
TRAIN_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
TEST_BATCH = "test_batch"


def read_cifar10(folder):
    """Read CIFAR-10 from a folder, in whichever form lies there.

    Parameters
    ----------
    folder : str or Path
        A folder with ``cifar-10-batches-bin`` (or its content), ``cifar-10-batches-py`` (or its content),
        ``cifar-10-binary.tar.gz`` or one ``cifar10*.npz``; or such an archive or .npz file itself.

    Returns
    -------
    tuple of numpy.ndarray
        x_train, y_train, x_test, y_test.
    """
    folder = Path(folder)
    if folder.is_file():
        return _read_npz(folder) if folder.suffix == ".npz" else _read_archive(folder)
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / f"{TEST_BATCH}.bin").exists():
            return _join(place, ".bin", lambda path: _parse_binary(path, _read(path)))
    for place in (folder, folder / "cifar-10-batches-py"):
        if (place / TEST_BATCH).exists():
            return _join(place, "", lambda path: _parse_pickle(path, _read(path)))
    if (folder / ARCHIVE).exists():
        return _read_archive(folder / ARCHIVE)
    found = sorted(folder.glob("cifar10*.npz"))
    if len(found) == 1:
        return _read_npz(found[0])
    if found:
        raise DataError(f"{folder}: holds {len(found)} files cifar10*.npz; name the one to read")
    raise DataError(f"{folder}: expected CIFAR-10 as cifar-10-batches-bin, cifar-10-batches-py, {ARCHIVE} or "
                    "cifar10*.npz, found none of them")


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _join(place, suffix, parse):
    train = [parse(place / f"{name}{suffix}") for name in TRAIN_BATCHES]
    x_test, y_test = parse(place / f"{TEST_BATCH}{suffix}")
    return np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), x_test, y_test


def _parse_binary(path, content):
    record = 1 + int(np.prod(SHAPE))
    if not content or len(content) % record:
        raise DataError(f"{path}: expected a multiple of {record} bytes (a label and {SHAPE} pixels each), "
                        f"got {len(content)}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return rows[:, 1:].reshape(-1, *SHAPE), rows[:, 0].astype(np.int64)


def _read_archive(path):
    try:
        with tarfile.open(path) as archive:
            def parse(name):
                member = archive.extractfile(f"cifar-10-batches-bin/{name.name}")
                return _parse_binary(path / name, member.read())

            return _join(Path(), ".bin", parse)
    except (tarfile.TarError, EOFError, OSError, KeyError, zlib.error, AttributeError) as error:
        raise DataError(f"{path}: expected the archive {ARCHIVE}, got something else or a part of it "
                        f"({_line(error)})") from error


def _line(error):
    return " ".join(str(error).split())


def _read_npz(path):
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x_train, y_train, x_test, y_test = (arrays[name] for name in names)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected an .npz file of the arrays {', '.join(names)} ({_line(error)})") from error
    for name, images in (("x_train", x_train), ("x_test", x_test)):
        if images.shape[1:] != SHAPE or images.dtype != np.uint8:
            raise DataError(f"{path}: {name} expects uint8 of shape (N, 3, 32, 32), got {images.dtype} of shape "
                            f"{images.shape}")
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and plain values, and refuses everything else: a pickle can run any code."""

    ALLOWED = {("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"),
               ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.numeric", "_frombuffer")}

    def find_class(self, module, name):
        module = module.replace("numpy.core.", "numpy._core.")  # its name until NumPy 2
        if (module, name) in self.ALLOWED:
            if not hasattr(np, "_core"):
                module = module.replace("numpy._core.", "numpy.core.")
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _parse_pickle(path, content):
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        images, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    except Exception as error:  # damaged pickles raise nearly anything
        raise DataError(f"{path}: expected a CIFAR-10 batch pickled by Python ({_line(error)})") from error
    pixels = int(np.prod(SHAPE))
    if images.dtype != np.uint8 or images.shape != (len(labels), pixels) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: expected uint8 data of shape ({len(labels)}, {pixels}) and that many integer labels, "
                        f"got {images.dtype} of shape {images.shape}")
    return images.reshape(-1, *SHAPE), labels.astype(np.int64)
