"""Folding batch normalization into the layer before it: the same outputs from fewer layers, the model left as it is."""

import copy
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.layers import fusion
from minigrad.layers.norm import Folded

FLAGS = [{}, {"affine": False}, {"bias": False}, {"momentum": None, "eps": 0.1}]
CONVS = [{}, {"padding": 1}, {"groups": 2}, {"groups": 4, "stride": 2}, {"padding": (1, 2), "padding_mode": "reflect"},
         {"dilation": 2, "padding": "same"}]


def trained(model, *shape):
    """Random parameters, the statistics of some batches, evaluation mode."""
    rng = np.random.default_rng(0)
    with mg.no_grad():
        for p in model.parameters():
            p.copy_(mg.tensor(rng.standard_normal(p.shape) / 2, p.dtype, device=p.device))
    for _ in range(3):
        model(inputs(model, *shape))
    return model.eval()


def inputs(model, *shape):
    like = next(model.parameters())
    return mg.tensor(np.random.default_rng(1).standard_normal(shape) + 0.5, like.dtype, device=like.device)


def norms(model):
    return [name for name, m in model.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


def check(model, *shape, stay=()):
    """Fold, compare, and look whether the model is what it was."""
    trained(model, *shape)
    before, text = {k: v.numpy().copy() for k, v in model.state_dict().items()}, repr(model)
    if stay:
        with pytest.warns(UserWarning, match=rf"^fold_batchnorm: {len(stay)} of the batch normalizations stay \("):
            folded = nn.fold_batchnorm(model)
    else:
        folded = nn.fold_batchnorm(model)
    assert norms(folded) == list(stay) and repr(model) == text
    x = inputs(model, *shape)
    expected = model(x).numpy()
    tolerance = 1e-12 if expected.dtype == np.float64 else 1e-5
    for record in (mg.no_grad, mg.enable_grad):
        with record():
            np.testing.assert_allclose(folded(x).numpy(), expected, rtol=tolerance, atol=tolerance)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    return folded


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("flags", FLAGS)
def test_linear(flags, bias, dtype):
    folded = check(nn.Sequential(nn.Linear(7, 5, bias=bias, dtype=dtype), nn.BatchNorm1d(5, **flags, dtype=dtype),
                                 nn.Sigmoid(), nn.Linear(5, 3, dtype=dtype)), 6, 7)
    assert folded[0].bias.shape == (5,) and isinstance(folded[1], Folded)
    assert list(folded.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", CONVS)
def test_conv2d(options, bias, device):
    for flags in FLAGS[: 1 if device == "cuda" else None]:
        check(nn.Sequential(nn.Conv2d(4, 8, 3, bias=bias, **options), nn.BatchNorm2d(8, **flags), nn.ReLU()).to(device),
              2, 4, 7, 6)


def test_nested_and_across_borders():
    class Net(nn.Module):
        """A model of one's own around Sequentials."""

        def __init__(self):
            self.features = nn.Sequential(
                nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Conv2d(4, 6, 3)), nn.Sequential(nn.BatchNorm2d(6), nn.Tanh()), nn.Flatten(),
            )  # fmt: skip
            self.heads = nn.ModuleList([nn.Sequential(nn.Linear(24, 3), nn.BatchNorm1d(3)) for _ in range(2)])

        def forward(self, x):
            x = self.features(x)
            return self.heads[0](x) + self.heads[1](x)

    folded = check(Net(), 3, 1, 10, 10)
    assert type(folded) is Net and len(list(folded.modules())) == len(list(Net().modules()))


@pytest.mark.parametrize("rest, fused", [
    ([nn.ReLU(), nn.MaxPool2d(2)], True), ([nn.MaxPool2d(2)], True), ([nn.SiLU()], False), ([], False),
    ([nn.GELU()], False), ([nn.LeakyReLU(0.3), nn.MaxPool2d(2)], True), ([nn.ReLU(), nn.MaxPool2d(3)], False),
])  # fmt: skip
def test_what_follows_is_one_op_where_that_pays(rest, fused):
    """An activation and pooling stay one op, as they were together with batch normalization."""
    folded = check(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), *rest), 2, 2, 6, 7)
    step = mg.capture(lambda x: folded(x))
    with mg.no_grad():
        step(mg.randn(2, 2, 6, 7))
    launches = step.recordings[0].launches
    assert (launches.count("batch_norm_forward") == 1) is fused
    assert len(launches) == 2 if fused or len(rest) == 1 else len(launches) == 1 + len(rest)


