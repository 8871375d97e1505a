"""Ghost batch normalization: each sub-batch by itself, as if the layer had been called once for each."""

import copy
import itertools

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad import layers as nn
from minigrad.ops.norm import sub_batches
from minigrad.testing import gradcheck, gradgradcheck

# (shape, ghost_batch_size, the examples of the sub-batches)
CASES = [
    ((8, 3), 4, [4, 4]),
    ((8, 3), 3, [3, 3, 2]),
    ((7, 3), 3, [3, 4]),  # a rest of one value per channel joins the sub-batch before it
    ((7, 3), 2, [2, 2, 3]),
    ((5, 3), 8, [5]),
    ((3, 3, 4), 1, [1, 1, 1]),
    ((5, 3, 4), 2, [2, 2, 1]),
    ((3, 3, 1), 2, [3]),
    ((4, 3, 4, 6), 1, [1, 1, 1, 1]),
    ((5, 3, 2, 5), 2, [2, 2, 1]),
    ((5, 3, 1, 1), 2, [2, 3]),
]
RUNS = [[], [nn.ReLU], [lambda: nn.LeakyReLU(0.2)], [nn.Sigmoid], [nn.SiLU, lambda: nn.MaxPool2d(2)],
        [nn.Tanh, lambda: nn.MaxPool2d(2)]]
DEVICES = ["cpu", "cuda"]


@pytest.mark.parametrize("shape, size, sizes", CASES)
def test_sub_batches(shape, size, sizes):
    assert sub_batches("batch_norm", shape, size) == sizes


def norm_for(shape, **options):
    return (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1], **options)


def fill(model, seed=0):
    """Random parameters, the same for every model of a kind."""
    rng = np.random.default_rng(seed)
    with mg.no_grad():
        for parameter in model.parameters():
            parameter.copy_(mg.tensor(rng.standard_normal(parameter.shape), parameter.dtype, device=parameter.device))
    return model


def outcome(x, y, above, model):
    """Output, gradients and buffers after backward."""
    y.backward(mg.tensor(above, y.dtype, device=y.device))
    grads = [x.grad, *[p.grad for p in model.parameters()]]
    return [t.numpy().copy() for t in (y, *grads, *model.buffers())]


def ghost_and_split(shape, sizes, model, plain, dtype, device):
    """What the ghost model leaves behind, and a plain copy of it that is called once per sub-batch."""
    rng = np.random.default_rng(1)
    data, found = rng.standard_normal(shape) * 3 + 2, []
    for net in (model, plain):
        x = mg.tensor(data, dtype, device=device, requires_grad=True)
        y = net(x) if net is model else mg.cat([net(part) for part in x.split(sizes)])
        above = np.random.default_rng(2).standard_normal(y.shape)
        found.append(outcome(x, y, above, net))
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape, size, sizes", CASES)
def test_equal_to_calling_the_layer_on_each_sub_batch(shape, size, sizes, dtype, device):
    """Output, all gradients, running statistics and the number of batches."""
    for flags in ({}, {"momentum": None}, {"affine": False}, {"bias": False}, {"track_running_stats": False}):
        if device == "cuda" and flags and dtype == "float64":
            continue
        plain = fill(norm_for(shape, **flags, dtype=dtype, device=device))
        ghost = fill(norm_for(shape, **flags, dtype=dtype, device=device, ghost_batch_size=size))
        tolerance = 1e-12 if dtype == "float64" else 2e-5
        for a, b in zip(*ghost_and_split(shape, sizes, ghost, plain, dtype, device), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        if ghost.track_running_stats:
            assert ghost.num_batches_tracked.item() == len(sizes)


@pytest.mark.parametrize("device", DEVICES)
def test_fused_in_a_sequential(device):
    """An activation and pooling behind it belong to the op; a linear layer in front stays one of its own."""
    for (shape, size, sizes), rest in itertools.product(CASES, RUNS):
        pooled = len(rest) > 1
        if pooled and (len(shape) != 4 or min(shape[2:]) < 2) or device == "cuda" and shape[0] * shape[-1] > 12:
            continue
        plain = fill(nn.Sequential(norm_for(shape, device=device), *[kind() for kind in rest]))
        ghost = copy.deepcopy(plain)
        ghost[0].ghost_batch_size, plain.fuse = size, False
        found = ghost_and_split(shape, sizes, ghost, plain, "float32", device)
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        node = ghost(mg.randn(*shape, device=device)).fn
        assert node.name == ("ghost_batch_norm_act" if rest else "ghost_batch_norm")
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, ghost_batch_size=2), nn.ReLU()).to(device)
    node = model(mg.randn(6, 3, device=device)).fn
    assert node.name == "ghost_batch_norm_act" and node.parents[0].name == "linear"


