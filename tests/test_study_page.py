"""What a page of minigrad.study.page says: values, gradients, order of a step, influence; and that nothing is left."""

import json
import re
import subprocess
import sys
import zlib
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.study import page_builder
from minigrad.study.page_code import LONG, Texts, shortened
from minigrad.study.page_recording import summary

pytest.importorskip("igraph")
pytest.importorskip("jinja2")
pytest.importorskip("mpld3")
ROOT = Path(__file__).parent.parent


def xor():
    mg.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    return model, mg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), mg.tensor([[0.0], [1.0], [1.0], [0.0]])


def mlp():
    mg.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))
    return model, mg.randn(8, 2, 3), mg.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def data_of(model, x, y, **settings):
    return page_builder.step_data(model, x, y, **{"code": "none", "influence": False} | settings)


def array(found):
    return np.array(found["values"]).reshape(found["shape"])


def by_title(data):
    return {node["title"]: node for node in data["nodes"]}


def test_values_and_gradients_are_those_of_numpy():
    model, x, y = xor()
    found = by_title(data_of(model, x, y))
    w1, b1, w2, b2 = (parameter.numpy().astype(float) for parameter in model.parameters())
    x, y = x.numpy().astype(float), y.numpy().astype(float)
    hidden = np.tanh(x @ w1.T + b1)
    output = hidden @ w2.T + b2
    d_output = 2 * (output - y) / 4
    d_hidden = d_output @ w2
    d_before = d_hidden * (1 - hidden**2)
    values = {"x": x, "linear (0)": x @ w1.T + b1, "tanh (1)": hidden, "linear (2)": output, "0.weight": w1}
    gradients = {"linear (2)": d_output, "tanh (1)": d_hidden, "linear (0)": d_before, "0.weight": d_before.T @ x,
                 "0.bias": d_before.sum(0), "2.weight": d_output.T @ hidden, "2.bias": d_output.sum(0)}
    for name, expected in values.items():
        np.testing.assert_allclose(array(found[name]["values"][0]), expected, atol=2e-6, err_msg=name)
    for name, expected in gradients.items():
        np.testing.assert_allclose(array(found[name]["gradients"][0]), expected, atol=2e-6, err_msg=name)
    assert found["x"]["gradients"] is None


def test_steps_go_forward_and_then_backward():
    model, x, y = xor()
    data = data_of(model, x, y)
    titles = [data["nodes"][step["key"]]["title"] for step in data["steps"]]
    ops = ["linear (0)", "tanh (1)", "linear (2)", "sub", "mul", "sum", "div"]
    assert titles == ops + ops[::-1]
    assert [step["phase"] for step in data["steps"]] == ["forward"] * 7 + ["backward"] * 7
    assert data["nodes"][data["output"]]["title"] == "div"
    last = data["steps"][-1]
    assert {data["nodes"][key]["title"] for key in last["completed"]} == {"0.weight", "0.bias"}
    handed = {data["nodes"][data["edges"][index]["source"]]["title"]: data["edges"][index] for index in last["edges"]}
    assert handed["0.weight"]["shape"] == [4, 2] and handed["0.weight"]["step"] == 14 and "x" not in handed
    assert re.fullmatch(r"Step 12 of 14, backward of linear \(2\): gradient \(4, 1\), norm [\d.]+, arrives; hands "
                        r"\(4, 4\) to tanh \(1\), \(1, 4\) to 2\.weight and \(1,\) to 2\.bias\. .* are complete\.",
                        data["steps"][11]["text"])
    for node in data["nodes"]:  # inputs are there before what uses them
        sources = [data["nodes"][edge["source"]] for edge in data["edges"] if edge["target"] == node["key"]]
        assert all(source["forward"] < node["forward"] for source in sources)


