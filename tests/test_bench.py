"""The benchmark: its harness catches wrong results and reports in full, its NumPy nets agree with minigrad."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import bench
from minigrad.bench import (
    combine,
    environment,
    harness,
    markdown,
    numpy_library,
    pictures,
    processes,
    report,
    step_memory,
    torch_like,
)
from minigrad.bench.reasons import reason
from minigrad.bench.rows import ROWS, Row

TINY = ROWS["add 1,000, forward"]
TURN = 0.002
DOCS = Path(__file__).parent.parent / "docs"
JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


class FakeWorker:
    """Answers as a worker does; its results are those of `function`, its calls take the given times."""

    def __init__(self, function, seconds=1e-3):
        self.function, self.seconds = function, seconds
        self.turns = 0

    def ask(self, command, **arguments):
        if command == "prepare":
            np.savez(arguments["file"], *self.function(*ROWS[arguments["row"]].arrays()))
            return {}
        if command == "calibrate":
            return {"seconds": self.seconds}
        self.turns += 1
        return {"seconds": [self.seconds] * arguments["batches"]}


def _right(a, b):
    return [a + b]


def _fails(a, b):
    raise harness.WorkerError("add: no")


def _measure(**functions):
    workers = {name: FakeWorker(function) for name, function in functions.items()}
    return workers, harness.measure(TINY, workers, FakeWorker(_right), 3, TURN)


def test_wrong_result_stops_the_row():
    workers, outcome = _measure(minigrad=_right, numpy=lambda a, b: [a + b + 1e-2])
    assert outcome["results"] == {}
    assert outcome["error"].startswith("numpy: result 0 of shape (1000,) differs from the float64 reference by 0.01")
    assert all(worker.turns == 0 for worker in workers.values())


@pytest.mark.parametrize("wrong, message", [
    (lambda a, b: [a + b, a], "expected 1 results, got 2"),
    (lambda a, b: [(a + b)[None]], "result 0 has shape (1, 1000), the reference (1000,)"),
    (lambda a, b: [np.where(a > 0, np.nan, a + b)], "differs from the float64 reference by nan"),
])
def test_kinds_of_wrong_results(wrong, message):
    assert message in _measure(minigrad=wrong)[1]["error"]


def test_many_small_errors_are_one_large_error():
    row = dataclasses.replace(TINY, tolerance=0.5, rms_tolerance=0.01, floor=0.1)
    want = np.resize([1.0, -1.0], 1000)
    single, everywhere = want.copy(), want * 1.02
    single[7] += 0.3
    harness.check([single], [want], row)
    with pytest.raises(harness.Mismatch, match="by 0.02 in the root mean square, allowed are 0.011"):
        harness.check([everywhere], [want], row)
    harness.check([everywhere], [want], dataclasses.replace(row, rms_tolerance=0.02))


def test_results_of_a_step_show_what_the_optimizer_did(monkeypatch):
    row = _small_net("A", "train")
    library = numpy_library.NumpyLibrary(np.dtype("float64"))
    want = _results(library, row)
    harness.check(want, want, row)
    monkeypatch.setattr(numpy_library.SGD, "step", lambda self, gradients: None)
    with pytest.raises(harness.Mismatch):
        harness.check(_results(library, row), want, row)


def test_a_library_that_fails_leaves_the_others_alone():
    workers, outcome = _measure(minigrad=_right, numpy=_fails)
    assert outcome["results"]["numpy"] == {"error": "add: no"}
    assert outcome["results"]["minigrad"]["median"] == 1e-3
    assert workers["minigrad"].turns == 3 and workers["numpy"].turns == 0


def test_turns_fill_their_time():
    assert harness.turn(1e-6, 0.1) == (10_000, 10)
    assert harness.turn(0.02, 0.1) == (1, 5)
    assert harness.turn(0.2, 0.1) == (1, 3)
    assert harness.turn(3.0, 0.1) == (1, 1)


def test_summary():
    found = harness.summary([4.0, 1.0, 2.0, 3.0, 5.0])
    assert found == {"median": 3.0, "min": 1.0, "p25": 2.0, "p75": 4.0, "samples": 5}


@pytest.fixture(scope="module")
def tiny_report():
    """Real processes of NumPy alone, so that nothing has to be compiled, and minigrad's figures beside them."""
    figures = bench.run([TINY, ROWS["training step A, batch 60"], ROWS["import"]], ["numpy"], 1, 1, TURN)
    for row in figures["rows"]:
        own = {**row["results"]["numpy"], "median": row["results"]["numpy"]["median"] / 2}
        row["results"] = {"minigrad": own, **row["results"]}
        row["ratios"] = {"numpy": 2.0}
    return figures


