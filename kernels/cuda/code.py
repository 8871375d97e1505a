"""What a kernel became: registers, spills and instructions, read from its machine code. Needs no GPU."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minigrad.kernels.cuda.compile import link, ptx_of


@dataclass(frozen=True)
class Report:
    """The figures of one kernel for one architecture.

    Attributes
    ----------
    registers : int
        Per thread.
    stack, spills : int
        Bytes per thread; both are slow memory.
    shared : int
        Bytes of shared memory per block.
    doubles : list of str
        The lines of the PTX that work on float64.
    calls : list of str
        The lines of the PTX that call a function.
    slow_paths : list of str
        The lines of the PTX that ptxas makes a few instructions of, and a CALL of code that it adds to the kernel for
        the rare case: correctly rounded divisions and roots, for what is subnormal or overflows; on sm_80 warp
        operations in a loop or branch, for a warp whose threads have gone different ways.
    cubin : bytes
        The machine code.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    doubles: list
    calls: list
    slow_paths: list
    cubin: bytes = field(repr=False)

    # Not made before somebody asks: 0.4 s for any kernel (0.7 with dataflow analysis, which adds nothing to this text).
    @functools.cached_property
    def sass(self):
        """The machine code as text; None where there is no disassembler."""
        if not disassembler():
            return None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.cubin"
            file.write_bytes(self.cubin)
            return subprocess.run([disassembler(), "--no-dataflow", "--print-code", str(file)], check=True,
                                  capture_output=True, text=True).stdout

    @functools.cached_property
    def instructions(self):
        """How many instructions of the SASS have a name with its modifiers, as a Counter, or None."""
        if self.sass is None:
            return None
        # A warp that has come apart, and only such a one, calls a routine for its votes and shuffles on sm_80.
        text = re.sub(r"CALL\S* `\(__cuda_sm70_\w+\)", "", self.sass)
        found = Counter(re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]*)", text, re.MULTILINE))
        del found["NOP"]
        return found

    def count(self, prefix):
        """How many instructions begin with a name, ``LDG.E.128`` say."""
        return sum([number for name, number in self.instructions.items() if name.startswith(prefix)])


def disassembler():
    """The path of nvdisasm, or None."""
    found = shutil.which("nvdisasm")
    if found is None:
        try:
            import nvidia
        except ImportError:
            return None
        paths = [Path(root) / "cu13" / "bin" / "nvdisasm" for root in nvidia.__path__]
        found = next((str(path) for path in paths if os.access(path, os.X_OK)), None)
    return found


@functools.cache
def report(kernel, example, architecture):
    """The `Report` of a kernel for plain pointers of the types `example`."""
    ptx = ptx_of(kernel, tuple([np.dtype(name) for name in example]))
    cubin, log = link(ptx, architecture, verbose=True)

    def figure(pattern):
        return max([int(number) for number in re.findall(pattern, log)], default=0)

    body = ptx[ptx.index(".entry") :]
    lines = [line.strip() for line in body.splitlines() if not line.lstrip().startswith((".reg", "//"))]
    return Report(
        registers=figure(r"[Uu]sed (\d+) registers"),
        stack=figure(r"(\d+) bytes stack frame"),
        spills=figure(r"(\d+) bytes spill"),
        shared=figure(r"(\d+) bytes smem"),
        doubles=[line for line in lines if ".f64" in line],
        calls=[line for line in lines if line.startswith("call")],
        slow_paths=[line for line in lines if re.match(r"(@\S+\s+)?((div|rcp|sqrt)\.rn|vote\.sync|shfl\.sync)", line)],
        cubin=cubin,
    )