def test_inputs_without_gradient_are_shown_and_named():
    model, x, y = mlp()
    data = data_of(model, x, y)
    found = by_title(data)
    assert found["x"]["kind"] == found["y"]["kind"] == "constant"
    reshape = found["reshape (0)"]
    assert not reshape["requires_grad"] and reshape["backward"] == 0 and reshape["gradients"] is None
    np.testing.assert_allclose(array(reshape["values"][0]), x.numpy().reshape(8, 6), rtol=1e-5)
    assert [data["nodes"][e["source"]]["title"] for e in data["edges"] if e["target"] == reshape["key"]] == ["x"]


def test_inputs_that_no_op_has_saved_are_shown():
    class Shift(nn.Module):
        def __init__(self):
            self.b = nn.Parameter(mg.zeros(3))

        def forward(self, x):
            return x.exp() + self.b  # an add saves nothing

    data = data_of(Shift(), mg.randn(2, 3), mg.randn(2, 3))
    found = by_title(data)
    key = found["add"]["key"]
    edges = [(data["nodes"][e["source"]]["title"], e["position"]) for e in data["edges"] if e["target"] == key]
    assert sorted(edges) == [("b", 1), ("exp", 0)] and not found["exp"]["requires_grad"]
    assert [data["nodes"][step["key"]]["title"] for step in data["steps"]][:2] == ["exp", "add"]


def test_a_gradient_that_is_summed_over_uses_is_complete_once():
    w = nn.Parameter(mg.tensor([1.0, 2.0, 3.0]))

    class Twice(nn.Module):
        def __init__(self):
            self.w = w

        def forward(self, x):
            return (self.w * x + self.w).sum(1)

    x, y = mg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), mg.tensor([0.0, 0.0])
    data = data_of(Twice(), x, y, loss=lambda output, y: output.sum())
    node = by_title(data)["w"]
    np.testing.assert_allclose(array(node["gradients"][0]), [7.0, 9.0, 11.0])
    assert [key for step in data["steps"] for key in step["completed"]] == [node["key"]]
    assert any("summed to (3,)" in step["text"] for step in data["steps"])


def test_modules_and_ops_are_two_views_of_the_same_nodes():
    model, x, y = mlp()
    data = data_of(model, x, y, fuse=False)
    keys = list(range(len(data["nodes"])))
    for view in data["views"].values():
        assert sorted(key for box in view["boxes"] for key in box["members"]) == keys
        assert all(key in view["boxes"][view["of"][key]]["members"] for key in keys)
        for box in view["boxes"]:
            assert box["main"] in box["members"]
            assert 0 <= box["x"] - box["w"] / 2 and box["x"] + box["w"] / 2 <= view["width"]
            assert 0 <= box["y"] - box["h"] / 2 and box["y"] + box["h"] / 2 <= view["height"]
    drawn = sorted(index for line in data["views"]["ops"]["lines"] for index in line["members"])
    assert drawn == list(range(len(data["edges"])))
    assert len(data["views"]["modules"]["boxes"]) < len(keys)


def test_fuse_and_decompose_are_options():
    model, x, y = mlp()
    ops = {name: {node["op"] for node in data_of(model, x, y, **settings)["nodes"]} for name, settings in
           {"as the model says": {}, "apart": {"fuse": False}, "primitive": {"decompose": True}}.items()}
    assert "linear_batch_norm_act" in ops["as the model says"]
    assert {"linear", "batch_norm", "relu"} <= ops["apart"] and {"matmul", "exp", "log"} <= ops["primitive"]


def test_everything_is_left_as_it_was():
    model, x, y = mlp()
    mg.functional.cross_entropy(model(x), y).backward()
    x.requires_grad_()
    grads = [parameter.grad for parameter in model.parameters()]
    before = [grad.numpy().copy() for grad in grads]
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    random, model[4].training = mg.random.default_generator.get_state(), False
    data_of(model, x, y, fuse=False, influence=True)
    assert all(parameter.grad is grad for parameter, grad in zip(model.parameters(), grads, strict=True))
    assert all((grad.numpy() == kept).all() for grad, kept in zip(grads, before, strict=True))
    assert x.grad is None
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name], err_msg=name)
    np.testing.assert_array_equal(mg.random.default_generator.get_state(), random)
    assert model.training and not model[4].training and model.fuse and "fuse" not in model.__dict__


