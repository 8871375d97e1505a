"""minigrad.study.graph: nodes, edges and what is kept, against what the engine recorded; one node per module."""

import pytest
from study_nets import CASES, mlp, recorded, recurrent

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn
from minigrad import study
from minigrad.function import Function, Pick, apply_multiple
from minigrad.tensor import Tensor


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_nodes_are_what_ran(name, fuse):
    model, loss, results = recorded(name, fuse)
    graph = study.graph(loss, model)
    ops = [node for node in graph if node.kind == "op"]
    assert {id(node.source) for node in ops} == {id(fn) for fn in results}
    for node in ops:
        value = results[node.source]
        assert (node.shape, node.dtype, node.memory) == (value.shape, str(value.dtype), value.data.nbytes)
        assert node.requires_grad and node.op == node.source.name and node.device == "cpu"
    parameters = {node.name: node.source for node in graph if node.kind == "parameter"}
    assert parameters.keys() == dict(model.named_parameters()).keys()
    assert all(parameters[path] is p for path, p in model.named_parameters())


@pytest.mark.parametrize("name", CASES)
def test_edges_are_the_engines_parents(name):
    model, loss, _ = recorded(name)
    graph = study.graph(loss, model)
    found = {(id(graph[e.source].source), id(graph[e.target].source), e.position) for e in graph.edges}
    wanted = set()
    for node in graph:
        if node.kind == "op":
            fn = node.source
            for position, parent in enumerate(fn.parents):
                value = fn.inputs and fn.inputs[position]
                if parent is not None:
                    wanted.add((id(parent), id(node.source), position))
                elif isinstance(value, Tensor):
                    wanted.add((id(value), id(node.source), position))
    assert found == wanted and all(e.source < e.target for e in graph.edges)


def test_paths_of_modules():
    model, loss, _ = recorded("mlp")
    assert {n.op: n.module for n in study.graph(loss, model) if n.kind == "op"} == {
        "linear_batch_norm_act": "0-2", "linear": "3", "cross_entropy": ""}
    model, loss, _ = recorded("cnn")
    assert [(n.op, n.module) for n in study.graph(loss, model) if n.kind == "op"] == [
        ("conv2d", "0"), ("conv2d", "1.conv"), ("batch_norm", "1.norm"), ("add", "1"), ("relu", "1"),
        ("max_pool2d", "2"), ("reshape", "3"), ("linear", "4"), ("cross_entropy", "")]


def test_names_is_a_decorator_too():
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())

    @study.names(model)
    def run(x):
        return model(x)

    assert [n.module for n in study.graph(run(mg.ones(1, 3)), model) if n.kind == "op"] == ["0", "1"]


def test_without_names_parameters_tell_the_module():
    model = mlp()
    loss = F.cross_entropy(model(mg.randn(5, 4)), mg.tensor([0, 1, 2, 0, 1]))
    graph = study.graph(loss, model)
    assert [n.module for n in graph if n.kind == "op"] == ["0-1", "3", ""]
    assert [n.module for n in study.graph(loss) if n.kind == "op"] == ["", "", ""]
    own = {id(p) for p in model.parameters()}
    assert [n.kind for n in study.graph(loss) if id(n.source) in own] == ["leaf"] * len(own)


def test_saved_bytes_by_hand():
    x, w = mg.ones(4, 3), mg.ones(2, 3)
    w.requires_grad = True
    graph = study.graph(F.linear(x, w).exp().sum())
    saved = {node.op: node.saved for node in graph if node.kind == "op"}
    # linear keeps x (48 bytes; w is a leaf), exp its output (32) and perhaps its input, sum nothing
    assert saved["linear"] == 48 and saved["sum"] == 0
    keeps = {id(a) for a in (graph[3].source.saved_output[0], *[i.data for i in graph[3].source.inputs or ()])}
    assert graph[3].op == "exp" and saved["exp"] == 32 * len(keeps)


def test_what_several_nodes_keep_counts_once_in_the_graph():
    x, w = mg.ones(4, 3), mg.ones(3, 2, requires_grad=True)
    y = F.relu(x @ w)
    graph = study.graph((y * y).sum())
    assert [n.saved for n in graph if n.kind == "op"] == [48, 32, 32, 0]  # x; the result of relu, twice
    assert graph.saved == 48 + 32


