"""minigrad.study.trace: what is noted of the launches of a step, how it is summed up and shown."""

import contextlib
import json
import re
import threading

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn
from minigrad import study
from minigrad.device import cpu
from minigrad.recording import recorder as recorded
from minigrad.recording.guards import Guards
from minigrad.recording.recorder import Recorder
from minigrad.study.machine import machine
from minigrad.study.trace_report import Launch, Total


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(64, 3))


@pytest.fixture(scope="module")
def traced():
    """A model and the trace of one step."""
    model = net()
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
    x, y = mg.randn(2, 1, 8, 8), mg.tensor([0, 2])

    def step():
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    step()  # compiles
    optimizer.zero_grad()
    with study.trace(model) as trace:
        step()
    return model, trace


def test_every_launch_is_there_in_order(traced):
    _, trace = traced
    names = [launch.kernel for launch in trace.launches if launch.kernel != "fill"]
    assert names[:6] == ["conv2d_forward", "batch_norm_statistics", "batch_norm_running", "batch_norm_forward",
                         "linear_forward", "cross_entropy_forward"]
    assert names[-6:] == ["sgd"] * 6 and "conv2d_grad_weight" in names
    starts = [launch.start for launch in trace.launches]
    assert starts == sorted(starts) and all(launch.seconds > 0 for launch in trace.launches)
    assert 0 < trace.seconds < trace.wall


def test_the_launches_are_those_on_a_recorders_tape():
    model, x, y = net(), mg.randn(2, 1, 8, 8), mg.tensor([0, 2])
    optimizer = mg.optim.Adam(model.parameters())

    def step():
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        mg.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step()
    with study.trace() as trace:
        step()
    with Recorder(cpu, Guards([])) as recorder:
        step()
    tape = [entry for entry in recorder.tape if isinstance(entry, recorded.Launch)]
    assert [launch.kernel for launch in trace.launches] == [launch.name for launch in tape]
    for ours, theirs in zip(trace.launches, tape, strict=True):
        assert ours.shapes == tuple(a.shape for a in theirs.arguments if hasattr(a, "shape"))


def test_ops_modules_and_phases(traced):
    _, trace = traced
    seen = {(launch.kernel, launch.op, launch.module, launch.phase) for launch in trace.launches}
    assert {("conv2d_forward", "conv2d", "0", "forward"), ("batch_norm_forward", "batch_norm_act", "1-3", "forward"),
            ("batch_norm_backward", "batch_norm_act", "1-3", "backward"), ("matmul", "linear", "5", "backward"),
            ("cross_entropy_forward", "cross_entropy", "", "forward"), ("sgd", "optimizer", "", "optimizer")} <= seen
    assert all(phase in ("forward", "backward", "optimizer") for *_, phase in seen)
    assert ("fill", "first gradient", "", "backward") in seen  # the gradient of the loss by itself, 1


def test_a_sum_of_gradients_is_told_apart():
    x = mg.ones(3, requires_grad=True)
    with study.trace() as trace:
        (x.exp() + x.exp() + x.exp()).sum().backward()
    sums = [launch.op for launch in trace.launches if launch.kernel in ("add", "fused_add")]
    assert sums == ["add", "add", "sum of gradients", "sum of gradients"]
    assert trace.launches[-1].phase == "backward"
    assert sum(span.name == "sum of gradients" for span in trace.spans) == 2


def test_without_a_model_modules_have_their_class():
    layer, x = nn.Linear(3, 2), mg.ones(1, 3)
    with study.trace() as trace:
        layer(x)
    assert [(launch.op, launch.module) for launch in trace.launches] == [("linear", "Linear")]


