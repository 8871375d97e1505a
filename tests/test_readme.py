"""The README shows what is there: its generated blocks equal what they are generated from."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")

spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)


def block(name):
    """The content of a generated block."""
    return re.search(rf"<!-- {name}: [^>]*-->\n(.*?)<!-- end -->", README, re.DOTALL)[1].strip()


def test_example_is_the_file():
    assert block("example") == readme.fenced((ROOT / "examples" / "mnist_in_30_lines.py").read_text("utf-8"), "python")


def test_example_has_thirty_lines():
    lines = (ROOT / "examples" / "mnist_in_30_lines.py").read_text("utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 30


def test_figures_are_those_of_the_json():
    assert block("accuracy") == readme.accuracy_table(json.loads((ROOT / "docs" / "accuracy.json").read_text()))
    assert block("start-up") == readme.startup_table(json.loads((ROOT / "docs" / "benchmarks.json").read_text()))


def test_output_looks_like_what_the_example_prints():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install 'minigrad-numba[examples]'")
    lines = block("output").strip("`\n").splitlines()
    assert [re.fullmatch(r"epoch (\d+): test accuracy [\d.]+%", line)[1] for line in lines] == [
        str(epoch) for epoch in range(1, 16)
    ]


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