def test_on_a_gpu_or_its_emulator():
    """The same numbers as on the CPU, dropout's too, and the random state of both devices is left."""
    pytest.importorskip("greenlet")
    model, x, y = mlp()
    mg.manual_seed(5)
    expected = data_of(model, x, y, influence=True)
    model.to("cuda")
    mg.manual_seed(5)
    generator, devices = mg.random.default_generator, (mg.cpu, mg.get_device("cuda"))
    before = [device.to_numpy(generator.state(device)).copy() for device in devices]
    data = data_of(model, x.to("cuda"), y.to("cuda"), influence=True)
    after = [device.to_numpy(generator.state(device)) for device in devices]
    np.testing.assert_array_equal(after, before)
    assert {node["device"] for node in data["nodes"]} == {"cuda"}
    for here, there in zip(data["nodes"], expected["nodes"], strict=True):
        np.testing.assert_allclose(array(here["values"][0]), array(there["values"][0]), atol=1e-5)
    for key, nodes in data["influence"]["by"].items():
        for other, entry in nodes.items():
            norms = expected["influence"]["by"][key][other]["norms"]
            np.testing.assert_allclose(entry["norms"], norms, rtol=1e-4, atol=1e-7)


def test_everything_is_left_as_it_was_after_an_error():
    model, x, y = mlp()
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}

    def failing(output, y):
        raise RuntimeError("no loss today")

    with pytest.raises(RuntimeError, match="no loss today"):
        data_of(model, x, y, loss=failing)
    assert all((value.numpy() == state[name]).all() for name, value in model.state_dict().items())


@pytest.mark.parametrize("net, settings", [(xor, {}), (mlp, {}), (mlp, {"fuse": False}), (xor, {"decompose": True})])
def test_influence_agrees_with_the_gradient(net, settings):
    """Of every weight on the loss; and on the layer's own output with x."""
    model, x, y = net()
    data = data_of(model, x, y, influence=True, **settings)
    assert data["influence"]["why_not"] == ""
    output, checked = str(data["output"]), 0
    for node in data["nodes"]:
        if node["kind"] == "parameter":
            numbers = np.frombuffer(b64decode(data["influence"]["by"][str(node["key"])][output]["numbers"]), "<f4")
            analytic = node["gradients"][0]["values"]
            np.testing.assert_allclose(numbers, analytic, rtol=2e-4, atol=2e-6, err_msg=node["title"])
            checked += numbers.size
    assert checked == data["parameters"]


def test_influence_of_a_large_weight():
    model = nn.Linear(1, 1, bias=False)
    model.load_state_dict({"weight": np.full((1, 1), -40.0)})
    data = data_of(model, mg.tensor([[2.0]]), mg.tensor([[0.0]]), influence=True)
    entry = data["influence"]["by"][str(by_title(data)["weight"]["key"])][str(data["output"])]
    np.testing.assert_allclose(entry["norms"], [320.0], rtol=1e-5)  # of (2 w)^2


def test_influence_on_the_values_in_between():
    model, x, y = xor()
    data = data_of(model, x, y, influence=True)
    found = by_title(data)
    entry = data["influence"]["by"][str(found["0.weight"]["key"])][str(found["linear (0)"]["key"])]
    moved = np.frombuffer(b64decode(entry["numbers"]), "<f4").reshape(4, 2, 4, 4)  # of weight, of output
    expected = np.zeros((4, 2, 4, 4))
    for unit in range(4):
        expected[unit, :, :, unit] = x.numpy().T
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    np.testing.assert_allclose(entry["norms"], np.linalg.norm(expected.reshape(8, 16), axis=1), rtol=5e-6)
    assert str(found["0.weight"]["key"]) not in data["influence"]["by"][str(found["2.weight"]["key"])]
    assert str(found["linear (0)"]["key"]) not in data["influence"]["by"][str(found["2.weight"]["key"])]


