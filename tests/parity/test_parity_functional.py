"""Tensor ops and functions against PyTorch: results and gradients over drawn shapes."""


import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parity tests compare with PyTorch")

from torch_compare import DTYPES, agree, close  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad import functional as F  # noqa: E402
from minigrad import ops  # noqa: E402

T = torch.nn.functional


def draw_shape(rng, ndim):
    return tuple(int(n) for n in rng.integers(1, 6, ndim))


UNARY = {
    "neg": lambda x: -x, "abs": lambda x: x.abs(), "exp": lambda x: x.exp(), "log": lambda x: (x.abs() + 0.1).log(),
    "sqrt": lambda x: (x.abs() + 0.1).sqrt(), "sign": lambda x: x.sign(), "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(), "tanh": lambda x: x.tanh(), "square": lambda x: x**2, "cube": lambda x: x**3,
    "reciprocal": lambda x: (x + 10) ** -1, "root": lambda x: (x.abs() + 0.1) ** 0.5,
    "fraction": lambda x: (x.abs() + 0.1) ** 1.7, "power of 2": lambda x: 2.0**x, "quotient": lambda x: 3.0 / (x + 10),
    "minus": lambda x: 1 - x, "clamp": lambda x: x.clamp(-0.5, 0.7), "clamp below": lambda x: x.clamp(min=0.1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    rng = np.random.default_rng(0)
    for shape in [(), (0,), (1,), (7,), (33, 3), (2, 3, 4, 5)]:
        x = np.asarray(rng.standard_normal(shape)).astype(dtype)
        agree(UNARY[name], UNARY[name], x, what=f"{name} of {shape}")


BINARY = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "pow": lambda a, b: (a * a + 0.1) ** b, "maximum": lambda a, b: a.maximum(b), "minimum": lambda a, b: a.minimum(b),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("seed", range(12))
def test_binary_broadcasts(name, seed):
    rng = np.random.default_rng(seed)
    full = draw_shape(rng, int(rng.integers(0, 6)))
    shapes = []
    for _ in range(2):
        shape = tuple(1 if rng.random() < 0.3 else n for n in full)
        shapes.append(shape[int(rng.integers(0, len(shape) + 1)):] if rng.random() < 0.3 else shape)
    dtype = DTYPES[seed % 2]
    a, b = [np.asarray(rng.standard_normal(s)).astype(dtype) for s in shapes]
    agree(BINARY[name], BINARY[name], a, b, what=f"{name} of {shapes}")


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(name):
    rng = np.random.default_rng(0)
    for a, b in [((5,), (5,)), ((3, 1), (1, 4)), ((), (2, 2))]:
        a, b = np.asarray(rng.integers(0, 3, a)), np.asarray(rng.integers(0, 3, b))
        for dtype in ("float64", "float32", "int64"):
            agree(getattr(ops, name), getattr(torch, name), a.astype(dtype), b.astype(dtype), what=f"{name}, {dtype}") \
                if dtype == "int64" else close(
                    getattr(ops, name)(mg.tensor(a.astype(dtype)), mg.tensor(b.astype(dtype))),
                    getattr(torch, name)(torch.tensor(a.astype(dtype)), torch.tensor(b.astype(dtype))), name)


def test_where():
    rng = np.random.default_rng(0)
    condition = rng.random((3, 4)) < 0.5
    agree(lambda a, b: ops.where(mg.tensor(condition), a, b), lambda a, b: torch.where(torch.tensor(condition), a, b),
          rng.standard_normal((3, 4)), rng.standard_normal((1, 4)))


REDUCTIONS = ["sum", "mean", "var", "max", "min", "logsumexp"]


def reduction(name, dim, keepdim, lib):
    def run(x):
        if name in ("max", "min"):
            return getattr(x, name)(dim, keepdim) if lib == "ours" else getattr(torch, f"a{name}")(x, dim, keepdim)
        return getattr(x, name)(dim=dim, keepdim=keepdim)
    return run


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("seed", range(16))
def test_reductions(name, seed):
    """Any set of dimensions, with and without keeping them. torch.amax shares gradients among ties as ours does not."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(2, 6, int(rng.integers(1, 5))))
    dims = tuple(int(d) for d in rng.permutation(len(shape))[: int(rng.integers(1, len(shape) + 1))])
    dim = dims[0] if len(dims) == 1 and seed % 2 else dims
    x = rng.standard_normal(shape).astype(DTYPES[seed % 2])
    keepdim = bool(rng.integers(2))
    agree(reduction(name, dim, keepdim, "ours"), reduction(name, dim, keepdim, "theirs"), x,
          what=f"{name} of {shape} over {dim}, keepdim={keepdim}")


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min"])
def test_full_reductions(name):
    agree(lambda x: getattr(x, name)(), lambda x: getattr(x, name)(), np.random.default_rng(0).standard_normal((3, 5)))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_argmax(name, dim):
    x = np.random.default_rng(0).integers(0, 4, (5, 6)).astype("float64")
    x[2, 3] = np.nan
    close(getattr(mg.tensor(x), name)(dim), getattr(torch.tensor(x), name)(dim), name)


MATMUL = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((7, 33), (33, 17)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)),
    ((1, 3, 4), (5, 4, 2)), ((2, 1, 3, 4), (5, 4, 2)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)), ((0, 3), (3, 2)),
    ((2, 0), (0, 3)), ((1, 1), (1, 1)), ((65, 9), (9, 66)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a", "b"), MATMUL, ids=str)
def test_matmul(a, b, dtype):
    rng = np.random.default_rng(0)
    agree(lambda a, b: a @ b, lambda a, b: a @ b, rng.standard_normal(a).astype(dtype),
          rng.standard_normal(b).astype(dtype), what=f"{a} @ {b}")


SHAPES = {
    "reshape": lambda x: x.reshape(4, -1), "flatten": lambda x: x.flatten(1), "transpose": lambda x: x.transpose(0, 2),
    "permute": lambda x: x.permute(2, 0, 1), "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x[:1].squeeze(0),
    "expand": lambda x: x[:, :1].expand(2, 6, 4), "T": lambda x: x[0].T, "split": lambda x: x.split(2, 1)[1],
    "split by sizes": lambda x: x.split([1, 3, 2], 1)[1] * x.split([1, 3, 2], 1)[1],
    "int": lambda x: x[1], "negative": lambda x: x[-1, ..., -2], "slice": lambda x: x[:, 1:5:2, ::3],
    "None": lambda x: x[:, None, 2], "ellipsis": lambda x: x[..., 1:3], "nothing": lambda x: x[:, 3:3],
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_indexing(name):
    agree(SHAPES[name], SHAPES[name], np.random.default_rng(0).standard_normal((2, 6, 4)), what=name)


INDICES = [
    (np.array([0, 2, 2, 1]),), (slice(None), np.array([3, 0, 3])), (np.array([0, 1]), np.array([4, 4])),
    (np.array([[0, 1], [2, 0]]), slice(1, 3)), (slice(None), np.array([1, 2]), np.array([0, 3])),
    (np.array([0, 1]), slice(None), np.array([0, 3])), (np.array([-1, 0]),), (Ellipsis, np.array([2])),
]


@pytest.mark.parametrize("number", range(len(INDICES)))
def test_integer_array_indexing(number):
    index = INDICES[number]
    x = np.random.default_rng(0).standard_normal((3, 5, 4))

    def of(lib):
        return tuple(lib(i) if isinstance(i, np.ndarray) else i for i in index)

    agree(lambda x: x[of(mg.tensor)], lambda x: x[of(torch.tensor)], x, what=str(index))


def test_cat_and_stack():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3)), rng.standard_normal((2, 4))
    agree(lambda a, b: ops.cat([a, b, a], 1), lambda a, b: torch.cat([a, b, a], 1), a, b)
    agree(lambda a, b: ops.stack([a, b[:, :3]], 1), lambda a, b: torch.stack([a, b[:, :3]], 1), a, b)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(1, 2), (1, 0, 2, 1), (0, 0, 3, 0), (2, 2, 2, 2)], ids=str)
def test_pad(mode, padding):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5) if len(padding) == 4 else (2, 3, 5))
    value = {"value": 1.5} if mode == "constant" else {}
    agree(lambda x: F.pad(x, padding, mode, **value), lambda x: T.pad(x, padding, mode, **value), x)


@pytest.mark.parametrize(("training", "running"), [(True, True), (True, False), (False, True)])
def test_batch_norm_function(training, running):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((4, 3, 2)), rng.standard_normal(3), rng.standard_normal(3)
    mean, var = rng.standard_normal(3), rng.random(3) + 0.5
    ours = [mg.tensor(mean), mg.tensor(var)] if running else [None, None]
    theirs = [torch.tensor(mean), torch.tensor(var)] if running else [None, None]
    agree(lambda x, w, b: F.batch_norm(x, *ours, w, b, training, 0.2, 1e-3),
          lambda x, w, b: T.batch_norm(x, *theirs, w, b, training, 0.2, 1e-3), x, weight, bias)
    if running:
        close(ours[0], theirs[0], "running_mean")
        close(ours[1], theirs[1], "running_var")


SHOULD_RAISE = {
    "broadcast": (lambda m: m.zeros(2, 3) + m.zeros(2, 4)),
    "matmul": (lambda m: m.zeros(2, 3) @ m.zeros(2, 3)),
    "reshape": (lambda m: m.zeros(2, 3).reshape(4)),
    "index": (lambda m: m.zeros(2, 3)[2]),
    "indices": (lambda m: m.zeros(2, 3)[0, 0, 0]),
    "dimension": (lambda m: m.zeros(2, 3).sum(2)),
    "twice": (lambda m: m.zeros(2, 3).sum((0, 0))),
    "expand": (lambda m: m.zeros(2, 3).expand(2, 4)),
    "permute": (lambda m: m.zeros(2, 3).permute(0, 0)),
    "item": (lambda m: m.zeros(2, 3).item()),
    "empty maximum": (lambda m: m.zeros(0).max()),
    "squeeze": (lambda m: m.zeros(2, 3).unsqueeze(5)),
    "scalar backward": (lambda m: (m.zeros(2, requires_grad=True) * 2).backward()),
    "no graph": (lambda m: m.zeros(()).backward()),
    "leaf in place": (lambda m: m.zeros(2, requires_grad=True).add_(1)),
}


@pytest.mark.parametrize("name", SHOULD_RAISE)
def test_both_raise(name):
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)):
        SHOULD_RAISE[name](torch)
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)) as error:
        SHOULD_RAISE[name](mg)
    assert ": " in str(error.value), "the sentence should begin with the op"


def test_second_backward_raises_in_both():
    for lib in (mg, torch):
        x = lib.ones(2, requires_grad=True)
        y = (x * x).sum()
        y.backward()
        with pytest.raises(RuntimeError):
            y.backward()


def test_change_in_place_of_something_saved_raises_in_both():
    for lib in (mg, torch):
        x = lib.ones(2, requires_grad=True)
        w = lib.ones(2)
        y = (x * w).sum()
        w.add_(1.0)
        with pytest.raises(RuntimeError):
            y.backward()
