"""From a kernel's Python to a cubin, without a GPU: Numba and NVVM to PTX, NVIDIA's linker to machine code.

Cubins are kept on disk, under a name made of all that they depend on, so that a process which finds one compiles
nothing: Numba takes a second or two from a kernel to its PTX, the linker a tenth of that.
"""

import functools
import hashlib
import importlib.metadata
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from cuda.bindings import nvjitlink, nvvm
from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import cuda, types

from minigrad.kernels.collection import without_collection
from minigrad.kernels.cuda import parts
from minigrad.kernels.cuda.specialise import specialise
from minigrad.kernels.sources import digest_of_sources

COMPILERS = ("numba", "llvmlite", "numba-cuda", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink")
NEWEST = (8, 0)
"""PTX for this compute capability also links for newer ones; kernels use nothing that came later."""


class Code(NamedTuple):
    """A compiled kernel: its entry point's name and its machine code."""

    name: str
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
    with without_collection():  # ten kernels take 11.0 s rather than 13.5
        ptx = cuda.compile_ptx(function, _signature(kernel, key), cc=target)[0]
    # Numba's name for the entry counts what was compiled before: with ours the text is the same in every process.
    return ptx.replace(re.search(r"\.entry\s+_ZN(\S+?)\(", ptx).group(1), _entry(kernel)[len("_ZN") :])


def _entry(kernel):
    return "_ZN_minigrad_" + kernel.__name__.strip("_")


def link(ptx, architecture, verbose=False):
    """The cubin of PTX, and what the linker says about it."""
    major, minor = architecture
    options = LinkerOptions(arch=f"sm_{major}{minor}", verbose=verbose)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    return bytes(linker.link("cubin").code), linker.get_info_log()


def compile_kernel(kernel, key, architecture):
    """The `Code` of a kernel for arrays of some types."""
    file = file_of(kernel, key, architecture)
    try:
        return Code(_entry(kernel), file.read_bytes())
    except OSError:
        cubin, _ = link(ptx_of(kernel, key, _target(architecture)), architecture)
        _keep(file, cubin)
        return Code(_entry(kernel), cubin)


def file_of(kernel, key, architecture):
    """Where the cubin is, or would be."""
    # What somebody else's kernel depends on is known from its PTX alone.
    ours = is_ours(kernel.function)
    made_of = identity(kernel.function) if ours else ptx_of(kernel, key, _target(architecture))
    text = repr((made_of, kernel.__name__, [str(dtype) for dtype in key], tuple(architecture), surroundings()))
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return cache_folder() / f"{kernel.__name__.strip('_')}-{digest}.cubin"


def _target(architecture):
    return min(tuple(architecture), NEWEST)


def _captured(function):
    return [cell.cell_contents for cell in function.__closure__ or ()]


def is_ours(function):
    """Whether a kernel and the functions that it has captured are the project's own."""
    return function.__module__.startswith(f"{__package__}.") and all(
        is_ours(value.function) for value in _captured(function) if isinstance(value, parts.DeviceFunction))


def identity(function):
    """What tells a function from others made of the same source: where it is defined, and what it has captured."""
    return function.__module__, function.__qualname__, [
        identity(value.function) if isinstance(value, parts.DeviceFunction) else (type(value).__name__, value)
        for value in _captured(function)
    ]


# Now: a process compiles what it has imported, whatever is edited meanwhile.
SOURCES = digest_of_sources(Path(__file__).parent)


def surroundings():
    """What every cubin depends on: the sources of the kernels, what compiles them, and Numba's settings."""
    config = numba.config
    return SOURCES, versions(), config.OPT, config.CUDA_DEBUGINFO_DEFAULT


@functools.cache
def versions():
    """The versions of everything between a kernel's Python and its cubin."""
    packages = [_version(package) for package in COMPILERS]
    return sys.version, np.__version__, nvvm.version(), nvjitlink.version(), packages


def _version(package):
    """None where it is not installed by itself: NVVM and the linker may come with a toolkit."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _keep(path, content):
    """Write a file for others to find whole or not at all; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError:
        pass
