"""A Sequential that repeats recorded passes notices whatever changes, and whoever looks."""

import copy

import numpy as np
import pytest
from repeats import OFTEN, bits, compiled, gradients, known, make, outcome, pair, repeated, same, warm

import minigrad as mg
from minigrad import layers as nn
from minigrad import modes, study
from minigrad.layers import repeating

pytestmark = compiled
CNN = (3, 2, 8, 8), lambda: [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)]
FLAT = (3, 2, 4), lambda: [nn.Flatten(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 4)]
FROZEN = (3, 4), lambda: [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4).requires_grad_(False), nn.Sigmoid()]
LEAKY = (3, 4), lambda: [nn.LeakyReLU(0.3), nn.Dropout(0.0), nn.Linear(4, 4)]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(repeating, "OFTEN", OFTEN)


def in_place(tensor):
    with mg.no_grad():
        tensor.mul_(2.0)


# (net, what happens between forward and backward)
BETWEEN = {
    "first weight": (CNN, lambda m, x, y: in_place(m[0].weight)),
    "gamma": (CNN, lambda m, x, y: in_place(m[1].weight)),
    "running mean": (CNN, lambda m, x, y: in_place(m[1].running_mean)),
    "last bias": (CNN, lambda m, x, y: in_place(m[4].bias)),
    "input": (CNN, lambda m, x, y: in_place(x)),
    "result": (CNN, lambda m, x, y: in_place(y)),
    "input of a view": (FLAT, lambda m, x, y: in_place(x)),
    "frozen weight": (FROZEN, lambda m, x, y: in_place(m[2].weight)),
    "result that is saved": (FROZEN, lambda m, x, y: in_place(y)),
    "input that is not saved": (LEAKY, lambda m, x, y: in_place(x)),
    "another forward": (CNN, lambda m, x, y: m(x)),
    "another array": (CNN, lambda m, x, y: setattr(m[4].weight, "data", m[4].weight.data * 2)),
    "another input": (CNN, lambda m, x, y: setattr(x, "data", x.data * 2)),
    "input of another shape": (FROZEN, lambda m, x, y: setattr(x, "data", x.data[:2].copy())),
    "frozen": (CNN, lambda m, x, y: m[4].weight.requires_grad_(False)),
    "frozen input": (CNN, lambda m, x, y: x.requires_grad_(False)),
    "another layer": (CNN, lambda m, x, y: m.__setitem__(2, nn.Tanh())),
    "another dtype": (CNN, lambda m, x, y: m.double()),
}
BACK = {
    "backward": lambda m, x, y: y.sum().backward(),
    "of a part": lambda m, x, y: str(bits(mg.grad(y.sum(), m[-1].bias if hasattr(m[-1], "bias") else m[0].bias))),
    "after a look": lambda m, x, y: [repr(y), y.sum().backward()][:1],
    "anomalies": lambda m, x, y: mg.detect_anomaly()(lambda: y.sum().backward())(),
    "to be differentiated": lambda m, x, y: mg.grad(y.sum(), m[0].parameters() if list(m[0].parameters()) else [x],
                                                    create_graph=True, allow_unused=True) and None,
    "twice": lambda m, x, y: [y.sum().backward(), y.sum().backward()],
}


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
def test_between_forward_and_backward(between, evaluating):
    """Gradients, or the error, are those without: whatever is changed, and whichever way back is taken."""
    net, change = BETWEEN[between]
    for way in BACK.values():
        for learned in (True, False):
            results = []
            for repeats in (True, False):
                model, xs = make(net, repeats=repeats)
                model.train(not evaluating)
                xs = [x.requires_grad_() for x in xs]
                warm(model, xs, grad=learned)
                y = model(xs[0])
                assert repeated(y) == repeats
                change(model, xs[0], y)
                results.append([outcome(lambda m=model, x=xs[0], y=y, way=way: way(m, x, y)), str(gradients(model)),
                                str(bits([xs[0].grad])), repr(y), outcome(lambda y=y: y.sum().backward())])
            assert results[0] == results[1]


HOOKS = {
    "a look": lambda m, y: repr(y),
    "a graph": lambda m, y: study.graph(y) and None,
    "another array": lambda m, y: setattr(m[4].weight, "data", m[4].weight.data * 3),
    "in place": lambda m, y: in_place(m[4].weight),
    "a walk": lambda m, y: mg.grad(y.sum(), m[0].weight, create_graph=True) and None,
}


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("where", ["result", "behind"])
def test_in_a_hook(name, where):
    """What a hook does while the walk is under way."""
    results = []
    for model, xs in pair(CNN):
        y = model(xs[0])
        z = y * 2.0
        (y if where == "result" else z).register_hook(lambda g, m=model, y=y: HOOKS[name](m, y) and None)
        results.append([outcome(lambda z=z: z.sum().backward()), str(gradients(model)), repr(y)])
    assert results[0] == results[1]


