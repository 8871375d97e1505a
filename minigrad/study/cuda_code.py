"""What the CUDA kernels behind a name are, and what they are compiled to: PTX, SASS, registers. Needs no GPU.

``python -m minigrad.study.cuda_code NAME`` prints it as JSON. `cuda_code` runs that in a process of its own, with the
emulator, since a process without a GPU cannot import the CUDA kernels otherwise.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from minigrad.kernels.sources import digest_of_sources
from minigrad.study.kept import kept

ARCHITECTURE, OLDER = (9, 0), (8, 0)
VERSION = 2


class CudaKernel(NamedTuple):
    """A kernel that runs on the GPU.

    Attributes
    ----------
    name : str
    source : str
        Of the Python function.
    types : str
        The element types that it was compiled for.
    ptx, sass : str or None
    registers, shared, spills : int or None
        Registers per thread, bytes of shared memory per block and of spilled registers per thread, for sm_90.
    registers_sm_80, spills_sm_80 : int or None
        The same for sm_80.
    """

    name: str
    source: str
    types: str
    ptx: str | None
    sass: str | None
    registers: int | None
    shared: int | None
    spills: int | None
    registers_sm_80: int | None
    spills_sm_80: int | None


class CudaCode(NamedTuple):
    """The function of a name, which launches kernels, and these.

    Attributes
    ----------
    host : str
        Source of the function that the device's kernels have under the name.
    kernels : list of CudaKernel
    why_not : str
        What is missing for the machine code, "" if nothing is.
    """

    host: str
    kernels: list
    why_not: str


@functools.cache
def cuda_code(name):
    """The `CudaCode` of a kernel, for float32 and sm_90."""
    # Only what is complete is kept: what is missing today may be there tomorrow.
    known = kept(f"cuda-{name}-{_key()}", lambda: _told(name), lambda made: not made[2])
    return CudaCode(known[0], [CudaKernel(*kernel) for kernel in known[1]], known[2])


def _key():
    """A hash of the CUDA kernels' sources."""
    import minigrad.kernels

    return f"{VERSION}-{digest_of_sources(Path(minigrad.kernels.__file__).parent / 'cuda')[:20]}"


def _told(name):
    """`_ask`, and whoever listens to compilations is told."""
    from minigrad.kernels.cpu.compile import compile_listeners

    for listener in compile_listeners:
        listener("start", f"{name} (CUDA, to be read)", ())
    known = _ask(name)
    for listener in compile_listeners:
        listener("end", f"{name} (CUDA, to be read)", ())
    return known


def _ask(name):
    environment = {**os.environ, "MINIGRAD_CUDA": "emulate",
                   "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run([sys.executable, "-m", "minigrad.study.cuda_code", name], capture_output=True, text=True,
                         env=environment)
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "no message"
        return ["", [], f"the CUDA kernels could not be looked at: {last}"]
    return json.loads(ran.stdout)


# -- in the process of its own -------------------------------------------------------------------------------------


def _look(name):
    """Run an example of the kernel on the emulator, note what is launched, compile that."""
    from minigrad.kernels import cuda
    from minigrad.kernels.cuda import kernel as launcher
    from minigrad.kernels.cuda.array import from_host
    from minigrad.study.examples import arguments_of
    from minigrad.study.texts import definition, made_of

    launched, prepare = {}, launcher.backend.prepare

    def noted(kernel, types):
        launched.setdefault(kernel, types)
        return prepare(kernel, types)

    arguments = arguments_of(name)
    if arguments is not None:
        ready = {kernel: kernel._ready for kernel in launcher.KERNELS}
        try:
            launcher.backend.prepare = noted  # called at a kernel's first launch: let every one be the first
            for kernel in launcher.KERNELS:
                kernel._ready = {}
            getattr(cuda, name)(*_on_device(name, arguments, from_host))
        finally:
            launcher.backend.prepare = prepare
            for kernel, known in ready.items():
                kernel._ready = known
    why_not, kernels = _missing(), []
    for kernel, types in launched.items():
        text = made_of(kernel.function, most=12)
        kernels.append([kernel.__name__.strip("_"), text, ", ".join(map(str, dict.fromkeys(types))),
                        *([None] * 7 if why_not else _compiled(kernel, types))])
    return [definition("cuda", name), kernels, why_not]


def _on_device(name, arguments, from_host):
    """The arguments as the device's; its scratch memory may have another size than the CPU's."""
    from minigrad.study.costs import SCRATCH, parameters

    moved = []
    for parameter, value in zip(parameters(name), arguments, strict=True):
        if parameter == SCRATCH:
            value = value.reshape(-1)[:1].repeat(1 << 16).reshape((1,) * (value.ndim - 1) + (-1,))
        moved.append(from_host(value) if hasattr(value, "nbytes") else value)
    return moved


def _missing():
    from minigrad.kernels.cuda.toolkit import EXTRA, HAS_COMPILER

    return "" if HAS_COMPILER else f"PTX, SASS and registers need the CUDA compiler: {EXTRA}"


def _compiled(kernel, types):
    from minigrad.kernels.cuda import code
    from minigrad.kernels.cuda.compile import ptx_of

    report, older = [code.report(kernel, tuple(map(str, types)), a) for a in (ARCHITECTURE, OLDER)]
    return [ptx_of(kernel, types), report.sass, report.registers, report.shared, report.spills, older.registers,
            older.spills]


if __name__ == "__main__":
    print(json.dumps(_look(sys.argv[1])))
