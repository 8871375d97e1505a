"""The house: imports run one way, `import minigrad` is light, files are short, docstrings tell the truth."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad as mg

ROOT = Path(mg.__file__).parent.parent
SOURCES = sorted(p for folder in ("minigrad", "layers", "kernels") for p in (ROOT / folder).rglob("*.py"))
EVERYTHING = SOURCES + sorted(p for folder in ("tests", "examples", "bench") for p in (ROOT / folder).rglob("*.py"))

# Floors, from the ground up; whoever stands on one may import from it and from those below.
TOOLS = ("minigrad.cli", "minigrad.bench", "minigrad.study")
ENGINE_ON_DEMAND = ("minigrad.data", "minigrad.optim", "minigrad.testing", "minigrad.serialization")


def module_name(path):
    """The name a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "minigrad" else ("minigrad", *parts))


def floor(name):
    """0 for kernels, 1 for the engine, 2 for layers, 3 for tools."""
    if name.startswith("minigrad.kernels"):
        return 0
    if name.startswith("minigrad.layers"):
        return 2
    return 3 if name.startswith(TOOLS) else 1


def imports(path, everywhere=True):
    """(line, module) of the imports of a file: all, or those at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = (base + (node.module or "")).rstrip(".")
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def test_there_are_sources():
    assert len(SOURCES) > 40 and {floor(module_name(p)) for p in SOURCES} >= {0, 1}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_run_one_way(path):
    """kernels <- engine <- layers <- tools; only kernels know Numba."""
    own = floor(module_name(path))
    for line, name in imports(path):
        if name.startswith("minigrad") and name not in ("minigrad", "minigrad.__version__"):
            assert floor(name) <= own, f"{path.relative_to(ROOT)}:{line} imports {name}, which stands above it"
        assert name.split(".")[0] not in ("kernels", "layers"), (
            f"{path.relative_to(ROOT)}:{line}: write minigrad.{name}"
        )
        if name.split(".")[0] in ("numba", "llvmlite"):
            assert own in (0, 3), f"{path.relative_to(ROOT)}:{line} imports {name}: only kernels and tools may"
        if own == 0:
            assert not name.startswith("minigrad") or name.startswith("minigrad.kernels"), (
                f"{path}:{line} imports {name}"
            )
        if own in (1, 2):
            assert "kernels" not in name, f"{path.relative_to(ROOT)}:{line} imports {name}: a Device brings the kernels"


def test_nobody_imports_the_folders_by_their_bare_names():
    """`layers` and `kernels` as top-level modules would exist twice."""
    for path in EVERYTHING:
        for line, name in imports(path):
            assert name.split(".")[0] not in ("kernels", "layers"), f"{path.relative_to(ROOT)}:{line}"


def test_layers_use_no_kernels():
    for path in SOURCES:
        if floor(module_name(path)) == 2:
            assert ".kernels." not in path.read_text(encoding="utf-8"), path


def run(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, **kwargs)


def test_import_is_light():
    """The engine alone: neither Numba nor what tools and examples need, and nothing else of minigrad."""
    done = run("import sys, minigrad; print(*sorted(sys.modules))")
    assert done.returncode == 0 and not done.stderr, done.stderr
    modules = set(done.stdout.split())
    for name in ("numba", "llvmlite", "scipy", "matplotlib", "rich", "torch", "sklearn", "pooch", "pytest"):
        assert name not in modules
    ours = {name for name in modules if name.startswith("minigrad")}
    assert "minigrad.ops.conv" in ours and not any(
        floor(name) != 1 or name.startswith(ENGINE_ON_DEMAND) for name in ours
    )


def test_on_demand_modules():
    done = run(
        "import minigrad as mg; mg.testing.gradcheck; mg.data; print(sorted(n for n in dir(mg) if n == 'layers'))"
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="module 'minigrad' has no attribute 'nonsense'"):
        mg.nonsense  # noqa: B018


def test_numba_comes_with_the_first_number():
    done = run(
        "import sys, minigrad as mg; mg.tensor([1.0]); a = 'numba' in sys.modules; mg.zeros(2) + 1.0; "
        "print(a, 'numba' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_short_and_clean(path):
    """At most 500 lines, LF ends, no trailing blanks, a docstring on top."""
    text = path.read_bytes().decode("utf-8")
    assert "\r" not in text and text.count("\n") <= 500
    if text.strip():
        assert text.endswith("\n") and not re.search(r"[ \t]$", text, re.MULTILINE)
        assert ast.get_docstring(ast.parse(text)), "no module docstring"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_print(path):
    """A library says nothing on its own; tables and progress belong to the tools, summaries to who asks for them."""
    if floor(module_name(path)) == 3 or path.name in ("progress.py", "download.py", "compiling.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "breakpoint", "input"), f"{path.relative_to(ROOT)}:{node.lineno}"


ON_A_GPU = {"minigrad.kernels.cuda." + name for name in ("driver", "compile", "code")}


def modules():
    """Every module of the library that needs no extras, and no GPU."""
    names = [module_name(path) for path in SOURCES if path.name != "__main__.py"]
    return [importlib.import_module(name) for name in names if floor(name) < 3 and name not in ON_A_GPU]


def public(module):
    """(qualified name, object) of the functions and classes that a module defines."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield f"{module.__name__}.{name}", thing


def documented_parameters(doc):
    """The names listed under Parameters in a numpydoc docstring."""
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n[A-Z][A-Za-z ]+\n-+\n|\Z)", doc, re.DOTALL)
    for line in section.group(1).splitlines() if section else ():
        match = re.match(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: :.*)?$", line)
        if match and not line.startswith(" "):
            yield from (name.lstrip("*") for name in match.group(1).split(", "))


FAMILIES = [path.stem for path in (ROOT / "kernels" / "reference").glob("*.py")]


def test_public_functions_are_documented():
    """Everything public has a docstring, and parameters it lists exist."""
    wrong, seen = [], 0
    for module in modules():
        name = module.__name__.removeprefix("minigrad.kernels.")
        if name.startswith("cpu") or name in ("reference.elementwise", *[f"cuda.{family}" for family in FAMILIES]):
            continue  # the reference documents all kernels; add and exp need no sentence
        for name, thing in public(module):
            doc = inspect.getdoc(thing)
            if not doc:
                wrong.append(f"{name} has no docstring")
                continue
            try:
                arguments = set(inspect.signature(thing).parameters)
            except (TypeError, ValueError):
                continue
            for parameter in documented_parameters(doc):
                seen += 1
                if parameter not in arguments:
                    wrong.append(f"{name} documents {parameter}, which it does not take")
    assert not wrong, "\n".join(wrong)
    assert seen > 50


def test_all_lists_are_true():
    """`__all__` names what there is, once."""
    for module in modules():
        names = getattr(module, "__all__", [])
        assert len(names) == len(set(names)), module.__name__
        assert all(hasattr(module, name) for name in names), module.__name__


def test_functional_is_a_part_of_ops():
    for name in mg.functional.__all__:
        assert getattr(mg.functional, name) is getattr(mg.ops, name)
