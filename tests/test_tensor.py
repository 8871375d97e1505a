"""Tensors as values: making them, numbers and dtypes, NumPy, printing, indexing, changing elements."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigrad as mg
from minigrad import ops

# -- making ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, dtype",
    [
        (1.5, "float32"),
        (3, "int64"),
        (True, "bool"),
        ([1, 2], "int64"),
        ([1, 2.5], "float32"),
        ([[True], [False]], "bool"),
        (np.float64(2.0), "float64"),
        (np.float32(2.0), "float32"),
        (np.ones(2), "float64"),
        (np.ones(2, "f4"), "float32"),
        (np.ones(2, "f2"), "float32"),
        (np.ones(2, "u1"), "int64"),
        (np.ones(2, "i4"), "int64"),
        ([], "float32"),
        (((1,), (2,)), "int64"),
        (np.ones((2, 3), order="F"), "float64"),
        (np.arange(6.0)[::-2], "float64"),
    ],
)
def test_tensor_takes_values(data, dtype):
    """Python floats are float32; NumPy's types are kept where there is a tensor type for them."""
    x = mg.tensor(data)
    assert x.dtype == dtype and x.shape == np.shape(data) and x.data.flags.c_contiguous
    np.testing.assert_array_equal(x.numpy(), np.asarray(data))


def test_tensor_copies():
    a = np.zeros(3)
    x = mg.tensor(a)
    y = mg.tensor(x)
    a[0] = 1.0
    with mg.no_grad():
        x[1] = 1.0
    assert x.tolist() == [0.0, 1.0, 0.0] and y.tolist() == [0.0, 0.0, 0.0]


def test_tensor_dtype():
    assert mg.tensor([1, 2], float).dtype == mg.float32 and mg.tensor([1.7, -1.7], int).tolist() == [1, -1]
    assert mg.tensor([0.0, 2.0], bool).tolist() == [False, True] and mg.tensor(1, "float64").dtype == mg.float64
    assert mg.tensor(mg.zeros(2, dtype="float64")).dtype == mg.float64


def test_from_numpy_shares_memory():
    a = np.zeros((2, 3), np.float32)
    x = mg.from_numpy(a)
    a[0, 0] = 5.0
    assert x[0, 0].item() == 5.0 and np.shares_memory(a, x.numpy())
    with mg.no_grad():
        x.fill_(2.0)
    assert a.sum() == 12.0
    assert not np.shares_memory(mg.from_numpy(a.T).numpy(), a)  # not in C order
    assert not np.shares_memory(mg.from_numpy(a.astype("f2")).numpy(), a)
    a.flags.writeable = False
    assert not np.shares_memory(mg.from_numpy(a).numpy(), a)


def test_factories():
    assert mg.zeros(2, 3).shape == (2, 3) and mg.zeros((2, 3)).shape == (2, 3) and mg.zeros().shape == ()
    assert (
        mg.ones(2, dtype="int64").tolist() == [1, 1]
        and mg.full((2,), 7).dtype == mg.int64
        and mg.full(2, 0.5).tolist() == [0.5, 0.5]
    )
    assert mg.full((), True).dtype == mg.bool and mg.zeros_like(mg.ones(3, dtype="float64")).dtype == mg.float64
    assert mg.ones_like(mg.zeros(2, dtype="int64")).tolist() == [1, 1]
    assert (
        mg.arange(3).tolist() == [0, 1, 2]
        and mg.arange(1, 2, 0.5).tolist() == [1.0, 1.5]
        and mg.arange(3, 0, -1).tolist() == [3, 2, 1]
    )
    assert mg.arange(3, dtype="float64").dtype == mg.float64 and mg.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]
    assert mg.eye(2).tolist() == [[1.0, 0.0], [0.0, 1.0]] and mg.ones(2, requires_grad=True).requires_grad


