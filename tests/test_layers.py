"""Layers without PyTorch: closed forms, initial values, and the sentences that errors are made of."""

import math

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn


@pytest.fixture(autouse=True)
def seed():
    mg.manual_seed(0)


def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


# -- closed forms ------------------------------------------------------------------------------------------------


def test_linear_is_an_affine_map():
    layer = nn.Linear(3, 2, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 3))
    expected = x @ layer.weight.numpy().T + layer.bias.numpy()
    np.testing.assert_allclose(layer(mg.tensor(x)).numpy(), expected, rtol=1e-13)


def test_conv2d_of_an_impulse_is_the_flipped_kernel():
    layer = nn.Conv2d(1, 1, 3, padding="same", bias=False)
    x = mg.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1.0
    np.testing.assert_array_equal(layer(x).numpy()[0, 0, 1:4, 1:4], layer.weight.numpy()[0, 0, ::-1, ::-1])


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_conv2d_padding_modes(mode, numpy_mode):
    layer = nn.Conv2d(1, 2, 3, padding=(2, 1), padding_mode=mode, dtype="float64")
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 6))
    plain = nn.Conv2d(1, 2, 3, dtype="float64")
    plain.load_state_dict(layer.state_dict())
    expected = plain(mg.tensor(np.pad(x, [(0, 0), (0, 0), (2, 2), (1, 1)], numpy_mode)))
    np.testing.assert_array_equal(layer(mg.tensor(x)).numpy(), expected.numpy())


def statistics(x):
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    return x.mean(axes), x.var(axes), x.var(axes) * count / (count - 1)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 2, 5)])
def test_batch_norm_by_the_formula(shape):
    layer = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(3, momentum=0.25, eps=1e-3, dtype="float64")
    layer.load_state_dict({"weight": [1.0, 2.0, -3.0], "bias": [0.0, 1.0, 5.0]}, strict=False)
    x = np.random.default_rng(0).standard_normal(shape) * 3 + 2
    mean, biased, unbiased = statistics(x)
    column = (3,) + (1,) * (len(shape) - 2)
    weight, bias = layer.weight.numpy().reshape(column), layer.bias.numpy().reshape(column)
    normal = (x - mean.reshape(column)) / np.sqrt(biased.reshape(column) + 1e-3)
    np.testing.assert_allclose(layer(mg.tensor(x)).numpy(), normal * weight + bias, rtol=1e-10)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.25 * mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.75 + 0.25 * unbiased, rtol=1e-12)
    assert layer.num_batches_tracked.item() == 1
    layer.eval()
    normal = (x - layer.running_mean.numpy().reshape(column)) / np.sqrt(
        layer.running_var.numpy().reshape(column) + 1e-3)
    np.testing.assert_allclose(layer(mg.tensor(x)).numpy(), normal * weight + bias, rtol=1e-10)
    assert layer.num_batches_tracked.item() == 1


def test_batch_norm_momentum_none_is_the_mean_over_batches():
    layer = nn.BatchNorm1d(2, momentum=None, dtype="float64")
    batches = np.random.default_rng(0).standard_normal((5, 7, 2))
    for batch in batches:
        layer(mg.tensor(batch))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), np.mean([b.var(0, ddof=1) for b in batches], 0), rtol=1e-12)
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0 and (layer.running_var.numpy() == 1).all()
    layer(mg.tensor(batches[0]))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches[0].mean(0), rtol=1e-12)


def test_batch_norm_momentum_may_change():
    layer = nn.BatchNorm1d(1, momentum=0.5, dtype="float64")
    layer(mg.tensor(np.array([[1.0], [3.0]])))
    layer.momentum = 1.0
    layer(mg.tensor(np.array([[10.0], [30.0]])))
    assert layer.running_mean.item() == 20.0


def test_batch_norm_of_large_means_in_float32():
    """E[x^2] - E[x]^2 would be negative here."""
    x = (np.random.default_rng(0).standard_normal((512, 2)) + 1e4).astype("float32")
    layer = nn.BatchNorm1d(2)
    expected = (x - x.astype("float64").mean(0)) / np.sqrt(x.astype("float64").var(0) + 1e-5)
    np.testing.assert_allclose(layer(mg.tensor(x)).numpy(), expected, atol=5e-3)
    constant = nn.BatchNorm1d(2)(mg.full((8, 2), 1e4))
    assert (constant.numpy() == 0).all()


def test_batch_norm_without_statistics_uses_the_batch_in_evaluation():
    layer = nn.BatchNorm1d(2, track_running_stats=False).eval()
    assert list(layer.state_dict()) == ["weight", "bias"]
    y = layer(mg.tensor([[0.0, 1.0], [2.0, 5.0]])).numpy()
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], atol=1e-4)
    with pytest.raises(ValueError, match="BatchNorm1d: expected more than one value per channel"):
        layer(mg.ones(1, 2))


