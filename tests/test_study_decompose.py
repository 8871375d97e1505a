"""minigrad.study.decompose: the mathematics in primitive ops is a second oracle of the fused ops."""

import numpy as np
import op_table
import op_table_nn
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn
from minigrad import study
from minigrad.study.decompositions import TABLE

assert op_table_nn  # it adds rows to the table
PRIMITIVE = {"add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "abs", "matmul", "sum", "mean", "max", "permute",
             "reshape", "expand", "where", "cast", "pow_scalar", "slice", "cat", "tanh", "relu", "max_pool2d", "silu",
             "leaky_relu", "reduce_extreme", "compare"}


def norm_arguments(x, training):
    channels = x.shape[1]
    return mg.zeros(channels, dtype=x.dtype), mg.ones(channels, dtype=x.dtype), training


def batch_norm(training=True, **options):
    def run(x, w, b):
        mean, var, training_ = norm_arguments(x, training)
        y = F.batch_norm(x, mean, var, w, b, training_, 0.3, **options)
        return y, mean, var

    return run


def batch_norm_act(activation, pool, training=True, **options):
    def run(x, w, b):
        mean, var, training_ = norm_arguments(x, training)
        y = F.batch_norm_act(x, mean, var, w, b, training_, 0.3, activation=activation, max_pool=pool, **options)
        return y, mean, var

    return run


LABELS = [0, 2, 1, 2, 0, 1]
IMAGE, ROWS = ((6, 3, 4, 4), (3,), (3,)), ((6, 3), (3,), (3,))
CASES = {
    "linear": (F.linear, ((6, 3), (4, 3), (4,))),
    "linear, no bias, 3-D": (F.linear, ((2, 6, 3), (4, 3))),
    "softmax": (lambda x: F.softmax(x, 1), ((6, 3),)),
    "softmax, dim 0": (lambda x: F.softmax(x, 0), ((6, 3, 2),)),
    "log_softmax": (lambda x: F.log_softmax(x, -1), ((6, 3),)),
    "logsumexp": (lambda x: mg.logsumexp(x, 1), ((6, 3),)),
    "logsumexp, all": (lambda x: mg.logsumexp(x), ((6, 3),)),
    "var": (lambda x: mg.var(x, 1), ((6, 3),)),
    "var, correction 0": (lambda x: mg.var(x, (0, 2), keepdim=True, correction=0), ((6, 3, 2),)),
    "cross_entropy": (lambda x: F.cross_entropy(x, mg.tensor(LABELS)), ((6, 3),)),
    "cross_entropy, weighted": (
        lambda x, w: F.cross_entropy(x, mg.tensor(LABELS), w.detach().abs(), label_smoothing=0.2, ignore_index=1),
        ((6, 3), (3,))),
    "cross_entropy, none": (
        lambda x: F.cross_entropy(x, mg.tensor([LABELS[:2], LABELS[2:4]]), reduction="none"), ((2, 3, 2),)),
    "cross_entropy, sum": (lambda x: F.cross_entropy(x, mg.tensor(LABELS), reduction="sum"), ((6, 3),)),
    "nll_loss": (lambda x: F.nll_loss(x, mg.tensor(LABELS), ignore_index=0), ((6, 3),)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, 3, w, b), ROWS),
    "layer_norm, plain": (lambda x: F.layer_norm(x, (3, 2)), ((6, 3, 2),)),
    "batch_norm": (batch_norm(), ROWS),
    "batch_norm, images": (batch_norm(), IMAGE),
    "batch_norm, eval": (batch_norm(training=False), IMAGE),
    "batch_norm, ghost": (batch_norm(ghost_batch_size=4), ROWS),
    "batch_norm_act": (batch_norm_act("relu", True), IMAGE),
    "batch_norm_act, tanh": (batch_norm_act("tanh", False), ROWS),
    "batch_norm_act, leaky, eval": (batch_norm_act("leaky_relu", True, training=False, negative_slope=0.2), IMAGE),
    "batch_norm_act, ghost": (batch_norm_act("silu", False, ghost_batch_size=2), IMAGE),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), ((6, 3),)),
    "softplus": (lambda x: F.softplus(x * 20.0, beta=2.0), ((6, 3),)),
}  # fmt: skip


def inputs_of(shapes, dtype, device="cpu"):
    random = np.random.default_rng(3)
    tensors = [mg.tensor(random.standard_normal(shape), dtype=dtype, device=device) for shape in shapes]
    for t in tensors:
        t.requires_grad = True
    return tensors