def test_random_numbers():
    """Equal seeds, equal numbers; a draw moves the generator on; the moments are right."""
    mg.manual_seed(3)
    a, b = mg.randn(1001), mg.randn(1001)
    mg.manual_seed(3)
    np.testing.assert_array_equal(a.numpy(), mg.randn(1001).numpy())
    assert not np.array_equal(a.numpy(), b.numpy())
    generator = mg.Generator(7)
    u = mg.rand(20_000, generator=generator)
    assert 0.0 <= u.numpy().min() and u.numpy().max() < 1.0 and abs(u.mean().item() - 0.5) < 0.01
    z = mg.randn(20_000, dtype="float64", generator=generator)
    assert abs(z.mean().item()) < 0.03 and abs(z.std().item() - 1.0) < 0.03
    state = generator.get_state()
    c = mg.rand(5, generator=generator)
    generator.set_state(state)
    np.testing.assert_array_equal(c.numpy(), mg.rand(5, generator=generator).numpy())
    assert mg.rand(0).shape == (0,) and mg.rand().shape == () and mg.rand(2, 3).shape == (2, 3)
    assert not np.array_equal(
        mg.rand(4, generator=mg.Generator(-1)).numpy(), mg.rand(4, generator=mg.Generator(1)).numpy()
    )


def test_copies_of_a_tensor():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    y = copy.deepcopy(x)
    assert (
        y.requires_grad
        and y.tolist() == x.tolist()
        and not np.shares_memory(x.numpy(), y.numpy())
        and y.device is x.device
    )


# -- numbers and dtypes ------------------------------------------------------------------------------------------

TYPES = ["bool", "int64", "float32", "float64"]


@pytest.mark.parametrize("left", TYPES)
@pytest.mark.parametrize("right", TYPES)
def test_promotion(left, right):
    """The later of bool, int64, float32, float64; but sums of bools are numbers, and quotients floats."""
    a, b = mg.ones(2, dtype=left), mg.ones(2, dtype=right)
    later = TYPES[max(TYPES.index(left), TYPES.index(right))]
    number = "int64" if later == "bool" else later
    for op in (ops.add, ops.sub, ops.mul, ops.maximum, ops.minimum):
        assert op(a, b).dtype == number
    assert ops.div(a, b).dtype == (later if "float" in later else "float32")
    assert ops.add(a, b).tolist() == [2, 2]
    assert ops.where(mg.tensor([True, False]), a, b).dtype == later
    for op in (ops.eq, ops.lt):
        assert op(a, b).dtype == "bool"


@pytest.mark.parametrize(
    "dtype, number, result",
    [
        ("bool", True, "int64"),
        ("bool", 2, "int64"),
        ("bool", 0.5, "float32"),
        ("int64", True, "int64"),
        ("int64", 2, "int64"),
        ("int64", 0.5, "float32"),
        ("float32", 2, "float32"),
        ("float32", 0.5, "float32"),
        ("float64", 0.5, "float64"),
        ("float32", True, "float32"),
        ("float32", np.float64(0.5), "float32"),
        ("float32", np.float32(0.5), "float32"),
        ("float32", np.int64(2), "float32"),
        ("int64", np.int32(2), "int64"),
        ("float32", np.bool_(True), "float32"),
        ("int64", np.float32(0.5), "float32"),
    ],
)
def test_numbers_do_not_promote_floats(dtype, number, result):
    """A Python or NumPy number takes the tensor's type, but for a fraction beside integers."""
    x = mg.ones(2, dtype=dtype)
    for y in (x + number, number + x, x * number, number - x):
        assert y.dtype == result
    assert (x + number).tolist() == [1 + float(number)] * 2
    assert (x / number).dtype == ("float64" if dtype == "float64" else "float32")
    assert (x == number).tolist() == [bool(number == 1)] * 2
    assert (x > number).tolist() == [bool(1 > number)] * 2


