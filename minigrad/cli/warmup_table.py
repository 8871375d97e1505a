"""What ``minigrad warmup`` runs: every op forward and backward, every optimizer, and steps of whole nets.

A kernel is compiled per type of its arguments, not per size, so the arrays are tiny. Both forms of the elementwise
kernels appear: arrays of one shape, and broadcast ones.
"""

from functools import partial

import minigrad as mg
from minigrad import functional as F
from minigrad import layers as nn
from minigrad.cli.models import MODELS

ACTIVATIONS = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "sigmoid": F.sigmoid, "tanh": F.tanh, "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"), "silu": F.silu, "softplus": F.softplus,
    "softmax": partial(F.softmax, dim=1), "log_softmax": partial(F.log_softmax, dim=1),
}
UNARY = {
    "neg": lambda x: -x, "abs": abs, "exp": lambda x: x.exp(), "log": lambda x: x.log(), "sqrt": lambda x: x.sqrt(),
    "sin": lambda x: x.sin(), "cos": lambda x: x.cos(),
    "sign": lambda x: x.sign(), "pow": lambda x: x ** 3, "clip": lambda x: x.clip(0.2, 0.8),
    "clone": lambda x: x.clone(), "permute": lambda x: x.transpose(0, 1), "slice": lambda x: x[1:, ::2],
    "take": lambda x: x[mg.tensor([0, 1, 1])], "pad": lambda x: F.pad(x, (1, 1)), "cat": lambda x: mg.ops.cat([x, x]),
    "expand": lambda x: x[:, :1].expand(-1, 5),
}
REDUCTIONS = {
    "sum": lambda x: x.sum(1), "mean": lambda x: x.mean(0), "var": lambda x: x.var(1), "max": lambda x: x.max(1),
    "min": lambda x: x.min(1), "logsumexp": lambda x: x.logsumexp(1),
}
BINARY = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "pow of tensors": lambda a, b: a ** b, "maximum": lambda a, b: a.maximum(b), "minimum": lambda a, b: a.minimum(b),
    "where": lambda a, b: mg.ops.where(a > b, a, b),
}
COMPARISONS = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}
IMAGE_OPS = {
    "max_pool2d": lambda x: F.max_pool2d(x, 2), "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "dropout": lambda x: F.dropout(x, 0.5, training=True),
}
OPTIMIZERS = {
    "SGD": lambda p: mg.optim.SGD(p, lr=0.1), "SGD, momentum": lambda p: mg.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: mg.optim.Adam(p), "Adam, amsgrad": lambda p: mg.optim.Adam(p, amsgrad=True),
    "AdamW": lambda p: mg.optim.AdamW(p),
}


def rows(dtypes=("float32",)):
    """The table: a list of (name, function without arguments).

    Parameters
    ----------
    dtypes : sequence of str
        ``"float32"``, ``"float64"`` or both.
    """
    table = []
    for name in dtypes:
        dtype = getattr(mg, name)
        table += [(f"{op} {name}", partial(work, dtype)) for op, work in _work().items()]
    return table


def _work():
    """Name to a function of the dtype."""
    work = {"random numbers": lambda dtype: (mg.rand(3, dtype=dtype), mg.randn(3, dtype=dtype))}
    for table in (UNARY, ACTIVATIONS, REDUCTIONS):
        work |= {name: partial(_one, op) for name, op in table.items()}
    work |= {name: partial(_two, op) for name, op in BINARY.items()}
    work |= {name: partial(_compare, op) for name, op in COMPARISONS.items()}
    work |= {"argmax, casts and logic": _indices}
    work |= {name: partial(_on_images, op) for name, op in IMAGE_OPS.items()}
    work |= {"matmul": _matmul, "conv2d": _conv2d, "normalization": _normalization, "embedding": _embedding,
             "losses": _losses, "second derivatives": _second_derivatives}
    work |= {name: partial(_optimizer, make) for name, make in OPTIMIZERS.items()}
    work |= {"clip_grad_norm_": _clip}
    for name, make in MODELS.items():
        work[f"a step of the {name}"] = partial(_step, make)
    return work


def _leaf(dtype, *shape):
    """Values between 0.25 and 0.75: no op has a pole or a kink that stops a backward there."""
    return (mg.rand(*shape, dtype=dtype) * 0.5 + 0.25).detach().requires_grad_()


def _backward(out):
    if out.requires_grad:
        (out * out).sum().backward()