def test_report_has_its_fields_and_survives_json(tiny_report, tmp_path):
    assert {"format", "date", "minigrad", "environment", "settings", "seconds", "rows"} == set(tiny_report)
    machine = tiny_report["environment"]
    assert {"processor", "processors", "usable processors", "vector instructions", "caches", "platform", "python",
            "threads"} < set(machine)
    assert machine["threads"] == 1
    about = machine["libraries"]["numpy"]
    assert about["version"] == np.__version__ and ("chosen core" in about or "built as" in about)
    for row in tiny_report["rows"]:
        assert {"name", "group", "work", "unit", "results"} < set(row) and "error" not in row
        found = row["results"]["numpy"]
        assert 0 < found["min"] <= found["p25"] <= found["median"] <= found["p75"]
        assert found["samples"] >= 1
    report.save(tiny_report, tmp_path / "figures.json")
    assert report.load(tmp_path / "figures.json") == json.loads(json.dumps(tiny_report)) == tiny_report


def test_markdown_from_json(tiny_report, tmp_path):
    report.save(tiny_report, tmp_path / "figures.json")
    text = markdown.render(report.load(tmp_path / "figures.json"))
    assert "## Elementwise" in text and "## Nets" in text and "## Processes" in text
    assert "**2.00x**" in text and "GFLOP/s" in text
    assert "ahead" not in text.split("## Elementwise")[1] and "failed" not in text
    for line in text.splitlines():
        if line.startswith("| add 1,000"):
            assert line.count("|") == 5
        if line.startswith("| import"):  # no work, so no rate
            assert line.count("|") == 4


def test_markdown_lists_what_is_slower_and_what_failed(tiny_report):
    row = {**tiny_report["rows"][0], "ratios": {"numpy": 0.5, "torch": 0.25}}
    broken = {**row, "results": {"torch": {"error": "add: no"}}, "ratios": {}, "error": "torch: result 0 is off"}
    text = markdown.render({**tiny_report, "rows": [row, broken]})
    assert f"| add 1,000, forward | 0.25 | {reason('add 1,000, forward')} |" in text.split("## Rows below PyTorch")[1]
    ahead = text.split("## Where NumPy, torch.compile or JAX is ahead")[1]
    assert "| add 1,000, forward | numpy | 0.50 |" in ahead and "0.25" not in ahead
    assert "add 1,000, forward: torch failed: add: no" in text.split("## What failed")[1]
    assert "not timed, a result is wrong: torch: result 0 is off" in text


@pytest.mark.parametrize("with_rich", [True, False])
def test_terminal_table(tiny_report, capsys, monkeypatch, with_rich):
    if with_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    report.show(tiny_report)
    shown = capsys.readouterr().out
    assert "add 1,000" in shown and "2.00x" in shown and "processor" in shown


def test_pictures(tiny_report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = pictures.plot(tiny_report, tmp_path / "bars.png")
    assert {group: path.name for group, path in drawn.items()} == {
        "": "bars.png", **{group: f"bars-{group}.png" for group in ("elementwise", "nets", "processes")}}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn.values())
    text = markdown.render(tiny_report, {"": "images/bars.png", "nets": "images/bars-nets.png"})
    assert "(images/bars.png)" in text.split("## Targets")[0] and "(images/bars-nets.png)" in text.split("## Nets")[1]

    only = {**tiny_report, "rows": tiny_report["rows"][:1]}
    assert pictures.plot(only, tmp_path / "one.png") == {"elementwise": tmp_path / "one.png"}
    with pytest.raises(ValueError, match="nothing to draw"):
        pictures.plot({**tiny_report, "rows": []}, tmp_path / "none.png")


