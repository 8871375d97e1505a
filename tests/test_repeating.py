"""A Sequential that repeats recorded passes gives the bits that its children give."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from repeats import NETS, OFTEN, bits, compiled, make, repeated, same, warm

import minigrad as mg
from minigrad import layers as nn
from minigrad import optim
from minigrad.layers import repeating
from minigrad.testing import gradgradcheck

pytestmark = compiled


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(repeating, "OFTEN", OFTEN)


@pytest.mark.parametrize("dtype", [mg.float32, mg.float64], ids=str)
@pytest.mark.parametrize("wants_input", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_training_gives_the_same_bits(net, wants_input, dtype):
    """Outputs, all gradients, running statistics, parameters and random numbers; in evaluation too."""
    results = []
    for repeats in (True, False):
        model, xs = make(net, dtype, repeats)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        found = []
        for x in xs:
            x.requires_grad_(wants_input)
            optimizer.zero_grad()
            y = model(x)
            found.append(y.numpy().copy())
            (y * y).sum().backward()
            found += bits([p.grad for p in model.parameters()] + [x.grad] * wants_input)
            optimizer.step()
            found += bits(model.state_dict().values())
        model.eval()
        with mg.no_grad():
            found += [model(x).numpy().copy() for x in xs]
        found.append(mg.random.default_generator.get_state())
        results.append(found)
        if repeats:
            assert len(model._passes) == 2  # of training and of evaluation
            assert repeated(model.train()(x))
    same(*results)


def test_passes_do_not_share_memory():
    """Three forward passes before the first backward, and back in another order."""
    results = []
    for repeats in (True, False):
        model, xs = make("cnn", repeats=repeats)
        if repeats:
            warm(model, xs)
        else:
            for x in xs[: OFTEN + 1]:
                model(x)
        ys = [model(x) for x in xs[5:8]]
        assert all(map(repeated, ys)) or not repeats
        found = []
        for y in (ys[1], ys[2], ys[0]):
            (y * y).sum().backward()
            found += bits(p.grad for p in model.parameters())
        results.append(found + bits(ys))
    same(*results)


def test_in_the_middle_of_a_graph():
    """The input comes from other ops and is used beside; the gradient is kept and asked for again."""
    results = []
    for repeats in (True, False):
        model, xs = make("mlp", repeats=repeats)
        w = mg.tensor(np.linspace(0.5, 1.5, 12), mg.float32, requires_grad=True)
        found = []
        for x in xs:
            h = x * w
            y = model(h)
            assert repeated(y) == (repeats and x is xs[-1]) or x is not xs[-1]
            loss = (y * y).sum() + (h * h).mean()
            loss.backward(retain_graph=True)
            found += bits([w.grad])
            loss.backward()
            found += bits([w.grad, *[p.grad for p in model.parameters()]])
        results.append(found)
    same(*results)
    with pytest.raises(RuntimeError, match="graph behind .* was freed"):
        loss.backward()


def test_higher_derivatives_go_through_the_ops():
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).to(mg.float64)
    xs = [mg.randn(5, 3, dtype=mg.float64).requires_grad_() for _ in range(OFTEN + 1)]
    warm(model, xs)
    assert repeated(model(xs[0]))
    assert gradgradcheck(lambda x, *_: model(x), [xs[0], *model.parameters()])
    y = model(xs[0])
    (g,) = mg.grad((y * y).sum(), xs[0], create_graph=True)
    assert not repeated(y) and g.requires_grad
    other = copy.deepcopy(model)
    other.forward = other.run
    z = other(xs[0])
    (h,) = mg.grad((z * z).sum(), xs[0], create_graph=True)
    same(bits(mg.grad((g * g).sum(), [xs[0], *model.parameters()], allow_unused=True)),
         bits(mg.grad((h * h).sum(), [xs[0], *other.parameters()], allow_unused=True)))


def test_a_captured_step():
    """Captured steps record the launches of the children; also where they only go back."""
    results = []
    for repeats in (True, False):
        model, xs = make(repeats=repeats)
        for x in xs[: OFTEN + 1]:
            model(x).sum().backward()

        @mg.capture
        def step(x, model=model):
            model.zero_grad()
            y = model(x)
            y.sum().backward()
            return y

        found = []
        for x in xs:
            found += bits([step(x), *[p.grad for p in model.parameters()]])
        y = model(xs[0])
        assert repeated(y) == repeats

        @mg.capture
        def back(y=y):
            y.sum().backward(retain_graph=True)

        back()
        back()
        results.append(found + bits(p.grad for p in model.parameters()))
    same(*results)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_begin_anew(duplicate):
    """What becomes of the one is nothing to the other."""
    model, xs = make()
    warm(model, xs)
    other = duplicate(model)
    other[4] = nn.Linear(8, 5)
    assert other(xs[0]).shape == (6, 5) and repeated(model(xs[0]))
    warm(other, xs)
    assert repeated(other(xs[0])) and repeated(model(xs[0])) and other(xs[0]).shape == (6, 5)


def test_memory_that_is_shared():
    """An input that is a parameter, a gradient that is the result, one parameter used twice."""
    results = []
    for repeats in (True, False):
        mg.manual_seed(1)
        shared = nn.Linear(4, 4)
        model = nn.Sequential(shared, nn.Sigmoid(), shared, nn.Sigmoid())
        if not repeats:
            model.forward = model.run
        found = []
        for _ in range(2 * OFTEN):
            y = model(shared.weight)
            y.backward(y.detach())
            found += bits([y, *[p.grad for p in model.parameters()]])
        x = mg.randn(4, 4)
        for _ in range(2 * OFTEN):
            y = model(x)
            y.backward(y.detach())
            found += bits([y, *[p.grad for p in model.parameters()]])
        for _ in range(OFTEN):
            y = model(x)
            y.backward(mg.ones(4, 4))
            found += bits([y, *[p.grad for p in model.parameters()]])
        y = model(x)
        assert repeated(y) == repeats
        results.append(found)
    same(*results)


def test_parts_of_a_larger_array_as_inputs():
    model, _ = make("cnn")
    other = make("cnn", repeats=False)[0]
    images = mg.randn(20, 2, 8, 8)
    for start in range(18):
        x = mg.from_numpy(images.numpy()[start : start + 3])
        same(bits([model(x)]), bits([other(x)]))
    assert repeated(model(x))


def test_a_gradient_of_another_dtype():
    """A Function that answers with float64 for a float32 input: what the children make of it."""
    class Wide(mg.Function):
        def forward(self, x):
            return x.copy()

        def backward(self, grad):
            return grad.to(mg.float64)

    outcomes = []
    for repeats in (True, False):
        model, xs = make("activations", repeats=repeats)
        outcome = []
        for x in xs[:6]:
            try:
                Wide.apply(model(x)).sum().backward()
                outcome.append(bits(p.grad for p in model.parameters()))
            except Exception as error:
                outcome.append((type(error), str(error)))
        outcomes.append(outcome)
    for found, wanted in zip(*outcomes, strict=True):
        same(found, wanted) if isinstance(wanted, list) else None
        assert isinstance(wanted, list) or found == wanted


def test_nothing_is_kept_alive():
    """When the graph is gone, so are the input, the result, and the pass's memory."""
    model, xs = make("cnn")
    warm(model, xs)
    for go_back in (True, False):
        x = mg.from_numpy(np.ones((3, 2, 8, 8), np.float32))
        y = model(x)
        assert repeated(y)
        alive = [weakref.ref(array) for array in (x.data, y.data, y.fn.memory)]
        if go_back:
            loss = y.sum()
            loss.backward()
            assert alive[2]() is None and alive[1]() is not None
            del loss
        del x, y
        gc.collect()
        assert [ref() for ref in alive] == [None] * 3


def test_threads_of_python():
    """Several threads repeat the passes of one model at once."""
    model, xs = make("cnn")
    model.eval()
    with mg.no_grad():
        wanted = bits(model(x) for x in xs)
    wrong = []

    def work():
        with mg.no_grad():
            for _ in range(30):
                for x, y in zip(xs, wanted, strict=True):
                    if not np.array_equal(model(x).numpy(), y):
                        wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(model._passes) >= 1


def test_other_shapes_and_numbers_of_passes():
    """Every shape has its passes, of which some are kept; too many shapes run without."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    for round_number in range(8):
        model[1].p = 0.1 + round_number / 20
        for _ in range(OFTEN * 2**round_number + 1):
            y = model(mg.ones(2, 3))
        assert repeated(y)
    assert len(model._passes) == repeating.MOST_PASSES
    for rows in range(3, 3 + 2 * repeating.MOST_KINDS):
        for _ in range(OFTEN + 1):
            y = model(mg.ones(rows, 3))
    assert not repeated(y)
    assert len(model._passes) == repeating.MOST_PASSES + repeating.MOST_KINDS - 1
