"""The costs of kernels against loops and formulas that count what they do."""

import itertools

import numpy as np
import pytest

from minigrad.kernels import cpu
from minigrad.study import costs

KERNELS = [name for name in cpu.__all__ if not name.endswith("_workspace")]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_has_one_cost(kernel):
    tables = costs.PER_OUTPUT, costs.PER_INPUT, costs.FORMULAS, *costs.NOTHING.values()
    assert sum(kernel in table for table in tables) == 1
    if kernel in costs.PER_OUTPUT:
        assert "out" in costs.parameters(kernel)
    if kernel in costs.PER_INPUT:  # it is counted by its first argument, which has to be an array
        assert costs.parameters(kernel)[0] not in ("eps", "value")


def test_costs_are_of_kernels():
    for table in (costs.PER_OUTPUT, costs.PER_INPUT, costs.FORMULAS, costs.CHANGED_IN_PLACE, costs.TOUCHED_IN_PART,
                  *costs.NOTHING.values()):
        assert set(table) <= set(KERNELS)
    for kernel, names in costs.CHANGED_IN_PLACE.items():
        assert set(names) <= set(costs.parameters(kernel))
    assert costs.operations("somebody_elses", (np.ones(3),)) is None
    assert costs.traffic("somebody_elses", (np.ones(3), 2)) == 24


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_matmul_counted_by_a_loop(flags):
    m, k, n = 2, 3, 4
    a = np.zeros((k, m) if flags[0] else (m, k), np.float32)
    b = np.zeros((n, k) if flags[1] else (k, n), np.float32)
    out = np.zeros((m, n), np.float32)
    counted = sum(2 for _ in itertools.product(range(m), range(n), range(k)))
    assert costs.operations("matmul", (a, b, out, out, *flags)) == counted
    assert costs.traffic("matmul", (a, b, out, out, *flags)) == 4 * (m * k + k * n + m * n)


def test_linear_and_convolutions_counted_by_loops():
    x, w, bias = np.zeros((2, 3), "f"), np.zeros((4, 3), "f"), np.zeros(4, "f")
    out = np.zeros((2, 4), "f")
    assert costs.operations("linear_forward", (x, w, bias, out, out)) == 2 * 4 * (2 * 3 + 1)
    assert costs.operations("linear_forward", (x, w, bias[:0], out, out)) == 2 * 4 * 2 * 3
    images, kernels, result = np.zeros((2, 4, 5, 5), "f"), np.zeros((6, 2, 3, 3), "f"), np.zeros((2, 6, 3, 3), "f")
    geometry = 1, 1, 0, 0, 1, 1, 2
    taps = sum(2 for _ in itertools.product(range(2), range(6), range(3), range(3), range(2), range(3), range(3)))
    none = np.zeros(0, "f")
    assert costs.operations("conv2d_forward", (images, kernels, none, result, none, *geometry)) == taps
    assert costs.operations("conv2d_forward", (images, kernels, np.zeros(6, "f"), result, none, *geometry)) == \
        taps + result.size
    assert costs.operations("conv2d_grad_input", (result, kernels, images, none, *geometry)) == taps
    assert costs.operations("conv2d_grad_weight", (result, images, kernels, none, none, *geometry)) == taps
    pooled = np.zeros((2, 4, 2, 2), "f")
    indices = np.zeros((2, 4, 2, 2), np.int64)
    assert costs.operations("max_pool2d_forward", (images, pooled, indices, 2, 2, 2, 2, 0, 0, 1, 1)) == pooled.size * 4


class Counted:
    """A number that counts what is done with it; what is done with plain numbers beforehand is not counted."""

    count = 0

    def done(self, *_):
        Counted.count += 1
        return self

    __neg__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = done


def f(*numbers):
    """exp, log, erf, tanh, sqrt, or a comparison."""
    return next(n for n in numbers if isinstance(n, Counted)).done()


def total(numbers):
    """A sum of n counts as n."""
    return [n.done() for n in numbers][-1]


def logistic(x):
    return 1 / (1 + f(-x))