def test_report_of_another_kind_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="no benchmark report"):
        report.load(tmp_path / "other.json")
    (tmp_path / "other.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        report.load(tmp_path / "other.json")


@pytest.mark.parametrize("seconds, text", [(1.5, "1.50 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 µs"), (5e-8, "50 ns")])
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def test_rate():
    assert report.rate({"work": 2e9, "unit": "FLOP"}, {"median": 0.01}) == "200 GFLOP/s"
    assert report.rate({"work": 100, "unit": "op"}, {"median": 1e-4}) == "1.00 µs/op"
    assert report.rate({"work": 0, "unit": ""}, {"median": 1.0}) == ""


def test_a_worker_that_dies_is_reported_and_replaced():
    worker = harness.Worker("reference", 1)
    try:
        worker.ask("about")
        worker.process.kill()
        with pytest.raises(harness.WorkerError, match="the process of reference ended with status -?[0-9]+"):
            worker.ask("about")
        assert worker.ask("about")["version"] == np.__version__
        with pytest.raises(harness.WorkerError, match="KeyError"):
            worker.ask("prepare", row="no such row", file="")
    finally:
        worker.close()


def _comes_to(process, states):
    """Whether a process (its number) gets into one of these states of /proc, or ends if "" is one, within 10 s."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            state = ""
        if state in states:
            return True
        time.sleep(0.001)
    return False


linux_only = pytest.mark.skipif(not environment.ENDS_WITH_PARENT, reason="workers are stopped on Linux only")


@linux_only
def test_a_worker_is_stopped_between_two_questions():
    worker = harness.Worker("reference", 1)
    try:
        for _ in range(2):
            assert "error" not in worker.ask("about")
            process = worker.process
            assert _comes_to(process.pid, ["T"])
    finally:
        worker.close()
    assert process.returncode == 0


@linux_only
def test_a_stopped_worker_ends_with_a_benchmark_that_is_killed():
    text = ("from minigrad.bench.harness import Worker; w = Worker('reference', 1); w.ask('about'); "
            "print(w.process.pid, flush=True); input()")
    with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as benchmark:
        worker = int(benchmark.stdout.readline())
        assert _comes_to(worker, ["T"])
        benchmark.kill()
    assert _comes_to(worker, ["", "Z", "X"])  # gone, or waiting for somebody to ask how it ended


def test_selection():
    assert [row.name for row in bench.select("^GEMM: gemm 16 .*forward$")] == ["gemm 16 x 16 x 16, forward"]
    assert bench.select() == list(ROWS.values())
    with pytest.raises(ValueError, match="no row matches 'no such row'; the groups are nets"):
        bench.select("no such row")
    with pytest.raises(ValueError, match="regular expression"):
        bench.select("(")
    with pytest.raises(ValueError, match="expected libraries out of"):
        bench.run([TINY], ["nothing"])


def test_the_table_is_sound():
    assert len(ROWS) > 200
    for name, row in ROWS.items():
        assert name == row.name and row.group and set(row.libraries) <= set(bench.LIBRARIES)
        if row.mode in ("forward", "recorded", "backward"):
            assert row.what in torch_like.OPS and row.inputs
        assert (row.work > 0) == (row.mode not in processes.MODES)
    for a, b in zip(TINY.arrays(), TINY.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


def _small(row):
    """The row with a batch of 4 or vectors of 1,000, so that it can be checked quickly."""
    def shrink(position, spec):
        if spec and spec[0] == "labels":
            return ("labels", (4,), spec[2])
        shape = spec[1] if spec and spec[0] == "uniform" else spec
        if len(shape) == 1:
            shape = (1000 if shape[0] == 1_000_000 else shape[0],)
        elif position == 0 or row.what == "add" and shape[0] == row.inputs[0][0]:
            shape = (4, *shape[1:])
        return ("uniform", shape, *spec[2:]) if spec and spec[0] == "uniform" else shape

    params = {name: 3 if name in ("length", "width") else value for name, value in row.params.items()}
    return dataclasses.replace(row, inputs=tuple(shrink(i, spec) for i, spec in enumerate(row.inputs)), params=params)


def _results(library, row):
    call, results = library.prepare(row)
    for _ in range(row.checked_calls):
        call()
    return results()


def _small_net(name, mode):
    row = next(row for row in ROWS.values() if row.mode == mode and row.what == name)
    return dataclasses.replace(row, params={"batch": 6})


# One row for every op, number of dimensions and set of arguments; forward is part of forward and backward.
OP_ROWS = {(row.what, len(row.inputs[0]), *row.params.items()): _small(row) for row in ROWS.values()
           if row.mode in ("forward", "backward") and row.what != "matmul"}


@pytest.mark.parametrize("row", OP_ROWS.values(), ids=lambda row: row.name)
def test_numpy_and_minigrad_agree_on_ops(row):
    reference = _results(numpy_library.NumpyLibrary(np.dtype("float64")), row)
    for library in (numpy_library.NumpyLibrary(), torch_like.TorchLike("minigrad")):
        harness.check(_results(library, row), reference, row)


@pytest.mark.parametrize("what", ["sgd", "adam"])
def test_numpy_and_minigrad_agree_on_optimizers(what):
    row = Row("small", "optimizers", "optimizer", what, ((5,), (2, 3)))
    reference = _results(numpy_library.NumpyLibrary(np.dtype("float64")), row)
    harness.check(_results(torch_like.TorchLike("minigrad"), row), reference, row)


@pytest.mark.skipif(not JIT, reason="takes minutes without compiled kernels")
@pytest.mark.parametrize("name", ["A", "B", "C"])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_numpy_and_minigrad_agree_on_nets(name, mode):
    row = _small_net(name, mode)
    reference = _results(numpy_library.NumpyLibrary(np.dtype("float64")), row)
    for library in (numpy_library.NumpyLibrary(), torch_like.TorchLike("minigrad")):
        harness.check(_results(library, row), reference, row)


@pytest.mark.skipif(not JIT, reason="takes minutes without compiled kernels")
@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_inference_with_batch_norm_folded_is_right(monkeypatch, name):
    """The net is folded by minigrad if the row says so."""
    from minigrad import layers

    folded, fold, plain = [], layers.fold_batchnorm, _small_net(name, "infer")
    monkeypatch.setattr(layers, "fold_batchnorm", lambda model: folded.append(model) or fold(model))
    for row in (plain, dataclasses.replace(plain, params={**plain.params, "folded": True})):
        reference = _results(numpy_library.NumpyLibrary(np.dtype("float64")), row)
        harness.check(_results(torch_like.TorchLike("minigrad"), row), reference, row)
    assert len(folded) == 1
    assert [row.what for row in ROWS.values() if row.params.get("folded")] == ["A", "B", "C"]


@pytest.mark.skipif(not JIT, reason="takes minutes without compiled kernels")
def test_a_captured_step_is_replayed_and_right(monkeypatch):
    """The second and third call are replays: they leave the reference's loss, gradients and updates of three steps."""
    row, captured, capture = _small_net("A", "captured"), [], minigrad.capture
    monkeypatch.setattr(minigrad, "capture", lambda step: captured.append(capture(step)) or captured[-1])
    reference = _results(numpy_library.NumpyLibrary(np.dtype("float64")), row)
    library = torch_like.TorchLike("minigrad")
    harness.check(_results(library, row), reference, row)
    assert len(captured) == len(captured[0].recordings) == 1

    harness.check(_results(library, dataclasses.replace(row, params={"batch": 6, "captured": True})), reference, row)
    assert len(captured) == 2
    once = _results(library, dataclasses.replace(row, mode="train"))
    assert len(captured) == 2
    with pytest.raises(harness.Mismatch):
        harness.check(once, reference, row)


def test_processes_do_not_see_what_slows_a_library(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("MINIGRAD_LANES", "16")
    found = environment.of_process(3)
    assert "OPENBLAS_CORETYPE" not in found and found["OPENBLAS_NUM_THREADS"] == found["NUMBA_NUM_THREADS"] == "3"
    assert found["MINIGRAD_LANES"] == "16"
    machine = environment.machine()
    assert machine["variables removed"] == {"OPENBLAS_CORETYPE": "Prescott"}
    assert machine["variables set"]["MINIGRAD_LANES"] == "16"


needs_linux = pytest.mark.skipif(not step_memory.CLEAR.exists(), reason="elsewhere only a process's peak is known")


@needs_linux
def test_growth_counts_what_has_been_freed_again():
    def use():
        array = np.ones(2**22)  # 32 MiB
        del array

    assert 31 * 2**20 < step_memory.peak_growth(use) < 40 * 2**20  # Linux counts pages in batches
    assert step_memory.peak_growth(lambda: None) < 2**20


@needs_linux
def test_memory_of_a_step():
    row = next(row for row in ROWS.values() if row.mode == "memory" and row.what == "A")
    found = processes.measure(row, ["numpy"], 1, 1, lambda text: None)["results"]["numpy"]
    assert found["samples"] == 1 and 2**19 < found["median"] < 2**24, found


def test_a_process_that_fails_is_reported():
    row = Row("training step nowhere", "memory", "memory", "A")
    assert "KeyError" in processes.measure(row, ["numpy"], 1, 1, lambda text: None)["results"]["numpy"]["error"]


def test_the_report_so_far_is_kept():
    kept = []
    bench.run([TINY, ROWS["add 1,000, forward + backward"]], ["numpy"], 1, 1, TURN, keep=kept.append)
    assert [len(report["rows"]) for report in kept] == [1, 2]
    combine.merge(kept)


def test_command_line(tiny_report, tmp_path, capsys):
    from minigrad.cli import main

    assert main(["bench", "--list", "--rows", "^engine: one"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "engine: one mul, 8 elements, forward", "engine: one mul, 8 elements, forward + backward"]
    assert main(["bench", "--json", str(tmp_path / "no" / "x.json")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["bench", "--markdown", str(tmp_path)]) == 1
    assert "expected a file for --markdown" in capsys.readouterr().err
    report.save(tiny_report, tmp_path / "figures.json")
    assert main(["bench", "--from", str(tmp_path / "figures.json"), "--rows", "^nets",
                 "--json", str(tmp_path / "nets.json")]) == 0
    assert [row["name"] for row in report.load(tmp_path / "nets.json")["rows"]] == ["training step A, batch 60"]


def test_quick_leaves_out_what_is_slow(monkeypatch, tiny_report):
    from minigrad.cli import bench as command
    from minigrad.cli import main

    asked = []

    def run(rows, libraries, rounds, threads, turn_seconds, progress, keep):
        asked.append((rows, libraries, rounds, turn_seconds))
        return tiny_report

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bench, "installed_libraries", lambda: list(bench.LIBRARIES))
    assert main(["bench", "--quick"]) == main(["bench", "--quick", "--rows", "cached", "--libraries", "jax"]) == 0
    (rows, libraries, rounds, turn), (named, own, _, _) = asked
    assert libraries == ["minigrad", "numpy", "torch"] and own == ["minigrad", "jax"]
    assert not {"cold", "cached"} & {row.mode for row in rows} and {row.mode for row in named} == {"cold", "cached"}
    assert (rounds, turn) == (command.QUICK_ROUNDS, command.QUICK_TURN_SECONDS)


@pytest.mark.parametrize("name", ["benchmarks", "benchmarks-avx2"])
def test_page_in_docs(name):
    """The page is made from the JSON beside it, with the reasons as they are now."""
    text = (DOCS / f"{name}.md").read_text("utf-8")
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    links = {"" if title.startswith("Overview") else title: path for title, path in pictures}
    assert len(links) > 10 and all((DOCS / path).is_file() for path in links.values())
    assert all(path.startswith(f"images/{name}") for path in links.values())
    assert text == markdown.render(report.load(DOCS / f"{name}.json"), links)