def test_influence_is_for_small_nets():
    model = nn.Linear(20, 20)
    data = data_of(model, mg.randn(2, 20), mg.randn(2, 20), influence=True)
    why = "The net has 420 parameters; influence is computed for up to 300."
    assert data["influence"] == {"why_not": why, "by": {}}

    class Single(nn.Linear):
        def forward(self, x):
            return super().forward(x) * mg.ones(1)  # float32 whatever x is

    data = data_of(Single(2, 1), mg.randn(2, 2), mg.randn(2, 1), influence=True)
    assert data["influence"]["why_not"].startswith("Influence is missing: the model does not run in float64 (")


def test_summary_of_arrays():
    small = summary(np.array([[1.0, -2.0], [np.nan, np.inf]], np.float32))
    assert small["values"] == [1.0, -2.0, "nan", "inf"] and small["nan"] == small["inf"] == 1 and small["min"] == -2.0
    large = summary(np.linspace(-1, 1, 3200))
    assert "values" not in large and large["counts"] == [100] * 32 and large["max"] == 1.0
    assert summary(np.zeros((0, 3)))["values"] == [] and summary(np.array([True, False]))["zeros"] == 1
    with pytest.raises(ValueError):
        json.dumps(float("nan"), allow_nan=False)
    json.dumps(small, allow_nan=False)