def test_operators():
    a, b = np.array([1.5, -2.0, 3.0]), np.array([2.0, 0.5, -1.0])
    x, y = mg.tensor(a), mg.tensor(b)
    pairs = [
        (x + y, a + b),
        (x - y, a - b),
        (x * y, a * b),
        (x / y, a / b),
        (x**2, a**2),
        (2.0**y, 2.0**b),
        (-x, -a),
        (abs(x), abs(a)),
        (x @ y, a @ b),
        (1 - x, 1 - a),
        (1 / x, 1 / a),
        (2 + x, 2 + a),
        (x < y, a < b),
        (x <= 1.5, a <= 1.5),
        (x > y, a > b),
        (x >= y, a >= b),
        (x == y, a == b),
        (x != y, a != b),
        (1.5 < x, a > 1.5),
        ((x > 0) & (y > 0), (a > 0) & (b > 0)),
        ((x > 0) | (y > 0), (a > 0) | (b > 0)),
        (~(x > 0), ~(a > 0)),
    ]
    for found, wanted in pairs:
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-14)


def test_methods_are_the_ops():
    a = np.array([[1.5, -2.0, 3.0], [0.25, 4.0, -1.0]])
    x = mg.tensor(a)
    for name in (
        "neg",
        "abs",
        "sign",
        "exp",
        "relu",
        "sigmoid",
        "tanh",
        "sum",
        "mean",
        "var",
        "std",
        "max",
        "min",
        "argmax",
        "argmin",
        "any",
        "all",
        "logsumexp",
        "flatten",
        "squeeze",
        "clone",
    ):
        np.testing.assert_array_equal(getattr(x, name)().numpy(), getattr(ops, name)(x).numpy())
    for name in ("sum", "mean", "var", "std", "max", "min", "argmax", "argmin", "any", "all", "logsumexp"):
        np.testing.assert_array_equal(
            getattr(x, name)(1, keepdim=True).numpy(), getattr(ops, name)(x, 1, keepdim=True).numpy()
        )
    for name in ("add", "sub", "mul", "div", "maximum", "minimum", "pow"):
        np.testing.assert_array_equal(getattr(x, name)(2.0).numpy(), getattr(ops, name)(x, 2.0).numpy())
    assert (
        x.T.shape == (3, 2)
        and x.reshape(-1).shape == (6,)
        and x.view(3, 2).shape == (3, 2)
        and x.permute(1, 0).shape == (3, 2)
    )
    assert x.transpose(0, 1).shape == (3, 2) and x.unsqueeze(0).shape == (1, 2, 3) and x[0].expand(2, 3).shape == (2, 3)
    assert (
        [p.shape for p in x.split(2, 1)] == [(2, 2), (2, 1)]
        and x.matmul(x.T).shape == (2, 2)
        and x.softmax(1).shape == (2, 3)
    )
    assert x.log_softmax(0).shape == (2, 3) and x.clip(0.0).min().item() == 0.0 and x.clamp(max=0.0).max().item() == 0.0
    assert (
        x.abs().log().exp().sqrt().shape == (2, 3)
        and x.size() == (2, 3)
        and x.size(1) == 3
        and x.numel() == 6
        and x.dim() == x.ndim == 2
    )
    assert (
        x.float().dtype == mg.float32
        and x.double().dtype == mg.float64
        and x.long().dtype == mg.int64
        and x.bool().dtype == mg.bool
    )
    assert (
        x.to("float32").dtype == mg.float32
        and x.to(mg.int64).dtype == mg.int64
        and x.to("cpu") is x
        and x.to(mg.cpu) is x
    )


def test_nan_travels():
    x = mg.tensor([1.0, math.nan, 3.0])
    for y in (
        x.max(),
        x.min(),
        x.sum(),
        ops.maximum(x, 2.0).sum(),
        ops.minimum(2.0, x).sum(),
        ops.relu(x).sum(),
        x.clip(0.0, 1.0).sum(),
        ops.sign(x).sum(),
        x.softmax(0).sum(),
        x.logsumexp(),
        ops.max_pool2d(x.reshape(1, 1, 1, 3), (1, 3)),
    ):
        assert math.isnan(y.item())
    assert x.argmax().item() == 1 and x.argmin().item() == 1
    inf = mg.tensor([math.inf, -math.inf, 1.0])
    assert (
        inf.max().item() == math.inf
        and inf.logsumexp().item() == math.inf
        and ops.sigmoid(inf).tolist()[:2] == [1.0, 0.0]
    )
    assert mg.tensor([-math.inf, -math.inf]).logsumexp().item() == -math.inf


