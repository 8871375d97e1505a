"""Every layer against PyTorch over drawn configurations: outputs, gradients and state dicts."""

import collections

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parity tests compare with PyTorch")

from torch_compare import DTYPES, agree, agree_module, close, to_torch  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad import layers as nn  # noqa: E402


def numbers(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def kind(rng):
    dtype = DTYPES[int(rng.integers(2))]
    return dtype, getattr(torch, dtype)


@pytest.mark.parametrize("seed", range(24))
def test_linear(seed):
    rng = np.random.default_rng(seed)
    dtype, theirs = kind(rng)
    i, o = [int(n) for n in rng.integers(1, 34, 2)]
    bias = bool(rng.integers(2))
    batch = [(), (5,), (1,), (33,), (2, 3), (0,)][int(rng.integers(6))]
    a = nn.Linear(i, o, bias=bias, dtype=dtype)
    b = torch.nn.Linear(i, o, bias=bias, dtype=theirs)
    agree_module(a, b, numbers(rng, (*batch, i), dtype), what=f"Linear({i}, {o}, bias={bias}) of {batch}, {dtype}")


def draw_conv(rng):
    groups = int(rng.choice([1, 1, 2, 3]))
    settings = {
        "in_channels": groups * int(rng.integers(1, 4)), "out_channels": groups * int(rng.integers(1, 5)),
        "kernel_size": int(rng.integers(1, 5)) if rng.integers(2) else tuple(int(n) for n in rng.integers(1, 5, 2)),
        "stride": int(rng.integers(1, 4)) if rng.integers(2) else tuple(int(n) for n in rng.integers(1, 4, 2)),
        "padding": int(rng.integers(0, 3)) if rng.integers(2) else tuple(int(n) for n in rng.integers(0, 3, 2)),
        "dilation": int(rng.integers(1, 3)), "groups": groups, "bias": bool(rng.integers(2)),
        "padding_mode": str(rng.choice(["zeros", "zeros", "reflect", "replicate", "circular"])),
    }
    if rng.integers(3) == 0:
        settings["padding"] = str(rng.choice(["same", "valid"]))
        if settings["padding"] == "same":
            settings["stride"] = 1
    size = tuple(int(n) for n in rng.integers(9, 14, 2))
    return settings, size


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("seed", range(80))
def test_conv2d(seed):
    rng = np.random.default_rng(seed)
    settings, size = draw_conv(rng)
    dtype, theirs = kind(rng)
    batch = (int(rng.integers(1, 4)),) if rng.integers(8) else ()
    a, b = nn.Conv2d(**settings, dtype=dtype), torch.nn.Conv2d(**settings, dtype=theirs)
    x = numbers(rng, (*batch, settings["in_channels"], *size), dtype)
    agree_module(a, b, x, what=f"Conv2d({settings}) of {x.shape}, {dtype}")


@pytest.mark.parametrize("seed", range(24))
def test_group_norm(seed):
    rng = np.random.default_rng(seed)
    dtype, theirs = kind(rng)
    groups = int(rng.integers(1, 5))
    channels = groups * int(rng.integers(1, 4))
    shape = (int(rng.integers(2, 5)), channels, *[int(n) for n in rng.integers(1, 6, int(rng.integers(0, 3)))])
    settings = {"eps": float(rng.choice([1e-5, 0.1])), "affine": bool(rng.integers(2))}
    a = nn.GroupNorm(groups, channels, **settings, dtype=dtype)
    b = torch.nn.GroupNorm(groups, channels, **settings, dtype=theirs)
    with torch.no_grad():
        for parameter in b.parameters():
            parameter.copy_(torch.tensor(rng.standard_normal(channels)))
    what = f"GroupNorm({groups}, {channels}, {settings}) of {shape}, {dtype}"
    agree_module(a, b, numbers(rng, shape, dtype), what=what)


@pytest.mark.parametrize("seed", range(24))
def test_layer_norm(seed):
    rng = np.random.default_rng(seed)
    dtype, theirs = kind(rng)
    shape = tuple(int(n) for n in rng.integers(1, 9, int(rng.integers(1, 5))))
    last = shape[-int(rng.integers(1, len(shape) + 1)):]
    settings = {"eps": float(rng.choice([1e-5, 0.1])), "elementwise_affine": bool(rng.integers(2)),
                "bias": bool(rng.integers(2))}
    a = nn.LayerNorm(last, **settings, dtype=dtype)
    b = torch.nn.LayerNorm(last, **settings, dtype=theirs)
    with torch.no_grad():
        for parameter in b.parameters():
            parameter.copy_(torch.tensor(rng.standard_normal(last)))
    agree_module(a, b, numbers(rng, shape, dtype), what=f"LayerNorm({last}, {settings}) of {shape}, {dtype}")


@pytest.mark.parametrize("seed", range(24))
def test_embedding(seed):
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    settings = {
        "padding_idx": int(rng.integers(-count, count)) if rng.integers(2) else None,
        "max_norm": float(rng.random() * 2 + 0.5) if rng.integers(3) == 0 else None,
        "norm_type": float(rng.choice([1.0, 2.0, 3.0])),
        "scale_grad_by_freq": bool(rng.integers(2)),
    }
    indices = rng.integers(0, count, tuple(int(n) for n in rng.integers(1, 6, int(rng.integers(0, 3)))))
    what = f"Embedding({count}, {width}, {settings}) of {indices.shape}"
    a = nn.Embedding(count, width, **settings, dtype="float64")
    b = torch.nn.Embedding(count, width, **settings, dtype=torch.float64)
    if settings["padding_idx"] is not None:
        assert (a.weight.numpy()[settings["padding_idx"]] == 0).all()
    a.load_state_dict({"weight": rng.standard_normal((count, width))})
    b.load_state_dict(to_torch(a.state_dict()))
    y, z = a(mg.tensor(indices)), b(torch.tensor(indices))
    close(y, z, what)
    weights = rng.standard_normal(y.shape)
    y.backward(mg.tensor(weights)), z.backward(torch.tensor(weights))
    close(a.weight.grad, b.weight.grad, f"{what}: gradient", 1e-9)
    close(a.weight, b.weight, f"{what}: weight", 1e-9)


def draw_pool(rng):
    kernel = [int(n) for n in rng.integers(1, 5, 2)]
    settings = {"kernel_size": tuple(kernel) if rng.integers(2) else kernel[0], "ceil_mode": bool(rng.integers(2))}
    smallest = min(kernel) if isinstance(settings["kernel_size"], tuple) else kernel[0]
    if rng.integers(2):
        settings["stride"] = tuple(int(n) for n in rng.integers(1, 4, 2))
    if rng.integers(2):
        settings["padding"] = int(rng.integers(0, smallest // 2 + 1))
    return settings


@pytest.mark.parametrize("seed", range(40))
def test_max_pool2d(seed):
    rng = np.random.default_rng(seed)
    settings = draw_pool(rng)
    if rng.integers(3) == 0:
        settings["dilation"] = 2
    dtype, _ = kind(rng)
    x = numbers(rng, (*[int(n) for n in rng.integers(1, 4, 2)], *[int(n) for n in rng.integers(8, 13, 2)]), dtype)
    if rng.integers(3) == 0:
        x = np.round(x)  # ties: the first maximum takes the gradient
    a, b = nn.MaxPool2d(**settings), torch.nn.MaxPool2d(**settings)
    agree_module(a, b, x, what=f"MaxPool2d({settings}) of {x.shape}")


@pytest.mark.parametrize("seed", range(40))
def test_avg_pool2d(seed):
    rng = np.random.default_rng(seed)
    settings = {**draw_pool(rng), "count_include_pad": bool(rng.integers(2))}
    if rng.integers(3) == 0:
        settings["divisor_override"] = int(rng.integers(1, 6))
    dtype, _ = kind(rng)
    x = numbers(rng, (*[int(n) for n in rng.integers(1, 4, 2)], *[int(n) for n in rng.integers(4, 13, 2)]), dtype)
    a, b = nn.AvgPool2d(**settings), torch.nn.AvgPool2d(**settings)
    agree_module(a, b, x, what=f"AvgPool2d({settings}) of {x.shape}")


@pytest.mark.parametrize("seed", range(20))
def test_adaptive_avg_pool2d(seed):
    rng = np.random.default_rng(seed)
    size = [None if n == 0 else int(n) for n in rng.integers(0, 9, 2)]
    size = tuple(size) if size[0] is None or rng.integers(2) else size[0]
    dtype, _ = kind(rng)
    x = numbers(rng, (*[int(n) for n in rng.integers(1, 4, 2)], *[int(n) for n in rng.integers(1, 13, 2)]), dtype)
    agree_module(nn.AdaptiveAvgPool2d(size), torch.nn.AdaptiveAvgPool2d(size), x, what=f"to {size} of {x.shape}")


ACTIVATIONS = [
    ("ReLU", {}), ("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.3}), ("Sigmoid", {}), ("Tanh", {}),
    ("GELU", {}), ("GELU", {"approximate": "tanh"}), ("SiLU", {}), ("Softplus", {}),
    ("Softplus", {"beta": 2.5, "threshold": 3.0}),
    ("Softmax", {"dim": 0}), ("Softmax", {"dim": 1}), ("Softmax", {"dim": -1}), ("LogSoftmax", {"dim": 0}),
    ("LogSoftmax", {"dim": 1}), ("Identity", {}), ("Flatten", {}), ("Flatten", {"start_dim": 0, "end_dim": 1}),
    ("Unflatten", {"dim": -1, "unflattened_size": (1, -1)}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "settings"), ACTIVATIONS, ids=str)
def test_activations(name, settings, dtype):
    rng = np.random.default_rng(0)
    ours, theirs = getattr(nn, name)(**settings), getattr(torch.nn, name)(**settings)
    for shape in [(3, 5), (4, 1, 7), (1, 33), (0, 4)]:
        agree_module(ours, theirs, numbers(rng, shape, dtype) * 4, what=f"{name} of {shape}")


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "Softplus"])
def test_activations_at_the_ends(name):
    """Zeros, infinities, NaN and numbers that overflow an exponential."""
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e3, -1e3, 88.8, -88.8, 1e-30])
    ours, theirs = getattr(nn, name)(), getattr(torch.nn, name)()
    if name in ("GELU", "SiLU"):
        x = x[np.isfinite(x)]  # 0 * inf there, by the formula or not: PyTorch's kernels differ among themselves
    agree(ours, theirs, x, what=name)
    agree(ours, theirs, x.astype("float32"), what=name, tolerance=1e-5)


