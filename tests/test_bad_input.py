"""Bad input gives one sentence that names the op, what it expected and what it got; and changes nothing."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import ops

f, i = mg.zeros, (lambda *shape: mg.zeros(*shape, dtype="int64"))
img, flt = f(1, 3, 8, 8), f(4, 3, 3, 3)
T, V, X, R = TypeError, ValueError, IndexError, RuntimeError
double = f(2, 3, dtype="float64")

# call, error, then words that the message must hold, in order
SHAPES = [
    (lambda: f(2, 3) + f(4), V, "add", "(2, 3)", "(4,)", "broadcast"),
    (lambda: f(2, 3) * f(2), V, "mul", "(2, 3)", "(2,)"),
    (lambda: ops.maximum(f(2), f(3)), V, "maximum", "(2,)", "(3,)"),
    (lambda: f(2) == f(3), V, "compare", "(2,)", "(3,)"),
    (lambda: ops.where(f(2).bool(), f(3), 0.0), V, "where", "(2,)", "(3,)"),
    (lambda: f(2, 3) @ f(2, 3), V, "matmul", "match", "(2, 3)", "(2, 3)"),
    (lambda: f(()) @ f(3), V, "matmul", "at least one dimension", "()"),
    (lambda: f(2, 3, 4) @ f(3, 4, 5), V, "matmul", "(2,)", "(3,)"),
    (lambda: ops.linear(f(2, 3), f(5, 4)), V, "linear", "expects 4 input features", "got 3", "(2, 3)"),
    (lambda: ops.linear(f(2, 3), f(5, 3), f(4)), V, "linear", "bias of shape (5,)", "got (4,)"),
    (lambda: ops.linear(f(2, 3), f(3)), V, "linear"),
    (lambda: f(2, 3).reshape(4), V, "reshape", "6 elements", "(2, 3)", "(4,)"),
    (lambda: f(2, 3).reshape(-1, -1), V, "reshape"),
    (lambda: f(0, 3).reshape(0, -1), V, "reshape"),
    (lambda: f(2, 3).reshape(-2, -3), V, "reshape"),
    (lambda: f(2, 3).expand(3, 3), V, "expand", "(2, 3)", "(3, 3)"),
    (lambda: f(2, 3).expand(3), V, "expand", "(2, 3)", "(3,)"),
    (lambda: f(2, 3).permute(0, 0), V, "permute", "each of the 2 dimensions once", "got (0, 0)"),
    (lambda: f(2).norm(3), V, "vector_norm", "1, 2 or math.inf, got 3"),
    (lambda: f(2, 0).norm(np.inf, 1), V, "vector_norm", "at least one element", "(2, 0) over dim 1"),
    (lambda: i(2).norm(), T, "vector_norm", "float32 or float64, got int64"),
    (lambda: f(6).unflatten(0, (4, -1)), V, "unflatten", "extent 6 of dim 0", "(4, -1)"),
    (lambda: f(6).unflatten(0, (-2, -3)), V, "unflatten", "(-2, -3)"),
    (lambda: f(6).unflatten(0, (2, 2)), V, "unflatten", "(2, 2)"),
    (lambda: ops.group_norm(f(2, 6), 4), V, "group_norm", "(N, C, ...)", "(2, 6)", "num_groups 4"),
    (lambda: ops.group_norm(f(2, 6), 3, f(3)), V, "group_norm", "weight of shape (6,)", "got (3,)"),
    (lambda: ops.group_norm(f(2, 6), 3, f(6).double()), T, "group_norm", "weight", "float32", "float64"),
    (lambda: f(2).flip(1), X, "flip", "dimension 1 is out of range"),
    (lambda: f(2).flip(0, -1), V, "flip", "twice"),
    (lambda: f(2).tile(-1), V, "tile", "at least 0", "(-1,)"),
    (lambda: f(2, 2).repeat(2), V, "repeat", "each of the 2 dimensions", "(2,)"),
    (lambda: f(2, 2, 2).t(), V, "t:", "at most 2 dimensions", "(2, 2, 2)"),
    (lambda: mg.equal(f(2), 1.0), T, "equal", "Tensor, got float"),
    (lambda: ops.isnan(1.0), T, "isnan", "Tensor, got float"),
    (lambda: f(2).chunk(0), V, "chunk", "int >= 1, got 0"),
    (lambda: f().unbind(), V, "unbind", "at least one dimension"),
    (lambda: f(2).masked_fill(f(2), 0.0), T, "where", "dtype bool, got float32"),
    (lambda: ops.one_hot(f(2), 3), T, "one_hot", "dtype int64, got float32"),
    (lambda: ops.one_hot(mg.tensor([1]), 0), V, "one_hot", "num_classes as an int >= 1, got 0"),
    (lambda: f().flatten(0, 1), X, "flatten", "dimension 1 is out of range"),
    (lambda: f(2, 3).flatten(1, 0), V, "flatten", "start_dim <= end_dim", "got 1 and 0"),
    (lambda: ops.cat([f(2, 3), f(2, 4)]), V, "cat", "differ only in dimension 0", "(2, 3)", "(2, 4)"),
    (lambda: ops.cat([]), V, "cat", "at least one tensor", "got none"),
    (lambda: ops.cat([f(()), f(())]), V, "cat", "at least one dimension"),
    (lambda: ops.stack([f(2), f(3)]), V, "stack", "one shape", "(2,)", "(3,)"),
    (lambda: f(7).split([3, 3]), V, "split", "add up to 7", "got [3, 3]"),
    (lambda: f(7).split(0), V, "split", "positive", "got 0"),
    (lambda: f(()).split(1), V, "split", "at least one dimension"),
    (lambda: ops.pad(f(2), (1,)), V, "pad", "pairs", "got 1"),
    (lambda: ops.pad(f(2), (2, 0), mode="reflect"), V, "pad", "reflect padding of 2", "extent of 2"),
    (lambda: ops.pad(f(2, 2), (1, 1), mode="mirror"), V, "pad", "expected mode", "got 'mirror'"),
    (lambda: ops.embedding(i(2), f(3)), V, "embedding", "(num_embeddings, embedding_dim)", "got (3,)"),
    (lambda: ops.conv2d(f(1, 4, 8, 8), flt), V, "conv2d", "expects 3 input channels", "got 4", "(1, 4, 8, 8)"),
    (lambda: ops.conv2d(f(8, 8), flt), V, "conv2d", "(N, C, H, W)", "got (8, 8)"),
    (lambda: ops.conv2d(img, f(4, 3, 3)), V, "conv2d", "weight of shape (O, C / groups, KH, KW)", "got (4, 3, 3)"),
    (lambda: ops.conv2d(img, flt, f(3)), V, "conv2d", "bias of shape (4,)", "got (3,)"),
    (lambda: ops.conv2d(img, flt, groups=3), V, "conv2d", "groups to divide the 4 output channels", "got 3"),
    (lambda: ops.conv2d(img, flt, stride=0), V, "conv2d", "stride", ">= 1", "got 0"),
    (lambda: ops.conv2d(img, flt, padding=-1), V, "conv2d", "padding", ">= 0", "got -1"),
    (lambda: ops.conv2d(img, flt, dilation=(1, 2, 3)), V, "conv2d", "dilation", "got (1, 2, 3)"),
    (
        lambda: ops.conv2d(img, flt, dilation=4),
        V,
        "conv2d",
        "kernel of size (3, 3)",
        "larger than the padded input",
        "(1, 3, 8, 8)",
    ),
    (lambda: ops.conv2d(img, flt, padding="full"), V, "conv2d", "'same', 'valid'", "got 'full'"),
    (lambda: ops.conv2d(img, flt, stride=2, padding="same"), V, "conv2d", "stride 1", "got (2, 2)"),
    (lambda: ops.max_pool2d(f(8, 8), 2), V, "max_pool2d", "(N, C, H, W)", "got (8, 8)"),
    (lambda: ops.max_pool2d(img, 9), V, "max_pool2d", "kernel of 9", "larger than the padded input", "8"),
    (lambda: ops.max_pool2d(img, 2, padding=2), V, "max_pool2d", "at most half the kernel size 2", "got 2"),
    (lambda: ops.avg_pool2d(img, 0), V, "avg_pool2d", "kernel_size", ">= 1", "got 0"),
    (lambda: ops.avg_pool2d(img, 2, stride="x"), V, "avg_pool2d", "stride", "got 'x'"),
    (lambda: ops.adaptive_avg_pool2d(img, 0), V, "adaptive_avg_pool2d", "output_size", ">= 1"),
    (lambda: ops.adaptive_avg_pool2d(img, (1, 2, 3)), V, "adaptive_avg_pool2d", "output_size", "got (1, 2, 3)"),
    (lambda: ops.adaptive_avg_pool2d(f(1, 1, 0, 3), 1), V, "adaptive_avg_pool2d", "at least one pixel", "(1, 1, 0, 3)"),
    (lambda: ops.avg_pool2d(f(1, 4, 0), 2, 3, 1), V, "avg_pool2d", "at least one pixel", "(1, 4, 0)"),
    (lambda: ops.max_pool2d(f(1, 1, 4, 0), 2, 3, 1), V, "max_pool2d", "at least one pixel", "(1, 1, 4, 0)"),
    (lambda: ops.batch_norm(f(3), training=True), V, "batch_norm", "(N, C)", "got (3,)"),
    (lambda: ops.batch_norm(f(2, 3), f(2), f(2)), V, "batch_norm", "running_mean of shape (3,)", "got (2,)"),
    (lambda: ops.batch_norm(f(2, 3), weight=f(4), training=True), V, "batch_norm", "weight of shape (3,)", "got (4,)"),
    (lambda: ops.batch_norm(f(2, 3)), V, "batch_norm", "running_mean and running_var outside of training"),
    (lambda: ops.layer_norm(f(2, 3), 4), V, "layer_norm", "last extents are (4,)", "got shape (2, 3)"),
    (lambda: ops.layer_norm(f(3), (2, 3)), V, "layer_norm", "(2, 3)", "(3,)"),
    (lambda: ops.layer_norm(f(2, 3), 3, f(2)), V, "layer_norm", "weight of shape (3,)", "got (2,)"),
    (lambda: ops.cross_entropy(f(2, 3), i(3)), V, "cross_entropy", "class indices of shape (2,)", "got (3,)"),
    (
        lambda: ops.cross_entropy(f(2, 3), f(3, 2)),
        V,
        "cross_entropy",
        "probabilities of the input's shape (2, 3)",
        "got (3, 2)",
    ),
    (lambda: ops.cross_entropy(f(2, 3), i(2), f(4)), V, "cross_entropy", "weight of shape (3,)", "got (4,)"),
    (lambda: ops.nll_loss(f(()), i(2)), V, "nll_loss", "(N, C, ...)"),
    (lambda: ops.mse_loss(f(2, 3), f(2)), V, "mse_loss", "(2, 3)", "(2,)"),
    (lambda: ops.mse_loss(f(2, 1), f(2)), V, "mse_loss", "target of the input's shape (2, 1)", "got (2,)"),
    (lambda: ops.l1_loss(f(3), f(1)), V, "l1_loss", "(3,)", "(1,)"),
    (lambda: mg.zeros(2, -1), V, "zeros", "at least 0", "(2, -1)"),
    (lambda: mg.randn(-1), V, "randn", "at least 0", "(-1,)"),
    (lambda: mg.tensor([[1, 2], [3]]), V, "tensor", "rows of one length", "ragged"),
]
DIMENSIONS = [
    (lambda: f(2, 3).sum(2), X, "sum", "dimension 2 is out of range", "2 dimension(s)"),
    (lambda: f(2, 3).max(-3), X, "max", "dimension -3", "2 dimension(s)"),
    (lambda: f(2).softmax(1), X, "softmax", "dimension 1", "1 dimension(s)"),
    (lambda: f(2, 3).mean((0, 0)), V, "mean", "given twice", "(0, 0)"),
    (lambda: f(2, 3).sum("a"), T, "sum", "dimension as an int", "got str"),
    (lambda: f(2, 3).transpose(0, 2), X, "transpose", "dimension 2"),
    (lambda: f(2).unsqueeze(3), X, "unsqueeze", "dimension 3"),
    (lambda: f(0).max(), V, "max", "at least one element", "(0,)"),
    (lambda: f(0, 2).argmax(0), V, "argmax", "at least one element along dim 0", "(0, 2)"),
    (lambda: f(0).argmin(), V, "argmin", "at least one element", "(0,)"),
    (lambda: f(2, 3)[2], X, "getitem", "index 2 is out of range for dimension 0 of extent 2"),
    (lambda: f(2, 3)[0, 0, 0], X, "getitem", "too many indices: 3", "2 dimension(s)"),
    (lambda: f(2, 3)[..., ...], X, "getitem", "at most one ellipsis"),
    (lambda: f(2, 3)[[0, 5]], X, "getitem", "index 5 is out of range", "extent 2"),
    (lambda: f(2, 3)[np.array([True])], X, "getitem", "mask of shape (2,)", "got (1,)"),
    (lambda: f(2, 3)["a"], T, "getitem", "str"),
    (lambda: f(2, 3)[1.0], T, "getitem", "float"),
    (lambda: f(2, 3)[True], X, "getitem", "single bool"),
    (lambda: f()[f() > 0.0], X, "getitem", "single bool"),
    (lambda: f(2, 3)[f(2)], T, "getitem", "int64 or bool", "got float32"),
    (lambda: f(2, 3)[[[0], [0, 1]]], X, "getitem", "ragged"),
    (lambda: f(2, 3).__setitem__(5, 0.0), X, "setitem", "index 5"),
    (lambda: f(2, 3).__setitem__([0], 0.0), T, "setitem", "ints, slices or a mask", "array"),
    (lambda: f(2, 3).__setitem__(0, f(4)), V, "setitem", "(3,)", "got (4,)"),
    (lambda: f(2, 3).__setitem__(0, np.zeros(3)), T, "setitem", "a Tensor or a number", "got ndarray"),
    (lambda: f(2).copy_(f(3)), V, "copy_", "(2,)", "got (3,)"),
]
TYPES = [
    (lambda: ops.add(1.0, 2.0), T, "add", "tensors or numbers", "got float"),
    (lambda: f(2) + "a", T, "add", "tensors or numbers", "got str"),
    (lambda: f(2) * None, T, "mul", "got NoneType"),
    (lambda: f(2) - 1j, T, "sub", "got complex"),
    (lambda: ops.exp([1.0]), T, "exp", "input to be a Tensor", "got list"),
    (lambda: ops.relu(np.zeros(2)), T, "relu", "a Tensor", "got ndarray"),
    (lambda: ops.matmul(i(2, 2), f(2, 2)), T, "matmul", "first operand to be float32 or float64", "got int64"),
    (lambda: ops.mean(i(2)), T, "mean", "float32 or float64", "got int64"),
    (lambda: ops.linear(f(2, 3), double), T, "linear", "weight of the input's dtype float32", "got float64"),
    (lambda: ops.conv2d(img, flt.double()), T, "conv2d", "weight of the input's dtype float32", "got float64"),
    (lambda: ops.conv2d(img.long(), flt), T, "conv2d", "float32 or float64", "got int64"),
    (lambda: ops.conv2d(img, flt, [1.0] * 4), T, "conv2d", "bias", "Tensor", "got list"),
    (lambda: ops.batch_norm(f(2, 3), double[0], double[0]), T, "batch_norm", "running_mean", "float32", "got float64"),
    (lambda: ops.where(f(2), 1.0, 2.0), T, "where", "dtype bool", "got float32"),
    (lambda: ops.where(f(2).bool(), "a", 2.0), T, "where", "got str"),
    (lambda: ops.cat([f(2), i(2)]), T, "cat", "one dtype", "float32", "int64"),
    (lambda: ops.clip(f(2)), V, "clip", "min or max", "neither"),
    (lambda: ops.clip(f(2), f(2)), T, "clip", "numbers", "got Tensor"),
    (lambda: ops.embedding(f(2), f(3, 2)), T, "embedding", "int64", "got float32"),
    (lambda: ops.cross_entropy(f(2, 3), f(2).bool()), T, "cross_entropy", "int64", "got bool"),
    (lambda: ops.nll_loss(f(2, 3), f(2)), T, "nll_loss", "int64", "got float32"),
    (lambda: ops.cross_entropy(f(2, 3), i(2), [1.0, 1.0, 1.0]), T, "cross_entropy", "weight", "got list"),
    (lambda: ops.mse_loss(i(2), f(2)), T, "mse_loss", "float32 or float64", "got int64"),
    (lambda: ops.max_pool2d(i(1, 1, 4, 4), 2), T, "max_pool2d", "float32 or float64", "got int64"),
    (lambda: f(2).to("float16"), T, "dtype", "float32, float64, int64 or bool", "'float16'"),
    (lambda: mg.zeros(2, dtype="complex64"), T, "dtype", "'complex64'"),
    (lambda: mg.tensor("abc"), T, "tensor", "numbers or booleans"),
    (lambda: mg.tensor([None]), T, "tensor", "numbers or booleans"),
    (lambda: mg.tensor([1j]), T, "tensor", "complex"),
    (lambda: mg.tensor([1], requires_grad=True), T, "requires_grad_", "only float tensors", "int64"),
    (lambda: mg.from_numpy([1.0]), T, "from_numpy", "numpy.ndarray", "got list"),
    (lambda: mg.randn(2, dtype="int64"), T, "randn", "float32 or float64", "got int64"),
    (lambda: mg.zeros(1.5), T, "zeros", "shape as ints", "1.5"),
    (lambda: mg.full((2,), "a"), T, "full", "a number", "got str"),
    (lambda: f(2).fill_("a"), T, "copy_", "a Tensor or a number", "got str"),
    (lambda: mg.zeros(2).to("cpu", device="cuda"), T, "to", "expected one device", "got cpu and cuda"),
    (lambda: mg.zeros(2).to("int64", "float64"), T, "to", "expected one dtype", "got int64 and float64"),
    (lambda: mg.zeros(2, device="tpu"), V, "device", "expected 'cpu'", "got 'tpu'"),
    (lambda: f(2, requires_grad=True).sum().backward(1.0), T, "backward", "as a Tensor", "got float"),
    (lambda: f(2, requires_grad=True).backward(f(3)), V, "backward", "shape (2,)", "got (3,)"),
    (lambda: f(2, requires_grad=True).backward(double[0, :2]), V, "backward", "float32", "float64"),
    (
        lambda: mg.grad([f(2, requires_grad=True)], [f(2, requires_grad=True)], [f(2), f(2)]),
        V,
        "grad",
        "one gradient per output (1)",
        "got 2",
    ),
]
VALUES = [
    (lambda: ops.cross_entropy(f(2, 3), mg.tensor([0, 3])), V, "cross_entropy", "class indices from 0 to 2", "got 3"),
    (lambda: ops.cross_entropy(f(2, 3), mg.tensor([-1, 0])), V, "cross_entropy", "class indices from 0 to 2", "got -1"),
    (lambda: ops.nll_loss(f(2, 3), mg.tensor([0, 7])), V, "nll_loss", "class indices from 0 to 2", "got 7"),
    (lambda: ops.embedding(mg.tensor([0, 4]), f(4, 2)), X, "embedding", "indices from 0 to 3", "got 4"),
    (lambda: ops.embedding(mg.tensor([-1]), f(4, 2)), X, "embedding", "indices from 0 to 3", "got -1"),
    (lambda: ops.cross_entropy(f(0, 3), i(0)), V, "cross_entropy", "at least one element", "empty batch"),
    (lambda: ops.mse_loss(f(0, 3), f(0, 3)), V, "mse_loss", "at least one element", "(0, 3)", "empty batch"),
    (
        lambda: ops.batch_norm(f(1, 3), training=True),
        V,
        "batch_norm",
        "more than one value per channel in training",
        "(1, 3)",
    ),
    (
        lambda: ops.batch_norm(f(1, 3, 1, 1), training=True),
        V,
        "batch_norm",
        "more than one value per channel",
        "(1, 3, 1, 1)",
    ),
    (lambda: ops.batch_norm(f(0, 3), training=True), V, "batch_norm", "more than one value per channel", "(0, 3)"),
    (lambda: ops.dropout(f(2), 1.5), V, "dropout", "from 0 to 1", "got 1.5"),
    (lambda: ops.dropout(f(2), float("nan")), V, "dropout", "from 0 to 1", "got nan"),
    (
        lambda: ops.cross_entropy(f(2, 3), i(2), label_smoothing=2.0),
        V,
        "cross_entropy",
        "label_smoothing from 0 to 1",
        "got 2.0",
    ),
    (
        lambda: ops.cross_entropy(f(2, 3), i(2), reduction="avg"),
        V,
        "cross_entropy",
        "'mean', 'sum' or 'none'",
        "got 'avg'",
    ),
    (lambda: ops.mse_loss(f(2), f(2), "avg"), V, "mse_loss", "'mean', 'sum' or 'none'", "got 'avg'"),
    (lambda: ops.smooth_l1_loss(f(2), f(2), beta=-1.0), V, "smooth_l1_loss", "beta >= 0", "got -1.0"),
    (lambda: ops.huber_loss(f(2), f(2), delta=0.0), V, "huber_loss", "delta > 0", "got 0.0"),
    (lambda: ops.gelu(f(2), "sigmoid"), V, "gelu", "'none' or 'tanh'", "got 'sigmoid'"),
    (lambda: mg.arange(0, 3, 0), V, "arange", "step other than 0"),
    (lambda: f(2).backward(), R, "backward", "does not require grad"),
]


@pytest.mark.parametrize(
    "call, error, words",
    [pytest.param(c, e, w, id=f"{w[0]}-{k}") for k, (c, e, *w) in enumerate(SHAPES + DIMENSIONS + TYPES + VALUES)],
)
def test_message(call, error, words):
    """The right kind of error, in one sentence that holds the op, the expectation and what came, in that order."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error and "\n" not in message
    position = 0
    for word in words:
        position = message.find(word, position)
        assert position >= 0, f"{word!r} is missing in {message!r}"


