"""What the benchmark's report concludes: targets, reasons, differences of rows, one report out of several."""

import re

import pytest

from minigrad.bench import combine, markdown, reasons, report, targets
from minigrad.bench.rows import ROWS
from minigrad.bench.targets import Outcome, Target


def _row(name, group="nets", mode="train", work=1.0, ratios=None, **medians):
    results = {label: {"median": value, "p25": value, "p75": value} for label, value in medians.items()}
    entry = {"name": name, "group": group, "mode": mode, "work": work, "unit": "op", "results": results}
    return {**combine.with_ratios(entry), **({"ratios": ratios} if ratios else {})}


def _report(*rows):
    return {
        "format": combine.FORMAT, "date": "2026-01-01T00:00:00+00:00", "minigrad": "0", "seconds": 60.0,
        "settings": {"rounds": 1, "turn seconds": 0.1, "libraries": ["minigrad", "torch"]}, "rows": list(rows),
        "environment": {"processor": "P", "processors": 2, "usable processors": 2, "vector instructions": "avx2",
                        "caches": "L1 32K", "platform": "X", "python": "3", "threads": 2, "libraries": {},
                        "variables removed": {"OPENBLAS_CORETYPE": "Haswell"},
                        "variables set": {"MINIGRAD_LANES": "16"}},
    }


def _outcome(target, *rows):
    return targets.evaluate(_report(*rows), [target])[0]


STEP = Target("step", "nets: step", 2, ("torch", "jax"))


@pytest.mark.parametrize("ratios, measured, met", [
    ({"torch": 3.0, "jax": 2.5, "numpy": 0.1}, "2.50x (jax)", True),
    ({"torch": 2.0}, "2.00x (torch)", True),
    ({"torch": 1.99, "jax": 9.0}, "1.99x (torch)", False),
    ({"numpy": 9.0}, "not measured", None),
])
def test_ratio_against_the_best(ratios, measured, met):
    assert _outcome(STEP, _row("step", ratios=ratios)) == Outcome("step", "≥ 2x", measured, met)


def test_the_whole_name_counts():
    assert _outcome(STEP, _row("step two", ratios={"torch": 1.0}), _row("a step", ratios={"torch": 1.0})).met is None


def test_every_row_has_to_reach_the_figure():
    rows = [_row("a", "layers", ratios={"torch": 4.0}), _row("b", "layers", ratios={"torch": 0.5}),
            _row("c", "layers", ratios={"torch": 0.75})]
    found = _outcome(Target("ops", "layers: .*", 1), *rows)
    assert found == Outcome("ops", "≥ 1x", "1 of 3 rows, the worst 0.50x (b)", False)
    assert _outcome(Target("ops", "layers: .*", 0.5), *rows).met


def test_time_per_op_is_an_upper_bound():
    target = Target("engine", "engine: .*", 2, figure="per op")
    fast, slow = (_row(name, "engine", work=100, minigrad=seconds) for name, seconds in (("f", 1.5e-4), ("s", 2.5e-4)))
    assert _outcome(target, fast) == Outcome("engine", "≤ 2 µs", "1.50 µs", True)
    assert _outcome(target, fast, slow) == Outcome("engine", "≤ 2 µs", "1 of 2 rows, the worst 2.50 µs (s)", False)
    assert _outcome(target, _row("t", "engine", torch=1e-4)).met is None


def test_every_target_has_its_rows():
    names = [f"{row.group}: {row.name}" for row in ROWS.values()]
    names += [name.removesuffix(combine.BOTH) + ", backward alone" for name in names
              if name.startswith("engine") and name.endswith(combine.BOTH)]
    counts = {t.claim: sum(bool(re.fullmatch(t.rows, name)) for name in names) for t in targets.TARGETS}
    assert all(counts.values())
    assert counts["training step A against torch eager"] == counts["second thread on training step C"] == 1
    assert counts["GEMM from 256³ up against NumPy"] == 4
    assert counts["engine, forward, per op"] == 3 and counts["engine, backward alone, per op of chain and fan-out"] == 2
    # One plain 3x3 convolution at 32 channels and more for every width of 7 to 56.
    wide = next(t for t in targets.TARGETS if t.claim.startswith("3x3") and "gradients" in t.claim)
    matching = [name for name in names if re.fullmatch(wide.rows, name)]
    widths = {re.search(r"(\d+)\) ->", name)[1] for name in matching}
    assert widths >= {"7", "8", "14", "16", "28", "32", "56"}
    assert not any(word in name for name in matching for word in ("stride", "groups", "dilation", "(64, 16,"))


def test_markdown_shows_targets_and_environment():
    text = markdown.render(_report(_row("training step A, batch 60", minigrad=1.0, torch=4.0, numpy=2.0)))
    section = text.split("## Targets")[1].split("##")[0]
    assert "| training step A against torch eager | ≥ 3x | 4.00x | met |" in section
    assert "| training step A against NumPy | ≥ 3x | 2.00x | **missed** |" in section
    assert "| training step B against NumPy | ≥ 12x | not measured | not measured |" in section
    assert "| removed | environment variables OPENBLAS_CORETYPE=Haswell |" in text and "MINIGRAD_LANES=16" in text


def test_terminal_shows_only_measured_targets(capsys):
    report.show(_report(_row("training step A, batch 60", minigrad=1.0, torch=4.0)))
    shown = capsys.readouterr().out
    assert "training step A against torch eager" in shown and "met" in shown and "training step B" not in shown