FORMULAS = {
    "sigmoid": logistic,
    "silu": lambda x: x * logistic(x),
    "silu_grad": lambda x, grad: (lambda s: grad * s * (1 + x * (1 - s)))(logistic(x)),
    "sigmoid_grad": lambda y, grad: grad * y * (1 - y),
    "tanh": f,
    "tanh_grad": lambda y, grad: grad * (1 - y * y),
    "gelu": lambda x: x * (0.5 * (1 + f(x * 0.7))),
    "gelu_grad": lambda x, grad: grad * (0.5 * (1 + f(x * 0.7)) + x * (f(-0.5 * x * x) / 2.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + f(0.8 * (x + 0.04 * (x * x * x)))),
    "gelu_tanh_grad": lambda x, grad: (lambda t: grad * 0.5 * (1 + t + x * (1 - t * t) * (0.8 * (1 + 0.13 * x * x))))(
        f(0.8 * (x + 0.04 * (x * x * x)))),
    "softplus": lambda x: f(beta * x) and f(1 + f(x)) / beta,
    "softplus_grad": lambda x, grad: f(beta * x) and grad * logistic(x),
    "clip": lambda x: f(f(x)),
    "clip_grad": lambda x, grad: f(f(x)),
    "leaky_relu": lambda x: f(x) * 0.1,
    "leaky_relu_grad": lambda x, grad: f(x) and grad * 0.1,
    "relu": f,
    "relu_grad": lambda y, grad: f(y),
    "dropout_backward": lambda grad, mask: grad * 2.0,
    "add": lambda a, b: a + b,
    "div": lambda a, b: a / b,
}  # fmt: skip
beta = 2.0


def counted(formula, *numbers):
    Counted.count = 0
    formula(*numbers)
    return Counted.count


@pytest.mark.parametrize("kernel", FORMULAS)
def test_elementwise_kernels_counted_on_their_formula(kernel):
    arrays = FORMULAS[kernel].__code__.co_argcount or 1
    per_element = counted(FORMULAS[kernel], *[Counted() for _ in range(arrays)])
    x = np.zeros(7, "f")
    rest = [1.0] * (len(costs.parameters(kernel)) - arrays - 1)
    assert costs.operations(kernel, (*[x] * (arrays + 1), *rest)) == 7 * per_element


def softmax(x):
    e = [f(v - 0.0) for v in x]  # x - max
    t = total(e)
    return [f(v) for v in x], [v / t for v in e]  # finding the maximum: a comparison each


def batch_norm(x, weight, bias, active=lambda v: v, pool=False):
    """One channel whose mean and 1 / std are known, as the kernel's caller hands them in."""
    mean = std = 1.0
    y = [(v - mean) / std for v in x]
    y = [v * weight for v in y] if weight else y
    y = [v + bias for v in y] if bias else y
    y = [active(v) for v in y]
    return [f(v) for v in y] if pool else y


def statistics(x):
    total(x)
    total([(v - 1.0) * 1.0 for v in x])  # (v - mean)²


def batch_norm_gradients(x):
    normalised = [(v - 1.0) * 1.0 for v in x]
    total(x)
    total([g * n for g, n in zip(x, normalised, strict=True)])
    return [1.0 * (g - 1.0 - n * 1.0) for g, n in zip(x, normalised, strict=True)]


def layer_norm(x, weight, bias):
    statistics(x)
    return batch_norm(x, weight, bias)


def layer_norm_gradients(x, weight):
    normalised = [(v - 1.0) * 1.0 for v in x]
    for v in x:  # by weight and bias: sums over rows
        v * 1.0 + 1.0
    total(x)
    g = [v * weight for v in x] if weight else x
    total(g)
    total([a * n for a, n in zip(g, normalised, strict=True)])
    return [1.0 * (a - 1.0 - n * 1.0) for a, n in zip(g, normalised, strict=True)]


def sgd(g, p, momentum, nesterov):
    g = g + 0.1 * p
    if momentum:
        b = 0.9 * p + 0.1 * g
        g = g + 0.9 * b if nesterov else b
    return p - 0.1 * g


def adam(p, g, decoupled, largest):
    if decoupled:
        p = p * 0.9
    else:
        g = g + 0.1 * p
    m, v = 0.9 * p + 0.1 * g, 0.9 * p + 0.1 * g * g
    v = f(v) if largest else v  # max
    return p - 0.1 * m / (f(v) / 0.3 + 1e-8)


def test_rows_and_channels_counted_on_their_formulas():
    n, none = 5, np.zeros(0, "f")
    numbers, one = [Counted() for _ in range(n)], np.zeros(1, "f")
    row, image = np.zeros((1, n), "f"), np.zeros((n, 1, 1, 1), "f")
    x = np.zeros((1, n, 1), "f")
    assert costs.operations("softmax", (x, x)) == counted(softmax, numbers) and costs.traffic("softmax", (x, x)) == 40
    assert costs.operations("batch_norm_statistics", (image, one, one)) == counted(statistics, numbers)
    for w, b in itertools.product((one, none), repeat=2):
        for (act, active), pool in itertools.product([(0, f), (2, logistic), (4, FORMULAS["silu"])], (0, 1)):
            assert costs.operations("batch_norm_forward", (image, one, one, w, b, image, 1e-5, act, 0.1, pool)) == \
                counted(batch_norm, numbers, w.size, b.size, active, pool)
        assert costs.operations("batch_norm_forward", (image, one, one, w, b, image, 1e-5, 1, 1.0, 0)) == \
            counted(batch_norm, numbers, w.size, b.size)
        gradients = (image, one, one, w, b, image, image, one, one, 1e-5)
        assert costs.operations("batch_norm_backward", (*gradients, 1, 1.0, 0)) == \
            counted(batch_norm_gradients, numbers)
        sizes = w.size + b.size
        assert costs.operations("batch_norm_backward", (*gradients, 2, 0.0, 1)) == \
            counted(batch_norm_gradients, numbers) + n * (sizes + counted(logistic, Counted()) + 3 + 1)
        assert costs.operations("layer_norm_forward", (row, w, b, row, one, one, 1e-5)) == \
            counted(layer_norm, numbers, w.size, b.size)
        assert costs.operations("layer_norm_backward", (row, one, one, w, row, row, one, one)) == \
            counted(layer_norm_gradients, numbers, w.size)
    flat, p, g = row.ravel(), Counted(), Counted()
    for momentum, nesterov in ((0, 0), (1, 0), (1, 1)):
        buffer = flat if momentum else none
        assert costs.operations("sgd", (flat, flat, buffer, one, nesterov, 0, 0)) == n * counted(sgd, p, g, momentum,
                                                                                             nesterov)
    for decoupled, largest in itertools.product((0, 1), repeat=2):
        most = flat if largest else none
        assert costs.operations("adam", (flat, flat, flat, flat, most, one, one, decoupled, 0)) == \
            n * counted(adam, p, g, decoupled, largest)


def test_losses_counted_by_hand():
    # per logit a comparison, a difference, exp and a sum; per row log and two sums, and the sum over rows
    logits, target, one, none = np.zeros((2, 3, 1), "f"), np.zeros((2, 1), np.int64), np.zeros(1, "f"), np.zeros(0, "f")
    outputs = one, target, one, target
    assert costs.operations("cross_entropy_forward", (logits, target, none, *outputs, 0.0, -100, 2)) == 4 * 6 + 4 * 2
    assert costs.operations("cross_entropy_forward", (logits, target, one, *outputs, 0.1, -100, 0)) == 6 * 6 + 4 * 2
    backward = logits, target, target, none, one, one, logits, 0.0, -100
    assert costs.operations("cross_entropy_backward", backward) == 4 * 6
    assert costs.operations("nll_loss_forward", (logits, target, none, target, -100)) == 2


def test_windows_counted_by_loops():
    x, pooled = np.zeros((2, 3, 5, 7), "f"), np.zeros((2, 3, 2, 3), "f")
    taps = 0
    for i, j in np.ndindex(2, 3):  # windows from floor to ceil
        taps += 6 * len(range(i * 5 // 2, -(-(i + 1) * 5 // 2))) * len(range(j * 7 // 3, -(-(j + 1) * 7 // 3)))
    assert costs.operations("adaptive_avg_pool2d_forward", (x, pooled)) == taps
    assert costs.operations("adaptive_avg_pool2d_backward", (pooled, x)) == taps + pooled.size
    assert costs.operations("avg_pool2d_forward", (x, pooled, 2, 2, 2, 2, 0, 0, 1)) == pooled.size * 4
    assert costs.operations("avg_pool2d_backward", (pooled, x, 2, 2, 2, 2, 0, 0, 1)) == pooled.size * 5


def test_parts_of_arrays():
    table, rows, picked = np.zeros((100, 4), "f"), np.zeros(3, np.int64), np.zeros((3, 4), "f")
    assert costs.traffic("take", (table, rows, picked)) == 2 * 3 * 4 * 4 + 3 * 8
    flat, part = np.zeros(100, "f"), np.zeros((1, 1, 1, 2, 5), "f")
    assert costs.traffic("strided_copy", (flat, part, 0, 0, 0, 0, 10, 1)) == 2 * 40
    assert costs.traffic("strided_copy", (flat[:2], part, 0, 0, 0, 0, 1, 0)) == 8 + 40  # broadcast
    assert costs.traffic("strided_scatter", (part, flat, 0, 0, 0, 0, 10, 1)) == 2 * 40
    assert costs.traffic("max_pool2d_gather", (flat, rows, picked)) == 2 * 48 + 24


def test_what_is_changed_in_place_counts_twice():
    x = np.zeros(10, "f")
    assert costs.traffic("fused_add", (x, x.copy())) == 3 * 40