def test_a_refused_call_changes_nothing():
    """Running statistics, the generator and the target of an assignment stay as they were."""
    mean, var = f(3), mg.ones(3)
    with pytest.raises(ValueError):
        ops.batch_norm(f(1, 3), mean, var, training=True)
    assert mean.tolist() == [0.0] * 3 and var.tolist() == [1.0] * 3 and mean.version == [0]
    generator = mg.Generator(1)
    before = generator.get_state()
    with pytest.raises(ValueError):
        ops.dropout(f(3), 2.0, generator=generator)
    assert (generator.get_state() == before).all()
    x = mg.ones(3)
    with pytest.raises(ValueError):
        x[:2] = f(3)
    assert x.tolist() == [1.0] * 3 and x.version == [0]


def test_empty_batch_passes_through_layers():
    """Everything but a mean takes an empty batch."""
    x, w = f(0, 3, 8, 8), mg.randn(4, 3, 3, 3, requires_grad=True)
    y = ops.max_pool2d(ops.relu(ops.conv2d(x, w, padding=1)), 2).flatten(1)
    loss = ops.cross_entropy(y, i(0), reduction="sum")
    loss.backward()
    assert y.shape == (0, 64) and loss.item() == 0.0 and not w.grad.numpy().any()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            (lambda x: x.detach(), [mg.ones(2, dtype="float64", requires_grad=True)]),
            "gradcheck: no output requires grad",
        ),
        ((lambda x: x.float() * 1.0, [mg.ones(2, dtype="float64", requires_grad=True)]), "expected float64 outputs"),
        ((ops.exp, [mg.ones(2, requires_grad=True)]), "gradcheck: expected input 0 to be float64, got float32"),
        ((ops.exp, [mg.ones(2, dtype="float64")]), "gradcheck: expected at least one input that requires grad"),
        (
            (lambda x: 1.0, [mg.ones(2, dtype="float64", requires_grad=True)]),
            "expected the function to return a Tensor",
        ),
        (
            (lambda x: ops.dropout(x, 0.5), [mg.ones(99, dtype="float64", requires_grad=True)]),
            "returns the same for the same inputs",
        ),
    ],
)
def test_gradcheck_messages(wrong, message):
    with pytest.raises((mg.testing.GradcheckError, TypeError, ValueError), match=message):
        mg.testing.gradcheck(*wrong)


