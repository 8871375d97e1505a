"""Fusing in Sequential: what comes out is what the children called one by one give."""

import copy
import itertools
import pickle

import numba
import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad import layers as nn
from minigrad import study
from minigrad.function import Function
from minigrad.layers import fusion
from minigrad.ops.fused import LinearBatchNormAct, LinearBatchNormActEval
from minigrad.testing import gradcheck, gradgradcheck

ACTIVATIONS = [None, nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.Sigmoid, nn.Tanh, nn.SiLU]
FLAGS = [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"bias": False}, {"momentum": 0.9}]
# (shape of the input, pooling)
INPUTS = [((6, 5), None), ((3, 5, 7), None), ((2, 3, 5, 6), None), ((3, 3, 6, 14), 2), ((2, 3, 7, 9), 2)]


def layers(shape, pool, activation, flags, dtype):
    """A run of layers for such an input, a linear layer in front of it."""
    norm = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    made = [nn.Conv2d(shape[1], shape[1], 1)] if len(shape) == 4 else []
    made += [norm(shape[1], **flags)]
    made += [] if activation is None else [activation()]
    made += [] if pool is None else [nn.MaxPool2d(pool)]
    model = nn.Sequential(*made).to(getattr(mg, dtype))
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        with mg.no_grad():
            parameter.copy_(mg.tensor(rng.standard_normal(parameter.shape), dtype))
    return model


def steps(model, x, grad_of):
    """Everything that training twice, evaluation without a graph, and one with it leave behind."""
    found = []
    for training, recorded in ((True, True), (True, True), (False, False), (False, True)):
        model.train(training)
        x.grad = None
        model.zero_grad()
        with mg.enable_grad() if recorded else mg.no_grad():
            y = model(x)
        found.append(y.numpy().copy())
        if recorded:
            y.backward(grad_of(y.shape))
            found += [x.grad.numpy(), *[p.grad.numpy() for p in model.parameters()]]
        found += [v.numpy().copy() for v in model.state_dict().values()]
    return found


