"""Whose arrays gradients are: what an op answered with is not added into, and not kept, while somebody else has it."""

import itertools
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from functions import functions

import minigrad as mg
import minigrad.functional as F
from minigrad.function import Function
from minigrad.ops.fused import LinearBatchNormAct
from minigrad.ops.matmul import Linear, product_of


def leaf(*numbers):
    return mg.tensor(list(numbers), "float64", requires_grad=True)


def values(x):
    return x.numpy().tolist()


class Held(Function):
    """y = a b, with a backward that hands out arrays that are still in use."""

    saves_output = True
    answer = "grad"

    def forward(self, a, b):
        return a * b

    def backward(self, grad):
        if self.answer == "grad":
            return grad.detach(), grad
        return (self.inputs[1], self.inputs[0]) if self.answer == "inputs" else (self.output.detach(), self.output)


@pytest.mark.parametrize("answer", ["grad", "inputs", "output"])
def test_borrowed_arrays_are_not_added_into(answer, monkeypatch):
    """A Function may answer with the gradient it got, an input or its output: the engine copies before it adds."""
    monkeypatch.setattr(Held, "answer", answer)
    a, b = leaf(2.0), leaf(3.0)
    y = Held.apply(a, b)
    before = values(a), values(b), values(y)
    total = a * 10.0 + b * 10.0 + y + a * 100.0 + b * 100.0
    total.sum().backward()
    assert (values(a), values(b), values(y)) == before
    expected = {"grad": (1.0, 1.0), "inputs": (3.0, 2.0), "output": (6.0, 6.0)}[answer]
    assert values(a.grad) == [110.0 + expected[0]] and values(b.grad) == [110.0 + expected[1]]
    assert a.grad.data is not b.data and b.grad.data is not a.data


class HeldOnce(Held):
    """The same with one of the arrays, so that only what else is in use tells that it is not new."""

    def backward(self, grad):
        answer = {"grad": grad, "inputs": self.inputs[1], "output": self.output.detach()}
        return answer[self.answer], None


@pytest.mark.parametrize("kind", [Held, HeldOnce])
@pytest.mark.parametrize("answer", ["grad", "inputs", "output"])
def test_borrowed_arrays_are_copied_for_leaves(answer, kind, monkeypatch):
    """The arrays are the very ones that the engine was given, no views made on the way."""
    monkeypatch.setattr(Held, "answer", answer)
    a, b, seed = [mg.tensor(v, "float64").clone() for v in ([2.0, 3.0], [4.0, 5.0], [1.0, 10.0])]
    assert all(x.data.base is None for x in (a, b, seed))
    y = kind.apply(a.requires_grad_(), b.requires_grad_())
    y.backward(seed)
    held = [x.data for x in (a, b, y, seed, a.grad, b.grad) if x is not None]
    assert not any(np.shares_memory(x, y) for x, y in itertools.combinations(held, 2))


def _normalised(x, gamma, beta, function=F.batch_norm, **options):
    return function(x, None, None, gamma, beta, training=True, **options)


# Of every Function that promises `answers_are_new`: one application, and the shapes of its inputs.
NEW_ANSWERS = {
    "Linear": (F.linear, (1, 3), (2, 3), (2,)),
    "Matmul": (product_of, (1, 3), (3, 1)),
    "_MatmulTransposed": (lambda a, b: product_of(a, b, 0, 1), (1, 3), (1, 3)),
    "_TransposedMatmul": (lambda a, b: product_of(a, b, 1, 0), (3, 1), (3, 1)),
    "_TransposedMatmulTransposed": (lambda a, b: product_of(a, b, 1, 1), (3, 1), (1, 3)),
    "BatchNorm": (_normalised, (4, 3), (3,), (3,)),
    "GhostBatchNorm": (partial(_normalised, ghost_batch_size=4), (4, 3), (3,), (3,)),
    "BatchNormAct": (partial(_normalised, function=F.batch_norm_act, activation="none"), (4, 3), (3,), (3,)),
    "GhostBatchNormAct": (partial(_normalised, function=F.batch_norm_act, ghost_batch_size=4), (4, 3), (3,), (3,)),
    "LinearBatchNormAct": (
        lambda *inputs: LinearBatchNormAct.apply(*inputs, running=None, eps=0.1, activation="none", slope=0.0),
        (4, 3), (2, 3), (2,), (2,), (2,)),
}  # fmt: skip


def test_every_promise_of_new_answers_is_tried():
    assert {cls.__name__ for cls in functions() if cls.answers_are_new} == set(NEW_ANSWERS)


def test_a_subclass_inherits_no_promise():
    """Whatever it answers with is left alone: here its own input."""

    class Odd(Linear):
        def backward(self, grad):
            return None, self.inputs[1], None

    x, weight = mg.randn(4, 3), mg.randn(2, 3, requires_grad=True)
    Odd.apply(x, weight, None).sum().backward()
    assert Linear.answers_are_new and not np.shares_memory(weight.grad.data, weight.data)


class Nothing(mg.Watcher):
    """Is told of everything, and does nothing."""


@pytest.mark.parametrize("watched", [False, True])
def test_leaves_get_their_gradients_by_any_way(watched):
    """At once, or in their turn (with a hook, a second use, somebody watching): the same, and each its own array."""
    generator = np.random.default_rng(0)
    x, w, b = [mg.tensor(generator.standard_normal(s), "float64", requires_grad=True) for s in ((4, 3), (2, 3), (2,))]
    w.register_hook(lambda grad: grad * 3.0)
    y = F.linear(x, w, b)
    with mg.watch(Nothing()) if watched else nullcontext():
        (y + F.linear(x, w.detach(), None)).sum().backward()
    ones = np.ones((4, 2))
    np.testing.assert_allclose(x.grad.numpy(), 2 * ones @ w.numpy(), rtol=1e-12)
    np.testing.assert_allclose(w.grad.numpy(), 3 * ones.T @ x.numpy(), rtol=1e-12)
    np.testing.assert_allclose(b.grad.numpy(), ones.sum(axis=0), rtol=1e-12)
    held = [t.data for t in (x, w, b, y, x.grad, w.grad, b.grad)]
    assert not any(np.shares_memory(p, q) for p, q in itertools.combinations(held, 2))


@pytest.mark.parametrize("name", NEW_ANSWERS)
def test_promised_new_answers_are_new(name):
    """What the engine adds to in place, and leaves keep as their gradient, is nobody else's."""
    function, *shapes = NEW_ANSWERS[name]
    inputs = [mg.randn(*shape, requires_grad=True) for shape in shapes]
    y = function(*inputs)
    assert type(y.fn).__name__ == name
    seed, kept = mg.randn(*y.shape), [v for v in vars(y.fn).values() if isinstance(v, np.ndarray)]
    with mg.no_grad():
        answers = [a.data for a in y.fn.backward(seed)]
    arrays = [*answers, seed.data, y.data, *kept, *[x.data for x in inputs]]
    assert len(answers) == len(inputs)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(answers) for b in arrays[i + 1 :])


def test_a_view_of_a_borrowed_array_is_copied_for_a_leaf():
    x, seed = leaf(1.0, 2.0), mg.tensor([[1.0], [10.0]], "float64")
    x.reshape(2, 1).backward(seed)
    assert values(x.grad) == [1.0, 10.0] and not np.shares_memory(x.grad.data, seed.data)