# -- out of the tensor -------------------------------------------------------------------------------------------


def test_item_len_iter():
    assert mg.tensor(2.5).item() == 2.5 and isinstance(mg.tensor([[3]]).item(), int) and mg.tensor(True).item() is True
    assert float(mg.tensor(2.5)) == 2.5 and int(mg.tensor(2.9)) == 2 and bool(mg.tensor(0.0)) is False
    assert [10, 20, 30][mg.tensor(1)] == 20 and f"{mg.tensor(0.5):.2f}" == "0.50"
    x = mg.arange(6).reshape(3, 2)
    assert (
        len(x) == 3
        and [row.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
        and x.tolist() == [[0, 1], [2, 3], [4, 5]]
    )
    for call, error, message in [
        (lambda: mg.zeros(2).item(), ValueError, r"item: expected a tensor of one element, got one of shape \(2,\)"),
        (lambda: len(mg.zeros(())), TypeError, "len: a 0-d tensor has no length"),
        (lambda: list(mg.zeros(())), TypeError, "iter: a 0-d tensor cannot be iterated over"),
        (lambda: bool(mg.zeros(2)), ValueError, r"the truth of a tensor of shape \(2,\) is ambiguous"),
        (lambda: [1][mg.tensor(0.0)], TypeError, "index: expected an int64 tensor, got float32"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_numpy_takes_tensors():
    x = mg.tensor([1.0, 4.0])
    assert np.shares_memory(np.asarray(x), x.numpy()) and np.asarray(x, dtype="f8").dtype == np.float64
    assert not np.shares_memory(np.array(x), x.numpy()) and np.sqrt(np.asarray(x)).tolist() == [1.0, 2.0]
    assert mg.tensor([1.0], requires_grad=True).numpy().tolist() == [1.0]


@pytest.mark.parametrize(
    "mix", [lambda a, x: a * x, lambda a, x: x * a, lambda a, x: a == x, lambda a, x: x @ a, lambda a, x: x**a]
)
def test_arrays_do_not_mix_with_tensors(mix):
    """An array beside a tensor would lose the gradient, silently; it is refused in a sentence."""
    with pytest.raises(TypeError, match=r"expected .*, got ndarray"):
        mix(np.ones(2), mg.ones(2))


def test_numpy_functions_refuse_tensors():
    with pytest.raises(TypeError):
        np.add(np.ones(2), mg.ones(2))


@pytest.mark.parametrize(
    "x, text",
    [
        (lambda: mg.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: mg.tensor(3), "tensor(3)"),
        (lambda: mg.tensor([True, False]), "tensor([ True, False])"),
        (lambda: mg.tensor([1.0], "float64"), "tensor([1.], dtype=float64)"),
        (lambda: mg.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: mg.tensor([1.0], requires_grad=True) * 2.0, "tensor([2.], fn=<mul>)"),
        (lambda: mg.tensor([[1, 2], [3, 4]]), "tensor([[1, 2],\n        [3, 4]])"),
        (lambda: mg.zeros(0), "tensor([])"),
    ],
)
def test_repr(x, text):
    assert repr(x()) == text


# -- indexing ----------------------------------------------------------------------------------------------------


def entries(extent):
    """One part of an index that fits an extent."""
    ints = st.integers(-extent, extent - 1) if extent else st.nothing()
    lists = hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=3), elements=ints) if extent else st.nothing()
    return st.one_of(ints, st.slices(extent), st.just(slice(None)), lists)


@st.composite
def indexed(draw):
    """A shape and an index that NumPy accepts."""
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    count = draw(st.integers(0, len(shape)))
    gap = draw(st.integers(0, count))
    dims = [*range(gap), *range(len(shape) - count + gap, len(shape))]
    index = []
    for k, dim in enumerate(dims):
        if k == gap and draw(st.booleans()) or k == gap and count < len(shape):
            index.append(Ellipsis)
        if draw(st.integers(0, 5)) == 0:
            index.append(None)
        index.append(draw(entries(shape[dim])))
    return tuple(shape), tuple(index)


@given(indexed())
def test_indexing_is_numpys(case):
    """Any mixture of ints, slices, None, ... and arrays: the same elements as NumPy, or an error where it gives one."""
    shape, index = case
    a = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    try:
        wanted = a[index]
    except IndexError:
        with pytest.raises((IndexError, ValueError)):
            mg.tensor(a)[index]
        return
    x = mg.tensor(a, requires_grad=True)
    found = x[index]
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found.numpy(), wanted)
    weights = np.random.default_rng(0).standard_normal(wanted.shape)
    (g,) = mg.grad(found, x, mg.tensor(weights))
    expected = np.zeros(shape)
    np.add.at(expected, index, weights)
    np.testing.assert_allclose(g.numpy(), expected, atol=1e-12)