def test_layer_norm_by_the_formula():
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    y = nn.LayerNorm((3, 5), dtype="float64")(mg.tensor(x)).numpy()
    expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-10)


def test_embedding_padding_and_frequencies():
    layer = nn.Embedding(4, 2, padding_idx=-1, scale_grad_by_freq=True)
    assert (layer.weight.numpy()[3] == 0).all()
    layer(mg.tensor([0, 0, 1, 3])).sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), [[1, 1], [1, 1], [0, 0], [0, 0]])
    table = mg.tensor([[3.0, 4.0], [0.3, 0.4]])
    small = nn.Embedding.from_pretrained(table, max_norm=1.0)
    np.testing.assert_allclose(small(mg.tensor([1])).numpy(), [[0.3, 0.4]])
    np.testing.assert_allclose(small(mg.tensor([0, 1])).numpy(), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
    assert not small.weight.requires_grad and small.weight.data is table.data


def test_avg_pool2d_divisor():
    x = mg.ones(1, 1, 4, 4)
    assert nn.AvgPool2d(2, divisor_override=2)(x).tolist() == [[[[2.0, 2.0], [2.0, 2.0]]]]


def test_average_pooling_of_nearly_the_whole_image():
    """One window, or windows of equal size, take other kernels than the rest."""
    x = mg.arange(25, dtype="float64").reshape(1, 1, 5, 5)
    assert F.avg_pool2d(x, 5).item() == F.adaptive_avg_pool2d(x, 1).item() == 12
    assert F.avg_pool2d(x, 4).item() == 9
    assert F.avg_pool2d(x, 5, padding=1).item() == pytest.approx(x[..., :4, :4].sum().item() / 25)
    assert F.avg_pool2d(x, (5, 1)).tolist() == F.adaptive_avg_pool2d(x, (1, 5)).tolist() == [[[[10, 11, 12, 13, 14]]]]
    assert F.adaptive_avg_pool2d(x, (5, 2)).tolist() == [[[[5 * i + 1, 5 * i + 3] for i in range(5)]]]


def test_losses_by_hand():
    x, y = mg.tensor([0.0, 2.0]), mg.tensor([0.5, 0.0])
    assert nn.MSELoss()(x, y).item() == pytest.approx((0.25 + 4) / 2)
    assert nn.L1Loss(reduction="sum")(x, y).item() == pytest.approx(2.5)
    assert nn.HuberLoss(delta=1.0)(x, y).item() == pytest.approx((0.125 + 1.5) / 2)
    assert nn.SmoothL1Loss(beta=0.5)(x, y).item() == pytest.approx((0.25 + 1.75) / 2)
    assert nn.BCEWithLogitsLoss()(mg.zeros(3), mg.ones(3)).item() == pytest.approx(math.log(2))
    logits, labels = mg.zeros(2, 4), mg.tensor([1, 3])
    assert nn.CrossEntropyLoss()(logits, labels).item() == pytest.approx(math.log(4))
    assert nn.NLLLoss()(nn.LogSoftmax(1)(logits), labels).item() == pytest.approx(math.log(4))


# -- initial values ----------------------------------------------------------------------------------------------


def test_initial_values_follow_the_seed():
    mg.manual_seed(3)
    first = net().state_dict()
    mg.manual_seed(3)
    second = net().state_dict()
    assert all((first[key].numpy() == second[key].numpy()).all() for key in first)


def test_initial_ranges():
    layer = nn.Linear(100, 50)
    assert 0.099 < np.abs(layer.weight.numpy()).max() <= 0.1 and np.abs(layer.bias.numpy()).max() <= 0.1
    conv = nn.Conv2d(8, 20, 5, groups=2)
    assert 0.099 < np.abs(conv.weight.numpy()).max() <= 0.1
    table = nn.Embedding(500, 20).weight.numpy()
    assert abs(table.std() - 1) < 0.03 and abs(table.mean()) < 0.03


def test_initialisers():
    weight = mg.zeros(30, 40)
    assert nn.init.fans(mg.zeros(4, 3, 5, 5)) == (75, 100)
    nn.init.eye_(weight)
    np.testing.assert_array_equal(weight.numpy(), np.eye(30, 40))
    nn.init.uniform_(weight, -3, -1)
    assert weight.numpy().min() >= -3 and weight.numpy().max() < -1
    same = [nn.init.normal_(mg.zeros(5), generator=mg.Generator(7)).tolist() for _ in range(2)]
    assert same[0] == same[1]
    assert nn.init.calculate_gain("leaky_relu", 1.0) == 1.0
    for bad in (lambda: nn.init.fans(mg.zeros(3)), lambda: nn.init.calculate_gain("cube"),
                lambda: nn.init.kaiming_normal_(weight, mode="fan"), lambda: nn.init.eye_(mg.zeros(3))):
        with pytest.raises(ValueError, match="expected"):
            bad()
    with pytest.raises(TypeError, match="uniform_: expected a Tensor, got ndarray"):
        nn.init.uniform_(np.zeros(3))


# -- sentences ---------------------------------------------------------------------------------------------------

SENTENCES = {
    r"^BatchNorm2d: expected an input of shape \(N, 16, H, W\), got \(8, 4\)$":
        lambda: nn.BatchNorm2d(16)(mg.zeros(8, 4)),
    r"^BatchNorm1d: expected an input of shape \(N, 3\) or \(N, 3, L\), got \(8, 4\)$":
        lambda: nn.BatchNorm1d(3)(mg.zeros(8, 4)),
    r"^BatchNorm1d: expected more than one value per channel in training, got an input of shape \(1, 3\)$":
        lambda: nn.BatchNorm1d(3)(mg.zeros(1, 3)),
    r"^BatchNorm2d: expected more than one value per channel in training, got an input of shape \(0, 3, 2, 2\)$":
        lambda: nn.BatchNorm2d(3)(mg.zeros(0, 3, 2, 2)),
    r"^Linear: expected an input of shape \(..., 3\), got \(4, 2\)$": lambda: nn.Linear(3, 2)(mg.zeros(4, 2)),
    r"^Linear: expected a Tensor, got ndarray$": lambda: nn.Linear(3, 2)(np.zeros((4, 3))),
    r"^Linear: expected in_features to be an int >= 1, got 0$": lambda: nn.Linear(0, 2),
    r"^Conv2d: expected an input of shape \(N, 3, H, W\), got \(1, 2, 8, 8\)$":
        lambda: nn.Conv2d(3, 4, 3)(mg.zeros(1, 2, 8, 8)),
    r"^Conv2d: expected groups to divide in_channels \(3\) and out_channels \(4\), got 2$":
        lambda: nn.Conv2d(3, 4, 3, groups=2),
    r"^Conv2d: padding='same' needs stride 1, got \(2, 2\)$": lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"),
    r"^LayerNorm: expected an input of shape \(..., 4\), got \(2, 5\)$": lambda: nn.LayerNorm(4)(mg.zeros(2, 5)),
    r"^MaxPool2d: expected an input of shape \(N, C, H, W\) or \(C, H, W\), got \(4, 4\)$":
        lambda: nn.MaxPool2d(2)(mg.zeros(4, 4)),
    r"^MaxPool2d: expected return_indices=False": lambda: nn.MaxPool2d(2, return_indices=True),
    r"^Embedding: expected sparse=False": lambda: nn.Embedding(3, 2, sparse=True),
    r"^Embedding: expected padding_idx within 3 embeddings, got 3$": lambda: nn.Embedding(3, 2, padding_idx=3),
    r"^Embedding: expected weights of shape \(3, 2\)": lambda: nn.Embedding(3, 2, _weight=mg.zeros(2, 2)),
    r"^Embedding: expected a Tensor of shape": lambda: nn.Embedding.from_pretrained(mg.zeros(2)),
    r"^Dropout: expected a probability p from 0 to 1, got 2$": lambda: nn.Dropout(2),
    r"^Softmax: expected the dimension dim as an int, got None$": lambda: nn.Softmax(),
    r"^GELU: expected approximate": lambda: nn.GELU("erf"),
    r"^AvgPool2d: expected a divisor_override": lambda: nn.AvgPool2d(2, divisor_override=0),
    r"^GroupNorm: expected an input of shape \(N, 4, ...\), got \(2, 5\)$": lambda: nn.GroupNorm(2, 4)(mg.zeros(2, 5)),
    r"^GroupNorm: expected num_channels to be a multiple of num_groups, got 5 and 2$": lambda: nn.GroupNorm(2, 5),
    r"^LayerNorm: expected extents": lambda: nn.LayerNorm(()),
    r"^CrossEntropyLoss: expected label_smoothing from 0 to 1, got 2.0$":
        lambda: nn.CrossEntropyLoss(label_smoothing=2.0),
    r"^HuberLoss: expected delta > 0, got 0$": lambda: nn.HuberLoss(delta=0),
    r"^SmoothL1Loss: expected beta >= 0, got -1$": lambda: nn.SmoothL1Loss(beta=-1),
    r"^MSELoss: expected reduction to be one of .*, got 'all'$": lambda: nn.MSELoss(reduction="all"),
    r"^Conv2d: expected padding_mode": lambda: nn.Conv2d(1, 1, 1, padding_mode="mirror"),
    r"^Conv2d: expected padding to be": lambda: nn.Conv2d(1, 1, 1, padding="half"),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences(sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        SENTENCES[sentence]()
