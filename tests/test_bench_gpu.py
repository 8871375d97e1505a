"""The GPU's benchmark: it checks before it times, and the page says what was measured. Run on the emulator."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import minigrad as mg
from minigrad.bench.gpu import measure, page, rows
from minigrad.bench.gpu.__main__ import main

DOCS = Path(__file__).parent.parent / "docs"
SMALL = rows.rows(small=True)


def some(*names):
    return [row for row in SMALL if row.name.startswith(names)]


def test_rows_cover_the_targets():
    every = [f"{row.group}: {row.name}" for row in rows.rows()]
    report = [{"name": row.name, "group": row.group, "ratios": {"torch": 9, "torch graphs": 9}, "share of copy": 1}
              for row in rows.rows()]
    for target in page.TARGETS:
        assert list(page._figures(target, report)), target.claim
    assert len(every) == len(set(every)) == 20


def test_measures(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "rows", lambda small: some("add", "gemm"))
    file = tmp_path / "report.json"
    assert main(["--small", "--json", str(file), "--markdown", str(tmp_path / "page.md")]) == 0
    report = json.loads(file.read_text())
    assert [row["name"] for row in report["rows"]] == [row.name for row in some("add", "gemm")]
    assert all(row["seconds"]["minigrad"] > 0 for row in report["rows"])
    add = report["rows"][0]
    assert add["share of copy"] == pytest.approx(add["work"] / add["seconds"]["minigrad"] / report["copy"])
    text = (tmp_path / "page.md").read_text()
    assert "the emulator" in text and "| training steps against torch eager | ≥ 1 | not measured | |" in text
    assert text in capsys.readouterr().out


def test_rows_in_a_precision_of_their_own(monkeypatch):
    """PyTorch's, too, which here is one that only has the setting."""

    class Torch:
        chosen = ["highest"]

        def get_float32_matmul_precision(self):
            return self.chosen[-1]

        def set_float32_matmul_precision(self, precision):
            self.chosen.append(precision)

    class Library:
        library = Torch()

    seen = []
    monkeypatch.setattr(measure, "libraries", lambda: {"minigrad": None, "torch": (Library, None, None)})
    monkeypatch.setattr(measure, "_measure", lambda *rest: seen.append(mg.get_float32_matmul_precision()))
    monkeypatch.setattr(measure, "_torch", lambda taking_part: None)
    measure.run(some("gemm"), turns=1)
    assert seen == ["highest", "3xtf32", "high", "medium"] and mg.get_float32_matmul_precision() == "highest"
    assert Torch.chosen == ["highest", "highest", "highest", "high", "highest", "high", "highest"]


def test_a_wrong_result_is_not_timed(capsys):
    row = replace(some("add")[0], tolerance=0.0)
    report = measure.run([row], turns=1)
    assert report["rows"][0]["error"].startswith("minigrad: result 0") and not report["rows"][0]["seconds"]
    assert "failed: minigrad: result 0" in page.render(report)


def test_a_row_that_fails_leaves_the_others(monkeypatch):
    """What one row asks too much of a card for must not cost the figures of all others."""
    first, second = some("add", "relu")
    prepare = measure.TorchLike.prepare

    def refuse(library, row):
        if row is first:
            raise MemoryError("cuda: out of\nmemory")
        return prepare(library, row)

    monkeypatch.setattr(measure.TorchLike, "prepare", refuse)
    report = measure.run([first, second], turns=1)
    assert report["rows"][0]["error"] == "minigrad: MemoryError: cuda: out of memory"
    assert report["rows"][1]["seconds"]["minigrad"] > 0


def test_another_library_that_fails_leaves_our_figures(monkeypatch):
    class Failing:
        def prepare(self, row):
            raise RuntimeError("no graph\nof that")

    taking_part = {**measure.libraries(), "torch graphs": (Failing(), None, ())}
    monkeypatch.setattr(measure, "libraries", lambda: taking_part)
    report = measure.run(some("add"), turns=1)
    assert report["rows"][0]["seconds"].keys() >= {"minigrad"} and "error" not in report["rows"][0]
    assert "| failed: RuntimeError: no graph of that |" in page.render(report)


def test_targets_are_judged():
    entry = {"name": "add 256 MiB, forward", "group": "memory", "work": 1.0, "unit": "B", "share of copy": 0.9,
             "seconds": {"minigrad": 1.0, "torch": 0.9}, "ratios": {"minigrad": 1.0, "torch": 0.9}}
    text = page.render({"card": "a card", "date": "today", "minigrad": "1", "copy": 1e12, "rows": [entry],
                        "torch": {"version": "2", "matmul in tf32": False, "cuDNN in tf32": True}})
    assert "| ≥ 0.85 | 1 of 1, the worst 0.90 (add 256 MiB, forward) | met |" in text
    assert "| ≥ 1 | 0 of 1, the worst 0.90 (add 256 MiB, forward) | **missed** |" in text
    assert "matrix products in tf32: no, cuDNN in tf32: yes" in text


def test_page_in_docs():
    """The page is made from the JSON beside it; where there is none, nothing was measured, and it says so."""
    figures = DOCS / "benchmarks-gpu.json"
    report = json.loads(figures.read_text()) if figures.exists() else None
    assert (DOCS / "benchmarks-gpu.md").read_text() == page.render(report)
