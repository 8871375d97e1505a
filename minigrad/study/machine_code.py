"""What Numba and LLVM made of a CPU kernel: IR, assembly, its vector instructions, and the Python lines they come from."""

import hashlib
import json
import linecache
import re
from collections import Counter
from typing import NamedTuple

import numba

from minigrad.kernels.cpu.compile import OPTIONS, KernelCompiler, cache_folder, compile_listeners, sources_key
from minigrad.kernels.cpu.launch import dispatcher_of

VERSION = 1  # of what is kept on disk
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
    """

    file: str
    number: int
    text: str
    counts: dict

    def __str__(self):
        place, text = f"{self.file.rsplit('/', 1)[-1]}:{self.number}", self.text.strip()
        names = list(self.counts)
        counts = ", ".join(f"{self.counts[name]} {name}" for name in names[:SHOWN])
        rest = sum(self.counts[name] for name in names[SHOWN:])
        text = text if len(text) <= 60 else text[:59] + "…"
        return f"{place:<22} {text}\n{'':>22} -> {counts}" + (f" and {rest} more" if rest else "")


class MachineCode(NamedTuple):
    """One kernel compiled for one list of types.

    Attributes
    ----------
    signature : str
    llvm, assembly : str
        Optimised LLVM IR and assembly of the kernel and of the functions that it calls; the code around them, which
        unpacks Python's objects, is left out.
    vector_counts : dict
        Vector instructions of the assembly by name and width, the most frequent first.
    lines : list of Line
        The most instructions first. Found in a second compilation, with line numbers: there LLVM sometimes inlines
        otherwise, so that counts can differ from those of `assembly`.
    """

    signature: str
    llvm: str
    assembly: str
    vector_counts: dict
    lines: list


def compiled(kernel):
    """Numba's dispatcher of a CPU kernel (as ``device.kernels`` has it), which has its Python function as ``py_func``."""
    return dispatcher_of(kernel)


def chosen_for(kernel, arguments):
    """The compiled kernel that a call reaches, and the arguments that it gets: a kernel may choose among several."""
    kernel = compiled(kernel)
    while hasattr(kernel, "choose"):
        kernel, arguments = kernel.choose(*arguments)
        kernel = compiled(kernel)
    return kernel, arguments


def machine_code(kernel, arguments):
    """The `MachineCode` of a kernel for arguments of these types; from the disk if it has been made before.

    Parameters
    ----------
    kernel : Numba dispatcher
        See `chosen_for`.
    arguments : tuple
        Arrays and numbers.
    """
    types = tuple(numba.typeof(a) for a in arguments)
    codegen = kernel.targetdescr.target_context.codegen()
    key = hashlib.sha256(repr((sources_key(kernel.py_func), types, codegen.magic_tuple(), VERSION)).encode()).hexdigest()
    file = cache_folder() / "study" / f"{kernel.py_func.__name__}-{key[:20]}.json"
    try:
        known = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        known = _make(kernel.py_func, types)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".part")
            partial.write_text(json.dumps(known), "utf-8")
            partial.replace(file)
        except OSError:  # a read-only disk: it is made again next time
            pass
    return MachineCode(*known[:-1], [Line(*line) for line in known[-1]])


def _make(function, types):
    for listener in compile_listeners:
        listener("start", f"{function.__name__} (to be read)", types)
    plain = _compile(function, types)
    with_lines = _compile(function, types, debug=True)
    for listener in compile_listeners:
        listener("end", f"{function.__name__} (to be read)", types)
    (signature,) = plain.signatures
    assembly = _functions_of_assembly(plain.inspect_asm(signature))
    lines = _lines(with_lines.inspect_asm(with_lines.signatures[0]))
    counts = Counter(filter(None, map(_vector_instruction, assembly.splitlines())))
    signature = ", ".join(map(str, signature))
    return [signature, _functions_of_llvm(plain.inspect_llvm(plain.signatures[0])), assembly,
            dict(counts.most_common()), lines]


