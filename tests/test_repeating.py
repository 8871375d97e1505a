"""A Sequential that repeats recorded passes gives the bits that its children give."""

import copy
import gc
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest
from repeats import NETS, OFTEN, bits, compiled, gradients, known, make, pair, repeated, same, warm

import minigrad as mg
from minigrad import layers as nn
from minigrad import optim, study
from minigrad.layers import repeating
from minigrad.recording import passes
from minigrad.study.page_recording import state_kept
from minigrad.testing import gradcheck, gradgradcheck

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
            found += gradients(model) + bits([x.grad])
            optimizer.step()
            found += bits(model.state_dict().values())
        model.eval()
        with mg.no_grad():
            found += bits(model(x) for x in xs)
        for x in xs:
            y = model(x)
            assert repeated(y) == repeats or x is not xs[-1]
            y.sum().backward()
            found += gradients(model) + bits([y, x.grad])
        found.append(mg.random.default_generator.get_state())
        results.append(found)
        if repeats:
            assert known(model) == 3  # of training, and of evaluation with and without a graph
            assert repeated(model.train()(x))
    same(*results)


def test_passes_do_not_share_memory():
    """Three forward passes before the first backward, and back in another order."""
    results = []
    for model, xs in pair("cnn"):
        ys = [model(x) for x in xs[5:8]]
        results.append([])
        for y in (ys[1], ys[2], ys[0]):
            (y * y).sum().backward()
            results[-1] += gradients(model)
        results[-1] += bits(ys)
    same(*results)


def test_in_the_middle_of_a_graph():
    """The input comes from other ops and is used beside; the gradient is kept and asked for again."""
    results = []
    for repeats in (True, False):
        model, xs = make("mlp", repeats=repeats)
        w = mg.tensor(np.linspace(0.5, 1.5, 12), mg.float32, requires_grad=True)
        found, were_repeated = [], 0
        for x in xs:
            h = x * w
            y = model(h)
            were_repeated += repeated(y)
            loss = (y * y).sum() + (h * h).mean()
            loss.backward(retain_graph=True)
            found += bits([w.grad])
            loss.backward()
            found += bits([w.grad]) + gradients(model)
        assert were_repeated == (len(xs) - OFTEN) * repeats
        results.append(found)
    same(*results)


def test_a_result_that_several_ops_use():
    """Twice through one Sequential, and its result used twice."""
    results = []
    for model, xs in pair([(4, 4), lambda: [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()]]):
        x = xs[0].requires_grad_()
        y = model(model(x))
        (y * y.exp()).sum().backward()
        results.append(gradients(model) + bits([x.grad, y]))
    same(*results)


@pytest.mark.parametrize("net", NETS)
def test_higher_derivatives_go_through_the_ops(net):
    model, xs = make(net, mg.float64)
    for module in model.modules():  # every call the same function
        module.p = 0.0
        module.momentum = 0.0
    xs = [x.requires_grad_() for x in xs]
    warm(model, xs)
    assert repeated(model(xs[0]))
    numbers = [p for p in model.parameters() if p.numel() < 40]
    assert gradcheck(lambda x, *_: model(x), [xs[0], *numbers])
    assert gradgradcheck(lambda x, *_: model(x), [xs[0], *numbers])
    found = []
    for fuse in (True, False):
        model.fuse = fuse
        y = model(xs[0])
        assert repeated(y) == fuse
        gs = mg.grad((y * y).sum(), [xs[0], *numbers], create_graph=True)
        found.append(bits(mg.grad(sum((g * g).sum() for g in gs), [xs[0], *numbers])))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * max(1.0, np.abs(b).max()))


