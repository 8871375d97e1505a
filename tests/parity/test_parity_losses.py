"""Every loss against PyTorch over drawn configurations."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parity tests compare with PyTorch")

from torch_compare import DTYPES, TOLERANCE, agree, close, pair  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad import layers as nn  # noqa: E402

REDUCTIONS = ("mean", "sum", "none")


def draw(seed):
    rng = np.random.default_rng(seed)
    dtype = DTYPES[int(rng.integers(2))]
    classes, batch = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    rest = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(0, 3))))
    weight = rng.random(classes).astype(dtype) + 0.1 if rng.integers(2) else None
    return rng, dtype, (batch, classes, *rest), weight, REDUCTIONS[int(rng.integers(3))]


def both(name, weight, **settings):
    a = getattr(nn, name)(None if weight is None else mg.tensor(weight), **settings)
    b = getattr(torch.nn, name)(None if weight is None else torch.tensor(weight), **settings)
    assert list(a.state_dict()) == list(b.state_dict())
    return a, b


def labels(rng, shape, ignore_index):
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    ignored = rng.random(target.shape) < 0.3
    ignored.flat[0] = False
    return np.where(ignored, ignore_index, target)


@pytest.mark.parametrize("seed", range(60))
def test_cross_entropy_of_labels(seed):
    rng, dtype, shape, weight, reduction = draw(seed)
    settings = {"reduction": reduction, "ignore_index": int(rng.choice([-100, 0, -1])),
                "label_smoothing": float(rng.choice([0.0, 0.1, 1.0]))}
    target = labels(rng, shape, settings["ignore_index"])
    a, b = both("CrossEntropyLoss", weight, **settings)
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    agree(lambda x: a(x, mg.tensor(target)), lambda x: b(x, torch.tensor(target)), x,
          what=f"CrossEntropyLoss({settings}, weight={weight}) of {shape}, {dtype}")


@pytest.mark.parametrize("seed", range(30))
def test_cross_entropy_of_probabilities(seed):
    rng, dtype, shape, weight, reduction = draw(seed)
    settings = {"reduction": reduction, "label_smoothing": float(rng.choice([0.0, 0.1]))}
    target = rng.random(shape)
    target = (target / target.sum(1, keepdims=True)).astype(dtype)
    a, b = both("CrossEntropyLoss", weight, **settings)
    agree(a, b, rng.standard_normal(shape).astype(dtype), target, what=f"{settings}, {shape}, {dtype}")


@pytest.mark.parametrize("seed", range(30))
def test_nll_loss(seed):
    rng, dtype, shape, weight, reduction = draw(seed)
    settings = {"reduction": reduction, "ignore_index": int(rng.choice([-100, 0]))}
    target = labels(rng, shape, settings["ignore_index"])
    a, b = both("NLLLoss", weight, **settings)
    x = np.log(rng.random(shape) + 0.01).astype(dtype)
    agree(lambda x: a(x, mg.tensor(target)), lambda x: b(x, torch.tensor(target)), x,
          what=f"NLLLoss({settings}, weight={weight}) of {shape}, {dtype}")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_without_a_batch(label_smoothing):
    """(C,) logits and a label of shape ()."""
    a, b = both("CrossEntropyLoss", None, label_smoothing=label_smoothing)
    agree(lambda x: a(x, mg.tensor(2)), lambda x: b(x, torch.tensor(2)), np.arange(4.0))


def test_cross_entropy_where_all_are_ignored():
    """0 / 0 in PyTorch: NaN, not an error."""
    a, b = both("CrossEntropyLoss", None)
    agree(lambda x: a(x, mg.tensor([-100, -100])), lambda x: b(x, torch.tensor([-100, -100])), np.ones((2, 3)))


def test_cross_entropy_of_huge_logits():
    a, b = both("CrossEntropyLoss", None)
    x = np.array([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]])
    agree(lambda x: a(x, mg.tensor([0, 1])), lambda x: b(x, torch.tensor([0, 1])), x)


PAIRWISE = [
    ("MSELoss", {}), ("L1Loss", {}), ("SmoothL1Loss", {}), ("SmoothL1Loss", {"beta": 0.3}),
    ("SmoothL1Loss", {"beta": 0.0}), ("HuberLoss", {}), ("HuberLoss", {"delta": 0.4}), ("BCEWithLogitsLoss", {}),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "settings"), PAIRWISE, ids=str)
def test_pairwise_losses(name, settings, dtype, reduction):
    rng = np.random.default_rng(0)
    a = getattr(nn, name)(**settings, reduction=reduction)
    b = getattr(torch.nn, name)(**settings, reduction=reduction)
    for shape in [(7,), (3, 5), (2, 3, 4), ()]:
        x, target = rng.standard_normal(shape).astype(dtype), rng.random(shape).astype(dtype)
        agree(a, b, np.asarray(x * 3), np.asarray(target), what=f"{name} of {shape}")


@pytest.mark.parametrize("seed", range(20))
def test_bce_with_logits_weights(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 6, 2))
    settings = {}
    if rng.integers(2):
        settings["weight"] = rng.random(shape[1:] if rng.integers(2) else shape)
    if rng.integers(2):
        settings["pos_weight"] = rng.random(shape[1]) * 3
    reduction = REDUCTIONS[seed % 3]
    a = nn.BCEWithLogitsLoss(**{k: mg.tensor(v) for k, v in settings.items()}, reduction=reduction)
    b = torch.nn.BCEWithLogitsLoss(**{k: torch.tensor(v) for k, v in settings.items()}, reduction=reduction)
    assert list(a.state_dict()) == list(b.state_dict())
    agree(a, b, rng.standard_normal(shape) * 5, rng.random(shape), what=f"{list(settings)}, {reduction}, {shape}")


def test_bce_with_huge_logits():
    x = np.array([1e4, -1e4, 50.0, -50.0, 0.0])
    agree(nn.BCEWithLogitsLoss(), torch.nn.BCEWithLogitsLoss(), x, np.array([1.0, 1.0, 0.0, 0.0, 0.5]))


@pytest.mark.parametrize("name", ["MSELoss", "CrossEntropyLoss"])
def test_second_derivatives(name):
    """The gradient of a gradient's norm with respect to the input."""
    x = np.random.default_rng(0).standard_normal((4, 3))
    a, b = pair(x)
    target = np.array([0, 2, 1, 1]) if name == "CrossEntropyLoss" else np.ones((4, 3))
    la, lb = getattr(nn, name)()(a, mg.tensor(target)), getattr(torch.nn, name)()(b, torch.tensor(target))
    (ga,) = mg.grad(la * la, [a], create_graph=True)
    (gb,) = torch.autograd.grad(lb * lb, [b], create_graph=True)
    (ga * ga).sum().backward()
    (gb * gb).sum().backward()
    close(a.grad, b.grad, name, TOLERANCE["float64"])