def fused_runs(model):
    """How many runs a model's plan has."""
    return sum(isinstance(step, fusion.Run) for step in model._plan[1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape, pool", INPUTS)
def test_fused_equals_unfused(shape, pool, dtype):
    """Outputs, all gradients, and the buffers, over activations and options."""
    rng = np.random.default_rng(1)
    data = rng.standard_normal(shape) * 2 + 1
    for activation, flags in itertools.product(ACTIVATIONS, FLAGS):
        if activation is None and pool is None:
            continue
        model = layers(shape, pool, activation, flags, dtype)
        other = copy.deepcopy(model)
        other.fuse = False
        rows = []
        for each in (model, other):
            generator = np.random.default_rng(2)
            x = mg.tensor(data, dtype, requires_grad=True)
            rows.append(steps(each, x, lambda s, g=generator: mg.tensor(g.standard_normal(s), dtype)))
        assert fused_runs(model) == 1 and other._plan is None
        tolerance = 1e-12 if dtype == "float64" else 2e-5
        for found, wanted in zip(*rows, strict=True):
            scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


def test_nan_and_infinity_travel():
    for special in (np.nan, np.inf, -np.inf):
        for activation in (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.SiLU):
            results = []
            for fuse in (True, False):
                model = nn.Sequential(nn.BatchNorm2d(2), activation(), nn.MaxPool2d(2))
                model.fuse = fuse
                x = np.random.default_rng(0).standard_normal((3, 2, 4, 6)).astype(np.float32)
                x[1, 1, 2, 3] = special
                x = mg.tensor(x, requires_grad=True)
                y = model(x)
                y.backward(mg.ones(*y.shape))
                results.append([y.numpy(), x.grad.numpy(), *[b.numpy() for b in model.buffers()]])
            for found, wanted in zip(*results, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
            assert np.isnan(results[0][0][:, 1]).all() and np.isfinite(results[0][0][:, 0]).all()


@pytest.mark.parametrize("max_pool", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu", "sigmoid", "tanh", "silu"])
def test_derivatives(activation, max_pool):
    """The kernel's gradient against differences, and the second derivatives of the composition."""
    rng = np.random.default_rng(3)
    x, w, b = [mg.tensor(rng.standard_normal(s), "float64", requires_grad=True) for s in ((3, 2, 5, 4), (2,), (2,))]
    for training in (True, False):
        def op(x, w, b, training=training):
            return F.batch_norm_act(x, *(None, None) if training else (mg.zeros(2, dtype="float64"),
                                    mg.ones(2, dtype="float64")), w, b, training, activation=activation,
                                    negative_slope=0.3, max_pool=max_pool)

        assert gradcheck(op, [x, w, b])
        assert gradgradcheck(op, [x, w, b])


def test_the_graph_is_short_and_saves_little():
    """One op per run, which keeps x, mean and variance and nothing else of that size."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    y = model(mg.randn(2, 1, 8, 8))
    assert y.fn.name == "batch_norm_act" and y.fn.parents[0].name == "conv2d"
    kept = [v for v in y.fn.__dict__.values() if isinstance(v, np.ndarray)]
    assert sorted(a.shape for a in kept) == [(4,), (4,)]
    assert [t.shape for t in y.fn.inputs] == [(2, 4, 8, 8), (4,), (4,)]


# -- with a linear layer in front ----------------------------------------------------------------------------------


def linear_run(activation, flags, dtype="float32", bias=True, nested=False):
    """Linear, batch normalization, an activation; `nested` hides the linear layer in a Sequential of its own."""
    mg.manual_seed(0)
    linear = nn.Linear(7, 5, bias=bias)
    rest = [] if activation is None else [activation()]
    first = nn.Sequential(linear) if nested else linear
    return nn.Sequential(first, nn.BatchNorm1d(5, **flags), *rest, nn.Linear(5, 3)).to(getattr(mg, dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_in_front_changes_no_bit(bias, dtype):
    """Its kernels are the same, in the same order, as those of the layer called by itself."""
    data = np.random.default_rng(1).standard_normal((6, 7))
    for activation, flags in itertools.product(ACTIVATIONS, FLAGS):
        rows = []
        for nested in (False, True):
            model = linear_run(activation, flags, dtype, bias, nested)
            generator = np.random.default_rng(2)
            x = mg.tensor(data, dtype, requires_grad=True)
            rows.append(steps(model, x, lambda s, g=generator: mg.tensor(g.standard_normal(s), dtype)))
            y = model.train()(x)
            assert (y.fn.parents[0].name == "linear_batch_norm_act") is not nested
        for found, wanted in zip(*rows, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu", "sigmoid", "tanh", "silu"])
def test_derivatives_with_a_linear_layer(activation):
    rng = np.random.default_rng(4)
    shapes = (5, 3), (2, 3), (2,), (2,), (2,)
    tensors = [mg.tensor(rng.standard_normal(s), "float64", requires_grad=True) for s in shapes]

    def op(*tensors):
        return LinearBatchNormAct.apply(*tensors, running=None, eps=0.1, activation=activation, slope=0.3)

    assert gradcheck(op, tensors)
    assert gradgradcheck(op, tensors)
    x, w = tensors[:2]
    assert gradgradcheck(lambda x, w: op(x, w, None, None, None), [x, w])


@pytest.mark.parametrize("rows", [1, 6])
def test_evaluation_with_a_linear_layer_is_one_op(rows):
    """Of a single row, too; with a graph the layers are called one by one, for the running statistics are constants."""

    class Names(mg.Watcher):
        def __init__(self):
            self.names = []

        def computed(self, fn, inputs, results):
            self.names.append(fn.name)

    model, x = linear_run(nn.SiLU, {}), mg.randn(rows, 7)
    model(mg.randn(5, 7))
    model.eval()
    heard = Names()
    with mg.no_grad(), mg.watch(heard):
        y = model(x)
    assert heard.names == ["linear_batch_norm_act_eval", "linear"]
    with mg.no_grad(), study.decompose():
        np.testing.assert_allclose(model(x).numpy(), y.numpy(), rtol=1e-5, atol=1e-6)
    heard = Names()
    with mg.watch(heard):
        np.testing.assert_allclose(model(x).numpy(), y.numpy(), rtol=2e-5, atol=2e-5)
    assert heard.names == ["linear", "batch_norm_eval", "silu", "linear"]
    model.train()
    model[1].freeze()
    heard = Names()
    with mg.no_grad(), mg.watch(heard):
        np.testing.assert_array_equal(model(x).numpy(), y.numpy())
    assert heard.names == ["linear_batch_norm_act_eval", "linear"]
    model[1].running_var = None
    with mg.no_grad(), pytest.raises(ValueError, match="expected running_mean and running_var outside of training"):
        model(x)
    model[1].unfreeze()
    model[1].track_running_stats = False
    heard = Names()
    with mg.no_grad(), mg.watch(heard):
        model(mg.randn(6, 7))
    assert heard.names == ["linear_batch_norm_act", "linear"]
    with mg.no_grad(), pytest.raises(ValueError, match=r"Linear: expected an input of shape \(\.\.\., 7\), got"):
        model(mg.randn(rows, 6))


def test_derivatives_of_the_evaluation_with_a_linear_layer():
    """No Sequential asks for them, but the op has them."""
    rng = np.random.default_rng(4)
    tensors = [mg.tensor(rng.standard_normal(s), "float64", requires_grad=True) for s in ((5, 3), (2, 3), (2,), (2,))]
    constants = mg.tensor([0.1, 0.2], "float64"), mg.tensor([0.5, 2.0], "float64")

    def op(*tensors):
        return LinearBatchNormActEval.apply(*tensors, None, *constants, eps=0.1, activation="tanh", slope=0.0)

    assert gradcheck(op, tensors)
    assert gradgradcheck(op, tensors)


def test_what_a_run_with_a_linear_layer_keeps():
    """The linear layer's output, as batch normalization by itself, and nothing more."""
    y = linear_run(nn.Sigmoid, {})[:3](mg.randn(6, 7, requires_grad=True))
    assert y.fn.name == "linear_batch_norm_act"
    kept = [v for v in y.fn.__dict__.values() if isinstance(v, np.ndarray)]
    assert sorted(a.shape for a in kept) == [(5,), (5,), (6, 5)]
    assert [t.shape for t in y.fn.inputs] == [(6, 7), (5, 7), (5,), (5,), (5,)]


@pytest.mark.parametrize("frozen, products", [((), 3), ((0,), 2), ((0, 2), 1), ((1,), 3)])
def test_frozen_layers_cost_no_kernel(frozen, products):
    """Launches of a captured step: per layer a product for x and one for the weight, none where nothing is wanted."""
    model, x = linear_run(nn.ReLU, {}), mg.randn(6, 7)
    for position in frozen:
        [m for m in model if not isinstance(m, nn.ReLU)][position].requires_grad_(False)
    step = mg.capture(lambda x: model(x).sum().backward())
    step(x)
    launches = step.recordings[0].launches
    assert launches.count("matmul") == products and launches.count("linear_forward") == 2
    assert launches.count("sum") == 1 + sum(linear.bias.requires_grad for linear in (model[0], model[3]))
    grads = [p.grad is None for p in model.parameters()]
    assert grads == [not p.requires_grad for p in model.parameters()]


def test_a_captured_run_with_a_linear_layer_is_the_eager_one():
    found = []
    for captured in (False, True):
        model, x = linear_run(nn.Tanh, {}), mg.tensor(np.random.default_rng(5).standard_normal((6, 7)), "float32")
        optimizer = mg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(x) ** 2.0).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = mg.capture(step) if captured else step
        losses = [step(x).item() for _ in range(4)]
        left = [*model.state_dict().values(), *[p.grad for p in model.parameters()]]
        found.append([losses, *[t.numpy() for t in left]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("nested", [True, False])
def test_running_statistics_count_as_changed(nested):
    """Whoever saved them for a gradient is told."""
    model = linear_run(nn.ReLU, {}, nested=nested)
    buffers = model[1].running_mean, model[1].running_var, model[1].num_batches_tracked
    before = [b.version[0] for b in buffers]
    model(mg.randn(6, 7))
    assert [b.version[0] for b in buffers] == [version + 1 for version in before]


def test_a_saved_parameter_of_a_run_may_not_change_before_backward():
    model = linear_run(nn.Sigmoid, {})
    y = model(mg.randn(6, 7))
    with mg.no_grad():
        model[0].weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="^backward: a tensor that linear_batch_norm_act saved .* changed in place"):
        y.sum().backward()


def test_what_is_not_fused_with_a_linear_layer():
    """Evaluation, hooks, inputs of three dimensions, subclasses, the search for anomalies, what does not fit."""

    def names(model, x):
        node, found = model(x).fn, []
        while isinstance(node, Function):
            found.append(node.name)
            node = node.parents[0]
        return found[1:]

    def x():
        return mg.randn(6, 7, requires_grad=True)

    one = ["linear_batch_norm_act"]
    assert names(linear_run(nn.ReLU, {}), x()) == one and names(linear_run(None, {}), x()) == one
    assert names(linear_run(nn.ReLU, {}).eval(), x()) == ["relu", "batch_norm_eval", "linear"]
    model, seen = linear_run(nn.ReLU, {}), []
    handle = model[0].register_forward_hook(lambda module, args, y: seen.append(y.shape))
    assert names(model, x()) == ["relu", "batch_norm", "linear"] and seen == [(6, 5)]
    handle.remove()
    assert names(model, x()) == one
    with mg.detect_anomaly():
        assert names(model, x()) == ["relu", "batch_norm", "linear"]
    model[0].weight.requires_grad_(False)
    assert names(model, x()) == one

    class Own(nn.Linear):
        pass

    model[0] = Own(7, 5)
    assert names(model, x()) == ["batch_norm_act", "linear"]
    channels = nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(5), nn.ReLU(), nn.Identity())
    y = channels(mg.randn(2, 5, 7))
    assert y.shape == (2, 5, 4) and y.fn.name == "batch_norm_act"


@pytest.mark.parametrize("model, shape, message", [
    (nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(4), nn.ReLU()), (6, 7), r"^BatchNorm1d: .*\(N, 4\).*got \(6, 5\)$"),
    (nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU()), (6, 8), r"^Linear: .*\(\.\.\., 7\), got \(6, 8\)$"),
    (nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU()), (1, 7), r"^BatchNorm1d: .* one value .*\(1, 5\)$"),
    (nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU()), (0, 7), r"^BatchNorm1d: .* one value .*\(0, 5\)$"),
])  # fmt: skip
def test_errors_of_a_run_with_a_linear_layer(model, shape, message):
    with pytest.raises(ValueError, match=message):
        model(mg.zeros(*shape))