def test_an_array_that_is_kept_twice_counts_once():
    x = mg.ones(5) * mg.ones(5)
    x.requires_grad = True
    y = x + 0.0
    assert study.graph(y * y).nodes[-1].saved == 20


def test_types_change_at_a_cast_and_devices_are_named():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    graph = study.graph((x.double() + 1.0).float().sum())
    assert [(n.label, n.dtype) for n in graph] == [
        ("leaf", "float32"), ("cast", "float64"), ("add", "float64"), ("cast", "float32"), ("sum", "float32")]
    moved = study.graph((x.to("cuda") * 2.0).to("cpu").sum())
    assert [n.device for n in moved] == ["cpu", "cuda", "cuda", "cpu", "cpu"]


def test_functions_with_several_outputs_are_one_node():
    class Both(Function):
        """x and 2 x"""

        def forward(self, x):
            return x + 0, x * 2

        def backward(self, a, b):
            return (a + b * 2.0,)

    x = mg.tensor([1.0], requires_grad=True)
    first, second = apply_multiple(Both, x)
    graph = study.graph(first * second)
    assert [n.label for n in graph] == ["leaf", "both", "mul"]
    assert [(e.source, e.target, e.position) for e in graph.edges] == [(0, 1, 0), (1, 2, 0), (1, 2, 1)]
    assert not any(type(n.source) is Pick for n in study.graph([first, second]))
    assert study.graph([first, second]).outputs == [1, 1]


def test_settings_are_what_the_op_was_told():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.LeakyReLU(0.5))
    with study.names(model):
        graph = study.graph(model(mg.ones(1, 1, 8, 8)).sum((2, 3)) ** 3.0, model)
    found = {n.op: n.settings for n in graph if n.kind == "op"}
    assert found == {
        "conv2d": {"stride_h": 2, "stride_w": 2, "pad_top": 1, "pad_left": 1, "dilation_h": 1, "dilation_w": 1,
                   "groups": 1},
        "leaky_relu": {"slope": 0.5}, "sum": {"dims": (2, 3)}, "pow_scalar": {"exponent": 3.0},
    }  # fmt: skip
    assert "slope 0.5" in graph.to_svg()
    assert {n.module: n.settings for n in graph.collapse()}["0"] == found["conv2d"]


def test_constants_come_once_and_can_be_left_out():
    w, x = mg.ones(3, requires_grad=True), mg.ones(3)
    y = (w * x) * x
    assert [n.kind for n in study.graph(y)] == ["leaf", "constant", "op", "op"]
    assert [n.kind for n in study.graph(y, constants=False)] == ["leaf", "op", "op"]


def test_a_leaf_alone():
    graph = study.graph(mg.ones(3, requires_grad=True))
    assert len(graph) == 1 and graph.edges == [] and graph.to_svg().count("<rect") == 1