def test_dropout():
    """Rate, scale and gradient; the numbers drawn are each library's own."""
    x = mg.ones(200, 300, dtype="float64", requires_grad=True)
    for p in (0.0, 0.3, 0.9, 1.0):
        y = nn.Dropout(p)(x)
        theirs = torch.nn.Dropout(p)(torch.ones(200, 300, dtype=torch.float64))
        values = set(np.unique(theirs.numpy()))
        np.testing.assert_allclose(sorted(set(np.unique(y.numpy()))), sorted(values), rtol=1e-12)
        assert abs((y.numpy() == 0).mean() - p) < 0.01
        x.zero_grad()
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_dropout_in_evaluation():
    agree_module(nn.Dropout(0.7), torch.nn.Dropout(0.7), np.arange(6.0), training=False)


def both_nets(torch_layers):
    """The same small convolutional net in either library."""
    def build(lib):
        return lib.Sequential(collections.OrderedDict([
            ("body", lib.Sequential(
                lib.Conv2d(2, 6, 3, padding=1, bias=False), lib.BatchNorm2d(6), lib.ReLU(), lib.MaxPool2d(2),
                lib.Conv2d(6, 4, 3, padding="same", groups=2), lib.BatchNorm2d(4), lib.GELU(), lib.AdaptiveAvgPool2d(2),
            )),
            ("head", lib.Sequential(
                lib.Flatten(), lib.Linear(16, 8), lib.BatchNorm1d(8, momentum=None), lib.Tanh(), lib.LayerNorm(8),
                lib.Linear(8, 3),
            )),
        ]))

    return build(nn), build(torch_layers)