def _compile(function, types, **options):
    dispatcher = numba.njit(function, _nrt=False, pipeline_class=KernelCompiler, **OPTIONS, **options)
    dispatcher.compile(types)
    return dispatcher


def _wanted(symbol):
    """Whether a function is the kernel's, and not what Numba puts around it."""
    return not symbol.startswith(("_ZN7cpython", "cfunc.", "NRT_", "numba_", "_numba"))


def readable(symbol):
    """The Python name inside of a mangled one: ``elementwise.one_block``."""
    match, names = re.match(r"_ZN(.*)", symbol), []
    rest = match[1] if match else ""
    while (number := re.match(r"\d+", rest)) is not None:
        length = int(number[0])
        rest = rest[number.end() :]
        names.append(rest[:length])
        rest = rest[length:]
    names = [name for name in names if name not in ("minigrad", "kernels", "cpu")]
    names = [re.sub(r"B\d+.*|_3clocals_3e|_24", "", name) for name in names]
    return ".".join(filter(None, names)) or symbol


def _functions_of_llvm(text):
    parts = []
    for match in re.finditer(r"^define .*?@\"?([^\"(]+)\"?\(.*?^}$", text, re.DOTALL | re.MULTILINE):
        if _wanted(match[1]):
            parts.append(f"; {readable(match[1])}\n{match[0]}")
    return "\n\n".join(parts)


def _functions_of_assembly(text):
    return "\n\n".join(f"# {readable(name)}\n" + "\n".join(line for line in body if not line.lstrip().startswith(".cfi"))
                       for name, body in _split(text) if _wanted(name))


def _split(text):
    """The functions of an assembly file: pairs of symbol and lines."""
    name, lines, functions = None, [], set(re.findall(r'^\s+\.type\s+"?([^,"]+)"?,\s*[@%]function', text, re.MULTILINE))
    for line in text.splitlines():
        label = re.match(r'"?([^\s:"#]+)"?:', line)
        if label and label[1] in functions:
            if name:
                yield name, lines
            name, lines = label[1], []
        elif name and re.match(r"\s+\.(size|section|data|text)\b", line) and not line.strip().startswith(".text"):
            yield name, lines
            name = None
        elif name:
            lines.append(line)
    if name:
        yield name, lines


def _vector_instruction(line):
    """The name and width of a packed instruction, ``"vmulps zmm"``; None of any other line."""
    match = re.match(r"\s+([a-z][\w.]*)\s+(.*)", line)
    if not match:
        return None
    name, operands = match.groups()
    for register in ("zmm", "ymm", "xmm"):
        if f"%{register}" in operands or re.search(rf"\b{register}\d", operands):
            scalar = re.search(r"(ss|sd|vcvt.*|vmovd|vmovq|movd|movq)$", name) and register == "xmm"
            return None if scalar else f"{name} {register}"
    arm = re.search(r"\bv\d+\.(16b|8h|4s|2d)", operands)
    return f"{name} {arm[1]}" if arm else None


def _lines(text):
    """The vector instructions by the line of Python in front of which the assembler was told ``.loc``."""
    files, counts, place = {}, {}, None
    for match in re.finditer(r'^\s+\.file\s+(\d+)\s+(?:"([^"]*)"\s+)?"([^"]*)"', text, re.MULTILINE):
        number, folder, name = match.groups()
        files[number] = f"{folder}/{name}" if folder and not name.startswith("/") else name
    for _, lines in filter(lambda part: _wanted(part[0]), _split(text)):
        for line in lines:
            loc = re.match(r"\s+\.loc\s+(\d+)\s+(\d+)", line)
            if loc:
                place = (files.get(loc[1], "?"), int(loc[2])) if loc[2] != "0" else place
            else:
                instruction = _vector_instruction(line)
                if instruction and place:
                    counts.setdefault(place, Counter())[instruction] += 1
    found = [[file, number, linecache.getline(file, number).rstrip(), dict(counter.most_common())]
             for (file, number), counter in counts.items()]
    return sorted(found, key=lambda line: -sum(line[3].values()))