def _one(op, dtype):
    _backward(op(_leaf(dtype, 4, 6)))


def _two(op, dtype):
    for shapes in (((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 3, 4), (2, 1, 4))):
        _backward(op(*(_leaf(dtype, *shape) for shape in shapes)))
    _backward(op(_leaf(dtype, 3, 4), 0.5))


def _compare(op, dtype):
    a, b = _leaf(dtype, 3, 4), _leaf(dtype, 4)
    op(a, a), op(a, b), op(a, 0.5)
    whole = mg.arange(3)
    op(whole, whole), op(whole, 1)


def _indices(dtype):
    x = _leaf(dtype, 3, 4)
    x.argmax(1), x.argmin(1), (x.max() > 0.5).any(), (x > 0.5).all()
    mask = x > 0.5
    mask & mask, mask | mask, ~mask
    labels = mg.arange(4)
    labels + labels, labels - labels, labels * labels, -labels, labels.sum(), labels.max(), labels.min()
    for target in (mg.float32, mg.float64, mg.int64, mg.bool):
        x.to(target), labels.to(target), mask.to(target)


def _on_images(op, dtype):
    _backward(op(_leaf(dtype, 2, 3, 4, 4)))


def _second_derivatives(dtype):
    x = _leaf(dtype, 2, 3, 4, 4)
    out = F.max_pool2d(x, 2)
    (grad,) = mg.grad((out * out).sum(), x, create_graph=True)
    _backward(grad)


def _matmul(dtype):
    for a, b in (((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5))):
        _backward(_leaf(dtype, *a) @ _leaf(dtype, *b))
    _backward(F.linear(_leaf(dtype, 3, 4), _leaf(dtype, 5, 4), _leaf(dtype, 5)))
    _backward(F.linear(_leaf(dtype, 3, 4), _leaf(dtype, 5, 4)))


def _conv2d(dtype):
    x = _leaf(dtype, 2, 4, 7, 7)
    for channels, settings in ((4, {"padding": 1}), (4, {"stride": 2}), (2, {"groups": 2}), (4, {"dilation": 2})):
        _backward(F.conv2d(x, _leaf(dtype, 6, channels, 3, 3), _leaf(dtype, 6), **settings))
        _backward(F.conv2d(x, _leaf(dtype, 6, channels, 3, 3), **settings))


def _normalization(dtype):
    for module, shape in ((nn.BatchNorm1d(4), (5, 4)), (nn.BatchNorm2d(4), (2, 4, 3, 3)), (nn.LayerNorm(4), (5, 4))):
        module.to(dtype)
        _backward(module(_leaf(dtype, *shape)))
        module.eval()
        _backward(module(_leaf(dtype, *shape)))


def _embedding(dtype):
    _backward(F.embedding(mg.tensor([[0, 1], [1, 2]]), _leaf(dtype, 3, 4)))


def _losses(dtype):
    x, labels = (lambda: _leaf(dtype, 5, 4)), mg.tensor([0, 1, 2, 3, 0])
    F.cross_entropy(x(), labels).backward()
    F.cross_entropy(x(), labels, weight=mg.ones(4, dtype=dtype), label_smoothing=0.1).backward()
    F.cross_entropy(x(), F.softmax(x(), dim=1).detach()).backward()
    F.cross_entropy(_leaf(dtype, 5, 4, 2), mg.tensor([[0, 1]] * 5)).backward()
    F.nll_loss(F.log_softmax(x(), dim=1), labels).backward()
    bounds = mg.tensor([0, 1])
    bounds.device.kernels.widen_range(bounds.data, bounds.data)  # for labels that are checked later
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy_with_logits):
        loss(x(), x().detach()).backward()


def _optimizer(make, dtype):
    parameter = _leaf(dtype, 4)
    optimizer = make([parameter])
    for _ in range(2):
        optimizer.zero_grad()
        _backward(parameter)
        optimizer.step()


def _clip(dtype):
    parameter = _leaf(dtype, 4)
    _backward(parameter)
    mg.optim.clip_grad_norm_([parameter], 0.1)


def _step(make, dtype):
    model = make((1, 8, 8), 10).to(dtype)
    optimizer = mg.optim.Adam(model.parameters())
    images, labels = mg.randn(4, 1, 8, 8, dtype=dtype), mg.tensor([0, 1, 2, 3])
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    model.eval()
    with mg.no_grad():
        model(images).argmax(1).numpy()
