"""minigrad.study.trace: what was launched against the recorder's tape, costs against loops that count."""

import itertools
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
from minigrad.kernels import reference
from minigrad.study import costs
from minigrad.study.machine import machine
from minigrad.study.trace_report import Launch, Total

KERNELS = [name for name, value in vars(reference).items()
           if callable(value) and not name.startswith("_") and not name.endswith("_workspace")]


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(64, 3))


@pytest.fixture(scope="module")
def traced():
    """A model and the trace of one step."""
    model = net()
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
    x, y = mg.randn(2, 1, 8, 8), mg.tensor([0, 2])
    with study.trace(model) as trace:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
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
    assert "* 1 of them (1.00 s) compiled, loaded or prepared their kernel" in str(trace) and " 1*  1.00 s" in str(trace)
    assert trace.by("kernel")[0].once == 1


def test_totals_add_up(traced):
    _, trace = traced
    for keys in (("kernel",), ("op", "module"), ("phase",), ("device",)):
        totals = trace.by(*keys)
        assert sum(total.calls for total in totals) == len(trace.launches)
        assert sum(total.seconds for total in totals) == pytest.approx(trace.seconds)
        assert sum(total.bytes for total in totals) == sum(launch.bytes for launch in trace.launches)
        assert [t.seconds for t in totals] == sorted([t.seconds for t in totals], reverse=True)
    with pytest.raises(ValueError, match="by: expected kernel, op, module, phase, device, shapes, got 'x'"):
        trace.by("x")
    assert trace.by("phase")[0].name in ("forward", "backward", "optimizer")
    assert (((2, 1, 8, 8), (4, 1, 3, 3), (4,), (2, 4, 8, 8)), "conv2d_forward") in [
        (name[0][:4], name[1]) for name in (t.name for t in trace.by("shapes", "kernel"))]


def test_rates_of_a_total():
    total = Total(("x",), 2, 0.5, 10**9, 4 * 10**9)
    assert (total.gflops, total.gbytes) == (8.0, 2.0)
    assert total.against(machine()._replace(gflops=16.0, gbytes=10.0)) == (0.5, "compute")
    assert total.against(machine()._replace(gflops=80.0, gbytes=10.0)) == (0.2, "memory")


def test_the_text(traced):
    _, trace = traced
    text = str(trace)
    assert text.startswith(f"{len(trace.launches)} launches, ") and "GFLOP/s in a float32 matrix product" in text
    assert re.search(r"^backward +0 +conv2d +conv2d_grad_weight +1 ", text, re.MULTILINE)
    assert re.search(r"^optimizer +6 ", text, re.MULTILINE) and repr(trace).startswith("<trace of ")
    with study.trace() as empty:
        pass
    assert str(empty) == "no kernel was launched"


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
    assert inner["ts"] < ops[1]["ts"] and ops[1]["name"] == "batch_norm_act"


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


def test_emulated_cuda():
    x = mg.ones(4, device="cuda", requires_grad=True)
    with study.trace() as trace:
        (x * x).sum().backward()
    assert {launch.device for launch in trace.launches} == {"cuda"}
    assert "cuda is emulated here: its times say nothing about a GPU" in str(trace) and "of best" not in str(trace)


# -- costs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_has_one_cost(kernel):
    tables = costs.PER_OUTPUT, costs.PER_INPUT, costs.FORMULAS, *costs.NOTHING.values()
    assert sum(kernel in table for table in tables) == 1
    if kernel in costs.PER_OUTPUT:
        assert "out" in costs.parameters(kernel)
    if kernel in costs.PER_INPUT:  # it is counted by its first argument, which has to be an array
        assert costs.parameters(kernel)[0] not in ("eps", "value")


def test_costs_are_of_kernels():
    for table in (costs.PER_OUTPUT, costs.PER_INPUT, costs.FORMULAS, costs.CHANGED_IN_PLACE, costs.TOUCHED_IN_PART,
                  *costs.NOTHING.values()):
        assert set(table) <= set(KERNELS)
    for kernel, names in costs.CHANGED_IN_PLACE.items():
        assert set(names) <= set(costs.parameters(kernel))
    assert costs.operations("somebody_elses", (np.ones(3),)) is None
    assert costs.traffic("somebody_elses", (np.ones(3), 2)) == 24


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_matmul_counted_by_a_loop(flags):
    m, k, n = 2, 3, 4
    a = np.zeros((k, m) if flags[0] else (m, k), np.float32)
    b = np.zeros((n, k) if flags[1] else (k, n), np.float32)
    out = np.zeros((m, n), np.float32)
    counted = sum(2 for _ in itertools.product(range(m), range(n), range(k)))
    assert costs.operations("matmul", (a, b, out, out, *flags)) == counted
    assert costs.traffic("matmul", (a, b, out, out, *flags)) == 4 * (m * k + k * n + m * n)


def test_linear_and_convolutions_counted_by_loops():
    x, w, bias = np.zeros((2, 3), "f"), np.zeros((4, 3), "f"), np.zeros(4, "f")
    out = np.zeros((2, 4), "f")
    assert costs.operations("linear_forward", (x, w, bias, out, out)) == 2 * 4 * (2 * 3 + 1)
    assert costs.operations("linear_forward", (x, w, bias[:0], out, out)) == 2 * 4 * 2 * 3
    images, kernels, result = np.zeros((2, 4, 5, 5), "f"), np.zeros((6, 2, 3, 3), "f"), np.zeros((2, 6, 3, 3), "f")
    geometry = 1, 1, 0, 0, 1, 1, 2
    taps = sum(2 for _ in itertools.product(range(2), range(6), range(3), range(3), range(2), range(3), range(3)))
    none = np.zeros(0, "f")
    assert costs.operations("conv2d_forward", (images, kernels, none, result, none, *geometry)) == taps
    assert costs.operations("conv2d_forward", (images, kernels, np.zeros(6, "f"), result, none, *geometry)) == \
        taps + result.size
    assert costs.operations("conv2d_grad_input", (result, kernels, images, none, *geometry)) == taps
    assert costs.operations("conv2d_grad_weight", (result, images, kernels, none, none, *geometry)) == taps
    pooled = np.zeros((2, 4, 2, 2), "f")
    indices = np.zeros((2, 4, 2, 2), np.int64)
    assert costs.operations("max_pool2d_forward", (images, pooled, indices, 2, 2, 2, 2, 0, 0, 1, 1)) == pooled.size * 4


def test_softmax_counted_by_hand():
    # per element: one comparison, one subtraction, one exp, one addition, one division
    x = np.zeros((1, 10, 1), "f")
    assert costs.operations("softmax", (x, x.copy())) == 50 and costs.traffic("softmax", (x, x.copy())) == 80


def test_what_is_changed_in_place_counts_twice():
    x = np.zeros(10, "f")
    assert costs.traffic("fused_add", (x, x.copy())) == 3 * 40


def test_machine_is_measured_once_per_number_of_threads():
    assert machine() is machine() and machine().gflops > 0.1 and machine().gbytes > 0.1
