"""LinearBlock and ConvBlock: the Sequentials that one would have written."""

import copy
import pickle

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.layers import fusion


def kinds(block):
    return [type(module) for module in block]


LINEAR = [
    ({}, [nn.Linear, nn.BatchNorm1d, nn.ReLU], False),
    ({"order": "layer activation norm"}, [nn.Linear, nn.ReLU, nn.BatchNorm1d], True),
    ({"order": ("norm", "activation", "layer")}, [nn.BatchNorm1d, nn.ReLU, nn.Linear], True),
    ({"order": "dropout layer norm activation", "dropout": 0.5},
     [nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU], False),
    ({"order": "layer dropout norm activation", "dropout": 0.5},
     [nn.Linear, nn.Dropout, nn.BatchNorm1d, nn.ReLU], True),
    ({"dropout": 0.2}, [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout], False),
    ({"norm_layer": None}, [nn.Linear, nn.ReLU], True),
    ({"norm_layer": None, "activation_layer": None}, [nn.Linear], True),
    ({"activation_layer": None}, [nn.Linear, nn.BatchNorm1d], False),
    ({"norm_layer": nn.LayerNorm, "activation_layer": nn.Tanh}, [nn.Linear, nn.LayerNorm, nn.Tanh], False),
    ({"bias": True}, [nn.Linear, nn.BatchNorm1d, nn.ReLU], True),
    ({"bias": False, "norm_layer": None}, [nn.Linear, nn.ReLU], False),
]


@pytest.mark.parametrize("options, expected, bias", LINEAR)
def test_parts_of_a_linear_block(options, expected, bias):
    block = nn.LinearBlock(7, 5, **options)
    assert isinstance(block, nn.Sequential) and kinds(block) == expected
    linear = next(module for module in block if isinstance(module, nn.Linear))
    assert (linear.bias is not None) is bias and linear.weight.shape == (5, 7)
    assert block(mg.randn(4, 7)).shape == (4, 5)


CONV = [
    ({}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 8, 9)),
    ({"pool": 2, "dropout": 0.1}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Dropout], (2, 6, 4, 4)),
    ({"pool": nn.AvgPool2d(4)}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d], (2, 6, 2, 2)),
    ({"pool": (2, 1), "order": "layer pool norm activation"},
     [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 4, 9)),
    ({"order": "norm activation layer", "activation_layer": nn.SiLU}, [nn.BatchNorm2d, nn.SiLU, nn.Conv2d],
     (2, 6, 8, 9)),
    ({"kernel_size": 5, "stride": 2, "groups": 2}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 4, 5)),
    ({"kernel_size": (3, 5), "dilation": (2, 1)}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 8, 9)),
    ({"kernel_size": 1}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 8, 9)),
    ({"padding": 0}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 6, 7)),
    ({"padding": "same", "padding_mode": "reflect"}, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], (2, 6, 8, 9)),
]


@pytest.mark.parametrize("options, expected, shape", CONV)
def test_parts_of_a_conv_block(options, expected, shape):
    block = nn.ConvBlock(4, 6, **options)
    assert isinstance(block, nn.Sequential) and kinds(block) == expected
    assert block(mg.randn(2, 4, 8, 9)).shape == shape
    follows = expected[expected.index(nn.Conv2d) + 1 :][:1] == [nn.BatchNorm2d]
    assert (next(m for m in block if isinstance(m, nn.Conv2d)).bias is None) is follows


def test_equal_to_the_sequential_one_would_have_written():
    """The same random numbers, the same keys, the same results."""
    mg.manual_seed(0)
    block = nn.Sequential(nn.ConvBlock(1, 4, pool=2, dropout=0.5), nn.Flatten(), nn.LinearBlock(36, 5))
    mg.manual_seed(0)
    written = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                      nn.Dropout(0.5)),
        nn.Flatten(), nn.Sequential(nn.Linear(36, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU()),
    )  # fmt: skip
    x, found = mg.randn(3, 1, 6, 7), []
    for model in (block, written):
        mg.manual_seed(1)
        model(x).sum().backward()
        found.append({**model.state_dict(), **{f"grad {k}": p.grad for k, p in model.named_parameters()}})
    assert list(found[0]) == list(found[1])
    for key in found[0]:
        np.testing.assert_array_equal(found[0][key].numpy(), found[1][key].numpy())


def test_blocks_in_a_sequential_are_fused():
    model = nn.Sequential(nn.ConvBlock(1, 4, pool=2), nn.Flatten(), nn.LinearBlock(36, 5, activation_layer=nn.Tanh))
    x = mg.randn(3, 1, 6, 7, requires_grad=True)
    y = model(x)
    linear, conv = model[2], model[0]
    assert y.fn.name == "linear_batch_norm_act"
    assert [type(step) for step in linear._plan[1]] == [fusion.Run]
    assert [type(step) for step in conv._plan[1]] == [nn.Conv2d, fusion.Run]
    assert nn.fold_batchnorm(model.eval())[2][0].bias is not None


def test_options_of_the_norm_go_through_a_function():
    block = nn.ConvBlock(2, 4, norm_layer=lambda n: nn.BatchNorm2d(n, momentum=None, ghost_batch_size=2))
    assert block[1].ghost_batch_size == 2 and block[1].momentum is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_dtype_and_device(device):
    block = nn.LinearBlock(3, 2, dtype="float64", device=device)
    assert {t.dtype for t in [*block.parameters(), block[1].running_mean]} == {mg.float64}
    assert {str(t.device) for t in [*block.parameters(), *block.buffers()]} == {device}


def test_slices_copies_and_repr():
    block = nn.ConvBlock(2, 4, pool=2)
    assert type(block[:2]) is nn.Sequential and kinds(block[:2]) == [nn.Conv2d, nn.BatchNorm2d]
    assert repr(block).startswith("ConvBlock(  # 80 parameters\n  (0): Conv2d(2, 4, ")
    x = mg.randn(2, 2, 4, 4)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert type(other) is nn.ConvBlock
        np.testing.assert_array_equal(other.train()(x).numpy(), block(x).numpy())
    block.append(nn.Flatten())
    assert block(x).shape == (2, 16)


@pytest.mark.parametrize("order", ["layer norm", "layer layer norm activation", "layer norm relu", "", ()])
def test_the_order_names_every_part_once(order):
    with pytest.raises(ValueError, match=r"^LinearBlock: expected order to name layer, norm and activation once each"):
        nn.LinearBlock(3, 2, order=order)


def test_errors_of_the_parts():
    with pytest.raises(ValueError, match="^Linear: expected in_features to be an int >= 1, got 0$"):
        nn.LinearBlock(0, 2)
    with pytest.raises(ValueError, match="^Dropout: expected a probability p from 0 to 1, got 2.0$"):
        nn.LinearBlock(3, 2, dropout=2.0)
    with pytest.raises(ValueError, match="^ConvBlock: expected kernel_size"):
        nn.ConvBlock(3, 2, kernel_size=0)
    with pytest.raises(TypeError, match=r"^LinearBlock: expected norm_layer to be a class.*, got BatchNorm1d\(2"):
        nn.LinearBlock(3, 2, norm_layer=nn.BatchNorm1d(2))
    with pytest.raises(TypeError, match="^ConvBlock: expected activation_layer to be a class.*, got 'relu'$"):
        nn.ConvBlock(3, 2, activation_layer="relu")