@pytest.mark.parametrize(("make", "message"), [
    (lambda: study.graph(mg.ones(3)), r"graph: the tensor of shape \(3,\) has no graph"),
    (lambda: study.graph(3.0), "expected a Tensor or several, got float"),
    (lambda: study.graph([]), "expected at least one tensor"),
    (lambda: study.graph(mg.ones(1, requires_grad=True), model=3), "expected model to be a Module, got int"),
    (lambda: study.names("net"), "names: expected a Module, got str"),
    (lambda: study.graph(mg.ones(1, requires_grad=True)).save("x.png"), r"ends in .svg, .dot, .gv, .mmd, got 'x.png'"),
    (lambda: study.graph(mg.ones(1, requires_grad=True)).collapse(0), "expected depth to be an int >= 1, got 0"),
])  # fmt: skip
def test_mistakes_are_sentences(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_freed_graph_is_a_sentence():
    x = mg.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(ValueError, match="was freed by a backward"):
        study.graph(y)


def test_long_chains():
    x = mg.ones(1, requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 1.0 + x
    graph = study.graph(y)
    assert len(graph) == 10_001 and repr(graph) == "<Graph of 10,001 nodes, 10,000 of them ops, and 15,000 edges>"
    assert graph.to_svg().count("<rect") == 10_001
    assert "10,001 nodes" in graph._repr_html_() and "<svg" not in graph._repr_html_()  # the listing


@pytest.mark.parametrize("name", CASES)
def test_collapse_by_module(name):
    model, loss, _ = recorded(name, fuse=False)
    graph = study.graph(loss, model)
    small = graph.collapse()
    assert [n.module for n in small if n.module] == {
        "mlp": ["0", "1", "2", "3"], "cnn": ["0", "1.conv", "1.norm", "1", "2", "3", "4"]}[name]
    for what in ("memory", "saved", "parameters"):
        assert sum(getattr(n, what) for n in small) == sum(getattr(n, what) for n in graph)
    assert sum(n.parameters for n in small) == sum(p.numel() for p in model.parameters())
    assert all(e.source < e.target for e in small.edges) and len(set(small.edges)) == len(small.edges)
    assert len(small.edges) >= len(small) - 1


def test_collapse_by_depth_makes_one_node_of_a_block():
    model, loss, _ = recorded("cnn")
    blocks = study.graph(loss, model).collapse(depth=1)
    block = next(n for n in blocks if n.module == "1")
    assert block.kind == "module" and [n.op for n in block.members if n.kind == "op"] == [
        "conv2d", "batch_norm", "add", "relu"] and block.op == "4 ops"


def test_each_call_of_a_module_is_a_node_and_the_first_has_the_parameters():
    graph = recurrent()
    small = graph.collapse(depth=1)
    cells = [n for n in small if n.module == "cell"]
    assert [n.op for n in cells] == ["linear add tanh"] * 5 and [n.parameters for n in cells] == [9 + 12, 0, 0, 0, 0]
    ways = {(small[e.source].module, small[e.target].module) for e in small.edges if small[e.source].kind == "module"}
    assert ways == {("cell", "cell"), ("cell", "head")}
    chain = [(e.source, e.target) for e in small.edges if small[e.source].module == small[e.target].module == "cell"]
    assert chain == [(a.key, b.key) for a, b in zip(cells, cells[1:], strict=False)]
    fine = graph.collapse()
    assert [n.module for n in fine].count("cell.back") == 5 and not any(n.kind == "parameter" for n in fine)
    for collapsed in (small, fine, fine.collapse(depth=1)):
        assert collapsed.saved == graph.saved
        for what in ("memory", "saved", "parameters"):
            assert sum(getattr(n, what) for n in collapsed) == sum(getattr(n, what) for n in graph)
    assert [(n.op, n.module) for n in fine.collapse(depth=1)] == [(n.op, n.module) for n in small]


def test_a_call_ends_where_its_module_returns():
    class Child(nn.Module):
        def forward(self, x):
            x = x.exp()
            return x, x.exp()

    class Parent(nn.Module):
        def __init__(self):
            self.child = Child()

        def forward(self, x):
            a, b = self.child(x)
            return a, x.tanh(), b

    model = nn.Sequential(Parent())
    with study.names(model):
        roots = model(mg.ones(2, requires_grad=True))
    small = study.graph(roots, model).collapse()
    assert [(n.op, n.module) for n in small] == [("", ""), ("exp", "0.child"), ("tanh", "0")]
    assert small.outputs == [1, 2]


def test_a_parameter_of_two_modules_stays_a_node():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    with study.names(model):
        small = study.graph(model(mg.ones(2, 3)), model).collapse()
    shared = [n for n in small if n.kind == "parameter"]
    assert [n.name for n in shared] == ["0.weight"]
    assert [small[e.target].module for e in small.edges if e.source == shared[0].key] == ["0", "2"]


def test_children_of_a_list_are_one_node_by_depth():
    class Blocks(nn.Module):
        def __init__(self):
            self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = Blocks()
    with study.names(model):
        small = study.graph(model(mg.ones(2, 3)), model).collapse(depth=1)
    assert [(n.kind, n.module, n.parameters) for n in small] == [("constant", "", 0), ("module", "blocks", 24)]


def test_a_module_around_another_op_is_not_one_node():
    class Around(nn.Module):
        def __init__(self):
            self.a, self.w = nn.Parameter(mg.ones(3)), nn.Parameter(mg.ones(3, 3))

        def forward(self, x):
            x = x * self.a
            return F.linear(x, self.w, outside(x))

    def outside(x):
        return x.exp().sum(0)

    model = nn.Sequential(Around())
    graph = study.graph(model(mg.ones(2, 3)).exp(), model)
    assert [(n.op, n.module) for n in graph if n.kind == "op"] == [
        ("mul", "0"), ("exp", ""), ("sum", ""), ("linear", "0"), ("exp", "")]
    small = graph.collapse()
    assert all(e.source < e.target for e in small.edges)
    assert sum("mul" in n.op for n in small) == sum("linear" in n.op for n in small) == 1