@given(indexed(), st.booleans())
def test_setitem_is_numpys(case, scalar):
    """The same for assignment by ints, slices, None and ...; arrays of indices are refused."""
    shape, index = case
    a = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    x = mg.tensor(a)
    if any(isinstance(entry, np.ndarray) for entry in index):
        with pytest.raises((TypeError, IndexError), match="setitem: "):
            x[index] = 0.0
        return
    value = -1.0 if scalar else -1.0 - np.arange(a[index].size).reshape(a[index].shape)
    a[index] = value
    x[index] = value if scalar else mg.tensor(value)
    np.testing.assert_array_equal(x.numpy(), a)


def test_setitem():
    x = mg.zeros(2, 3)
    x[0] = mg.tensor([1, 2, 3])  # cast and broadcast
    x[:, 1] = 9
    x[x == 0.0] = -1.0
    assert x.tolist() == [[1.0, 9.0, 3.0], [-1.0, 9.0, -1.0]]
    x[...] = x * 2.0
    x[1, ::-1] = mg.tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [[2.0, 18.0, 6.0], [3.0, 2.0, 1.0]]
    x[0, 0] = np.float32(7.0)
    assert x[0, 0].item() == 7.0


def test_in_place_arithmetic():
    x = mg.tensor([1.0, 2.0])
    y = x.add_(1.0).mul_(mg.tensor([2.0, 3.0])).sub_(1.0).div_(2.0)
    assert y is x and x.tolist() == [1.5, 4.0]
    assert (
        x.copy_(mg.tensor(5)).tolist() == [5.0, 5.0]
        and x.fill_(2).tolist() == [2.0, 2.0]
        and x.zero_().tolist() == [0.0, 0.0]
    )


def test_in_place_averages():
    """What an exponential moving average of weights is written with."""
    x, y = mg.tensor([1.0, 2.0]), mg.tensor([5.0, -2.0], requires_grad=True)
    assert x.add_(y, alpha=0.5).tolist() == [3.5, 1.0] and x.sub_(2, alpha=0.25).tolist() == [3.0, 0.5]
    version = x.version[0]
    assert x.lerp_(y, 0.25).tolist() == [3.5, -0.125] and x.clamp_(min=0.0).tolist() == [3.5, 0.0]
    assert x.version[0] == version + 2 and not x.requires_grad
    with pytest.raises(RuntimeError, match="requires grad in place would not be recorded"):
        y.lerp_(x, 0.5)


def test_to_another_dtype_and_device():
    x = mg.tensor([1.5, -2.0])
    for y in (x.to("float64"), x.to(dtype="float64"), x.to("cpu", "float64"), x.to(mg.float64, device="cpu")):
        assert y.dtype == "float64" and y.tolist() == x.tolist()
    assert x.to("cpu") is x and x.to(device=mg.cpu) is x and x.to(x.dtype) is x and x.to() is x and x.cpu() is x


def test_views_share_memory():
    """reshape and detach are views, and changes through either are counted."""
    x = mg.zeros(2, 3)
    y, z = x.reshape(6), x.detach()
    y[0] = 1.0
    z[0, 1] = 2.0
    assert x.tolist()[0] == [1.0, 2.0, 0.0] and x.version[0] == 2
    w = x.clone()
    w[0, 0] = 5.0
    assert x[0, 0].item() == 1.0