class WrongSecond(mg.Function):
    """y = x^2 / 2 with the gradient of the second operand off by 1e-5."""

    def forward(self, a, b):
        return a * b

    def backward(self, grad):
        a, b = self.inputs
        return grad * b, grad * a * 1.00001


@pytest.mark.parametrize("elementwise", [False, True])
def test_gradcheck_finds_small_errors(elementwise):
    """An error in the fifth digit is found, and the input named."""
    inputs = [mg.randn(5, dtype="float64", requires_grad=True) for _ in range(2)]
    with pytest.raises(mg.testing.GradcheckError, match=r"input 1.* -?\d\.\d+.* -?\d\.\d+"):
        mg.testing.gradcheck(WrongSecond.apply, inputs, elementwise=elementwise)
    assert not mg.testing.gradcheck(WrongSecond.apply, inputs, raise_exception=False)
    assert mg.testing.gradcheck(lambda a: WrongSecond.apply(a, inputs[1].detach()), inputs[:1], elementwise=elementwise)


class DetachedGradient(mg.Function):
    """y = x^3 whose gradient is right, but forgets how it was computed."""

    def forward(self, x):
        return x * x * x

    def backward(self, grad):
        (x,) = self.inputs
        return (grad * (x * x * 3.0).detach(),)


def test_gradgradcheck_finds_what_gradcheck_cannot():
    x = mg.randn(5, dtype="float64", requires_grad=True)
    assert mg.testing.gradcheck(DetachedGradient.apply, x)
    with pytest.raises(mg.testing.GradcheckError, match="input 0"):
        mg.testing.gradgradcheck(DetachedGradient.apply, x)
    assert not mg.testing.gradgradcheck(DetachedGradient.apply, x, raise_exception=False)
