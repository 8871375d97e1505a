"""Modules and containers: members, state, modes, hooks, and what they show of themselves."""

import collections
import copy

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn


@pytest.fixture(autouse=True)
def seed():
    mg.manual_seed(0)


def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


def test_module_dict():
    shared = nn.Linear(2, 2)
    layers = nn.ModuleDict({"a": shared, "b": nn.ReLU(), "c": shared})
    layers["d"] = nn.Linear(2, 1)
    layers.update([("b", nn.Tanh())])
    assert list(layers) == list(layers.keys()) == ["a", "b", "c", "d"] and len(layers) == 4 and "b" in layers
    assert layers["a"] is layers["c"] is shared and isinstance(layers["b"], nn.Tanh)
    assert [name for name, _ in layers.items()] == list(layers) and list(layers.values())[3] is layers["d"]
    assert {"a.weight", "d.bias"} <= set(layers.state_dict()) and len(list(layers.parameters())) == 4
    del layers["a"]
    assert "a" not in layers and "training" not in layers
    with pytest.raises(KeyError):
        layers["training"]
    with pytest.raises(ValueError, match="ModuleDict: the name 'items' is taken"):
        layers["items"] = nn.ReLU()
    with pytest.raises(TypeError, match="ModuleDict: expected 'e' to be a Module, got int"):
        layers["e"] = 3
    with pytest.raises(TypeError, match="ModuleDict defines no forward"):
        layers(mg.ones(1, 2))


# -- the module --------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Members of all kinds, set without calling Module.__init__."""

    def __init__(self):
        self.scale = nn.Parameter(mg.ones(2))
        self.first = nn.Linear(2, 2)
        self.register_buffer("count", mg.zeros(()))
        self.register_buffer("scratch", mg.zeros(3), persistent=False)
        self.offset = nn.Parameter(mg.zeros(2))
        self.many = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Identity()])
        self.plain = mg.zeros(5)
        self.absent = None

    def forward(self, x):
        for layer in self.many:
            x = layer(x)
        return self.first(x) * self.scale + self.offset


def test_members_are_found_in_order():
    model = Net()
    names = ["scale", "offset", "first.weight", "first.bias", "many.0.weight"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_buffers()] == ["count", "scratch"]
    assert list(model.state_dict()) == ["scale", "offset", "count", *names[2:]]
    assert list(model.state_dict(prefix="model.")) == [f"model.{name}" for name in model.state_dict()]
    assert [name for name, _ in model.named_children()] == ["first", "many"]
    assert [name for name, _ in model.named_modules()] == ["", "first", "many", "many.0", "many.1"]
    assert [name for name, _ in model.named_parameters(recurse=False)] == ["scale", "offset"]
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    assert [name for name, _ in model.named_parameters("net")][0] == "net.scale"


def test_a_tensor_cannot_displace_a_parameter():
    model = Net()
    with pytest.raises(TypeError, match="Net: expected a Parameter or None for 'scale', got a Tensor"):
        model.scale = mg.zeros(2)
    model.count = mg.ones(())  # a buffer stays one
    assert isinstance(model.count, nn.Buffer) and "count" in model.state_dict()
    model.scratch = mg.ones(1)
    assert "scratch" not in model.state_dict()
    model.offset = None
    assert "offset" not in model.state_dict()


def test_names_of_members_are_checked():
    model = Net()
    for name in ("a.b", "", "forward"):
        with pytest.raises(ValueError, match="Net: (expected a name|the name)"):
            model.register_buffer(name, mg.zeros(1))
    with pytest.raises(TypeError, match="register_parameter: expected a Parameter"):
        model.register_parameter("p", mg.zeros(1))
    model.register_parameter("p", nn.Parameter(mg.zeros(1)))
    assert "p" in model.state_dict()


def test_parameters_of_integers_need_no_grad():
    with pytest.raises(TypeError, match="only float tensors have gradients"):
        nn.Parameter(mg.tensor([1, 2]))
    assert nn.Parameter(mg.tensor([1, 2]), requires_grad=False).dtype == "int64"
    assert nn.Parameter(np.ones((2, 2))).dtype == "float64"


def test_state_dict_shares_memory_and_loads_in_place():
    model, other = net(), net()
    state = model.state_dict()
    assert all(np.shares_memory(state[name].numpy(), p.numpy()) for name, p in model.named_parameters())
    assert not any(tensor.requires_grad for tensor in state.values())
    arrays = [p.data for p in other.parameters()]
    versions = [p.version[0] for p in other.parameters()]
    result = other.load_state_dict(state)
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert all(p.data is array for p, array in zip(other.parameters(), arrays, strict=True))
    assert all(p.version[0] > v for p, v in zip(other.parameters(), versions, strict=True))
    assert not np.shares_memory(other[0].weight.numpy(), model[0].weight.numpy())
    x = mg.randn(2, 1, 4, 4)
    np.testing.assert_array_equal(model.eval()(x).numpy(), other.eval()(x).numpy())


