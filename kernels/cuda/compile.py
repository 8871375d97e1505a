"""From a kernel's Python to a cubin, without a GPU: Numba and NVVM to PTX, NVIDIA's linker to machine code.

Cubins are kept on disk, under a name made of the PTX, the processor and the versions: NVVM is quick, the linker is not.
"""

import functools
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from cuda.core import Linker, LinkerOptions, ObjectCode
from cuda.core import __version__ as cuda_core_version
from numba import cuda, types

from minigrad.kernels.cuda import parts
from minigrad.kernels.cuda.specialise import specialise

NEWEST = (8, 0)
"""PTX for this compute capability also links for newer ones; kernels use nothing that came later."""


class Code(NamedTuple):
    """A compiled kernel: its entry point's name, its PTX and its machine code."""

    name: str
    ptx: str
    cubin: bytes


def cache_folder():
    """Where cubins are kept: beside the CPU's kernels."""
    root = os.environ.get("MINIGRAD_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minigrad")
    return Path(root) / "cuda"


def _for_numba(function, element):
    """A kernel's function as Numba compiles it."""

    def substitute(thing):
        if thing is parts.T:
            return element
        if isinstance(thing, parts.DeviceFunction):
            # Inlined: a call would ask for the current GPU while compiling, and there may be none.
            return cuda.jit(device=True, inline="always")(_for_numba(thing.function, element))
        return thing

    return specialise(function, substitute)


def _numba_type(dtype):
    """Numba's type of an array's elements. A bool is a byte, for Numba cannot store through a pointer to booleans."""
    return types.uint8 if dtype == np.bool_ else numba.from_dtype(dtype)


def _signature(kernel, key):
    element, plain = _numba_type(kernel.element_type(key)), iter(key)
    kinds = []
    for _, kind in kernel.parameters:
        if isinstance(kind, parts.Pointer):
            dtype = np.dtype(kind.dtype or next(plain))
            kinds.append(types.CPointer(_numba_type(dtype)))
        else:
            kinds.append({parts.Int: types.int32, parts.Unsigned: types.uint32, parts.Float: element}[kind])
    return types.void(*kinds)


@functools.cache
def ptx_of(kernel, key, target=NEWEST):
    """The PTX of a kernel for a compute capability."""
    function = _for_numba(kernel.function, _numba_type(kernel.element_type(key)))
    ptx = cuda.compile_ptx(function, _signature(kernel, key), cc=target)[0]
    # Numba's name for the entry counts what was compiled before: with ours the text is the same in every process.
    return ptx.replace(re.search(r"\.entry\s+_ZN(\S+?)\(", ptx).group(1), "_minigrad_" + kernel.__name__.strip("_"))


def link(ptx, architecture, verbose=False):
    """The cubin of PTX, and what the linker says about it."""
    major, minor = architecture
    options = LinkerOptions(arch=f"sm_{major}{minor}", verbose=verbose)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    return bytes(linker.link("cubin").code), linker.get_info_log()


def compile_kernel(kernel, key, architecture):
    """The `Code` of a kernel for arrays of some types."""
    ptx = ptx_of(kernel, key, min(tuple(architecture), NEWEST))
    name = re.search(r"\.entry\s+(\S+?)\(", ptx).group(1)
    text = "\0".join((ptx, repr(tuple(architecture)), cuda_core_version, numba.__version__))
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    path = cache_folder() / f"{kernel.__name__.strip('_')}-{digest}.cubin"
    try:
        return Code(name, ptx, path.read_bytes())
    except OSError:
        cubin, _ = link(ptx, architecture)
        _keep(path, cubin)
        return Code(name, ptx, cubin)


def _keep(path, content):
    """Write a file for others to find whole or not at all; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError:
        pass
