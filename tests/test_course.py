"""docs/course: every block of code prints what the chapter says, every exercise can be solved, none is solved yet."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COURSE = ROOT / "docs" / "course"


def load(path):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load(ROOT / "docs" / "pages.py")

CHAPTERS = pages.chapters()
INDEX = COURSE / "index.md"
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def without_code(text):
    """A page's text."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def without_outputs(text):
    """A page without what its code prints."""
    return re.sub(rf"^{pages.OUTPUT}$.*?^{pages.END}$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_chapters_are_numbered_without_a_gap():
    assert CHAPTERS and [int(path.name[:2]) for path in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


@each_chapter
def test_code_prints_what_the_chapter_says(path):
    text = path.read_text("utf-8")
    blocks = pages.blocks(text)
    assert len(blocks) == text.count("```python")
    assert text.count(pages.OUTPUT) == sum(bool(block.printed) for block in blocks)
    printed, _ = pages.run([block.code for block in blocks], path.name)
    for block, output in zip(blocks, printed, strict=True):
        if block.compared:
            assert output == block.printed, f"rewrite it by `python docs/pages.py`, if this is right:\n{block.code}"
        else:
            assert bool(output) == bool(block.printed)


@each_chapter
def test_chapter_is_short(path):
    lines = [line for line in without_outputs(path.read_text("utf-8")).splitlines() if line.strip()]
    assert 80 <= len(lines) <= 240
    assert all(len(line) <= 120 for line in lines)


@each_chapter
def test_chapter_ends_with_two_exercises(path):
    text, number = path.read_text("utf-8"), path.name[:2]
    body, exercises = text.split("\n## Exercises\n")
    assert re.findall(r"^(\d)\. ", exercises, re.MULTILINE) == ["1", "2"]
    assert f"python -m pytest docs/course/exercises/test_ch{number}.py" in exercises
    assert not re.search(r"^## ", exercises, re.MULTILINE)
    for file in (f"exercises/ch{number}.py", f"exercises/test_ch{number}.py", f"solutions/ch{number}.py"):
        assert (COURSE / file).exists()
    skeleton = (COURSE / "exercises" / f"ch{number}.py").read_text("utf-8")
    assert skeleton.count("raise NotImplementedError") >= 2


@pytest.mark.parametrize("path", [INDEX, *CHAPTERS], ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    text = path.read_text("utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", without_code(text)):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text("utf-8")), f"{target}#{anchor}"
        elif anchor:
            assert int(anchor.removeprefix("L")) <= len(file.read_text("utf-8").splitlines())


@each_chapter
def test_formulas_in_the_text_end_in_their_line(path):
    """GitHub shows $...$ across a line break as it stands."""
    for line in re.sub(r"\$\$.*?\$\$", "", without_code(path.read_text("utf-8")), flags=re.DOTALL).splitlines():
        assert line.count("$") % 2 == 0, line


def test_index_names_every_chapter_in_order():
    said = re.search(r"<!-- chapters: [^>]*-->\n(.*?)<!-- end -->", INDEX.read_text("utf-8"), re.DOTALL)[1].strip()
    assert said == pages.contents(), "rewrite it by `python docs/pages.py`"
    assert re.findall(r"^(\d+)\. ", said, re.MULTILINE) == [str(number + 1) for number in range(len(CHAPTERS))]


def exercises(folder):
    """How the tests of all exercises end, with the reader's answers or those of `solutions`: test -> outcome."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", COURSE / "exercises"]
    environment = {**os.environ, "MINIGRAD_COURSE": folder, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) \S*?(test_ch\d\d\.py::\S+)", ended.stdout, re.MULTILINE)
    assert found, ended.stdout + ended.stderr
    return {test: outcome for outcome, test in found}


def test_every_solution_passes():
    outcomes = exercises("solutions")
    assert {test: outcome for test, outcome in outcomes.items() if outcome != "PASSED"} == {}
    assert {test[7:9] for test in outcomes} == {path.name[:2] for path in CHAPTERS}


def test_every_skeleton_fails_every_test():
    outcomes = exercises("exercises")
    assert {test: outcome for test, outcome in outcomes.items() if outcome != "FAILED"} == {}


def test_autograd_of_chapter_1_has_at_most_60_lines():
    text = next(path for path in CHAPTERS if path.name.startswith("01")).read_text("utf-8")
    (code,) = (block.code for block in pages.blocks(text) if "class Value" in block.code)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 60, f"{len(lines)} lines"


def test_a_block_below_the_mark_is_not_compared():
    text = f"{pages.NOT_COMPARED}\n```python\nprint(1)\n```\n\n```python\nx = 2\nprint(x)\n```\n"
    written = pages.with_outputs(text)
    assert [block.compared for block in pages.blocks(written)] == [False, True]
    assert [block.printed for block in pages.blocks(written)] == ["1\n", "2\n"]
    assert pages.with_outputs(written) == written


def test_figure_shows_the_table_of_the_chapter():
    figures = load(COURSE / "figures.py")
    assert figures.IMAGE.read_text("utf-8") == figures.drawing(), "rewrite it by `python docs/course/figures.py`"
    chapter = next(path for path in CHAPTERS if path.name.startswith("05"))
    (code,) = (block.code for block in pages.blocks(chapter.read_text("utf-8")) if "def offsets" in block.code)
    _, names = pages.run(["import numpy as np", code])
    table = names["offsets"](1, figures.WINDOW, figures.WINDOW, figures.ROWS, figures.COLUMNS)
    assert figures.taps() == table.tolist()