def test_whole_net():
    ours, theirs = both_nets(torch.nn)
    ours.double(), theirs.double()
    x = np.random.default_rng(0).standard_normal((5, 2, 8, 8))
    for training in (True, True, False):
        agree_module(ours, theirs, x, what="net", training=training, tolerance=1e-9)


def test_state_dicts_travel_both_ways(tmp_path):
    """Weights from PyTorch compute the same here, and after a save and a load the same there again."""
    ours, theirs = both_nets(torch.nn)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    theirs(torch.randn(4, 2, 8, 8))
    assert {k: tuple(v.shape) for k, v in theirs.state_dict().items()} == {
        k: v.shape for k, v in ours.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())  # PyTorch's tensors as they are
    mg.save(ours.state_dict(), tmp_path / "net.npz")
    _, again = both_nets(torch.nn)
    again.load_state_dict(to_torch(mg.load(tmp_path / "net.npz")))
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert value.numpy().dtype == ours.state_dict()[key].dtype, key
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})  # NumPy arrays
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 8)).astype("float32")
    ours.eval(), theirs.eval()
    close(ours(mg.tensor(x)), theirs(torch.tensor(x)), "net", 1e-4)


def test_named_members_come_in_the_same_order():
    ours, theirs = both_nets(torch.nn)
    for what in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, what)()] == [n for n, _ in getattr(theirs, what)()], what