@pytest.mark.parametrize("shape, size", [((5, 2), 2), ((3, 2, 4), 1), ((3, 2, 2, 4), 2)])
def test_derivatives(shape, size):
    rng = np.random.default_rng(3)
    x, w, b = [mg.tensor(rng.standard_normal(s), "float64", requires_grad=True) for s in (shape, (2,), (2,))]

    def op(x, *parameters):
        return F.batch_norm(x, None, None, *parameters, training=True, eps=0.1, ghost_batch_size=size)

    assert gradcheck(op, [x, w, b]) and gradgradcheck(op, [x, w, b]) and gradgradcheck(op, [x])


@pytest.mark.parametrize("rest", [[], [nn.SiLU, lambda: nn.MaxPool2d(2)]])
def test_the_gradient_that_can_be_differentiated_is_the_kernels(rest):
    model = fill(nn.Sequential(nn.BatchNorm2d(3, ghost_batch_size=2), *[kind() for kind in rest])).to(mg.float64)
    rng = np.random.default_rng(6)
    x = mg.tensor(rng.standard_normal((5, 3, 4, 5)), "float64", requires_grad=True)
    y = model(x)
    above = mg.tensor(rng.standard_normal(y.shape), "float64")
    wanted = [x, *model.parameters()]
    by_kernel = mg.grad(y, wanted, above, retain_graph=True)
    composed = mg.grad(y, wanted, above, create_graph=True)
    for one, other in zip(by_kernel, composed, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation, max_pool", [("sigmoid", False), ("leaky_relu", False), ("silu", True)])
def test_derivatives_of_the_fused_op(activation, max_pool):
    rng = np.random.default_rng(4)
    x, w, b = [mg.tensor(rng.standard_normal(s), "float64", requires_grad=True) for s in ((3, 2, 2, 4), (2,), (2,))]

    def op(x, w, b):
        return F.batch_norm_act(x, None, None, w, b, True, activation=activation, negative_slope=0.3, eps=0.1,
                                max_pool=max_pool, ghost_batch_size=2)

    assert gradcheck(op, [x, w, b]) and gradgradcheck(op, [x, w, b])


def test_evaluation_does_not_change():
    for flags in ({}, {"track_running_stats": False}):
        plain = nn.BatchNorm1d(3, **flags)
        ghost = nn.BatchNorm1d(3, **flags, ghost_batch_size=2)
        x = mg.randn(6, 3)
        np.testing.assert_array_equal(ghost.eval()(x).numpy(), plain.eval()(x).numpy())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_captured_step_is_the_eager_one(momentum, device):
    found = []
    for captured in (False, True):
        model = fill(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=momentum, ghost_batch_size=3), nn.Tanh(),
                                   nn.Linear(3, 2), nn.BatchNorm1d(2, ghost_batch_size=2))).to(device)
        optimizer = mg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(x) ** 2.0).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = mg.capture(step) if captured else step
        rng = np.random.default_rng(5)
        batches = [mg.tensor(rng.standard_normal((8, 4)), "float32", device=device) for _ in range(4)]
        losses = [step(x).item() for x in batches]
        found.append([np.array(losses), *[v.numpy() for v in model.state_dict().values()]])
        assert model[1].num_batches_tracked.item() == 4 * 3
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_setting_may_change_between_captured_steps():
    layer = nn.BatchNorm1d(3, ghost_batch_size=2)
    step = mg.capture(lambda x: layer(x))
    x = mg.randn(6, 3)
    step(x)
    layer.ghost_batch_size = None
    np.testing.assert_array_equal(step(x).numpy(), nn.BatchNorm1d(3)(x).numpy())
    assert layer.num_batches_tracked.item() == 4


@pytest.mark.parametrize("size", [0, -2, 2.0, "2"])
def test_the_size_is_an_int_of_at_least_1(size):
    with pytest.raises(ValueError, match=rf"^BatchNorm1d: expected ghost_batch_size to be an int >= 1, got {size!r}$"):
        nn.BatchNorm1d(3, ghost_batch_size=size)
    layer = nn.BatchNorm1d(3)
    layer.ghost_batch_size = size
    with pytest.raises(ValueError, match=r"^batch_norm: expected ghost_batch_size to be an int >= 1"):
        layer(mg.ones(4, 3))


def test_one_value_per_channel_in_every_sub_batch_is_refused():
    layer = nn.BatchNorm1d(3, ghost_batch_size=1)
    with pytest.raises(ValueError, match=r"more than one value per channel in every sub-batch, got .* 1 .*\(4, 3\)$"):
        layer(mg.ones(4, 3))
    assert layer.num_batches_tracked.item() == 0
    layer(mg.ones(4, 3, 2))
    assert layer.num_batches_tracked.item() == 4


def test_repr_and_keyword_only():
    assert repr(nn.BatchNorm2d(3, ghost_batch_size=16)).startswith(
        "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, ghost_batch_size=16)")
    assert "ghost" not in repr(nn.BatchNorm2d(3))
    with pytest.raises(TypeError):
        nn.BatchNorm1d(3, 1e-5, 0.1, True, True, None, None, 4)
