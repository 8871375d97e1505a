"""Input that PyTorch's layers and losses refuse is refused here too, in a sentence that names the layer."""

import pytest

torch = pytest.importorskip("torch", reason="the parity tests compare with PyTorch")

import minigrad as mg  # noqa: E402
from minigrad import layers as nn  # noqa: E402

# nn: minigrad.layers or torch.nn; m: minigrad or torch
BAD = {
    "Linear, features": lambda nn, m: nn.Linear(3, 2)(m.zeros(4, 5)),
    "Linear, 0-d": lambda nn, m: nn.Linear(3, 2)(m.zeros(())),
    "Linear, dtype": lambda nn, m: nn.Linear(3, 2)(m.zeros(4, 3, dtype=m.float64)),
    "Linear, labels": lambda nn, m: nn.Linear(3, 2)(m.zeros(4, 3, dtype=m.int64)),
    "Conv2d, channels": lambda nn, m: nn.Conv2d(3, 4, 3)(m.zeros(1, 2, 8, 8)),
    "Conv2d, 2-D": lambda nn, m: nn.Conv2d(3, 4, 3)(m.zeros(8, 8)),
    "Conv2d, small": lambda nn, m: nn.Conv2d(3, 4, 3)(m.zeros(1, 3, 2, 8)),
    "Conv2d, groups": lambda nn, m: nn.Conv2d(3, 4, 3, groups=2),
    "Conv2d, groups of out": lambda nn, m: nn.Conv2d(4, 3, 3, groups=2),
    "Conv2d, same and stride": lambda nn, m: nn.Conv2d(3, 4, 3, stride=2, padding="same"),
    "Conv2d, padding": lambda nn, m: nn.Conv2d(3, 4, 3, padding="half"),
    "Conv2d, padding_mode": lambda nn, m: nn.Conv2d(3, 4, 3, padding_mode="mirror"),
    "Conv2d, long reflection": lambda nn, m: nn.Conv2d(1, 1, 3, padding=4, padding_mode="reflect")(m.zeros(1, 1, 4, 4)),
    "BatchNorm1d, one value": lambda nn, m: nn.BatchNorm1d(3)(m.zeros(1, 3)),
    "BatchNorm1d, 4-D": lambda nn, m: nn.BatchNorm1d(3)(m.zeros(1, 3, 2, 2)),
    "BatchNorm2d, 2-D": lambda nn, m: nn.BatchNorm2d(16)(m.zeros(8, 4)),
    "BatchNorm2d, channels": lambda nn, m: nn.BatchNorm2d(3)(m.zeros(8, 4, 2, 2)),
    "LayerNorm, shape": lambda nn, m: nn.LayerNorm(4)(m.zeros(3, 5)),
    "LayerNorm, shapes": lambda nn, m: nn.LayerNorm((2, 4))(m.zeros(4,)),
    "Dropout, p": lambda nn, m: nn.Dropout(1.5),
    "Embedding, index": lambda nn, m: nn.Embedding(3, 2)(m.tensor([0, 3])),
    "Embedding, negative": lambda nn, m: nn.Embedding(3, 2)(m.tensor([-1])),
    "Embedding, floats": lambda nn, m: nn.Embedding(3, 2)(m.zeros(2)),
    "Embedding, padding_idx": lambda nn, m: nn.Embedding(3, 2, padding_idx=3),
    "MaxPool2d, padding": lambda nn, m: nn.MaxPool2d(2, padding=2)(m.zeros(1, 1, 4, 4)),
    "MaxPool2d, small": lambda nn, m: nn.MaxPool2d(5)(m.zeros(1, 1, 4, 4)),
    "MaxPool2d, 2-D": lambda nn, m: nn.MaxPool2d(2)(m.zeros(4, 4)),
    "AvgPool2d, padding": lambda nn, m: nn.AvgPool2d(2, padding=2)(m.zeros(1, 1, 4, 4)),
    "AvgPool2d, 2-D": lambda nn, m: nn.AvgPool2d(2)(m.zeros(4, 4)),
    "AdaptiveAvgPool2d, 2-D": lambda nn, m: nn.AdaptiveAvgPool2d(2)(m.zeros(4, 4)),
    "GELU, approximate": lambda nn, m: nn.GELU("sigmoid")(m.zeros(2)),
    "Softmax, dim": lambda nn, m: nn.Softmax(2)(m.zeros(2, 3)),
    "CrossEntropyLoss, label": lambda nn, m: nn.CrossEntropyLoss()(m.zeros(2, 3), m.tensor([0, 3])),
    "CrossEntropyLoss, negative": lambda nn, m: nn.CrossEntropyLoss()(m.zeros(2, 3), m.tensor([0, -1])),
    "CrossEntropyLoss, batch": lambda nn, m: nn.CrossEntropyLoss()(m.zeros(2, 3), m.tensor([0])),
    "CrossEntropyLoss, smoothing": lambda nn, m: nn.CrossEntropyLoss(label_smoothing=2.0)(
        m.zeros(2, 3), m.tensor([0, 1])),
    "CrossEntropyLoss, weight": lambda nn, m: nn.CrossEntropyLoss(m.ones(2))(m.zeros(2, 3), m.tensor([0, 1])),
    "CrossEntropyLoss, reduction": lambda nn, m: nn.CrossEntropyLoss(reduction="all")(m.zeros(2, 3), m.tensor([0, 1])),
    "NLLLoss, label": lambda nn, m: nn.NLLLoss()(m.zeros(2, 3), m.tensor([0, 5])),
    "HuberLoss, delta": lambda nn, m: nn.HuberLoss(delta=0.0)(m.zeros(2), m.zeros(2)),
    "SmoothL1Loss, beta": lambda nn, m: nn.SmoothL1Loss(beta=-1.0)(m.zeros(2), m.zeros(2)),
    "BCEWithLogitsLoss, shape": lambda nn, m: nn.BCEWithLogitsLoss()(m.zeros(2), m.zeros(3)),
    "MSELoss, shape": lambda nn, m: nn.MSELoss()(m.zeros(2), m.zeros(3)),
    "Sequential, not a module": lambda nn, m: nn.Sequential(nn.ReLU(), 3),
    "Sequential, index": lambda nn, m: nn.Sequential(nn.ReLU())[1],
    "ModuleList, forward": lambda nn, m: nn.ModuleList([nn.ReLU()])(m.zeros(2)),
    "load_state_dict, missing": lambda nn, m: nn.Linear(2, 2).load_state_dict({"weight": m.zeros(2, 2)}),
    "load_state_dict, unexpected": lambda nn, m: nn.Linear(2, 2, False).load_state_dict(
        {"weight": m.zeros(2, 2), "bias": m.zeros(2)}),
    "load_state_dict, shape": lambda nn, m: nn.Linear(2, 2, False).load_state_dict(
        {"weight": m.zeros(2, 3)}, strict=False),
    "module, name with a dot": lambda nn, m: nn.Sequential({"a.b": nn.ReLU()}) if m is mg else nn.Module().add_module(
        "a.b", nn.ReLU()),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", BAD)
def test_both_raise(name):
    with pytest.raises((RuntimeError, ValueError, LookupError, TypeError, AssertionError)):  # NotImplementedError, too
        BAD[name](torch.nn, torch)
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)) as error:
        BAD[name](nn, mg)
    assert ": " in str(error.value) or " defines no " in str(error.value)