def ran_fused(model, x):
    """Whether the last layers of a model were one op."""
    y = model(x)
    return y.fn is not None and y.fn.name == "batch_norm_act"


def images():
    return mg.randn(2, 3, 4, 4, requires_grad=True)


def test_what_is_not_fused():
    """Subclasses, other windows, hooks, forwards of an instance, the search for anomalies, recorded evaluation."""

    class Own(nn.ReLU):
        def forward(self, x):
            return x * 2.0

    def make(*more):
        return nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), *(more or [nn.MaxPool2d(2)]))

    assert ran_fused(make(), images())
    assert ran_fused(make(nn.MaxPool2d((2, 2), stride=(2, 2))), images())
    assert not ran_fused(nn.Sequential(nn.BatchNorm2d(3), Own()), images())
    for window in (3, (2, 1)):
        assert not ran_fused(make(nn.MaxPool2d(window)), images())
    for option in ({"stride": 1}, {"padding": 1}, {"ceil_mode": True}, {"dilation": 2}):
        assert not ran_fused(make(nn.MaxPool2d(2, **option)), images())
    assert not ran_fused(make().eval(), images())
    seen, model = [], make()
    handle = model[1].register_forward_hook(lambda module, args, y: seen.append(y.shape))
    assert not ran_fused(model, images()) and seen == [(2, 3, 4, 4)]
    handle.remove()
    assert ran_fused(model, images())
    model[1].forward = lambda x: x * 0.0
    assert not ran_fused(model, images()) and (model(images()).numpy() == 0).all()
    del model[1].forward
    with mg.detect_anomaly():
        assert not ran_fused(model, images())
    model.fuse = False
    assert not ran_fused(model, images())


