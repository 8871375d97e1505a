"""The backends expose the same kernels with the same arguments, and kernels import nothing of the engine."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

from minigrad.kernels import cpu, cuda, reference
from minigrad.kernels.cpu.launch import dispatcher_of

FOLDER = Path(inspect.getfile(cpu)).parent.parent
THIRD_PARTY = {"numpy", "numba", "llvmlite"}
FOR_CUDA = {"cuda", "greenlet", "nvidia"}  # extras, imported by kernels/cuda alone
BACKENDS = {"cpu": cpu, "cuda": cuda}


def parameters(kernel):
    kernel = dispatcher_of(kernel)
    return list(inspect.signature(getattr(kernel, "py_func", kernel)).parameters.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_names(backend):
    names = BACKENDS[backend].__all__
    assert sorted(reference.__all__) == sorted(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", reference.__all__)
def test_same_arguments(name, backend):
    expected, got = parameters(getattr(reference, name)), parameters(getattr(BACKENDS[backend], name))
    assert [p.name for p in got] == [p.name for p in expected]
    assert all(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in (*expected, *got))


def test_same_files():
    """A kernel's definition and its code are in files of the same name."""
    for name in reference.__all__:
        definition = inspect.getmodule(getattr(reference, name)).__name__.rsplit(".", 1)[1]
        for backend in BACKENDS:
            assert name in vars(sys.modules[f"minigrad.kernels.{backend}.{definition}"])


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            modules = [node.module]
        else:
            continue
        for module in modules:
            root = module.split(".")[0]
            inside = module == "minigrad.kernels" or module.startswith("minigrad.kernels.")
            known = root in THIRD_PARTY or root in FOR_CUDA and file.parent.name == "cuda"
            assert inside or known or root in sys.stdlib_module_names, f"{file.name} imports {module}"


def test_reference_needs_no_compiler():
    for file in (FOLDER / "reference").glob("*.py"):
        assert "numba" not in file.read_text()
