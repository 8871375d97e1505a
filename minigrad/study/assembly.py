"""Assembly as Numba hands it out, made readable: the kernel's functions, their vector instructions, lines of Python."""

import linecache
import re
from typing import NamedTuple


class Part(NamedTuple):
    """A function of the assembly.

    Attributes
    ----------
    symbol : str
    text : list of str
        Its instructions and labels, with the lines of Python in between.
    instructions : list of (tuple or None, str)
        Of each vector instruction the place in Python, (file, line), and its name and width.
    """

    symbol: str
    text: list
    instructions: list


def functions(text, entry, place):
    """The `Part` of a function and of those that it reaches, in the order of the assembly.

    Parameters
    ----------
    text : str
    entry : str
        The symbol of the function.
    place : callable
        See `minigrad.study.line_numbers.Compiled.place`.
    """
    bodies, files = dict(_split(text)), {}
    for number, folder, name in re.findall(r'^\s+\.file\s+(\d+)\s+(?:"([^"]*)"\s+)?"([^"]*)"', text, re.MULTILINE):
        files[number] = f"{folder}/{name}" if folder and not name.startswith("/") else name
    reached, waiting = set(), [entry, f"_{entry}"]  # macOS puts an underscore in front
    while waiting:
        symbol = waiting.pop()
        if symbol in bodies and symbol not in reached and not symbol.startswith("NRT_"):
            reached.add(symbol)
            waiting += re.findall(r"[\w.]+", "\n".join(filter(_is_instruction, bodies[symbol])))
    placed = {symbol: list(_placed(bodies[symbol], files, place)) for symbol in bodies if symbol in reached}
    called_at = {name: here for lines in placed.values() for here, line in reversed(lines) if here
                 for name in re.findall(r"[\w.]+", line) if name in reached}
    return [_part(symbol, lines, called_at.get(symbol)) for symbol, lines in placed.items()]


def _placed(lines, files, place):
    """The lines of a function, each with its place in Python, (file, line) or None."""
    here = None
    for line in lines:
        loc = re.match(r"\s+\.loc\s+(\d+)\s+(\d+)", line)
        if loc:
            here = place(files.get(loc[1], "?"), int(loc[2])) if loc[2] != "0" else None
        else:
            yield here, line


def _part(symbol, lines, called_at):
    """A function without any places of its own, written in LLVM's language, has that of its call."""
    shown, found, said = [], [], None
    nowhere = not any(here for here, _ in lines)
    for here, line in lines:
        here = called_at if nowhere else here
        if _is_instruction(line) or re.match(r"\.?LBB\w+:", line):
            if here != said and here and not line.startswith("."):
                shown.append(f"# {here[0].rsplit('/', 1)[-1]}:{here[1]}  {linecache.getline(*here).strip()}")
                said = here
            shown.append(readable_names(line))
            instruction = vector_instruction(line)
            if instruction:
                found.append((here, instruction))
    return Part(symbol, shown, found)


def _is_instruction(line):
    return re.match(r"\s+[a-z]", line) is not None


def listing(parts):
    """The text of functions."""
    return "\n\n".join("\n".join([f"{readable(part.symbol)}:", *part.text]) for part in parts)


def _split(text):
    """The functions of an assembly file: pairs of symbol and lines."""
    name, lines, known = None, [], set(re.findall(r'^\s+\.type\s+"?([^,"]+)"?,\s*[@%]function', text, re.MULTILINE))
    known |= set(re.findall(r"^\s+\.globl\s+(\S+)$", text, re.MULTILINE))  # macOS has no .type
    for line in text.splitlines():
        label = re.match(r'"?([^\s:"#]+)"?:', line)
        if label and label[1] in known:
            if name:
                yield name, lines
            name, lines = label[1], []
        elif name and re.match(r"\s+\.(size|section|data)\b", line):
            yield name, lines
            name = None
        elif name:
            lines.append(line)
    if name:
        yield name, lines


def vector_instruction(line):
    """The name and width of an instruction on whole vectors, ``"vmulps zmm"``; None of any other line."""
    match = re.match(r"\s+([a-z][\w.]*)\s+(.*)", line)
    if not match:
        return None
    name, operands = match.groups()
    for register in ("zmm", "ymm", "xmm"):
        if re.search(rf"%?\b{register}\d", operands):
            return None if register == "xmm" and _is_scalar(name) else f"{name} {register}"
    arm = re.search(r"\bv\d+\.(16b|8h|4s|2d)", operands) or re.search(r"(?<=\.)(16b|8h|4s|2d)\s", line)
    return f"{name} {arm[1]}" if arm else None


def _is_scalar(name):
    """Whether an instruction on xmm registers works on one number."""
    if "cvt" in name:
        return re.search(r"s[sdi]", name) is not None  # cvtsi2ss, not cvtps2dq
    return "broadcast" not in name and re.search(r"(s[sd]|mov[dq])$", name) is not None


def readable(symbol):
    """The Python name inside of a mangled one: ``elementwise.one_block``."""
    match, names = re.match(r"_+ZN(.*)", symbol), []
    rest = match[1] if match else ""
    while (number := re.match(r"\d+", rest)) is not None:
        start, length = number.end(), int(number[0])
        names.append(rest[start : start + length])
        rest = rest[start + length :]
    names = [re.sub(r"B\d+.*|_3clocals_3e|_24", "", name) for name in names]
    return ".".join(name for name in names if name not in ("", "minigrad", "kernels", "cpu")) or symbol


def readable_names(line):
    """A line with its mangled names made readable."""
    return re.sub(r"\b_+ZN\w+", lambda found: readable(found[0]), line)