class FromElsewhere:
    """Something with ``__array__`` only."""

    def __array__(self, dtype=None, copy=None):
        return np.full((2, 2), 7.0)


def test_load_state_dict_takes_all_kinds_of_arrays():
    layer = nn.Linear(2, 2)
    layer.load_state_dict({"weight": FromElsewhere(), "bias": [1, 2]})
    assert layer.weight.tolist() == [[7, 7], [7, 7]] and layer.bias.tolist() == [1, 2]
    assert layer.weight.dtype == "float32"
    layer.load_state_dict({"weight": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), "bias": np.zeros(2)})
    assert layer.weight.tolist() == [[1, 2], [3, 4]]


def test_load_state_dict_reports_everything_and_changes_nothing():
    model = net()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["0.bias"]
    state["5.weight"] = np.zeros((3, 5))
    state["5.bias"] = "three"
    state["7.weight"] = np.zeros(3)
    with pytest.raises(ValueError) as error:
        model.load_state_dict(state)
    message = str(error.value)
    for part in ("missing 0.bias;", "unexpected 7.weight;", "5.weight (expected shape (3, 16), got (3, 5))",
                 "5.bias (expected numbers, got str)", "Sequential"):
        assert part in message
    assert all((before[key] == value.numpy()).all() for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="misshapen 5.weight"):
        model.load_state_dict(state, strict=False)
    assert all((before[key] == value.numpy()).all() for key, value in model.state_dict().items())
    del state["5.weight"], state["5.bias"]
    result = model.load_state_dict(state, strict=False)
    assert result == (["0.bias", "5.weight", "5.bias"], ["7.weight"])
    assert (model[0].weight.numpy() == before["0.weight"] + 1).all()
    with pytest.raises(TypeError, match="load_state_dict: expected a mapping"):
        model.load_state_dict("model.npz")


def test_loading_in_place_is_seen_by_backward():
    layer = nn.Linear(2, 1)
    y = layer(mg.ones(1, 2, requires_grad=True)).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_modes():
    model = net()
    assert all(m.training for m in model.modules())
    assert model.eval() is model and not any(m.training for m in model.modules())
    model.train()
    model[1].eval()
    before = model[1].running_mean.numpy().copy()
    model(mg.randn(4, 1, 4, 4))
    assert (model[1].running_mean.numpy() == before).all()


def test_to_keeps_the_parameters():
    model = net()
    x = mg.randn(2, 1, 4, 4)
    model(x).sum().backward()
    parameters, arrays = list(model.parameters()), [p.numpy().copy() for p in model.parameters()]
    assert model.double() is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(p.dtype == "float64" and p.grad.dtype == "float64" for p in model.parameters())
    assert model[1].running_mean.dtype == "float64" and model[1].num_batches_tracked.dtype == "int64"
    model(x.double()).sum().backward()
    model.to("cpu", mg.float32)
    for p, array in zip(model.parameters(), arrays, strict=True):
        np.testing.assert_array_equal(p.numpy(), array)
    assert model.to(device="cpu", dtype="float64")[0].weight.dtype == "float64"
    with pytest.raises(TypeError, match="to: expected float32 or float64"):
        model.to(mg.int64)
    with pytest.raises(ValueError, match="device: expected"):
        model.to("cuda:7x")


def test_freezing_and_zero_grad():
    model = net()
    model[0].requires_grad_(False)
    model(mg.randn(3, 1, 4, 4)).sum().backward()
    assert model[0].weight.grad is None and model[5].weight.grad is not None
    model.zero_grad(set_to_none=False)
    assert (model[5].weight.grad.numpy() == 0).all()
    model.zero_grad()
    assert model[5].weight.grad is None


def test_apply_visits_children_first():
    seen = []
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh())
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen == ["ReLU", "Sequential", "Tanh", "Sequential"]


def test_forward_hooks():
    layer, seen = nn.Linear(2, 3), []
    with layer.register_forward_hook(lambda m, args, out: seen.append((m, args[0].shape, out.shape))):
        layer(mg.zeros(4, 2))
    assert seen == [(layer, (4, 2), (4, 3))]
    handle = layer.register_forward_hook(lambda m, args, out: out * 0)
    assert (layer(mg.ones(4, 2)).numpy() == 0).all()
    handle.remove()
    layer(mg.ones(4, 2))
    assert len(seen) == 1


def test_modules_copy():
    model = net()
    twin = copy.deepcopy(model)
    x = mg.randn(3, 1, 4, 4)
    np.testing.assert_array_equal(model.eval()(x).numpy(), twin.eval()(x).numpy())
    with mg.no_grad():
        twin[0].weight.fill_(0)
    assert (model[0].weight.numpy() != 0).any() and isinstance(twin[0].weight, nn.Parameter)


def test_a_module_without_forward():
    with pytest.raises(TypeError, match="Module defines no forward"):
        nn.Module()(mg.zeros(1))


