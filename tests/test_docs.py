"""The site's sources: the API pages name everything public, flowcharts can be drawn, links have their files."""

import importlib.util
import re
from pathlib import Path

import pytest

import minigrad as mg
from minigrad import data, layers, optim, study, testing
from minigrad.layers import init

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "docs" / "api").glob("*.rst")}

# Public names that no page lists: modules and what is the same under another name.
NOT_LISTED = {
    mg: {"autograd", "bench", "bool", "cli", "comparing", "compiling", "cpu", "creation", "data", "device", "dtypes",
         "extension", "float32", "float64", "function", "functional", "inplace", "int64", "kernels", "layers", "modes",
         "ops", "optim", "precision", "random", "reading", "recording", "serialization", "shaping", "study", "testing",
         "threads", "version", "watching"},
    layers: {"init"},
    data: {"LOADERS"},
    optim: {"lr_scheduler"},
}  # fmt: skip


def load(name):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(module):
    """The names of a module that the API pages list."""
    names = set()
    for page in PAGES.values():
        for section in page.split(".. currentmodule:: ")[1:]:
            if section.split()[0] == module.__name__:
                names |= set(re.findall(r"^   (\w+)$", section, re.MULTILINE))
    return names


def public(module):
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    return set(names) - NOT_LISTED.get(module, set())


@pytest.mark.parametrize("module", [mg, layers, optim, data, testing, study], ids=lambda module: module.__name__)
def test_api_pages_name_everything_public(module):
    assert public(module) - listed(module) == set()


@pytest.mark.parametrize("module", [mg, layers, init, optim, data, testing], ids=lambda module: module.__name__)
def test_what_the_api_pages_name_is_there(module):
    assert listed(module)
    for name in listed(module):
        assert getattr(module, name).__doc__, name


def test_every_api_page_is_in_the_index():
    linked = re.findall(r"^   (\w+)$", PAGES["index"], re.MULTILINE)
    assert set(linked) == set(PAGES) - {"index"}


def test_linked_files_of_the_first_page_exist():
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / "index.md").read_text("utf-8"))
    assert len(targets) >= 5
    for target in targets:
        assert (ROOT / "docs" / target).resolve().exists(), target


def test_flowchart_is_read():
    flowchart = load("flowchart")
    labels, edges = flowchart.parsed('flowchart LR\n  a["x < 1"] --> b["y"]\n  b --> c\n  w["w"] --> c')
    assert labels == {"a": "x < 1", "b": "y", "c": "c", "w": "w"}
    assert edges == [("a", "b"), ("b", "c"), ("w", "c")]
    assert flowchart.layers_of(labels, edges) == {"a": 0, "b": 1, "c": 2, "w": 1}


def test_flowchart_of_the_batchnorm_page_is_drawn():
    pytest.importorskip("igraph", reason="flowcharts are laid out by it: pip install 'minigrad-numba[docs]'")
    text = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "batchnorm.md").read_text("utf-8"), re.DOTALL)[1]
    svg = load("flowchart").to_svg(text)
    assert svg.count("<rect") == 9 and svg.count(' C') == text.count("-->")


@pytest.mark.parametrize("text, message", [
    ("flowchart TD\n a --> b", "expected `flowchart LR`, got 'flowchart TD'"),
    ("flowchart LR\n a - b", "got ' a - b'"),
])  # fmt: skip
def test_other_flowcharts_are_a_sentence(text, message):
    with pytest.raises(ValueError, match=message):
        load("flowchart").parsed(text)
