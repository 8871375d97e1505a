"""The code behind a page's ops: each text once, highlighted, compressed if it is long."""

import base64
import zlib
from html import escape

from minigrad.study.sources import source
from minigrad.study.texts import definition

LONG = 400  # lines of machine code that are shown
COMPRESSED = 2000  # characters from which a text is compressed: below, base64 eats what zlib gains
LEVELS = ("none", "source", "machine")
TABS = (  # title, what of a KernelSource, Pygments' lexer, whether it has to be compiled
    ("reference", "reference", "python", False), ("njit", "njit", "python", False), ("LLVM", "llvm", "llvm", True),
    ("assembly", "assembly", "gas", True), ("CUDA", "cuda", "python", False), ("PTX", "ptx", "ptx", True),
)  # fmt: skip


class Texts:
    """Texts as HTML, each kept once.

    Attributes
    ----------
    packed : list of dict
        ``{"html": ...}``, or ``{"zlib": base64}`` of a long one.
    """

    def __init__(self):
        self.packed, self._index = [], {}

    def add(self, text, language):
        """Keep a text and return its number."""
        if (text, language) not in self._index:
            self._index[text, language] = len(self.packed)
            html = highlighted(shortened(text, language), language)
            raw = html.encode()
            if len(raw) > COMPRESSED:
                self.packed.append({"zlib": base64.b64encode(zlib.compress(raw, 9)).decode()})
            else:
                self.packed.append({"html": html})
        return self._index[text, language]


def shortened(text, language):
    """Machine code of a bearable length, with a line that says what was left out."""
    lines = text.rstrip().splitlines()
    if language == "python" or len(lines) <= LONG:
        return "\n".join(lines)
    mark = {"ptx": "//", "gas": "#"}.get(language, ";")
    more = f"{mark} ... {len(lines) - LONG:,} of {len(lines):,} lines left out: minigrad.study.source has them all"
    return "\n".join([*lines[:LONG], more])


def highlighted(text, language):
    """HTML with Pygments' short class names; the page's style sheet gives them colours."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:  # an older Pygments
        return escape(text)
    return highlight(text, lexer, HtmlFormatter(nowrap=True))


def code_of(graph, level, progress=None):
    """The texts of all ops of a graph.

    Parameters
    ----------
    graph : Graph
    level : {"none", "source", "machine"}
        Nothing; what can be read without compiling; LLVM IR, assembly and PTX too.
    progress : callable, optional
        ``progress(op, number, count)`` is called before the texts of each op are made.

    Returns
    -------
    dict
        ``texts`` (see `Texts.packed`), ``ops``: by name the number of the Function's text and of each kernel's texts.
    """
    texts, ops = Texts(), {}
    classes = {} if level == "none" else {n.op: type(n.source) for n in graph if n.kind == "op"}
    for number, (name, cls) in enumerate(classes.items()):
        if progress:
            progress(name, number, len(classes))
        found = source(cls)
        function = "\n\n".join(filter(None, [found.function, found.gradients]))
        ops[name] = {"function": texts.add(function, "python"),
                     "kernels": [_kernel(kernel, level, texts) for kernel in found.kernels]}
    if progress:
        progress("", len(classes), len(classes))
    return {"level": level, "tabs": [tab[0] for tab in TABS], "ops": ops, "texts": texts.packed}


def _kernel(kernel, level, texts):
    """The numbers of a kernel's texts; a sentence where one is missing."""
    entry = {"name": kernel.name, "notes": []}
    for title, attribute, language, compiled in TABS:
        if compiled and level != "machine":
            entry[title] = 'Not on this page: it was written with code="source". Write it with code="machine".'
            continue
        light = attribute == "cuda" and level != "machine"  # what a call launches is found by compiling
        try:
            text = definition("cuda", kernel.name) if light else getattr(kernel, attribute)
        except Exception as error:  # a compiler that fails takes its own tab away, not the page
            entry[title] = f"The {title} of {kernel.name} could not be made: {error}"
            continue
        if text:
            entry[title] = texts.add(text, language)
        else:
            why = kernel.why_not if attribute == "ptx" else kernel.why_no_machine if compiled else ""
            entry[title] = why or f"{kernel.name} has no {title}."
    if level == "machine":
        entry["notes"] = list(filter(None, map(_attempt, (lambda: _vectors(kernel), lambda: _registers(kernel)))))
    return entry


def _attempt(make):
    """What a function returns; nothing if a compiler fails, the tab of its text says so."""
    try:
        return make()
    except Exception:
        return ""


def _vectors(kernel):
    counts = ", ".join(f"{count} {name}" for name, count in list(kernel.vector_counts.items())[:8])
    return counts and f"vector instructions: {counts}"


def _registers(kernel):
    return "" if kernel.registers is None else f"{kernel.registers} registers per thread on sm_90"
