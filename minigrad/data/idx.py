"""The IDX format of MNIST: a magic number, one big-endian 32-bit size per dimension, then the values.

The magic number is two zero bytes, a type code (8 is uint8, the only one the image sets use) and the number of
dimensions. The description stood on http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from minigrad.data.errors import DataError

TYPE_UINT8 = 8
LARGEST = 2**31


def read_idx(path, ndim):
    """Read an IDX file of unsigned bytes, compressed with gzip or plain.

    Parameters
    ----------
    path : str or Path
        The file. Whether it is compressed is seen from its content, not from its name.
    ndim : int
        The number of dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape the file states.

    Raises
    ------
    DataError
        If the file is missing, damaged, longer or shorter than its header says, or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            shape = _read_header(path, file, ndim)
            expected = math.prod(shape)
            # One more than stated, to notice a file that goes on; but no header may ask for all the memory.
            content = file.read(min(expected, LARGEST) + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the compressed file is damaged or cut off ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) != expected:
        found = f"only {len(content)}" if len(content) < expected else "more"
        raise DataError(f"{path}: the header promises {expected} values of shape {shape}, the file holds {found}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_header(path, file, ndim):
    header = file.read(4)
    if len(header) < 4:
        raise DataError(f"{path}: expected an IDX file, got {len(header)} bytes")
    if header[:2] != b"\0\0" or header[2] != TYPE_UINT8 or header[3] != ndim:
        expected = bytes([0, 0, TYPE_UINT8, ndim]).hex()
        raise DataError(f"{path}: expected the magic number {expected} of an IDX file of {ndim}-dimensional uint8, "
                        f"got {header.hex()}")
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(f"{path}: the file ends inside its header")
    return tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