def test_the_module_that_is_called_first_names_the_others():
    class Net(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

        def forward(self, x):
            return self.body(x) + x

    first, second, criterion = Net(), Net(), nn.MSELoss()
    with study.trace() as trace:
        criterion(second(first(mg.ones(2, 4))), mg.ones(2, 4)).backward()
    forward = [launch.module for launch in trace.launches if launch.phase == "forward"]
    assert forward[:8] == ["body.0", "body.1", "body.2", "Net", "Net 2.body.0", "Net 2.body.1", "Net 2.body.2", "Net 2"]
    assert set(forward[8:]) == {"MSELoss"}
    backward = [launch.module for launch in trace.launches if launch.phase == "backward" and launch.op == "linear"]
    assert list(dict.fromkeys(backward)) == ["Net 2.body.2", "Net 2.body.0", "body.2", "body.0"]
    modules = [span.name for span in trace.spans if span.kind == "module"]
    assert modules[:5] == ["body.0", "body.1", "body.2", "body", "Net"]  # as they return


def test_launches_by_no_op_are_told_apart():
    x = mg.ones(3, requires_grad=True)
    with study.trace() as trace:
        y = mg.zeros(3)
        (x * y).sum().backward()
        mg.optim.SGD([x], lr=0.1).step()
        mg.optim.clip_grad_norm_([x], 1.0)
    found = [(launch.kernel, launch.op, launch.phase) for launch in trace.launches]
    assert found[:4] == [("fill", "", "other"), ("mul", "mul", "forward"), ("sum", "sum", "forward"),
                         ("fill", "first gradient", "backward")]
    assert ("sgd", "optimizer", "optimizer") in found and ("scale_inplace", "optimizer", "optimizer") in found


def test_a_closure_of_the_optimizer_is_forward_and_backward():
    x = mg.ones(3, requires_grad=True)

    def closure():
        loss = (x * x).sum()
        loss.backward()
        return loss

    with study.trace() as trace:
        mg.optim.SGD([x], lr=0.1).step(closure)
    assert [launch.phase for launch in trace.launches][:2] == ["forward", "forward"]
    assert {launch.phase for launch in trace.launches} == {"forward", "backward", "optimizer"}


def test_second_order():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    with study.trace() as trace:
        (g,) = mg.grad((x * x * x).sum(), x, create_graph=True)
        g.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    ops = [(launch.op, launch.phase) for launch in trace.launches]
    assert ops[0] == ("mul", "forward") and ops[-1][1] == "backward"
    assert all(op for op, _ in ops)


def test_what_happens_once_is_marked():
    class Twice(nn.Module):
        def forward(self, x):
            return mg.pow(x, x)

    x = mg.tensor(np.full(5, 1.5))
    with study.trace() as trace:
        for _ in range(70):  # compiled or loaded, and at the 32nd call prepared, if no other test has done it
            Twice()(x)
    assert len(trace.launches) == 70 and not trace.launches[-1].once
    marked = [launch.once for launch in trace.launches]
    launch = trace.launches[-1]._replace(once=True, seconds=1.0)
    assert marked.count(True) <= 2
    trace.launches[:] = [launch]
    text = str(trace)
    assert "* 1 of them (1.00 s) compiled, loaded or prepared their kernel" in text and " 1*  1.00 s" in text
    assert trace.by("kernel")[0].once == 1


def test_totals_add_up(traced):
    _, trace = traced
    for keys in (("kernel",), ("op", "module"), ("phase",), ("device",)):
        totals = trace.by(*keys)
        assert sum(total.calls for total in totals) == len(trace.launches)
        assert sum(total.seconds for total in totals) == pytest.approx(trace.seconds)
        assert sum(total.bytes for total in totals) == sum(launch.bytes for launch in trace.launches)
        assert [t.time for t in totals] == sorted([t.time for t in totals], reverse=True)
        if keys[0] in ("op", "phase"):  # with the Python around the kernels it is all the time that there is
            assert sum(total.wall for total in totals) == pytest.approx(trace.wall)
            assert all(total.wall > total.seconds for total in totals)
        else:
            assert all(total.wall is None for total in totals)
    with pytest.raises(ValueError, match="by: expected kernel, op, module, phase, device, shapes, got 'x'"):
        trace.by("x")
    with pytest.raises(ValueError, match="by: expected one or more of kernel, .*, got none"):
        trace.by()
    table = str(trace.by("module", "op")).splitlines()
    assert table[0].split() == "module op calls in kernels in all share GFLOP/s GB/s of best".split()
    assert len(table) == 1 + len(trace.by("module", "op"))
    assert str(trace.by("kernel")).split()[:7] == ["kernel", "calls", "time", "share", "GFLOP/s", "GB/s", "of"]
    assert trace.by("phase")[0].name in ("forward", "backward", "optimizer")
    assert (((2, 1, 8, 8), (4, 1, 3, 3), (4,), (2, 4, 8, 8)), "conv2d_forward") in [
        (name[0][:4], name[1]) for name in (t.name for t in trace.by("shapes", "kernel"))]


def test_python_of_modules_is_forward(traced):
    _, trace = traced
    whole = next(total for total in trace.by("module", "op", "phase") if total.name == ("Sequential", "", "forward"))
    assert whole.calls == 0 and whole.seconds == 0 and whole.wall > 0


def test_rates_of_a_total():
    total = Total(("x",), 2, 0.5, 10**9, 4 * 10**9)
    assert (total.gflops, total.gbytes) == (8.0, 2.0)
    assert total.against(machine()._replace(gflops=16.0, gbytes=10.0)) == (0.5, "compute")
    assert total.against(machine()._replace(gflops=80.0, gbytes=10.0)) == (0.2, "memory")


def test_the_text(traced):
    _, trace = traced
    text = str(trace)
    assert text.startswith(f"{len(trace.launches)} launches, ") and "GFLOP/s in a float32 matrix product" in text
    assert re.search(r"^backward +0 +conv2d +conv2d_grad_weight +1[* ] ", text, re.MULTILINE)
    assert re.search(r"^optimizer +6 ", text, re.MULTILINE) and repr(trace).startswith("<trace of ")
    with study.trace() as empty:
        pass
    assert str(empty) == "no kernel was launched"


def test_without_a_compiler_nothing_is_measured(traced, monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    text = str(traced[1])
    assert "kernels run as plain Python here (NUMBA_DISABLE_JIT)" in text and "of best" not in text


def test_two_devices_have_no_common_best(traced):
    trace = study.trace()
    trace.launches, trace.wall = [traced[1].launches[0], traced[1].launches[0]._replace(device="cuda 1")], 1.0
    assert "several devices were used" in str(trace)


def test_long_tables_are_shortened():
    with study.trace() as trace:
        x = mg.ones(3)
        for name in ("exp", "log", "sqrt", "tanh", "sigmoid", "relu", "silu", "gelu", "softplus", "abs", "sign"):
            getattr(mg, name)(x)
    assert "together" not in str(trace)
    trace.launches += [Launch(f"k{i}", "cpu", (), (), 0.0, 1e-9, 0, None) for i in range(30)]
    assert "and 17 more, " in str(trace)  # 12 and 30 kernels, 25 rows


def test_chrome_format(traced, tmp_path):
    _, trace = traced
    trace.to_chrome(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text("utf-8"))["traceEvents"]
    lanes = {event["args"]["name"]: event["tid"] for event in events if event["ph"] == "M"}
    timed = [event for event in events if event["ph"] == "X"]
    launches = [event for event in timed if event["tid"] == lanes["cpu"]]
    assert len(launches) == len(trace.launches) and launches[0]["name"] == "conv2d_forward"
    assert launches[0]["args"]["shapes"][0] == [2, 1, 8, 8] and all(event["dur"] > 0 for event in timed)
    modules = {event["name"]: event for event in timed if event["tid"] == lanes["module"]}
    ops = [event for event in timed if event["tid"] == lanes["op"]]
    assert {"Sequential", "0", "1-3", "5"} <= set(modules) and ops[0]["name"] == "conv2d"
    whole, inner = modules["Sequential"], modules["1-3"]
    assert whole["ts"] < inner["ts"] and inner["ts"] + inner["dur"] < whole["ts"] + whole["dur"]
    assert inner["ts"] == ops[1]["ts"] and ops[1]["name"] == "batch_norm_act"
    assert sum(span.seconds for span in trace.spans if span.kind == "op") == pytest.approx(trace.wall)


def test_the_seam_is_restored_also_after_an_error():
    kernels = cpu.kernels
    with pytest.raises(KeyError), study.trace():
        assert cpu.kernels is not kernels
        raise KeyError
    assert cpu.kernels is kernels
    with study.trace(), pytest.raises(RuntimeError, match="a trace or a recording is under way already"):
        study.trace().__enter__()
    assert cpu.kernels is kernels
    with pytest.raises(TypeError, match="trace: expected a Module, got int"):
        study.trace(3)


def test_other_threads_are_not_recorded():
    x = mg.ones(3)
    with study.trace() as trace:
        thread = threading.Thread(target=lambda: x + x)
        thread.start()
        thread.join()
        x * x
    assert [launch.kernel for launch in trace.launches] == ["mul"]


def test_a_captured_step_is_seen():
    x = mg.ones(3)
    step = mg.capture(lambda x: x * x + x)
    step(x), step(x)
    with study.trace() as trace:
        step(x)
    assert [launch.kernel for launch in trace.launches] == ["mul", "add"]


def test_another_thread_records_nothing_of_a_trace():
    x, results = mg.ones(3), []
    step = mg.capture(lambda x: x * x + x)

    def run():
        results.append(step(x).tolist())

    for traced in (True, False, False):
        thread = threading.Thread(target=run)
        with study.trace() if traced else contextlib.nullcontext():
            thread.start()
            thread.join(60)
        assert len(step.recordings) == (0 if traced else 1)
    assert results == [[2.0] * 3] * 3


def test_emulated_cuda():
    x = mg.ones(4, device="cuda", requires_grad=True)
    with study.trace() as trace:
        (x * x).sum().backward()
    assert {launch.device for launch in trace.launches} == {"cuda"}
    assert "cuda is emulated here: its times say nothing about a GPU" in str(trace) and "of best" not in str(trace)


def test_machine_is_measured_once_per_number_of_threads():
    assert machine() is machine() and machine().gflops > 0.1 and machine().gbytes > 0.1
