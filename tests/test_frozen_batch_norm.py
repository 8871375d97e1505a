"""A frozen batch normalization: the running statistics, in training too, and nothing of it moves."""

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.testing import gradcheck, gradgradcheck

SHAPES = [(6, 3), (4, 3, 5), (4, 3, 2, 5)]
DEVICES = ["cpu", "cuda"]


def trained(shape, device="cpu", **options):
    """A layer with statistics of some batches, and weight and bias that are not 1 and 0."""
    layer = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(3, **options)
    rng = np.random.default_rng(0)
    for _ in range(3):
        layer(mg.tensor(rng.standard_normal(shape) * 2 + 1, layer.running_mean.dtype))
    with mg.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(mg.tensor(rng.standard_normal(3), parameter.dtype))
    return layer.to(device)


def statistics(model):
    return [buffer.numpy().copy() for buffer in model.buffers()]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_training_as_in_evaluation(shape, device):
    """Output and gradient; nothing moves, and weight and bias get no gradient."""
    found = []
    for frozen in (True, False):
        layer = trained(shape, device)
        layer = layer.freeze().train() if frozen else layer.eval()
        before = statistics(layer)
        x = mg.tensor(np.random.default_rng(1).standard_normal(shape), "float32", device=device, requires_grad=True)
        y = layer(x)
        y.backward(mg.tensor(np.random.default_rng(2).standard_normal(shape), "float32", device=device))
        found.append([y.numpy(), x.grad.numpy()])
        assert all((a == b).all() for a, b in zip(before, statistics(layer), strict=True))
        assert (layer.weight.grad is None) is frozen and (layer.bias.grad is None) is frozen
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_freezing_survives_train_eval_and_state_dicts():
    layer = trained((6, 3)).freeze()
    before = statistics(layer)
    for call in (layer.train, layer.eval, layer.train, lambda: layer.load_state_dict(layer.state_dict())):
        call()
        layer(mg.randn(5, 3))
        assert layer.frozen and not layer.weight.requires_grad
    assert all((a == b).all() for a, b in zip(before, statistics(layer), strict=True))
    other = trained((4, 3))
    other.load_state_dict(layer.state_dict())
    assert not other.frozen and list(other.state_dict()) == list(layer.state_dict())
    x = mg.randn(1, 3)  # a single value per channel is enough
    np.testing.assert_array_equal(layer(x).numpy(), other.eval()(x).numpy())


def test_copies_are_frozen_too():
    layer = trained((6, 3)).freeze()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.frozen and not other.weight.requires_grad
        other.unfreeze()
        assert other.weight.requires_grad and not layer.weight.requires_grad and layer.frozen
        other.train()(mg.randn(5, 3))
        assert other.num_batches_tracked.item() == 4 and layer.num_batches_tracked.item() == 3


def test_unfreezing_gives_back_what_was():
    layer = trained((6, 3)).unfreeze()
    assert not layer.frozen and layer.weight.requires_grad and layer.bias.requires_grad
    layer.bias.requires_grad_(False)
    assert layer.freeze() is layer and layer.freeze() is layer and layer.unfreeze() is layer
    assert layer.weight.requires_grad and not layer.bias.requires_grad and not layer.frozen
    layer.freeze().freeze(affine=False)
    assert layer.frozen and layer.weight.requires_grad
    before = layer.num_batches_tracked.item()
    layer.unfreeze()(mg.randn(5, 3))
    assert layer.num_batches_tracked.item() == before + 1
    plain = trained((6, 3), affine=False).freeze()
    assert plain.frozen and plain.unfreeze()(mg.randn(5, 3)).shape == (5, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_weight_and_bias_may_go_on(device):
    layer = trained((6, 3), device).freeze(affine=False)
    before = statistics(layer)
    layer(mg.randn(6, 3, device=device)).sum().backward()
    np.testing.assert_allclose(layer.bias.grad.numpy(), 6, rtol=1e-6)
    assert layer.weight.grad is not None
    assert all((a == b).all() for a, b in zip(before, statistics(layer), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives(shape):
    layer = trained(shape, dtype="float64", eps=0.1).freeze(affine=False)
    x = mg.tensor(np.random.default_rng(3).standard_normal(shape), "float64", requires_grad=True)
    assert gradcheck(lambda x, w, b: layer(x), [x, layer.weight, layer.bias])
    assert gradgradcheck(lambda x, w, b: layer(x), [x, layer.weight, layer.bias])


@pytest.mark.parametrize("ghost", [None, 2])
@pytest.mark.parametrize("recorded", [True, False])
def test_in_a_sequential(recorded, ghost):
    """What would be fused in training is evaluation now, with a linear layer in front too."""
    for first, shape, norm in ((nn.Linear(4, 3), (6, 4), trained((6, 3), ghost_batch_size=ghost)),
                               (nn.Conv2d(2, 3, 1), (2, 2, 4, 4), trained((4, 3, 2, 2), ghost_batch_size=ghost))):
        model = nn.Sequential(first, norm.freeze(), nn.ReLU())
        plain = copy.deepcopy(model)
        plain.fuse, before = False, statistics(model)
        x = mg.tensor(np.random.default_rng(4).standard_normal(shape), "float32", requires_grad=True)
        with mg.enable_grad() if recorded else mg.no_grad():
            y, z = model.train()(x), plain.eval()(x)
        np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-6, atol=1e-6)
        assert y.requires_grad is recorded and (not recorded or y.fn.name == "relu")
        assert all((a == b).all() for a, b in zip(before, statistics(model), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_a_captured_step_notices(device):
    """Freezing and unfreezing between two calls of a captured step."""
    found = []
    for captured in (False, True):
        norm = trained((6, 3), device)
        model = nn.Sequential(norm, nn.Tanh())
        step = mg.capture(lambda x, model=model: model(x) * 1.0) if captured else lambda x, model=model: model(x) * 1.0
        x, results = mg.tensor(np.random.default_rng(5).standard_normal((6, 3)), "float32", device=device), []
        for change in (None, norm.freeze, None, norm.unfreeze, None):
            if change is not None:
                change()
            results.append(step(x).numpy().copy())
        assert norm.num_batches_tracked.item() == 3 + 3
        found.append([*results, *statistics(model)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_leaves_a_frozen_layer_as_it_is():
    model = nn.Sequential(nn.Linear(4, 3), trained((6, 3)), nn.Sigmoid(), nn.Linear(3, 2))
    model[1].freeze()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(mg.randn(6, 4)).sum().backward()
        optimizer.step()
    changed = [key for key, value in model.state_dict().items() if (value.numpy() != before[key]).any()]
    assert changed == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_without_running_statistics_there_is_nothing_to_freeze():
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(ValueError, match=r"^BatchNorm2d: expected running statistics to freeze, got a layer with "
                                         r"track_running_stats=False$"):
        layer.freeze()
    assert not layer.frozen and layer.weight.requires_grad


def test_repr_says_so():
    layer = trained((6, 3))
    before = repr(layer)
    assert "frozen" not in before and "track_running_stats=True, frozen=True)" in repr(layer.freeze())
    assert repr(layer.unfreeze()) == before
