"""Watchers: what they are told of a step, and that nobody is told anything outside of the block."""

import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.function import Function, apply_multiple
from minigrad.tensor import Tensor


class Diary(mg.Watcher):
    """Writes down what it is told."""

    def __init__(self):
        self.ops, self.nodes, self.modules = [], [], []

    def computed(self, fn, inputs, results):
        self.ops.append((fn.name, len(inputs), [r.shape for r in results]))

    def answered(self, node, grad, answers):
        copies = None if answers is None else [None if a is None else a.tolist() for a in answers]
        self.nodes.append(("leaf" if isinstance(node, Tensor) else node.name, grad, copies))

    def passed(self, node):
        self.nodes.append(("passed", node.name, None))

    def entered(self, modules):
        self.modules.append(("in", [type(m).__name__ for m in modules]))

    def left(self, modules):
        self.modules.append(("out", [type(m).__name__ for m in modules]))


def test_ops_are_told_in_order_and_only_inside():
    diary, x = Diary(), mg.tensor([1.0, 2.0], requires_grad=True)
    x + x
    with mg.watch(diary):
        (x * x).exp().sum()
        with mg.no_grad():
            x + 1.0
    x + x
    assert diary.ops == [("mul", 2, [(2,)]), ("exp", 1, [(2,)]), ("sum", 1, [()]), ("add", 2, [(2,)])]


def test_the_walk_back_is_told_in_its_order():
    diary, x = Diary(), mg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    with mg.watch(diary):
        y.backward()
    assert [name for name, _, _ in diary.nodes] == ["sum", "passed", "mul", "passed", "leaf"]
    _, grad, answers = diary.nodes[2]
    assert grad.shape == (2,) and answers == [[1.0, 2.0], [1.0, 2.0]]
    assert diary.nodes[4][1].tolist() == [2.0, 4.0] and diary.nodes[4][2] is None
    assert diary.ops == []  # what a backward computes inside is its own affair


def test_several_results():
    class Both(Function):
        """x and 2 x"""

        def forward(self, x):
            return x + 0, x * 2

        def backward(self, a, b):
            return (b * 2.0 if a is None else a + b * 2.0,)

    diary, x = Diary(), mg.tensor([1.0], requires_grad=True)
    with mg.watch(diary):
        first, second = apply_multiple(Both, x)
        second.sum().backward()
    assert diary.ops == [("both", 1, [(1,), (1,)]), ("sum", 1, [()])]
    node = next(n for n in diary.nodes if n[0] == "both")
    assert node[1][0] is None and node[1][1].tolist() == [1.0]


def test_modules_are_entered_and_left_also_fused_and_on_errors():
    model, diary = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()), Diary()
    with mg.watch(diary):
        model(mg.ones(2, 2, 2))
        with pytest.raises(ValueError, match="Linear"):
            model(mg.ones(2, 5))
    inside = [("in", ["Flatten"]), ("out", ["Flatten"]), ("in", ["Linear", "BatchNorm1d", "ReLU"]),
              ("out", ["Linear", "BatchNorm1d", "ReLU"])]
    assert diary.modules[:6] == [("in", ["Sequential"]), *inside, ("out", ["Sequential"])]
    assert diary.modules[-1] == ("out", ["Sequential"])


def test_a_watched_captured_step_is_run():
    diary, x = Diary(), mg.tensor([1.0, 2.0])
    step = mg.capture(lambda x: x + x)
    step(x), step(x)
    with mg.watch(diary):
        step(x)
    assert [name for name, _, _ in diary.ops] == ["add"]


def test_watchers_add_up_with_the_search_for_nan():
    diary, x = Diary(), mg.tensor([-1.0], requires_grad=True)
    with mg.detect_anomaly(), mg.watch(diary), pytest.raises(FloatingPointError, match="forward of log produced NaN"):
        (x + 0.0).log()
    assert [name for name, _, _ in diary.ops] == ["add"]


def test_watch_is_a_decorator():
    diary = Diary()

    @mg.watch(diary)
    def step(x):
        return x + x

    step(mg.ones(2)), step(mg.ones(2))
    assert len(diary.ops) == 2


class Careless(Function):
    """y = x, which answers with NaN for an input that wants no gradient"""

    def forward(self, x, constant):
        return x + 0

    def backward(self, grad):
        return grad, grad * float("nan")


def test_what_nobody_wants_is_not_told():
    diary, x = Diary(), mg.tensor([1.0], requires_grad=True)
    y = Careless.apply(x, mg.tensor([2.0]))
    with mg.watch(diary):
        y.backward()
    assert diary.nodes[0][2] == [[1.0], None]


def test_nan_that_nobody_wants_is_no_anomaly():
    x, z = mg.tensor([1.0], requires_grad=True), mg.tensor([2.0], requires_grad=True)
    with mg.detect_anomaly():
        Careless.apply(x, mg.tensor([2.0])).backward()
        (gradient,) = mg.grad(Careless.apply(x, z), [x])  # z's share is not asked for
    assert x.grad.tolist() == gradient.tolist() == [1.0]
    with mg.detect_anomaly(), pytest.raises(FloatingPointError, match="backward of careless produced NaN"):
        Careless.apply(x, z).backward()