def test_a_captured_step():
    """Captured steps record the launches of the children; also where they only go back."""
    results = []
    for model, xs in pair():
        @mg.capture
        def step(x, model=model):
            model.zero_grad()
            y = model(x)
            y.sum().backward()
            return y

        found = []
        for x in xs:
            found += bits([step(x)]) + gradients(model)
        for p in model.parameters():
            p.grad = None
        y = model(xs[0])
        assert repeated(y) == (known(model) > 0)

        @mg.capture
        def back(y=y):
            y.sum().backward(retain_graph=True)

        back()
        back()
        back()
        results.append(found + gradients(model))
    same(*results)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_begin_anew(duplicate):
    """What becomes of the one is nothing to the other."""
    model, xs = make()
    warm(model, xs)
    other = duplicate(model)
    assert known(other) == 0 and b"repeating" not in pickle.dumps(model)
    other[4] = nn.Linear(8, 5)
    assert other(xs[0]).shape == (6, 5) and repeated(model(xs[0]))
    warm(other, xs)
    assert repeated(other(xs[0])) and repeated(model(xs[0])) and other(xs[0]).shape == (6, 5)


def test_memory_that_is_shared():
    """An input that is a parameter, a gradient that is the result."""
    results = []
    for repeats in (True, False):
        model, _ = make([(4, 4), lambda: [nn.Linear(4, 4), nn.Sigmoid()]], repeats=repeats)
        found, x = [], mg.randn(4, 4)
        with mg.no_grad():
            found += bits(model(given) for given in [model[0].weight.detach()] * 2 * OFTEN + [x] * 2 * OFTEN)
        for given in (model[0].weight, x):
            for _ in range(3 * OFTEN):
                y = model(given)
                y.backward(y.detach())
                found += bits([y]) + gradients(model)
        for _ in range(OFTEN):
            y = model(x)
            y.backward(mg.ones(4, 4))
            found += bits([y]) + gradients(model)
        results.append(found)
    same(*results)


def test_a_gradient_that_is_always_the_result():
    """It can't be told from the result when it is recorded; that is given up soon, and not the forward passes."""
    model, xs = make([(3, 4), lambda: [nn.Linear(4, 4), nn.Sigmoid()]])
    for _ in range(5 * OFTEN):
        y = model(xs[0])
        y.backward(y.detach())
    kind = next(iter(model._passes._kinds.values()))
    assert kind.passes[0].taken.useless and not repeated(model(xs[0]))


def test_a_module_that_is_used_twice():
    """In training its uses are added up in the order of the walk, so it isn't repeated; in evaluation it is."""
    results = []
    for repeats in (True, False):
        shared = []

        def layers(shared=shared):
            shared.append(nn.Linear(4, 4))
            return [shared[0], nn.Tanh(), shared[0], nn.Tanh()]

        model, xs = make([(3, 4), layers], repeats=repeats)
        found = []
        for x in xs:
            (model(x).sum() + model(x).sum() + (model[0].weight ** 2).sum()).backward()
            found += gradients(model)
        with mg.no_grad():
            found += bits(model(x) for x in xs)
            assert known(model) == repeats
            model[2] = nn.Identity()
            found += bits(model(x) for x in xs)
        results.append(found)
    same(*results)


@pytest.mark.parametrize("loss", [
    lambda y, weight: y.sum() + (weight**2).sum(), lambda y, weight: (weight**2).sum() + y.sum(),
    lambda y, weight: (y * weight.sum()).sum(), lambda y, weight: y.sum() + weight.sum() + y.abs().sum(),
])  # fmt: skip
def test_a_weight_that_is_used_outside_too(loss):
    results = []
    for model, xs in pair():
        for retain_graph in (True, False):
            y = model(xs[0])
            loss(y, model[0].weight).backward(retain_graph=retain_graph)
        results.append(gradients(model))
    same(*results)


def test_parts_of_a_larger_array_as_inputs():
    (model, _), (other, _) = pair("cnn", grad=False)
    images = mg.randn(20, 2, 8, 8)
    for start in range(18):
        x = mg.from_numpy(images.numpy()[start : start + 3])
        y = model(x)
        assert repeated(y)
        same(bits([y]), bits([other(x)]))