def test_repr_counts_parameters():
    assert repr(nn.Linear(3, 2)) == "Linear(in_features=3, out_features=2, bias=True)  # 8 parameters"
    text = repr(nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU())))
    assert text == ("Sequential(  # 8 parameters\n"
                    "  (0): Linear(in_features=3, out_features=2, bias=True)  # 8 parameters\n"
                    "  (1): Sequential(\n"
                    "    (0): ReLU()\n"
                    "  )\n"
                    ")")
    assert "padding=same" in repr(nn.Conv2d(1, 2, 3, padding="same", bias=False))
    assert repr(nn.Parameter(mg.zeros(1))).startswith("Parameter(tensor(")
    for layer in (nn.Embedding(3, 2, padding_idx=1), nn.Dropout(0.3), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1),
                  nn.GELU(), nn.Softplus(), nn.Softmax(1), nn.LeakyReLU(), nn.LayerNorm(3), nn.Flatten(),
                  nn.MSELoss(reduction="sum")):
        assert repr(layer).startswith(type(layer).__name__ + "(")
        assert "()" not in repr(layer)


def test_summary():
    model = net()
    model[2].eval()
    before = model[1].running_var.numpy().copy()
    table = model.summary((2, 1, 4, 4))
    assert [row.shape for row in table.rows] == [
        (2, 3), (2, 4, 4, 4), (2, 4, 4, 4), (2, 4, 4, 4), (2, 4, 2, 2), (2, 16), (2, 3)]
    assert [row.parameters for row in table.rows] == [99, 40, 8, 0, 0, 0, 51]
    assert (table.parameters, table.trainable, table.parameter_bytes) == (99, 99, 396)
    assert table.activation_bytes == 4 * (3 * 128 + 32 + 32 + 6)
    text = str(table)
    assert "0: Conv2d" in text and "(2, 4, 4, 4)" in text and "Parameters: 99 (99 trainable)" in text
    assert (model[1].running_var.numpy() == before).all()  # it ran in evaluation mode
    assert model.training and model[1].training and not model[2].training and not model[0]._forward_hooks
    words = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 1)).summary((4, 3), dtype=mg.int64)
    assert words.rows[0].shape == (4, 1)


def test_summary_of_several_inputs_and_unused_layers():
    class Two(nn.Module):
        def __init__(self):
            self.a, self.unused = nn.Linear(2, 3), nn.Linear(9, 9)

        def forward(self, x, y):
            return self.a(x) + y

    table = Two().summary([(4, 2), (4, 3)])
    assert table.rows[0].shape == (4, 3) and table.rows[2].shape is None and "not used" in str(table)
    with pytest.raises(ValueError, match="summary: expected one dtype"):
        Two().summary([(4, 2), (4, 3)], dtype=[mg.float32])


# -- containers --------------------------------------------------------------------------------------------------


def test_sequential_is_a_list():
    a, b, c = nn.ReLU(), nn.Linear(2, 2), nn.Tanh()
    model = nn.Sequential(a, b)
    assert len(model) == 2 and model[0] is a and model[-1] is b and list(model) == [a, b]
    assert model.append(c) is model and [n for n, _ in model.named_children()] == ["0", "1", "2"]
    assert list(model[1:]) == [b, c] and list(model[1:].state_dict()) == ["0.weight", "0.bias"]
    model.insert(1, nn.Identity())
    assert type(model[1]).__name__ == "Identity" and model[2] is b
    assert list(model.state_dict()) == ["2.weight", "2.bias"]
    del model[1]
    assert list(model) == [a, b, c] and a in model
    model[0] = c
    assert model[0] is c
    del model[:2]
    assert list(model) == [c]
    with pytest.raises(IndexError, match=r"Sequential: index 1 is out of range for 1 module\(s\)"):
        model[1]
    with pytest.raises(TypeError, match="Sequential: expected '1' to be a Module, got function"):
        model.append(lambda x: x)
    assert nn.Sequential()(3) == 3


def test_sequential_with_names():
    named = [("hidden", nn.Linear(2, 3)), ("act", nn.ReLU()), ("out", nn.Linear(3, 1))]
    model = nn.Sequential(collections.OrderedDict(named))
    assert model.hidden is model[0] and list(model.state_dict())[-1] == "out.bias"
    assert [n for n, _ in model[1:].named_children()] == ["act", "out"]
    x = mg.randn(4, 2)
    expected = model.out(model.act(model.hidden(x)))
    np.testing.assert_array_equal(model(x).numpy(), expected.numpy())
    with pytest.raises(ValueError, match="the name 'forward' is taken"):
        nn.Sequential({"forward": nn.ReLU()})


def test_the_same_module_twice_runs_twice():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, layer)
    x = mg.randn(3, 2)
    np.testing.assert_array_equal(model(x).numpy(), layer(layer(x)).numpy())
    assert len(list(model.parameters())) == 2 and len(model) == 2


def test_module_list():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    layers.extend([nn.ReLU(), nn.Tanh()])
    assert len(layers) == 5 and isinstance(layers[:2], nn.ModuleList) and len(list(layers.parameters())) == 6
    with pytest.raises(TypeError, match="ModuleList defines no forward"):
        layers(mg.zeros(2))
