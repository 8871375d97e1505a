"""The source text of a kernel: where its name is defined, and the project's functions that it is made of."""

import ast
import dis
import functools
import inspect
import textwrap
from pathlib import Path
from types import CodeType, ModuleType

import minigrad.kernels

FOLDER = Path(minigrad.kernels.__file__).parent
MACHINERY = ("compile", "emitter", "parallel", "simd", "thread_pool", "atomics", "launch", "kernel", "language",
             "emulator", "driver", "specialise", "intrinsics", "array", "memory", "toolkit")


@functools.cache
def _homes(backend):
    """Of every kernel of a backend the file that defines it."""
    tree = ast.parse((FOLDER / backend / "__init__.py").read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (FOLDER.joinpath(*node.module.split(".")[2:]).with_suffix(".py"), alias.name)
            for node in imports for alias in node.names}


@functools.cache
def _definitions(file):
    """Of every name that a file defines at its top level: (first line, last line)."""
    found = {}
    for node in ast.parse(file.read_text("utf-8")).body:
        names = [node.name] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.Assign):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        first = min([node.lineno, *[d.lineno for d in getattr(node, "decorator_list", ())]])
        found |= {name: (first, node.end_lineno) for name in names}
    return found


def definition(backend, name):
    """The text that defines a kernel in ``reference``, ``cpu`` or ``cuda``, its place in front; "" if there is none."""
    if name not in _homes(backend):
        return ""
    file, name = _homes(backend)[name]
    first, last = _definitions(file)[name]
    text = "\n".join(file.read_text("utf-8").splitlines()[first - 1 : last])
    return f"# kernels/{backend}/{file.name}:{first}\n{text}\n"


def whole(backend, name, function):
    """The definition of a kernel and the functions that it is made of; `function` is None if it cannot be had."""
    head, parts = definition(backend, name), made_of(function) if function else ""
    if not head or parts.split("\n", 1)[-1].startswith(head.split("\n", 1)[-1].rstrip()):
        return parts  # they begin with it
    return f"{head}\n\n{parts}".rstrip() + "\n"


def made_of(function, most=40):
    """The source of a function and of the functions that it calls or closes over, its own first.

    Of the project's those that are kernels: the machinery that all kernels share (threads, vectors, launches) is left
    out. Of other people's those in the same file.
    """
    seen, waiting, texts = set(), [function], []
    own = None
    while waiting and len(texts) < most:
        item = waiting.pop(0)
        item = inspect.unwrap(getattr(item, "py_func", getattr(item, "function", item)))
        if not inspect.isfunction(item) or item.__code__ in seen:
            continue
        seen.add(item.__code__)
        file = Path(item.__code__.co_filename)
        own = own or file
        if file != own and (FOLDER not in file.parents or file.stem in MACHINERY):
            continue
        text = _text(item)
        if text not in texts:
            texts.append(text)
        waiting += [cell.cell_contents for cell in item.__closure__ or () if _is_set(cell)]
        waiting += _called(item)
    return "\n\n".join(texts)


def _called(function):
    """What a function finds under the global names that it uses, and in the kernels' modules among these."""
    known, names = function.__globals__, names_of(function.__code__)
    found = [known[name] for name in global_names(function.__code__) if name in known]
    for module in found:
        if isinstance(module, ModuleType) and module.__name__.startswith("minigrad.kernels"):
            found += [getattr(module, name) for name in names if hasattr(module, name)]
    return found


def global_names(code):
    """The global names that a code object and those inside of it use."""
    return dict.fromkeys(i.argval for part in _codes(code) for i in dis.get_instructions(part)
                         if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))


def names_of(code):
    """All names that a code object and those inside of it use, attributes too."""
    return dict.fromkeys(name for part in _codes(code) for name in part.co_names)


def _codes(code):
    """A code object and those inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_set(cell):
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _text(function):
    file = Path(function.__code__.co_filename)
    folder = f"kernels/{file.parent.name}/" if FOLDER in file.parents else ""
    place = f"# {folder}{file.name}:{function.__code__.co_firstlineno}{_captured(function)}\n"
    try:
        return place + textwrap.dedent(inspect.getsource(function)).rstrip() + "\n"
    except (OSError, TypeError):
        return f"{place}# {function.__name__}: its text cannot be read\n"


def _captured(function):
    """What the names that a function takes from around it stand for."""
    told = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = cell.cell_contents if _is_set(cell) else None
        value = getattr(value, "py_func", getattr(value, "function", value))
        if inspect.isfunction(value) and value.__name__ != name:
            place = f"the lambda of line {value.__code__.co_firstlineno}"
            told.append(f"{name} = {place if value.__name__ == '<lambda>' else value.__name__}")
        elif isinstance(value, (int, float, str)):
            told.append(f"{name} = {value!r}")
    return f", where {', '.join(told)}" if told else ""