def test_a_result_is_copied_with_its_graph():
    results = []
    for model, xs in pair(CNN):
        y = model(xs[0])
        assert repr(y.fn) == "<linear>"
        other = copy.deepcopy(y)
        other.sum().backward()
        y.sum().backward()
        results.append([repr(other), str(gradients(model))])
    assert results[0] == results[1]


SETTINGS = {
    "momentum": lambda m: setattr(m[1], "momentum", 0.5),
    "p": lambda m: setattr(m[3], "p", 0.0),
    "evaluation": lambda m: m.eval(),
    "frozen statistics": lambda m: m[1].freeze(),
    "frozen parameter": lambda m: m[0].weight.requires_grad_(False),
    "another layer": lambda m: m.__setitem__(2, nn.Tanh()),
    "one more": lambda m: m.append(nn.ReLU()),
    "one less": lambda m: m.__delitem__(3),
    "an attribute less": lambda m: delattr(m, "3"),
    "another array": lambda m: setattr(m[4].weight, "data", m[4].weight.data * 2),
    "another parameter": lambda m: setattr(m[4], "bias", nn.Parameter(mg.ones(4))),
    "unfused": lambda m: setattr(m, "fuse", False),
    "own forward": lambda m: setattr(m[2], "forward", lambda x: x * 2.0),
    "hook": lambda m: m[0].register_forward_hook(lambda module, args, y: y * 2.0),
    "loaded values": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_noticed(name):
    """Whatever is changed between two calls, the next one does what the children would do; and so on later."""
    results = []
    for model, xs in pair():
        found = []
        for x in [None, *xs * 2]:
            if x is None:
                SETTINGS[name](model)
                continue
            y = model(x)
            model.zero_grad()
            (y * y).sum().backward()
            found += bits([y]) + gradients(model)
        results.append(found)
    same(*results)


def test_a_setting_that_changes_while_a_pass_is_recorded():
    """By another thread, say: the recording is of neither."""
    model, xs = make(LEAKY)
    for x in xs[: OFTEN - 1]:
        model(x)
    run = model._run

    def meanwhile(x):
        y = run(x)
        model[0].negative_slope = 0.9
        return y

    model._run = meanwhile
    model(xs[0])
    assert known(model) == 0
    del model._run
    np.testing.assert_array_equal(model(xs[0]).numpy(), run(xs[0]).numpy())


def test_a_parameter_that_changes_while_a_pass_is_recorded():
    """By another thread, say: later passes don't change it."""
    model, xs = make(LEAKY)
    for x in xs[: OFTEN - 1]:
        model(x).sum().backward()
    model._run = lambda x: (in_place(model[2].bias), nn.Sequential._run(model, x))[1]
    model(xs[0])
    del model._run
    a, b = model(xs[0]), model(xs[1])
    assert repeated(a)
    model.zero_grad()
    (a + b).sum().backward()
    np.testing.assert_array_equal(model[2].bias.grad.numpy(), np.full(4, 6.0, np.float32))


def test_statistics_are_changed_in_place():
    """Whoever has saved them is told."""
    for model, xs in pair(CNN):
        w = mg.ones(4, requires_grad=True)
        z = (w * model[1].running_mean).sum()
        model(xs[0])
        with pytest.raises(RuntimeError, match="mul saved for its gradient was changed in place"):
            z.backward()


def test_a_class_whose_forward_is_replaced(monkeypatch):
    model, xs = make()
    warm(model.eval(), xs)  # without fused runs
    calls, forward = [], nn.Sigmoid.forward
    monkeypatch.setattr(nn.Sigmoid, "forward", lambda self, x: calls.append(1) or forward(self, x))
    for x in xs:
        model(x)
    assert len(calls) == len(xs)


def test_a_class_with_another_mode(monkeypatch):
    model, xs = make()
    warm(model, xs)
    monkeypatch.setattr(nn.Dropout, "training", False)
    a, b = model(xs[0]), model(xs[0])
    assert np.array_equal(a.numpy(), b.numpy())


def test_hooks_on_tensors():
    """A hook of a parameter, or of the result, is called once a pass, with the gradient; its answer counts."""
    model, xs = make()
    warm(model, xs)
    seen = []
    handle = model[4].bias.register_hook(lambda g: seen.append(g.numpy().copy()) or g * 2.0)
    for learned in (True, False):
        y = model(xs[0])
        assert repeated(y)
        if not learned:
            y.fn.folded.taken._backward = None
        y.register_hook(lambda g: g * 3.0)
        model.zero_grad()
        y.sum().backward()
        np.testing.assert_array_equal(seen.pop(), np.full(4, 18.0, np.float32))
        np.testing.assert_array_equal(model[4].bias.grad.numpy(), np.full(4, 36.0, np.float32))
        assert not seen
    handle.remove()


def test_who_looks_sees_the_ops():
    """Graph, explanation, source and text of a repeated pass are those of one that was not; gradients as well."""
    looks = [
        lambda loss, y, m: study.graph(loss, model=m).to_dot(), lambda loss, y, m: repr(loss),
        lambda loss, y, m: str(study.explain(loss, m)), lambda loss, y, m: str(study.source(y)),
    ]  # fmt: skip
    results = []
    for model, xs in pair(CNN):
        texts = []
        for look in looks:
            y = model(xs[5])
            loss = (y * y).sum()
            texts += [look(loss, y, model), look(loss, y, model), repr(y)]
            loss.backward()
            texts += [str(gradients(model)), outcome(loss.backward), repr(y)]
            model.zero_grad()
        results.append(texts)
    assert results[0] == results[1]


def test_watchers_and_decompositions_go_without():
    results = []
    for model, xs in pair("cnn"):
        with mg.detect_anomaly():
            y = model(xs[0])
            assert not repeated(y)
        with study.decompose():
            z = model(xs[0])
            assert not repeated(z)
        w, listed = model(xs[0]), []

        class Listener(mg.Watcher):
            def answered(self, node, grad, answers, listed=listed):
                listed.append(getattr(node, "name", "leaf"))

        with mg.watch(Listener()):
            w.sum().backward()
        results.append([*bits([y, z, w]), *gradients(model), np.array(listed)])
    same(*results)


def test_errors_are_those_of_the_layers():
    model, xs = make()
    warm(model, xs)
    for _ in range(3 * OFTEN):
        with pytest.raises(ValueError, match=r"Linear: expected an input of shape \(..., 12\), got \(6, 5\)"):
            model(mg.ones(6, 5))
    with pytest.raises(TypeError, match="Linear: expected a Tensor, got ndarray"):
        model(np.ones((6, 12), np.float32))
    wrong = mg.Tensor(np.ones((12, 6), np.float32).T)  # against the contract: not in row-major order
    assert outcome(lambda: model(wrong)) == outcome(lambda: model._run(wrong))
    assert repeated(model(xs[0]))


def test_an_error_while_a_pass_is_recorded():
    model, xs = make()
    for x in xs[: OFTEN - 1]:
        model(x)
    kernels = mg.cpu.kernels
    model[4].bias.data = np.ones(5, np.float32)
    with pytest.raises(ValueError, match="linear"):
        model(xs[0])
    assert mg.cpu.kernels is kernels and modes.recorder.get() is None
    model[4].bias.data = np.ones(4, np.float32)
    for _ in range(2):
        warm(model, xs)
    assert repeated(model(xs[0]))


def test_a_gradient_of_another_dtype():
    """A Function that answers with float64 for a float32 input: what the children make of it."""
    class Wide(mg.Function):
        def forward(self, x):
            return x.copy()

        def backward(self, grad):
            return grad.to(mg.float64)

    results = []
    for model, xs in pair("activations"):
        found = []
        for x in xs[:6]:
            found.append(outcome(lambda x=x, model=model: Wide.apply(model(x)).sum().backward()))
            found.append(str(gradients(model)))
        results.append(found)
    assert results[0] == results[1]


def test_a_row_without_a_batch():
    """Gradients from several uses of the result are added up, and those of a second pass to them."""
    results = []
    for model, xs in pair([(4,), lambda: [nn.Tanh(), nn.Linear(4, 4)]]):
        y = model(xs[0])
        (y * y + y.exp() * y).sum().backward()
        first = gradients(model)
        (model(xs[1]) * 2.0).sum().backward()
        results.append(first + gradients(model))
    same(*results)


@pytest.mark.parametrize("name", ["hook", "own forward"])
def test_python_of_a_child_is_run_every_time(name):
    model, xs = make()
    warm(model.eval(), xs)  # without fused runs
    calls = []
    if name == "hook":
        model[2].register_forward_hook(lambda module, args, y: calls.append(1))
    else:
        model[2].forward = lambda x: calls.append(1) or x.sigmoid()
    for x in xs * 2:
        model(x)
    assert len(calls) == 20


def test_an_input_that_nothing_has_saved_gets_another_shape():
    net = (3, 4), lambda: [nn.Sigmoid(), nn.Linear(4, 4)]
    model, xs = make(net)
    x = xs[0].requires_grad_()
    warm(model, [x] * 5)
    y = model(x)
    assert repeated(y)
    x.data = x.data[:2].copy()
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(2, 4\) cannot be broadcast together"):
        y.sum().backward()
    assert x.grad is None