def test_nan_is_told():
    model, x, y = xor()
    data = data_of(model, mg.tensor([[np.nan, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), y)
    assert "4 nan!" in data["steps"][0]["text"] and "norm nan" in data["steps"][0]["text"]
    assert "nan" in [edge.get("norm") for edge in data["edges"]]
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e38])
def test_a_step_that_overflows_gets_a_page(value, tmp_path):
    model, x, y = xor()
    x = mg.tensor([[value, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    path = page_builder.page(model, x, y, tmp_path / "step.html", code="none")
    assert path.stat().st_size > 10_000


def test_histogram_of_a_narrow_range():
    found = summary(np.full(1000, 1e30, np.float32), 0)
    assert sum(found["counts"]) == 1000 and max(found["counts"]) == 1000
    narrow = np.float64(1e30) * (1 + np.array([0.0, 2e-16] * 500))
    assert sum(summary(narrow, 0)["counts"]) == 1000


def test_a_loss_of_ones_own_may_have_other_targets():
    model = nn.Linear(2, 1)
    data = data_of(model, mg.randn(3, 2), mg.zeros(1, 1), loss=lambda output, y: (output.sum() - y.sum()) ** 2)
    assert data["steps"]


def test_a_gradient_that_is_a_sum_is_called_one():
    class Residual(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            h = self.linear(x).tanh()
            return (h + h.exp()).sum(1, keepdim=True)

    data = data_of(Residual(), mg.randn(3, 2), mg.zeros(3, 1))
    backward = {step["text"].split(", backward of ")[1].split(":")[0]: step["text"] for step in data["steps"]
                if step["phase"] == "backward"}
    assert "arrives (the sum of 2);" in backward["tanh"] and "sum of" not in backward["exp"]


def test_modules_keep_the_data_in_sight():
    data = data_of(*xor())
    assert [box["lines"][0] for box in data["views"]["modules"]["boxes"]][0] == "x"


def test_settings_are_those_of_the_layers():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(2, 1))
    data = data_of(model, mg.randn(3, 1, 4, 4), mg.zeros(3, 1))
    (settings,) = [node["settings"] for node in data["nodes"] if node["op"] == "batch_norm_act"]
    assert "activation relu" in settings and "pool 2×2" in settings
    assert "act 0" not in settings and "slope" not in settings


BAD = [
    (lambda m, x, y: ("model", x, y), {}, TypeError, "expected model to be a Module, got str"),
    (lambda m, x, y: (nn.Tanh(), x, y), {}, ValueError, "Tanh has no parameter that requires grad"),
    (lambda m, x, y: (m, x, mg.zeros(3, 1)), {}, ValueError, r"x of shape \(4, 2\) and y of shape \(3, 1\)"),
    (lambda m, x, y: (m, "x", y), {}, TypeError, "expected x to be a Tensor or an array, got str"),
    (lambda m, x, y: (m, x, y), {"code": "all"}, ValueError, "one of none, source, machine, got 'all'"),
    (lambda m, x, y: (m, x, y), {"loss": lambda a, b: a}, ValueError, r"a scalar, got shape \(4, 1\)"),
    (lambda m, x, y: (m, x, y), {"loss": lambda a, b: 1.0}, TypeError, "to be a Tensor, got float"),
    (lambda m, x, y: (m, x, y), {"loss": lambda a, b: b.sum()}, ValueError, "does not depend on anything"),
]


@pytest.mark.parametrize("change, settings, error, message", BAD)
def test_bad_input(tmp_path, change, settings, error, message):
    with pytest.raises(error, match=message):
        mg.study.page(*change(*xor()), tmp_path / "step.html", **{"code": "none"} | settings)
    assert not list(tmp_path.iterdir())


def test_bad_paths(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere to write step.html into"):
        mg.study.page(*xor(), tmp_path / "nowhere" / "step.html")
    with pytest.raises(IsADirectoryError, match="expected a file to write, got the folder"):
        mg.study.page(*xor(), tmp_path)
    monkeypatch.setitem(page_builder.NEEDED, "no_such_module", "absent")
    with pytest.raises(ImportError, match=r"page: needs absent: pip install 'minigrad-numba\[study\]'"):
        mg.study.page(*xor(), tmp_path / "step.html")


def test_the_file_needs_nothing_else(tmp_path):
    model, x, y = xor()
    path = mg.study.page(model, x.numpy(), y.numpy(), tmp_path / "step.html", title="a </script> b", code="none")
    text = path.read_text("utf-8")
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(?!data:)[a-z/]", text)
    assert "a &lt;/script&gt; b" in text and "d3js.org" in text  # D3 keeps its copyright line
    assert text.count("</script>") == 3
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert data["title"] == "a </script> b" and data["code"]["ops"] == {}


def test_code_is_kept_once_and_compressed():
    pytest.importorskip("pygments")
    model, x, y = xor()
    code = data_of(model, x, y, code="source")["code"]

    def text(index):
        kept = code["texts"][index]
        return kept["html"] if "html" in kept else zlib.decompress(b64decode(kept["zlib"])).decode()

    linear, plain = code["ops"]["linear"], [re.sub("<.*?>", "", text(i)) for i in range(len(code["texts"]))]
    assert "class Linear(Function)" in plain[linear["function"]]
    forward = linear["kernels"][0]
    assert "def linear_forward" in plain[forward["reference"]]
    assert '<span class="k">def</span>' in text(forward["reference"])
    assert "def linear_forward" in plain[forward["njit"]] and "Write it with code=" in forward["LLVM"]
    assert len(plain) == len(set(plain)) and any("zlib" in kept for kept in code["texts"])
    assert set(code["ops"]) == {"linear", "tanh", "sub", "mul", "sum", "div"}


def test_machine_code_or_the_reason_why_there_is_none(monkeypatch):
    pytest.importorskip("pygments")

    class Kernel:
        name, reference, njit, cuda, ptx = "twice", "def twice(x): ...", "", "", None
        why_not, why_no_machine, registers, vector_counts = "no compiler", "", 12, {"vaddps zmm": 3}
        llvm = "\n".join(f"%{i} = add i64 1, 2" for i in range(LONG + 5))

        @property
        def assembly(self):
            raise RuntimeError("the compiler has failed")

    class Found:
        function, gradients, kernels = "class Twice: ...", "", [Kernel()]

    from minigrad.study import page_code

    monkeypatch.setattr(page_code, "source", lambda cls: Found)
    model, x, y = xor()
    told = []
    code = data_of(model, x, y, code="machine", progress=lambda *at: told.append(at))["code"]
    kernel = code["ops"]["tanh"]["kernels"][0]
    assert kernel["assembly"] == "The assembly of twice could not be made: the compiler has failed"
    assert kernel["PTX"] == "no compiler" and kernel["CUDA"] == "twice has no CUDA."
    assert kernel["notes"] == ["vector instructions: 3 vaddps zmm", "12 registers per thread on sm_90"]
    assert ("tanh", 1, 6) in told
    assert "5 of 405 lines left out" in shortened(Kernel.llvm, "llvm")
    assert "left out" not in shortened(Kernel.llvm, "python")
    assert Texts().add("a < b", "no such language") == 0


def test_command(tmp_path, capsys):
    from minigrad.cli import main

    output = tmp_path / "xor.html"
    quick = ["--code", "none", "--no-influence"]
    assert main(["study", str(ROOT / "examples" / "study_xor.py"), "--output", str(output), *quick]) == 0
    assert "study_xor: wrote" in capsys.readouterr().out.replace("\n", " ") and "study_xor" in output.read_text("utf-8")
    script = tmp_path / "net.py"
    script.write_text("import minigrad as mg\nfrom minigrad import layers as nn\nmodel = nn.Linear(2, 1)\n"
                      "x, y = mg.ones(3, 2), mg.ones(3, 1)\n"
                      "def loss(a, b): return (a - b).abs().sum()\n")
    assert main(["study", str(script), "--output", str(output), *quick]) == 0
    assert '"op":"abs"' in output.read_text("utf-8")
    pytest.importorskip("sklearn")
    assert main(["study", "--model", "mlp", "--no-fuse", "--batch-size", "4", "--output", str(output), *quick]) == 0
    assert "mlp on digits" in output.read_text("utf-8")


@pytest.mark.parametrize("text, arguments, message", [
    (None, [], "expected either a script or --model"),
    (None, ["--model", "mlp", "--output", "nowhere/step.html"], "there is no folder nowhere"),
    (None, ["nowhere.py"], "there is no file nowhere.py"),
    ("a = 1", ["net.py"], "expected net.py to define study()"),
    ("def study(): return 1", ["net.py"], "or (model, x, y, loss), got int"),
    ("def study(): return 1, 2, 3, 4", ["net.py"], "a function of (output, y), got int"),
    ("def study(): return 1, 2, 3", ["net.py"], "expected model to be a Module, got int"),
    ("def study(): return 1, 2", ["net.py"], "or (model, x, y, loss), got 2 things"),
    ("a = 1\nimport nope", ["net.py"], "net.py, line 2: ModuleNotFoundError: No module named 'nope'"),
    ("def study(n): pass", ["net.py"], "net.py: TypeError: study() missing 1 required positional argument: 'n'"),
    ("a = 1\nb = (", ["net.py"], "net.py, line 2: SyntaxError"),
    ("a = 1", ["net.py", "--batch-size", "3"], "--batch-size goes with --model"),
    ("a = 1", ["net.py", "--data", "mnist"], "--data goes with --model"),
])  # fmt: skip
def test_command_with_bad_input(tmp_path, monkeypatch, capsys, text, arguments, message):
    from minigrad.cli import main

    monkeypatch.chdir(tmp_path)
    if text:
        Path("net.py").write_text(text)
    assert main(["study", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_example_learns():
    done = subprocess.run([sys.executable, str(ROOT / "examples" / "study_xor.py")], capture_output=True, text=True,
                          env=None, timeout=120)
    assert done.returncode == 0, done.stderr
    outputs = [float(line.split("=")[1]) for line in done.stdout.splitlines()[1:]]
    np.testing.assert_allclose(outputs, [0, 1, 1, 0], atol=0.02)
