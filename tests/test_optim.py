"""Optimizers, schedules and clipping without PyTorch: written-out formulas, state, and sentences."""

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad import optim

RNG = np.random.default_rng(0)
START, GRADIENTS = RNG.standard_normal(5), RNG.standard_normal((10, 5))


def run(optimizer_class, **settings):
    """Parameter after each of ten steps."""
    p = mg.tensor(START, requires_grad=True)
    optimizer = optimizer_class([p], **settings)
    path = []
    for gradient in GRADIENTS:
        p.grad = mg.tensor(gradient)
        optimizer.step()
        path.append(p.numpy().copy())
    return np.array(path)


def sgd(lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    """Sutskever et al., with the first buffer equal to the first gradient."""
    p, buffer, path = START.copy(), None, []
    for gradient in GRADIENTS:
        g = (-gradient if maximize else gradient) + weight_decay * p
        buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
        p = p - lr * (g if not momentum else g + momentum * buffer if nesterov else buffer)
        path.append(p)
    return np.array(path)


def adam(lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False, decoupled=False):
    """Kingma and Ba, algorithm 1, with the options of Loshchilov and Hutter and of Reddi et al."""
    p, m, v, top, path = START.copy(), 0.0, 0.0, 0.0, []
    for t, gradient in enumerate(GRADIENTS, 1):
        g = -gradient if maximize else gradient
        if decoupled:
            p = p * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        top = np.maximum(top, v)
        second = (top if amsgrad else v) / (1 - betas[1] ** t)
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(second) + eps)
        path.append(p)
    return np.array(path)


@pytest.mark.parametrize("settings", [
    {}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}, {"weight_decay": 0.1},
    {"momentum": 0.8, "nesterov": True},
    {"momentum": 0.9, "weight_decay": 0.2, "nesterov": True, "maximize": True},
], ids=str)
def test_sgd_by_the_formula(settings):
    np.testing.assert_allclose(run(optim.SGD, lr=0.1, **settings), sgd(0.1, **settings), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("settings", [
    {}, {"betas": (0.5, 0.8), "eps": 1e-3}, {"weight_decay": 0.3}, {"amsgrad": True},
    {"maximize": True, "amsgrad": True},
], ids=str)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_by_the_formula(settings, decoupled):
    settings = {"weight_decay": 0.0, **settings}
    ours = run(optim.AdamW if decoupled else optim.Adam, lr=0.05, **settings)
    np.testing.assert_allclose(ours, adam(0.05, decoupled=decoupled, **settings), rtol=1e-11, atol=1e-13)


def test_adam_first_step_has_the_size_of_the_rate():
    p = mg.tensor([1.0, 1.0], requires_grad=True)
    p.grad = mg.tensor([1e-3, -1e3])
    optim.Adam([p], lr=0.1).step()
    np.testing.assert_allclose(p.numpy(), [0.9, 1.1], rtol=1e-4)


def test_parameters_are_changed_in_place():
    p = mg.tensor([1.0, 2.0], requires_grad=True)
    array, y = p.data, (p * p).sum()
    p.grad = mg.ones(2)
    optimizer = optim.SGD([p], lr=1.0)
    optimizer.step()
    assert p.data is array and array.tolist() == [0.0, 1.0]
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_parameters_without_gradient_stay():
    p, q = mg.ones(2, requires_grad=True), mg.ones(2, requires_grad=True)
    q.grad = mg.ones(2)
    optimizer = optim.Adam([p, q], weight_decay=0.5)
    optimizer.step()
    assert p.tolist() == [1, 1] and q.tolist() != [1, 1] and p not in optimizer.state


def test_zero_grad():
    p = mg.ones(2, requires_grad=True)
    optimizer = optim.SGD([p])
    p.grad = grad = mg.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is None


def test_numbers_on_the_device_are_written_only_when_they_change():
    """The rate's array stays the same one, so that a recorded launch sees a new rate."""
    p = mg.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = mg.ones(2)
    optimizer.step()
    ((key, (_, array)),) = optimizer._settings.items()
    array[0] = 0.25  # what a kernel would now read
    optimizer.step()
    assert p.tolist() == [-0.25, -0.25]
    optimizer.param_groups[0]["lr"] = 2.0
    optimizer.step()
    assert optimizer._settings[key][1] is array and p.tolist() == [-2.25, -2.25]


def test_parameters_with_their_names():
    model = nn.Linear(2, 3)
    optimizer = optim.SGD([{"params": model.named_parameters(), "lr": 0.5}])
    assert all(p is q for p, q in zip(optimizer.param_groups[0]["params"], model.parameters(), strict=True))
    lines = repr(optimizer).splitlines()
    assert lines[0] == "SGD(" and lines[1].startswith("  2 parameter(s): lr=0.5, ") and "nesterov=False" in lines[1]


def test_closure_returns_the_loss():
    p = mg.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0 and p.item() == 1.0
    assert optimizer.step() is None


def test_training_reaches_the_minimum():
    mg.manual_seed(0)
    x = mg.randn(64, 3)
    y = x @ mg.tensor([[1.0], [-2.0], [0.5]]) + 0.7
    for make in (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.05)):
        layer = nn.Linear(3, 1)
        optimizer = make(layer.parameters())
        for _ in range(300):
            optimizer.zero_grad()
            loss = nn.MSELoss()(layer(x), y)
            loss.backward()
            optimizer.step()
        assert loss.item() < 1e-4
        np.testing.assert_allclose(layer.weight.numpy(), [[1.0, -2.0, 0.5]], atol=1e-2)