def test_what_is_not_repeated():
    class Mine(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 2.0

    class Double(nn.Linear):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    image = mg.ones(1, 1, 4, 4)
    for layers in ([Mine()], [nn.Linear(3, 3), Mine()], [nn.Sequential(Double(3, 3))], [nn.Embedding(3, 2)], [],
                   [nn.Flatten()], [nn.Identity()], [nn.MaxPool2d([2, 2])]):  # fmt: skip
        model, calls = nn.Sequential(*layers), []
        x = {nn.Embedding: mg.tensor([[0, 1, 2]]), nn.MaxPool2d: image}.get(type(layers[0]) if layers else 0,
                                                                            mg.ones(1, 3))
        for _ in range(20):
            model(x)
        assert known(model) == 0 and len(calls) in (0, 20)


def test_a_pass_that_allocates_too_much(monkeypatch):
    monkeypatch.setattr(passes, "LARGEST", 100)
    model, xs = make()
    assert not repeated(warm(model, xs)(xs[0])) and known(model) == 0


def test_kernels_that_somebody_stands_in_for(monkeypatch):
    """Their calls are his to see, every time."""
    class StandIn:
        def __getattr__(self, name, kernels=mg.cpu.kernels):
            calls.append(name)
            kernel = getattr(kernels, name)
            return kernel if name.endswith("_workspace") else lambda *arguments: kernel(*arguments)

    model, xs = make([(3, 4), lambda: [nn.Linear(4, 4), nn.Tanh()]])
    calls = []
    monkeypatch.setattr(mg.cpu, "kernels", StandIn())
    for x in xs:
        model(x)
    assert calls.count("tanh") == len(xs) and known(model) == 0


def test_what_can_not_be_repeated_is_not_looked_at_in_every_call(monkeypatch):
    looked, look = [], repeating._may_be_repeated
    monkeypatch.setattr(repeating, "_may_be_repeated", lambda module: looked.append(1) or look(module))
    model = nn.Sequential(nn.Embedding(3, 2))
    for _ in range(16 * OFTEN):
        model(mg.tensor([0, 1]))
    assert len(looked) == 4  # after 3, 6, 12 and 24 more calls


def test_a_subclass_with_a_forward_of_its_own():
    class Residual(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + x

    class Named(nn.Sequential):
        def run(self, x):
            raise AssertionError

    results = []
    for often in (OFTEN, 10**6):
        repeating.OFTEN = often
        mg.manual_seed(0)
        inner = Residual({"run": nn.Linear(4, 4), "tanh": nn.Tanh()})
        model = nn.Sequential(inner, Named(nn.Linear(4, 2)))
        x = mg.ones(3, 4, requires_grad=True)
        found = []
        for _ in range(8):
            y = model(x)
            y.sum().backward()
            found += bits([y, x.grad]) + gradients(model)
        results.append(found)
        assert known(model) == 0 and known(model[0]) == known(model[1]) == (often == OFTEN)
    same(*results)


def test_nothing_is_kept_alive():
    """When the graph is gone, so are the input, the result, and the pass's memory; gradients are arrays of their own,
    and a model goes with its last reference."""
    model, xs = make("cnn")
    warm(model, xs)
    gc.disable()
    try:
        for go_back in (True, False):
            x = mg.from_numpy(np.ones((3, 2, 8, 8), np.float32))
            y = model(x)
            assert repeated(y)
            alive = [weakref.ref(array) for array in (x.data, y.data, y.fn.folded.memory)]
            if go_back:
                loss = y.sum()
                loss.backward()
                assert alive[2]() is None and alive[1]() is not None
                del loss
            del x, y
            assert [ref() for ref in alive] == [None] * 3
        assert all(p.grad.data.base is None for p in model.parameters())
        layer = nn.ReLU()
        other = warm(nn.Sequential(layer, nn.Linear(4, 2)), [mg.ones(3, 4, requires_grad=True)] * 4)
        h = mg.ones(3, 4, requires_grad=True) * 1.0
        y, array = other(h), weakref.ref(h.data)
        assert repeated(y)
        del h
        assert array() is None  # ReLU has saved its output alone
        replaced = [weakref.ref(model[0].weight.data), weakref.ref(model[4])]
        model[0].weight.data = model[0].weight.data.copy()
        model[4] = nn.Conv2d(4, 8, 3, groups=2)
        for _ in range(4):
            warm(model, xs)
        assert repeated(model(xs[0]))
        gc.collect()
        assert [ref() for ref in replaced] == [None, None]
        alive = weakref.ref(model), weakref.ref(other)
        del model, other, y
        assert [ref() for ref in alive] == [None, None]
    finally:
        gc.enable()


def test_threads_of_python():
    """Several threads go through one model at once, forward and back, while passes are being recorded, and look."""
    model, xs = make("cnn")
    other, _ = make("cnn", repeats=False)
    model.eval(), other.eval()
    xs = [x.requires_grad_() for x in xs]

    def results(model):
        found = []
        for x in xs:
            y = model(x)
            z = (y * y).sum()
            found += bits([y, *mg.grad(z, [x, *model.parameters()], retain_graph=True)])
            repr(y)
            found += bits(mg.grad(z, [x, *model.parameters()]))
            with mg.no_grad():
                found += bits([model(x)])
        return found

    wanted, wrong = results(other), []

    def work():
        for _ in range(6):
            wrong.extend([1 for a, b in zip(results(model), wanted, strict=True) if not np.array_equal(a, b)])

    at_once([work] * 4)
    assert not wrong and known(model) >= 2 and repeated(model(xs[0]))


def test_threads_that_look_while_others_walk():
    """A walk under way goes on with the node as it was when it began, whoever turns it into its ops meanwhile."""
    model, xs = make()
    warm(model, xs)
    wanted, wrong = None, []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # with 1e-6, and coverage tracing beside, the test takes minutes
    try:
        for _ in range(20):
            mg.manual_seed(0)
            y = model(xs[0])
            z = (y * y).sum()
            assert repeated(y)

            found = []

            def walk(z=z, found=found):
                found.append(bits(mg.grad(z, [*model.parameters()], retain_graph=True)))

            def look(y=y):
                study.graph(y)

            at_once([walk, walk, look, look])
            wanted = wanted or bits(mg.grad(z, [*model.parameters()]))
            wrong += [1 for each in found for a, b in zip(each, wanted, strict=True) if not np.array_equal(a, b)]
            assert len(found) == 2 and not repeated(y)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def at_once(functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_other_shapes_and_numbers_of_passes():
    """Every shape has its passes, of which some are kept; shapes that came to nothing make room for others."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    for round_number in range(6):
        model[1].p = 0.1 + round_number / 20
        for _ in range(OFTEN * 2**round_number + 1):
            y = model(mg.ones(2, 3))
        assert repeated(y)
    assert known(model) == repeating.MOST_PASSES
    for rows in range(100, 100 + 3 * repeating.MOST_KINDS):
        model(mg.ones(rows, 3))
    many = [mg.ones(rows, 3) for rows in range(50, 52 + repeating.MOST_KINDS)]
    for x in [mg.ones(1000, 3), *many] * OFTEN:  # more than there is room for, one of them oftener
        model(mg.ones(1000, 3))
        model(x)
    assert repeated(model(mg.ones(1000, 3)))
    for rows in range(3, 3 + 2 * repeating.MOST_KINDS):
        for _ in range(OFTEN + 1):
            y = model(mg.ones(rows, 3))
    assert not repeated(y) and len(model._passes._kinds) == repeating.MOST_KINDS
    model.double()
    for _ in range(OFTEN + 1):
        y = model(mg.ones(2, 3, dtype=mg.float64))
    assert repeated(y) and known(model) == 1


def test_the_page_of_a_step_leaves_the_model_as_it_was():
    """It sets attributes past the model."""
    model, xs = make("mlp")
    warm(model, xs)
    with mg.no_grad():
        warm(model.eval(), xs, grad=False)
        warm(model.train(), xs, grad=False)
        with state_kept(model):
            model.eval()
            model(xs[0])
        assert not np.array_equal(model(xs[0]).numpy(), model(xs[0]).numpy())  # dropout