def test_shared_layers_count_once_but_save_twice():
    def build(lib):
        shared = lib.Linear(3, 3)
        return lib.Sequential(shared, lib.ReLU(), shared)

    ours, theirs = build(nn), build(torch.nn)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert list(ours.state_dict()) == list(theirs.state_dict())


INITIALISERS = [
    ("uniform_", (), {"a": -2.0, "b": 3.0}), ("normal_", (), {"mean": 1.0, "std": 2.0}), ("kaiming_uniform_", (), {}),
    ("kaiming_uniform_", (), {"a": 5**0.5}), ("kaiming_normal_", (), {"mode": "fan_out", "nonlinearity": "relu"}),
    ("xavier_uniform_", (), {}), ("xavier_normal_", (), {"gain": 2.0}), ("constant_", (3.5,), {}), ("zeros_", (), {}),
    ("ones_", (), {}),
]


@pytest.mark.parametrize(("name", "args", "settings"), INITIALISERS, ids=str)
@pytest.mark.parametrize("shape", [(200, 150), (40, 30, 5, 5)])
def test_initialisers_draw_from_the_same_distributions(name, args, settings, shape):
    """Mean, deviation and largest element of 30,000 numbers."""
    mg.manual_seed(0), torch.manual_seed(0)
    ours, theirs = mg.zeros(shape), torch.zeros(shape)
    assert getattr(nn.init, name)(ours, *args, **settings) is ours
    getattr(torch.nn.init, name)(theirs, *args, **settings)
    a, b = ours.numpy(), theirs.numpy()
    assert abs(a.std() - b.std()) <= 0.02 * b.std()
    assert abs(a.mean() - b.mean()) <= 0.03 * max(b.std(), 1e-6)
    if "uniform" in name:
        assert abs(np.abs(a).max() - np.abs(b).max()) <= 0.01 * np.abs(b).max()


@pytest.mark.parametrize(("name", "args"), [("Linear", (300, 200)), ("Conv2d", (12, 60, 5)), ("Embedding", (300, 200))])
def test_layers_start_from_the_same_distributions(name, args):
    mg.manual_seed(0), torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
    for key, a in ours.named_parameters():
        a, b = a.numpy(), dict(theirs.named_parameters())[key].detach().numpy()
        many = 0.03 if a.size > 1000 else 0.25
        assert abs(a.std() - b.std()) <= many * b.std(), key
        assert abs(a.mean()) <= many * b.std(), key
        if name != "Embedding":
            assert np.abs(a).max() <= np.abs(b).max() * (1 + many), key
