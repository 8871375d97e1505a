"""A Sequential that repeats recorded passes notices whatever changes, and whoever looks."""

import numpy as np
import pytest
from repeats import OFTEN, bits, compiled, make, repeated, same, warm

import minigrad as mg
from minigrad import layers as nn
from minigrad import study
from minigrad.layers import repeating

pytestmark = compiled


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(repeating, "OFTEN", OFTEN)


def test_changes_in_place_are_noticed():
    model, xs = make()
    warm(model, xs)
    for change in (lambda: model[0].weight, lambda: model[1].bias, lambda: xs[5]):
        y = model(xs[5])
        assert repeated(y)
        with mg.no_grad():
            change().mul_(1.0)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.sum().backward()
    y = model(xs[5])
    with mg.no_grad():
        y.mul_(0.0)  # nobody has saved what the last linear layer gives
    y.sum().backward()

    model, xs = make("ghosts")  # begins with batch normalization, which saves x, and ends with an activation fused
    model.append(nn.Sigmoid())
    warm(model, xs)
    y = model(xs[5])
    assert repeated(y)
    with mg.no_grad():
        y.mul_(0.0)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()

    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
    xs = [mg.randn(3, 4).requires_grad_() for _ in range(OFTEN + 1)]
    warm(model, xs)
    x = xs[0] * 1.0
    y = model(x)
    assert repeated(y)
    with mg.no_grad():
        x.mul_(0.0)  # ReLU saves its output
    y.sum().backward()


SETTINGS = {
    "momentum": lambda m: setattr(m[1], "momentum", 0.5),
    "p": lambda m: setattr(m[3], "p", 0.0),
    "eval": lambda m: m.eval(),
    "frozen statistics": lambda m: m[1].freeze(),
    "frozen parameter": lambda m: m[0].weight.requires_grad_(False),
    "another layer": lambda m: m.__setitem__(2, nn.Tanh()),
    "one more": lambda m: m.append(nn.ReLU()),
    "one less": lambda m: m.__delitem__(3),
    "another array": lambda m: setattr(m[4].weight, "data", m[4].weight.data * 2),
    "another parameter": lambda m: setattr(m[4], "bias", nn.Parameter(mg.ones(4))),
    "unfused": lambda m: setattr(m, "fuse", False),
    "own forward": lambda m: setattr(m[2], "forward", lambda x: x * 2.0),
    "hook": lambda m: m[0].register_forward_hook(lambda module, args, y: y * 2.0),
    "other settings of a hidden kind": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_noticed(name):
    """Whatever is changed between two calls, the next one does what the children would do; and so on later."""
    results = []
    for repeats in (True, False):
        model, xs = make(repeats=repeats)
        found = []
        for number, x in enumerate(xs * 2):
            if number == len(xs):
                assert repeated(model(x)) == repeats
                SETTINGS[name](model)
            y = model(x)
            model.zero_grad()
            (y * y).sum().backward()
            found += bits([y, *[p.grad for p in model.parameters() if p.grad is not None]])
        results.append(found)
    same(*results)


def test_a_class_whose_forward_is_replaced(monkeypatch):
    model, xs = make()
    warm(model, xs)
    calls, forward = [], nn.Sigmoid.forward
    monkeypatch.setattr(nn.Sigmoid, "forward", lambda self, x: calls.append(1) or forward(self, x))
    model.eval()  # without fused runs
    for x in xs:
        model(x)
    assert len(calls) == len(xs)


def test_hooks_on_tensors():
    """A hook of a parameter, or of the result, is called once a pass, with the gradient; its answer counts."""
    model, xs = make()
    warm(model, xs)
    seen = []
    handle = model[4].bias.register_hook(lambda g: seen.append(g.numpy().copy()) or g * 2.0)
    y = model(xs[0])
    assert repeated(y)
    y.register_hook(lambda g: g * 3.0)
    y.sum().backward()
    np.testing.assert_array_equal(seen, [np.full(4, 18.0, np.float32)])
    np.testing.assert_array_equal(model[4].bias.grad.numpy(), np.full(4, 36.0, np.float32))
    handle.remove()


def test_who_looks_sees_the_ops():
    """Graph, explanation and text of a repeated pass are those of one that was not."""
    results = []
    for repeats in (True, False):
        model, xs = make("cnn", repeats=repeats)
        for x in xs[: OFTEN + 1]:
            model(x).sum().backward()
        texts = []
        for look in (lambda loss, m: study.graph(loss, model=m).to_dot(), lambda loss, m: str(study.explain(loss, m)),
                     lambda loss, m: repr(loss)):
            y = model(xs[5])
            assert repeated(y) == repeats
            loss = (y * y).sum()
            texts += [look(loss, model), look(loss, model), repr(y)]
            loss.backward()
            texts.append(bits(p.grad for p in model.parameters()))
            model.zero_grad()
        results.append(texts)
    for found, wanted in zip(*results, strict=True):
        same(found, wanted) if isinstance(found, list) else None
        assert isinstance(found, list) or found == wanted


def test_watchers_and_decompositions_go_without():
    model, xs = make("cnn")
    warm(model, xs)
    with mg.detect_anomaly():
        assert not repeated(model(xs[0]))
    with study.decompose():
        assert not repeated(model(xs[0]))
    y = model(xs[0])
    with mg.detect_anomaly():
        y.sum().backward()
    assert repeated(model(xs[0]))


def test_what_is_not_repeated():
    class Mine(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 2.0

    class Double(nn.Linear):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    for layers in ([Mine()], [nn.Linear(3, 3), Mine()], [nn.Sequential(Double(3, 3))], [nn.Embedding(3, 2)], [],
                   [nn.Flatten()], [nn.Identity()]):  # fmt: skip
        model, calls = nn.Sequential(*layers), []
        x = mg.tensor([[0, 1, 2]]) if layers and isinstance(layers[0], nn.Embedding) else mg.ones(1, 3)
        for _ in range(20):
            model(x)
        assert len(model._passes) == 0 and len(calls) in (0, 20)


def test_a_subclass_with_a_forward_of_its_own():
    class Residual(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + x

    results = []
    for often in (OFTEN, 10**6):
        repeating.OFTEN = often
        mg.manual_seed(0)
        model = nn.Sequential(Residual(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2))
        x = mg.ones(3, 4, requires_grad=True)
        found = []
        for _ in range(8):
            y = model(x)
            y.sum().backward()
            found += bits([y, x.grad, *[p.grad for p in model.parameters()]])
        results.append(found)
        assert len(model._passes) == 0 and len(model[0]._passes) == (often == OFTEN)
    same(*results)


def test_errors_are_those_of_the_layers():
    model, xs = make()
    warm(model, xs)
    for _ in range(3 * OFTEN):
        with pytest.raises(ValueError, match=r"Linear: expected an input of shape \(..., 12\), got \(6, 5\)"):
            model(mg.ones(6, 5))
    with pytest.raises(TypeError, match="Linear: expected a Tensor, got ndarray"):
        model(np.ones((6, 12), np.float32))
    assert repeated(model(xs[0]))