def results(function, shapes, dtype, twice=False):
    """Values, buffers and gradients, the second ones too."""
    inputs = inputs_of(shapes, dtype)
    value = function(*inputs)
    value, *buffers = value if isinstance(value, tuple) else (value,)
    seed = mg.tensor(np.random.default_rng(4).standard_normal(value.shape), dtype=dtype)
    found = mg.grad(value, inputs, seed, create_graph=twice, allow_unused=True)
    grads = [g for g in found if g is not None]
    if twice:
        total = sum([(g * g).sum() for g in grads])
        if total.requires_grad:
            grads += [g for g in mg.grad(total, inputs, allow_unused=True) if g is not None]
    return [t.numpy() for t in (value, *buffers, *grads)]


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_fused_op(case):
    function, shapes = CASES[case]
    fused = results(function, shapes, "float64", twice=True)
    with study.decompose():
        composed = results(function, shapes, "float64", twice=True)
    assert len(fused) == len(composed)
    for a, b in zip(composed, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_equal_in_float32(case):
    function, shapes = CASES[case]
    fused = results(function, shapes, "float32")
    with study.decompose():
        for a, b in zip(results(function, shapes, "float32"), fused, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_only_primitives_run(case):
    function, shapes = CASES[case]
    with study.decompose():
        value = function(*inputs_of(shapes, "float32"))
    graph = study.graph(value[0] if isinstance(value, tuple) else value)
    ran = {node.op for node in graph if node.kind == "op"}
    assert ran <= PRIMITIVE, ran - PRIMITIVE
    assert len(ran) > 1


DECOMPOSED = {"linear", "softmax", "log_softmax", "logsumexp", "var", "std", "cross_entropy", "nll_loss", "layer_norm",
              "batch_norm", "batch_norm_act", "linear_batch_norm_act", "gelu", "softplus",
              "binary_cross_entropy_with_logits"}
ROWS = [pytest.param(row, id=row.name) for row in op_table.ROWS if row.op in DECOMPOSED]


@pytest.mark.parametrize("row", ROWS)
def test_the_op_table(row):
    """Awkward inputs too: what NumPy says of the op, and the gradients of the fused one."""

    def run():
        inputs = [mg.tensor(x, requires_grad=row.grad and x.dtype.kind == "f") for x in row.inputs()]
        out = row.call(*inputs)
        outputs, leaves = out if isinstance(out, tuple) else (out,), [x for x in inputs if x.requires_grad]
        random = np.random.default_rng(1)
        weights = [mg.tensor(random.standard_normal(y.shape)) for y in outputs]
        return [y.numpy() for y in (*outputs, *(mg.grad(outputs, leaves, weights) if leaves else ()))]

    fused = run()
    with study.decompose():
        composed = run()
    wanted = row.oracle(*row.inputs())
    for y, z in zip(composed, wanted if isinstance(wanted, tuple) else (wanted,), strict=False):
        np.testing.assert_allclose(y, z, rtol=1e-9, atol=1e-9)
    for a, b in zip(composed, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_every_name_is_tried():
    tried = {case.split(",")[0].replace("_act", "") for case in CASES}
    assert tried == set(TABLE)


def test_one_name_leaves_the_others():
    x = mg.randn(3, 4, requires_grad=True)
    with study.decompose("softmax"):
        ran = [n.op for n in study.graph(F.log_softmax(F.softmax(x, 1), 1)) if n.kind == "op"]
    assert ran[-1] == "log_softmax" and "softmax" not in ran and "div" in ran
    with pytest.raises(ValueError, match="decompose: expected names out of linear, softmax, .* got 'conv'"):
        study.decompose("conv")


def test_nested_blocks_add_up_and_end():
    x = mg.randn(3, 4, requires_grad=True)
    with study.decompose("softmax"), study.decompose("log_softmax"):
        assert "exp" in [n.op for n in study.graph(F.softmax(x, 1))]
    assert [n.op for n in study.graph(F.softmax(x, 1)) if n.kind == "op"] == ["softmax"]


def net(kind):
    if kind == "mlp":
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3)), (5, 6)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 3)), (5, 1, 8, 8)


def state_after_a_step(kind, device):
    mg.manual_seed(1)
    model, shape = net(kind)
    model.to(device)
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
    loss = F.cross_entropy(model(mg.randn(*shape).to(device)), mg.tensor([0, 1, 2, 0, 1], device=device))
    loss.backward()
    optimizer.step()
    return {name: t.numpy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_a_training_step_is_the_same(kind, device):
    fused = state_after_a_step(kind, device)
    with study.decompose():
        composed = state_after_a_step(kind, device)
    assert fused.keys() == composed.keys()
    for name, value in fused.items():
        np.testing.assert_allclose(composed[name], value, rtol=1e-4, atol=1e-6)


def test_wrong_labels_are_found_too():
    with study.decompose(), pytest.raises(ValueError, match="cross_entropy: expected class indices from 0 to 2, got 7"):
        F.cross_entropy(mg.randn(2, 3), mg.tensor([0, 7]))


def test_softmax_is_safe_from_overflow():
    with study.decompose():
        x = mg.tensor([[1000.0, 1001.0], [-1000.0, -1000.0]])
        assert np.isfinite(F.softmax(x, 1).numpy()).all()
        np.testing.assert_allclose(mg.logsumexp(x, 1).numpy(), [1001.3133, -999.30685], rtol=1e-6)
        assert mg.logsumexp(mg.tensor([-np.inf, -np.inf]), 0).item() == -np.inf


def test_a_captured_step_is_recorded_anew():
    x = mg.randn(2, 3)
    step = mg.capture(lambda x: F.softmax(x, 1))
    step(x), step(x)
    with study.decompose():
        inside = step(x).numpy()
    np.testing.assert_allclose(inside, step(x).numpy(), rtol=1e-6)
    assert len(step.recordings) == 2


def test_mistakes_get_a_hint():
    with pytest.raises(ValueError, match="did you mean 'softmax'"):
        study.decompose("softmx")
    with pytest.raises(TypeError, match=r"write @decompose\(\) with brackets"):
        @study.decompose
        def step():
            pass
