"""What Numba and LLVM made of a CPU kernel: IR, assembly, vector instructions, the Python lines that they come from."""

import hashlib
import linecache
import re
from collections import Counter
from typing import NamedTuple

from minigrad.kernels.cpu.compile import compile_listeners, sources_key
from minigrad.kernels.cpu.launch import dispatcher_of
from minigrad.study import assembly, llvm_ir
from minigrad.study.kept import kept

VERSION = 6  # of what is kept on disk
SHOWN = 7  # instructions of a line


class Line(NamedTuple):
    """A line of Python and the vector instructions that it became.

    Attributes
    ----------
    file : str
    number : int
    text : str
    counts : dict
        Of each instruction (``"vmulps zmm"``), how many.
    loops : list of [int, int]
        The loops made by LLVM's vectoriser that the line is in: elements of a turn, and of a vector.
    """

    file: str
    number: int
    text: str
    counts: dict
    loops: list

    def __str__(self):
        place, text = f"{self.file.rsplit('/', 1)[-1]}:{self.number}", self.text.strip()
        names = list(self.counts)
        counts = ", ".join(f"{self.counts[name]} {name}" for name in names[:SHOWN])
        rest = sum(self.counts[name] for name in names[SHOWN:])
        text = text if len(text) <= 90 else text[:89] + "…"
        found = [f"{place:<22} {text}", f"{'':>22} -> {counts}" + (f" and {rest} more" if rest else "")]
        if self.loops:
            more = " (or fewer)" if len(self.loops) > 2 else ""
            found.append(f"{'':>25} in a loop of {' or '.join(map(_turn, self.loops[:2]))} a turn{more}")
        return "\n".join(found)


def _turn(loop):
    """What a turn of a loop takes."""
    step, lanes = loop
    return f"{step} elements ({step // lanes} vectors of {lanes})" if step > lanes else f"{step} elements"


class MachineCode(NamedTuple):
    """One kernel compiled for one list of types.

    Attributes
    ----------
    signature : str
    llvm, assembly : str
        Optimised LLVM IR and assembly of the kernel and of the functions that it calls, with the lines of Python they
        come from; the code around them, which unpacks Python's objects, is left out, and names are shortened.
    vector_counts : dict
        Vector instructions of the assembly by name and width, the most frequent first.
    lines : list of Line
        The most arithmetic first.
    """

    signature: str
    llvm: str
    assembly: str
    vector_counts: dict
    lines: list


def chosen_for(kernel, arguments):
    """The compiled kernel that a call reaches, and the arguments that it gets: a kernel may choose among several."""
    kernel = dispatcher_of(kernel)
    while hasattr(kernel, "choose") and arguments is not None:
        kernel, arguments = kernel.choose(*arguments)
        kernel = dispatcher_of(kernel)
    return kernel, arguments


def machine_code(kernel, types):
    """The `MachineCode` of a kernel for arguments of some types; from the disk if it has been made before.

    Parameters
    ----------
    kernel : Numba dispatcher
        See `chosen_for`.
    types : tuple
        Numba's types of the arguments.
    """
    codegen = kernel.targetdescr.target_context.codegen()
    key = repr((sources_key(kernel.py_func), types, codegen.magic_tuple(), VERSION))
    digest = hashlib.sha256(key.encode()).hexdigest()[:20]
    known = kept(f"{kernel.py_func.__name__}-{digest}", lambda: _make(kernel.py_func, types))
    return MachineCode(*known[:-1], [Line(*line) for line in known[-1]])


def _arithmetic(counts):
    """How many of the instructions compute with floats."""
    x86, arm = r"v?(fn?m(add|sub)\d+|add|sub|mul|div|sqrt|max|min)p[sd] ", r"f(ml[as]|add|sub|mul|div|sqrt|max|min)\w* "
    return sum(count for name, count in counts.items() if re.match(f"{x86}|{arm}", name))


def _plain_type(kind):
    """A type as one writes it: ``float32[:, :]``."""
    return f"{kind.dtype}[{', '.join(':' * kind.ndim)}]" if hasattr(kind, "ndim") else str(kind)


def _make(function, types):
    from minigrad.study.line_numbers import Compiled

    for event in ("start", "end"):
        if event == "end":
            compiled = Compiled(function, types)
        for listener in compile_listeners:
            listener(event, f"{function.__name__} (to be read)", types)
    parts = assembly.functions(compiled.assembly, compiled.symbol, compiled.place)
    counts, of_lines = Counter(), {}
    for part in parts:
        for place, instruction in part.instructions:
            counts[instruction] += 1
            of_lines.setdefault(place, Counter())[instruction] += 1
    of_lines.pop(None, None)
    bodies = llvm_ir.functions(compiled.llvm, [part.symbol for part in parts])
    loops = llvm_ir.vector_loops(compiled.llvm, bodies, compiled.place)
    lines = [[file, number, linecache.getline(file, number).rstrip(), dict(found.most_common()),
              loops.get((file, number), [])] for (file, number), found in of_lines.items()]
    lines.sort(key=lambda line: (-_arithmetic(line[3]), -sum(line[3].values())))
    ir = llvm_ir.listing(compiled.llvm, bodies, compiled.place)
    return [", ".join(map(_plain_type, types)), ir, assembly.listing(parts), dict(counts.most_common()), lines]
