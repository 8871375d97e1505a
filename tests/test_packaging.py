"""The ways in which minigrad arrives on a machine: wheel, editable install, bare checkout, copied tree.

Each runs in a process of its own, in a folder of its own.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROBE = """
import sys
import minigrad as mg, minigrad.kernels, minigrad.layers
assert "numba" not in sys.modules or {compute}, "import minigrad imported numba"
for name in ("kernels", "layers"):
    module = sys.modules[f"minigrad.{{name}}"]
    assert name not in sys.modules, f"a top-level {{name}}"
    print(module.__path__[0])
if {compute}:
    print((mg.ones(3) + mg.ones(3)).numpy().tolist())
"""


def run(*command, cwd, **environment):
    """Run a command without anything of this process's Python paths."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env={**clean, **environment}, timeout=120,
                            capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def probe(cwd, *python_options, compute=False, **environment):
    return run(sys.executable, *python_options, "-c", PROBE.format(compute=compute), cwd=cwd, **environment)


def copy_of_the_tree(target):
    """What git would check out: no environments, no caches, no build outputs."""
    names = ["minigrad", "layers", "kernels", "pyproject.toml", "setup.py", "README.md", "LICENSE"]
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / name)
    return target


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel, made from a copy so that no build folder is left in the checkout."""
    setuptools = pytest.importorskip("setuptools", "77", reason="building without network needs setuptools >= 77 here")
    tree = copy_of_the_tree(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet", "--no-index",
        "--wheel-dir", out, cwd=tree)
    (built,) = out.glob("*.whl")
    assert setuptools and built.name.startswith("minigrad_numba-")
    return built


def test_the_wheel_holds_every_module_under_minigrad_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {str(path.relative_to(ROOT)).replace(os.sep, "/") for path in (ROOT / "minigrad").rglob("*.py")}
    for folder in ("kernels", "layers"):
        found = (ROOT / folder).rglob("*.py")
        expected |= {"minigrad/" + str(path.relative_to(ROOT)).replace(os.sep, "/") for path in found}
    page = {f"minigrad/study/web/{path.name}" for path in (ROOT / "minigrad" / "study" / "web").iterdir()}
    assert names == expected | page and len(page) >= 3
    assert {"minigrad/kernels/cpu/compile.py", "minigrad/layers/__init__.py", "minigrad/cli/__init__.py"} <= names


def test_the_wheel_names_its_dependencies_and_its_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        def read(name):
            return archive.read(next(n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))).decode()

        metadata, scripts = read("METADATA"), read("entry_points.txt")
    required = [line for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M) if "extra ==" not in line]
    assert sorted(re.match(r"[a-z]+", line).group() for line in required) == ["numba", "numpy"]
    assert "minigrad = minigrad.cli:main" in scripts
    assert set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.M)) >= {"cli", "examples", "bench", "test", "cuda"}
    version = re.search(r'__version__ = "(.*)"', (ROOT / "minigrad" / "version.py").read_text()).group(1)
    assert re.search(rf"^Version: {re.escape(version)}$", metadata, re.M)


def test_an_installed_wheel_works(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:  # what an installer does with a wheel of pure Python
        archive.extractall(tmp_path / "site")
    printed = probe(tmp_path, compute=True, PYTHONPATH=str(tmp_path / "site"))
    assert printed.splitlines() == [str(tmp_path / "site" / "minigrad" / "kernels"),
                                    str(tmp_path / "site" / "minigrad" / "layers"), "[2.0, 2.0, 2.0]"]


def test_an_installation_that_nothing_can_be_written_to_works(wheel, tmp_path):
    """Neither the package's folder nor the cache's: a file stands where a folder would have to be made."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    for path in (tmp_path / "site").rglob("*"):
        path.chmod(0o555)
    printed = probe(tmp_path, "-B", compute=True, PYTHONPATH=str(tmp_path / "site"),
                    MINIGRAD_CACHE_DIR=str(blocked / "cache"))
    assert printed.endswith("[2.0, 2.0, 2.0]\n")
    assert not list((tmp_path / "site").rglob("__pycache__")) and blocked.read_text() == ""


def test_a_bare_checkout_and_a_copied_tree_work(tmp_path):
    assert str(ROOT / "kernels") in probe(ROOT)
    tree = copy_of_the_tree(tmp_path)
    assert probe(tree).splitlines() == [str(tree / "kernels"), str(tree / "layers")]
    # -S leaves out site-packages' own minigrad if there is one; NumPy is then found by path.
    import numpy

    site = str(Path(numpy.__file__).parent.parent)
    assert probe(tree, "-S", PYTHONPATH=site).splitlines() == [str(tree / "kernels"), str(tree / "layers")]


def test_an_editable_install_works(tmp_path):
    """In an environment of its own, made without network: it borrows this one's packages by a .pth file."""
    pytest.importorskip("setuptools", "77", reason="building without network needs setuptools >= 77 here")
    import setuptools

    tree = tmp_path / "tree"
    tree.mkdir()
    copy_of_the_tree(tree)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[-1])", cwd=tmp_path).strip())
    (site / "borrowed.pth").write_text(str(Path(setuptools.__file__).parent.parent) + "\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation", "--quiet",
        "--no-index", "--ignore-installed", "--editable", ".", cwd=tree)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    printed = run(python, "-c", PROBE.format(compute=False), cwd=elsewhere)
    assert printed.splitlines() == [str(tree / "kernels"), str(tree / "layers")]
    script = python.with_name("minigrad.exe" if os.name == "nt" else "minigrad")
    assert run(script, "--version", cwd=elsewhere).startswith("minigrad ")


def test_pyproject_and_the_makefile_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(re.match(r"[a-z]+", line).group() for line in project["dependencies"]) == ["numba", "numpy"]
    used = set(re.findall(r"\.installed-([a-z,]+)", (ROOT / "Makefile").read_text())) - {"torch"}
    assert {extra for extras in used for extra in extras.split(",")} <= set(project["optional-dependencies"])


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_help_lists_every_target():
    targets = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split())
    printed = run("make", "help", cwd=ROOT)
    assert targets == set(re.findall(r"^make ([a-z-]+) ", printed, re.M))