# -- state -------------------------------------------------------------------------------------------------------


def test_state_is_loaded_into_the_arrays_there_are():
    p, q = [mg.tensor(START, requires_grad=True) for _ in range(2)]
    a, b = optim.SGD([p], lr=0.1, momentum=0.9), optim.SGD([q], lr=0.5, momentum=0.1)
    for optimizer, param in ((a, p), (b, q)):
        param.grad = mg.tensor(GRADIENTS[0])
        optimizer.step()
    buffer = b.state[q]["momentum_buffer"].data
    b.load_state_dict(a.state_dict())
    assert b.state[q]["momentum_buffer"].data is buffer and (buffer == GRADIENTS[0]).all()
    assert b.param_groups[0]["lr"] == 0.1 and b.param_groups[0]["momentum"] == 0.9
    assert b.param_groups[0]["params"][0] is q


def test_a_state_that_does_not_fit_changes_nothing():
    p = mg.tensor(START, requires_grad=True)
    a = optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = mg.tensor(GRADIENTS[0])
    a.step()
    b = optim.SGD([mg.ones(3, requires_grad=True)], lr=0.7)
    for state, sentence in [
        (a.state_dict(), r"SGD: expected momentum_buffer of parameter 0 of shape \(3,\), got \(5,\)"),
        ({}, "SGD: expected a state with the keys 'state' and 'param_groups'"),
        ({"state": {}, "param_groups": []}, r"SGD: expected a state of groups with \[1\] parameters, got \[\]"),
        ({"state": {3: {}}, "param_groups": [{"params": [0]}]}, "SGD: the state names parameter 3"),
        ({"state": {}, "param_groups": [{"params": [0], "lr": -1.0}]}, "SGD: expected lr >= 0, got -1.0"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            b.load_state_dict(state)
        assert b.param_groups[0]["lr"] == 0.7 and not b.state


def test_converting_the_model_after_the_first_step_is_an_error():
    layer = nn.Linear(2, 2)
    optimizer = optim.Adam(layer.parameters())
    layer(mg.ones(1, 2)).sum().backward()
    optimizer.step()
    layer.double()
    with pytest.raises(ValueError, match=r"Adam: a parameter of shape \(2, 2\) became float64"):
        optimizer.step()


# -- schedules ---------------------------------------------------------------------------------------------------


def rates(make, steps=9, lr=1.0):
    optimizer = optim.SGD([mg.ones(1, requires_grad=True)], lr=lr, momentum=0.9)
    schedule = make(optimizer)
    path = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        path.append(optimizer.param_groups[0]["lr"])
    assert schedule.get_last_lr() == [path[-1]]
    return path


def test_schedules_by_the_formula():
    epochs = range(10)
    assert rates(lambda o: optim.StepLR(o, 3, 0.5)) == pytest.approx([0.5 ** (e // 3) for e in epochs])
    assert rates(lambda o: optim.MultiStepLR(o, [2, 5, 5], 0.1)) == pytest.approx([1, 1, .1, .1, .1] + [.001] * 5)
    assert rates(lambda o: optim.ExponentialLR(o, 0.9)) == pytest.approx([0.9**e for e in epochs])
    assert rates(lambda o: optim.LinearLR(o, 0.2, total_iters=4)) == pytest.approx([.2, .4, .6, .8] + [1] * 6)
    assert rates(lambda o: optim.LambdaLR(o, lambda e: 1 / (1 + e))) == pytest.approx([1 / (1 + e) for e in epochs])
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * e / 6)) / 2 for e in epochs]
    assert rates(lambda o: optim.CosineAnnealingLR(o, 6, 0.1)) == pytest.approx(cosine)
    both = [0.25, 0.5, 0.75] + [(1 + math.cos(math.pi * e / 6)) / 2 for e in range(7)]
    assert rates(lambda o: optim.SequentialLR(
        o, [optim.LinearLR(o, 0.25, total_iters=3), optim.CosineAnnealingLR(o, 6)], [3])) == pytest.approx(both)


def test_rmsprop_by_the_formula():
    """Three steps, the rate and alpha changed on the way; recorded they do the same, bit for bit."""
    paths = []
    for wrap in (lambda step: step, mg.capture):
        p = mg.tensor([3.0, -2.0, 0.5], requires_grad=True)
        optimizer = optim.RMSprop([p], lr=0.1, alpha=0.9, weight_decay=0.1)
        schedule = optim.ExponentialLR(optimizer, 0.5)

        def step(target, p=p, optimizer=optimizer):
            optimizer.zero_grad()
            ((p - target) ** 2).sum().backward()
            optimizer.step()

        run, path = wrap(step), []
        for alpha in (0.9, 0.9, 0.9, 0.5):
            optimizer.param_groups[0]["alpha"] = alpha
            run(mg.ones(3))
            schedule.step()
            path.append(p.numpy().copy())
        paths.append(path)
    np.testing.assert_array_equal(*paths)
    x, v = np.array([3.0, -2.0, 0.5]), 0.0
    for found, lr, alpha in zip(paths[0], (0.1, 0.05, 0.025, 0.0125), (0.9, 0.9, 0.9, 0.5), strict=True):
        g = 2.0 * (x - 1.0) + 0.1 * x
        v = alpha * v + (1.0 - alpha) * g * g
        x = x - lr * g / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(found, x, rtol=1e-6)


def test_one_cycle_meets_its_corners():
    optimizer = optim.SGD([mg.ones(1, requires_grad=True)], lr=1.0, momentum=0.5)
    schedule = optim.OneCycleLR(optimizer, 2.0, total_steps=11, pct_start=6 / 11, div_factor=10, final_div_factor=100)
    seen = []
    for step in range(11):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        if step < 10:
            schedule.step()
    assert seen[0] == pytest.approx((0.2, 0.95))
    assert seen[5] == pytest.approx((2.0, 0.85))
    assert seen[10] == pytest.approx((0.002, 0.95))
    schedule.step()
    with pytest.raises(ValueError, match="OneCycleLR: expected at most 11 steps, got 12"):
        schedule.step()


def test_a_plateau_halves_the_rate():
    optimizer = optim.SGD([mg.ones(1, requires_grad=True)], lr=1.0)
    schedule = optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=1, min_lr=0.3)
    assert schedule.get_last_lr() == [1.0]
    path = []
    for metric in (3.0, mg.tensor(2.0), 2.0, 2.1, 2.2, 2.3, 1.9, 1.9, 1.9, math.nan):
        schedule.step(metric)
        path.append(optimizer.param_groups[0]["lr"])
    # two bad epochs in a row, one that does not count, one bad, an improvement, two bad, one that does not count
    assert path == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3] and schedule.get_last_lr() == [0.3]
    again = optim.ReduceLROnPlateau(optimizer)
    again.load_state_dict(schedule.state_dict())
    assert again.state_dict() == schedule.state_dict() and again.best == 1.9