def test_children_may_change():
    """The plan follows the children."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    assert ran_fused(model, images()) and (model(images()).numpy() >= 0).all()
    model[1] = nn.Identity()
    assert not ran_fused(model, images()) and (model(images()).numpy() < 0).any()
    model[1] = nn.Tanh()
    assert ran_fused(model, images())
    model.append(nn.MaxPool2d(2))
    assert ran_fused(model, images()) and model(images()).shape == (2, 3, 2, 2)
    model[2].stride = 1
    assert model(images()).shape == (2, 3, 3, 3)
    del model[0]
    assert not ran_fused(model, images())
    slope = nn.LeakyReLU(0.5)
    model = nn.Sequential(nn.BatchNorm2d(3), slope)
    first = model(images().detach())
    slope.negative_slope = 0.0
    assert (first.numpy() < 0).any() and (model(images()).numpy() >= 0).all()


def test_copies_and_pickles_have_their_own_plan():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sigmoid())
    x = mg.randn(4, 3)
    model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = model[0].running_mean.numpy().copy()
        other(x)
        np.testing.assert_array_equal(model[0].running_mean.numpy(), before)
        assert list(other.state_dict()) == list(model.state_dict()) and repr(other) == repr(model)


@pytest.mark.parametrize("model, shape, message", [
    (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), (2, 4, 3, 3),
     r"^BatchNorm2d: .* \(N, 3, H, W\), got \(2, 4, 3, 3\)$"),
    (nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), (1, 3), r"^BatchNorm1d: expected more than one value .*\(1, 3\)$"),
    (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (2, 3, 1, 4), "^max_pool2d: a kernel of 2"),
])  # fmt: skip
def test_errors_are_those_of_the_layers(model, shape, message):
    with pytest.raises(ValueError, match=message):
        model(mg.randn(*shape))


def test_one_and_two_threads_give_the_same_bits():
    def train():
        mg.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(784),
                              nn.Sigmoid())
        x = mg.randn(100, 16, 14, 14, requires_grad=True)
        model(x).backward(mg.randn(100, 784))
        return [x.grad.numpy(), *[p.grad.numpy() for p in model.parameters()], *[b.numpy() for b in model.buffers()]]

    before, found = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            found.append(train())
    finally:
        numba.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
