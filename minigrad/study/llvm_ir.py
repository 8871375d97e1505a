"""LLVM IR as Numba hands it out, made readable: the kernel's functions, lines of Python, the vectoriser's loops."""

import functools
import re

from minigrad.study.assembly import readable_names


def functions(text, symbols):
    """The definitions of some functions: symbol to text."""
    found = {}
    for match in re.finditer(r'^define .*?@"?([^"(]+)"?\(.*?^}$', text, re.DOTALL | re.MULTILINE):
        if match[1] in symbols:
            found[match[1]] = match[0]
    return found


def listing(text, bodies, place):
    """The definitions with lines of Python in the place of numbers of LLVM's metadata."""
    where = places(text, place)
    shown = []
    for body in bodies.values():
        body = re.sub(r"^ +#dbg_.*\n", "", body, flags=re.MULTILINE)
        body = re.sub(r", !dbg !(\d+)", lambda found: _comment(where.get(found[1])), body)
        body = re.sub(r"(,|) !(dbg|llvm\.loop|prof|tbaa|noalias|alias\.scope|range) !\d+", "", body)
        shown.append(readable_names(body))
    return "\n\n".join(shown)


def _comment(at):
    return f"  ; {at[0].rsplit('/', 1)[-1]}:{at[1]}" if at else ""


def places(text, place):
    """Of each location in LLVM's metadata the place in Python: number to (file, line)."""
    metadata = dict(re.findall(r"^!(\d+) = (?:distinct )?(!DI(?:Location|Subprogram|File|LexicalBlock)\(.*\))$", text,
                               re.MULTILINE))

    def field(number, name):
        found = re.search(rf'\b{name}: (?:!|")?([^,")]+)', metadata.get(number, ""))
        return found[1] if found else ""

    @functools.cache
    def file_of(scope):
        file = field(scope, "file")
        return f"{field(file, 'directory')}/{field(file, 'filename')}"

    found = {}
    for number, entry in metadata.items():
        if entry.startswith("!DILocation"):
            line = int(field(number, "line") or 0)
            found[number] = place(file_of(field(number, "scope")), line) if line else None
    return found


def vector_loops(text, bodies, place):
    """The loops that LLVM's vectoriser has made, by the places in Python that they come from.

    Returns
    -------
    dict
        (file, line) to a list of [elements of a turn, elements of a vector], the longest turns first.
    """
    where, found = places(text, place), {}
    for body in bodies.values():
        for block in re.findall(r"^(?:vec\.epilog\.)?vector\.body\S*:.*?(?=^\S)", body, re.DOTALL | re.MULTILINE):
            step = _step(block, "index") or _step(block, "lsr\\.iv")
            lanes = max(map(int, re.findall(r"<(\d+) x (?:float|double|i8|i32|i64)>", block)), default=0)
            if not step or not lanes:
                continue
            loop = [max(step, lanes), lanes]
            for number in set(re.findall(r"!dbg !(\d+)", block)):
                at = where.get(number)
                if at and loop not in found.setdefault(at, []):
                    found[at].append(loop)
    return {at: sorted(loops, reverse=True) for at, loops in found.items()}


def _step(block, counter):
    """By how much a counter of a loop changes in a turn."""
    found = re.search(rf"%{counter}\.next\S* = add (?:\w+ )+%\S+, -?(\d+)", block)
    return int(found[1]) if found else 0