SCHEDULES = {
    "StepLR": lambda o: optim.StepLR(o, 2), "MultiStepLR": lambda o: optim.MultiStepLR(o, [3, 5]),
    "CosineAnnealingLR": lambda o: optim.CosineAnnealingLR(o, 8), "LinearLR": lambda o: optim.LinearLR(o, 0.1),
    "OneCycleLR": lambda o: optim.OneCycleLR(o, 0.3, total_steps=12),
    "ExponentialLR": lambda o: optim.ExponentialLR(o, 0.5), "LambdaLR": lambda o: optim.LambdaLR(o, lambda e: 0.5**e),
    "SequentialLR": lambda o: optim.SequentialLR(o, [optim.LinearLR(o, 0.1), optim.StepLR(o, 2)], [3]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_continue_from_a_checkpoint(name, tmp_path):
    def build():
        optimizer = optim.SGD([mg.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
        return optimizer, SCHEDULES[name](optimizer)

    optimizer, schedule = build()
    for _ in range(4):
        schedule.step()
    mg.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "c.npz")
    saved = mg.load(tmp_path / "c.npz")
    optimizer2, schedule2 = build()
    optimizer2.load_state_dict(saved["optimizer"])
    schedule2.load_state_dict(saved["schedule"])
    for _ in range(5):
        schedule.step(), schedule2.step()
        assert schedule.last_epoch == schedule2.last_epoch and schedule.get_last_lr() == schedule2.get_last_lr()
        a, b = optimizer.param_groups[0], optimizer2.param_groups[0]
        assert {k: v for k, v in a.items() if k != "params"} == {k: v for k, v in b.items() if k != "params"}
    with pytest.raises(ValueError, match=f"{name}: (the state does not fit|expected states)"):
        schedule.load_state_dict({"last_epoch": 3})


# -- clipping ----------------------------------------------------------------------------------------------------


def test_clip_grad_norm():
    p, q = mg.zeros(2, requires_grad=True), mg.zeros(1, requires_grad=True)
    p.grad, q.grad = mg.tensor([3.0, 0.0]), mg.tensor([4.0])
    array, version = p.grad.data, p.grad.version[0]
    assert optim.clip_grad_norm_([p, q], 1.0).item() == pytest.approx(5.0)
    np.testing.assert_allclose([*p.grad.tolist(), *q.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-6)
    assert p.grad.data is array and p.grad.version[0] > version
    assert optim.clip_grad_norm_(p, 10.0, math.inf).item() == pytest.approx(0.6)
    assert p.grad.tolist() == pytest.approx([0.6, 0.0])
    assert optim.clip_grad_norm_(iter([]), 1.0).item() == 0.0


def test_clip_grad_value():
    p = mg.zeros(4, requires_grad=True)
    p.grad = mg.tensor([-2.0, 0.1, 2.0, math.nan])
    optim.clip_grad_value_([p], 0.5)
    np.testing.assert_array_equal(p.grad.numpy(), np.float32([-0.5, 0.1, 0.5, math.nan]))


# -- sentences ---------------------------------------------------------------------------------------------------


def leaf():
    return mg.ones(2, requires_grad=True)


SENTENCES = {
    "SGD: expected at least one parameter, got an empty list": lambda: optim.SGD([]),
    "SGD: expected an iterable of parameters, got a Tensor; put it in a list": lambda: optim.SGD(leaf()),
    "SGD: expected lr >= 0, got -0.1": lambda: optim.SGD([leaf()], lr=-0.1),
    "SGD: expected lr >= 0, got 'fast'": lambda: optim.SGD([leaf()], lr="fast"),
    "SGD: expected lr >= 0, got nan": lambda: optim.SGD([leaf()], lr=math.nan),
    "SGD: expected momentum > 0 and dampening 0 for nesterov, got momentum 0 and dampening 0":
        lambda: optim.SGD([leaf()], nesterov=True),
    r"SGD: expected leaves, but parameter 0 of shape \(2,\) was computed by mul": lambda: optim.SGD([leaf() * 2]),
    r"Adam: parameter 1 of shape \(2,\) is given twice": lambda: optim.Adam([leaf()] * 2),
    r"Adam: expected float parameters, but parameter 0 of shape \(2,\) is int64":
        lambda: optim.Adam([mg.tensor([1, 2])]),
    "Adam: expected parameters to be Tensors, got str": lambda: optim.Adam("ab"),
    "AdamW: expected the first of betas from 0 to below 1, got 1.0": lambda: optim.AdamW([leaf()], betas=(1.0, 0.9)),
    "RMSprop: expected alpha >= 0, got -0.1": lambda: optim.RMSprop([leaf()], alpha=-0.1),
    "AdamW: expected betas as a pair": lambda: optim.AdamW([leaf()], betas=0.9),
    "SGD: expected settings out of lr, .* in a group, got rate": lambda: optim.SGD([{"params": [leaf()], "rate": 1}]),
    "SGD: expected a group as a dict": lambda: optim.SGD([leaf()]).add_param_group([leaf()]),
    "SGD: expected at least one parameter in a group": lambda: optim.SGD([{"params": []}]),
    "StepLR: expected an Optimizer, got str": lambda: optim.StepLR("sgd", 1),
    "StepLR: expected step_size to be an int >= 1, got 0": lambda: optim.StepLR(optim.SGD([leaf()]), 0),
    "StepLR: expected groups with an initial_lr": lambda: optim.StepLR(optim.SGD([leaf()]), 1, last_epoch=3),
    "SequentialLR: StepLR belongs to another optimizer": lambda: optim.SequentialLR(
        optim.SGD([leaf()]), [optim.StepLR(optim.SGD([leaf()]), 1)], []),
    "LinearLR: expected factors from 0 to 1": lambda: optim.LinearLR(optim.SGD([leaf()]), 0.0),
    "OneCycleLR: expected total_steps, or epochs": lambda: optim.OneCycleLR(optim.SGD([leaf()]), 0.1),
    "ReduceLROnPlateau: expected mode to be 'min' or 'max', got 'low'":
        lambda: optim.ReduceLROnPlateau(optim.SGD([leaf()]), "low"),
    "ReduceLROnPlateau: expected threshold_mode to be 'rel' or 'abs', got 'both'":
        lambda: optim.ReduceLROnPlateau(optim.SGD([leaf()]), threshold_mode="both"),
    "ReduceLROnPlateau: expected factor from 0 to below 1, got 2":
        lambda: optim.ReduceLROnPlateau(optim.SGD([leaf()]), factor=2),
    "clip_grad_norm_: expected max_norm >= 0, got -1": lambda: optim.clip_grad_norm_([leaf()], -1),
    "clip_grad_norm_: expected norm_type > 0, got 0.0": lambda: optim.clip_grad_norm_([leaf()], 1, 0),
    "clip_grad_value_: expected parameters to be Tensors, got int": lambda: optim.clip_grad_value_([1], 1),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences(sentence):
    with pytest.raises((ValueError, TypeError), match=f"^{sentence}"):
        SENTENCES[sentence]()