def test_fewer_kernels():
    model = trained(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.GELU(), nn.Linear(4, 4), nn.BatchNorm1d(4)),
                    5, 4)
    counts = []
    for net in (model, nn.fold_batchnorm(model)):
        step = mg.capture(lambda x, net=net: net(x))
        with mg.no_grad():
            step(mg.randn(5, 4))
        counts.append(len(step.recordings[0].launches))
    assert counts == [5, 3]


def test_what_stays():
    """Another layer in front, other channels, subclasses, hooks, layers and weights in two places."""

    class Own(nn.Linear):
        pass

    def pair(*layers):
        return nn.Sequential(*layers, nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2))

    check(pair(nn.Linear(4, 4), nn.ReLU()), 5, 4, stay=["2"])
    check(pair(Own(4, 4)), 5, 4, stay=["1"])
    check(pair(), 5, 4, stay=["0"])
    check(nn.Sequential(nn.Linear(7, 3), nn.BatchNorm1d(5), nn.Tanh()), 2, 5, 7, stay=["1"])
    linear, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    check(nn.Sequential(linear, nn.BatchNorm1d(4), linear, nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2)), 5, 4,
          stay=["1", "3"])
    check(nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4), norm), 5, 4, stay=["1"])
    tied = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    check(tied, 5, 4, stay=["1"])
    hooked = pair(nn.Linear(4, 4))
    hooked[0].register_forward_hook(lambda module, args, y: y * 2.0)
    check(hooked, 5, 4, stay=["1"])
    hooked = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.BatchNorm1d(4))
    hooked[0].register_forward_hook(lambda module, args, y: y * 2.0)
    check(hooked, 5, 4, stay=["1"])
    check(nn.BatchNorm1d(4), 5, 4, stay=[""])


def test_the_warning_says_why():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(4))).eval()
    with pytest.warns(UserWarning) as caught:
        nn.fold_batchnorm(model)
    assert str(caught[0].message) == (
        "fold_batchnorm: 2 of the batch normalizations stay (1: it is not directly behind a Linear or Conv2d in a "
        "Sequential; 2.1: the Linear before it has 5 features, it has 4 channels)")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.fold_batchnorm(nn.Sequential(nn.Linear(2, 2)).eval())


def test_training_and_missing_statistics_are_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    message = r"^fold_batchnorm: expected a model in evaluation mode, got 1 \(BatchNorm1d\) in training; call eval\(\)"
    with pytest.raises(ValueError, match=message):
        nn.fold_batchnorm(model)
    model[1].eval()
    with pytest.raises(TypeError, match="^fold_batchnorm: expected a Module, got int$"):
        nn.fold_batchnorm(3)
    with pytest.raises(ValueError, match=r"^fold_batchnorm: expected a model in evaluation mode, got one in training"):
        nn.fold_batchnorm(model)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match=r"^fold_batchnorm: expected running statistics, got 1 \(BatchNorm1d\) with "
                                         r"track_running_stats=False$"):
        nn.fold_batchnorm(model)


def test_an_input_that_the_norm_would_take_otherwise_is_refused():
    """The channels of (N, C, L) are not the linear layer's features: that can't be folded, and is not done silently."""
    model = trained(nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU()), 6, 7)
    folded = nn.fold_batchnorm(model)
    assert model(mg.randn(2, 5, 7)).shape == (2, 5, 5)
    with pytest.raises(ValueError, match=r"^Folded: expected an input of shape \(N, 5\), got \(2, 5, 5\)$"):
        folded(mg.randn(2, 5, 7))
    folded = nn.fold_batchnorm(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.MaxPool2d(2)).eval())
    with mg.no_grad(), pytest.raises(ValueError, match=r"^Folded: expected .* \(N, 2, H, W\), got \(2, 4, 4\)$"):
        folded(mg.randn(1, 4, 4))


def test_the_copy_can_be_moved_copied_saved_and_trained():
    model = trained(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)),
                    2, 1, 6, 6)
    folded = nn.fold_batchnorm(model)
    other = copy.deepcopy(folded).double()
    other.load_state_dict(folded.state_dict())
    x = mg.randn(2, 1, 6, 6)
    with mg.no_grad():
        np.testing.assert_allclose(other(x.double()).numpy(), folded(x).numpy(), rtol=1e-5, atol=1e-6)
    assert "(1): Folded(BatchNorm2d, 2)" in repr(folded) and isinstance(folded._plan[1][1], fusion.Run)
    folded.train()(x).sum().backward()
    assert folded[0].bias.grad is not None
    model[0].weight.requires_grad_(False)
    assert not nn.fold_batchnorm(model)[0].bias.requires_grad
    frozen = nn.fold_batchnorm(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2).freeze()).eval())
    assert norms(frozen) == []