def test_rows_below_torch_and_their_reasons():
    one_thread = {"torch, 1 thread": 0.4, "torch, 2 threads": 0.9, "minigrad, 1 thread": 1.5}
    figures = _report(_row("fast", ratios={"torch": 1.0, "numpy": 0.1}), _row("slow", ratios={"torch": 0.5}),
                      _row("threads", ratios=one_thread), _row("compiled", ratios={"torch.compile": 0.5}),
                      _row("first training step Z, nothing cached", ratios={"torch": 0.1}))
    found = targets.below_torch(figures)
    assert found == [("first training step Z, nothing cached", 0.1), ("slow", 0.5), ("threads", 0.9)]
    text = markdown.render(figures).split("## Rows below PyTorch")[1]
    assert "| slow | 0.50 | no reason recorded |" in text
    assert f"| 0.10 | {reasons.reason('first training step Z, nothing cached')} |" in text
    assert "no reason" not in reasons.reason("first training step Z, nothing cached")


def test_what_stands_in_the_way():
    """Only of what is missed, each text once; every text belongs to a target."""
    missed = markdown.render(_report(_row("training step A, batch 60", minigrad=1.0, torch=1.0, numpy=1.0)))
    section = missed.split("### What stands in the way")[1].split("##")[0]
    assert section.count("* ") == 1 and reasons.obstacle("training step A against NumPy") in section
    met = markdown.render(_report(_row("training step A, batch 60", minigrad=1.0, torch=9.0, numpy=9.0)))
    assert "stands in the way" not in met
    for pattern, text in reasons.OBSTACLES:
        assert text and any(re.search(pattern, target.claim) for target in targets.TARGETS), pattern
    assert reasons.obstacle("no such target") is None


def test_the_first_reason_counts():
    table = (("^sum .*axis 2", "narrow"), ("^sum", "wide"))
    found = [reasons.reason(name, table) for name in ("sum x, axis 2", "sum x", "a sum")]
    assert found == ["narrow", "wide", reasons.NONE]


def test_every_reason_is_needed_by_a_row():
    for pattern, text in reasons.REASONS:
        assert text and any(re.search(pattern, name) for name in ROWS), pattern


def test_backward_alone_is_a_difference():
    figures = combine.complete(_report(
        _row("chain, forward", "engine", "recorded", work=100, minigrad=2e-4, torch=1e-4),
        _row("chain, forward + backward", "engine", "backward", work=100, minigrad=5e-4, torch=7e-4),
        _row("exp, forward", "elementwise", "forward", minigrad=2e-4),
        _row("exp, forward + backward", "elementwise", "backward", minigrad=5e-4)))
    assert [row["name"] for row in figures["rows"]] == [
        "chain, forward", "chain, forward + backward", "chain, backward alone",
        "exp, forward", "exp, forward + backward"]
    alone = figures["rows"][2]
    assert alone["results"]["minigrad"]["median"] == pytest.approx(3e-4) and alone["group"] == "engine"
    assert alone["ratios"]["torch"] == pytest.approx(2.0)
    assert combine.complete(figures) == figures
    assert "| chain, backward alone | 300 µs | 600 µs **2.00x** | 3.00 µs/op |" in markdown.render(figures)


def test_a_difference_that_noise_made_negative_is_left_out():
    figures = combine.complete(_report(_row("chain, forward", "engine", "recorded", minigrad=2.0),
                                       _row("chain, forward + backward", "engine", "backward", minigrad=1.0)))
    assert len(figures["rows"]) == 2


def test_reports_of_parts_become_one():
    names = list(ROWS)
    a = {**_report(_row(names[5], minigrad=1.0), _row(names[2], minigrad=1.0)), "date": "2026-01-02T00:00:00+00:00"}
    b = _report(_row(names[2], minigrad=2.0), _row(names[0], minigrad=3.0))
    merged = combine.merge([a, b])
    assert [(row["name"], row["results"]["minigrad"]["median"]) for row in merged["rows"]] == [
        (names[0], 3.0), (names[2], 2.0), (names[5], 1.0)]
    assert merged["date"] == b["date"] and merged["seconds"] == 120.0
    assert combine.merge([a]) == {**a, "rows": a["rows"][::-1]}
    with pytest.raises(ValueError, match="expected runs with the same turn seconds, got"):
        combine.merge([a, {**b, "settings": {**b["settings"], "turn seconds": 7}}])


def test_parts_may_differ_in_turns_and_libraries():
    names = list(ROWS)
    a, b = [_report(_row(names[i], minigrad=1.0)) for i in range(2)]
    a["settings"], b["settings"] = ({**a["settings"], "rounds": 5, "libraries": ["minigrad", "jax"]},
                                    {**b["settings"], "rounds": 2, "libraries": ["minigrad", "numpy"]})
    for part, other in ((a, "jax"), (b, "numpy")):
        part["environment"] = {**part["environment"], "libraries": {"minigrad": {"version": "1"}, other: {}}}
    merged = combine.merge([a, b])
    assert merged["settings"]["libraries"] == ["minigrad", "jax", "numpy"]
    assert sorted(merged["environment"]["libraries"]) == ["jax", "minigrad", "numpy"]
    for figures in (merged, combine.merge([merged])):
        assert "2 to 5 turns" in dict(report.describe(figures))["timing"]
    b["environment"]["libraries"]["minigrad"] = {"version": "2"}
    with pytest.raises(ValueError, match="expected runs with the same environment"):
        combine.merge([a, b])


def test_memory_is_shown_in_mebibytes():
    row = _row("peak memory", "memory", "memory", work=0, minigrad=3 * 2**20, torch=6 * 2**20)
    cells = report.cells(row, ["minigrad", "torch"])
    assert cells == ["peak memory", "3.00 MiB  (3.00-3.00 MiB)", "6.00 MiB  2.00x", ""]
