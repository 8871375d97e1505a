"""Optimizers, schedules and gradient clipping against torch.optim, step by step."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parity tests compare with PyTorch")

from torch_compare import close, to_torch  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad import optim  # noqa: E402

SHAPES = [(7,), (3, 5), (1,), (2, 3, 4), ()]
STEPS = 25
TIGHT = 1e-12


def params(dtype="float64"):
    """The same parameters here and there."""
    arrays = [np.asarray(np.random.default_rng(i).standard_normal(s)).astype(dtype) for i, s in enumerate(SHAPES)]
    return [mg.tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]


def set_gradients(ours, theirs, step, absent=None):
    """The same random gradients; parameter `absent` gets none."""
    rng = np.random.default_rng(1000 + step)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        gradient = np.asarray(rng.standard_normal(a.shape)).astype(a.dtype)
        a.grad, b.grad = (None, None) if i == absent else (mg.tensor(gradient), torch.tensor(gradient))


def walk(make, steps=STEPS, dtype="float64", tolerance=TIGHT, schedule=None, sometimes_absent=False):
    """Step two optimizers from the same gradients and compare all parameters after each step."""
    ours, theirs = params(dtype)
    a, b = make(optim, ours), make(torch.optim, theirs)
    sa, sb = (schedule(optim, a), schedule(torch.optim.lr_scheduler, b)) if schedule else (None, None)
    for step in range(steps):
        set_gradients(ours, theirs, step, step % len(SHAPES) if sometimes_absent else None)
        a.step(), b.step()
        if schedule:
            sa.step(), sb.step()
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            close(p, q, f"parameter {i} after step {step}", tolerance)
    return a, b


SGD_SETTINGS = [
    {"momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product([0, 0.9], [0, 0.4], [0, 0.1], [False, True], [False, True])
    if not (n and (m == 0 or d)) and not (m == 0 and d)
]
ADAM_SETTINGS = [
    {"betas": b, "eps": e, "weight_decay": w, "amsgrad": a, "maximize": x}
    for b, e, w, a, x in itertools.product([(0.9, 0.999), (0.5, 0.7)], [1e-8, 1e-2], [0, 0.1], [False, True],
                                           [False, True])
]


RMSPROP_SETTINGS = [
    {"alpha": a, "eps": e, "weight_decay": w, "momentum": m, "centered": c, "maximize": x}
    for (a, e), w, m, c, x in itertools.product([(0.99, 1e-8), (0.5, 1e-2)], [0, 0.1], [0, 0.9], [False, True],
                                                [False, True])
]


@pytest.mark.parametrize("settings", SGD_SETTINGS, ids=str)
def test_sgd(settings):
    walk(lambda lib, p: lib.SGD(p, lr=0.1, **settings))
    walk(lambda lib, p: lib.SGD(p, lr=0.1, **settings), sometimes_absent=True)


@pytest.mark.parametrize("settings", ADAM_SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam(name, settings):
    walk(lambda lib, p: getattr(lib, name)(p, lr=0.01, **settings), sometimes_absent=True)


@pytest.mark.parametrize("settings", RMSPROP_SETTINGS, ids=str)
def test_rmsprop(settings):
    walk(lambda lib, p: lib.RMSprop(p, lr=0.01, **settings), sometimes_absent=True)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_float32_and_defaults(name):
    walk(lambda lib, p: getattr(lib, name)(p), dtype="float32", tolerance=2e-6)
    theirs = getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)]).defaults
    ours = getattr(optim, name)([mg.zeros(1, requires_grad=True)]).defaults
    assert ours == {key: theirs[key] for key in ours}


def test_groups():
    """Settings per group, and a group added on the way."""
    def make(lib, p):
        optimizer = lib.SGD([{"params": p[:2], "lr": 0.3}, {"params": p[2:3], "momentum": 0.0}], lr=0.1, momentum=0.9)
        optimizer.add_param_group({"params": p[3:], "weight_decay": 0.5})
        return optimizer

    walk(make)


def test_closure():
    x, y = mg.tensor([3.0, -2.0], requires_grad=True), torch.tensor([3.0, -2.0], requires_grad=True)
    a, b = optim.SGD([x], lr=0.1, momentum=0.5), torch.optim.SGD([y], lr=0.1, momentum=0.5)

    def closure(optimizer, p):
        def run():
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss
        return run

    for _ in range(5):
        with mg.no_grad():  # the closure records all the same
            close(a.step(closure(a, x)), b.step(closure(b, y)), "loss", 1e-6)
    close(x, y, "parameter", 1e-6)


def convert(value, leaf):
    """A nested optimizer state with every tensor replaced by ``leaf(tensor)``."""
    if isinstance(value, dict):
        return {key: convert(v, leaf) for key, v in value.items()}
    if isinstance(value, list):
        return [convert(v, leaf) for v in value]
    return leaf(value) if hasattr(value, "detach") else value


MAKERS = {
    "SGD": lambda lib, p: lib.SGD([{"params": p[:2], "lr": 0.3}, {"params": p[2:]}], lr=0.1, momentum=0.9),
    "Adam": lambda lib, p: lib.Adam(p, lr=0.02, amsgrad=True),
    "AdamW": lambda lib, p: lib.AdamW(p, lr=0.02, weight_decay=0.3),
    "RMSprop": lambda lib, p: lib.RMSprop(p, lr=0.02, momentum=0.5, centered=True),
}


@pytest.mark.parametrize("name", MAKERS)
def test_states_travel_both_ways(name, tmp_path):
    """Five steps in one library, five more in the other from its state, equal ten in one."""
    make = MAKERS[name]
    ours, theirs = params()
    a, b = make(optim, ours), make(torch.optim, theirs)
    for step in range(5):
        set_gradients(ours, theirs, step)
        a.step(), b.step()
    assert convert(a.state_dict()["state"], lambda t: tuple(t.shape)) == convert(
        b.state_dict()["state"], lambda t: tuple(t.shape))
    ours2 = [mg.tensor(p, requires_grad=True) for p in ours]
    a2 = make(optim, ours2)
    a2.load_state_dict(b.state_dict())  # PyTorch's tensors as they are
    theirs2 = [torch.tensor(p.numpy(), requires_grad=True) for p in ours]
    b2 = make(torch.optim, theirs2)
    mg.save(a.state_dict(), tmp_path / "state.npz")
    b2.load_state_dict(convert(mg.load(tmp_path / "state.npz"), lambda t: to_torch({"": t})[""]))
    for step in range(5, 10):
        set_gradients(ours, theirs, step), set_gradients(ours2, theirs2, step)
        for optimizer in (a, b, a2, b2):
            optimizer.step()
    for i, four in enumerate(zip(ours, theirs, ours2, theirs2, strict=True)):
        for other in four[1:]:
            close(other.detach(), four[0].numpy(), f"parameter {i}", TIGHT)


SCHEDULES = {
    "StepLR": lambda lib, o: lib.StepLR(o, 3, gamma=0.5),
    "StepLR, every step": lambda lib, o: lib.StepLR(o, 1),
    "MultiStepLR": lambda lib, o: lib.MultiStepLR(o, [9, 2, 5, 5], gamma=0.3),
    "ExponentialLR": lambda lib, o: lib.ExponentialLR(o, 0.8),
    "CosineAnnealingLR": lambda lib, o: lib.CosineAnnealingLR(o, 7, eta_min=0.01),
    "CosineAnnealingLR, past the end": lambda lib, o: lib.CosineAnnealingLR(o, 4),
    "LinearLR": lambda lib, o: lib.LinearLR(o, 0.1, total_iters=6),
    "LinearLR, down": lambda lib, o: lib.LinearLR(o, 1.0, 0.25, total_iters=30),
    "LambdaLR": lambda lib, o: lib.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "OneCycleLR": lambda lib, o: lib.OneCycleLR(o, 0.5, total_steps=STEPS + 1),
    "OneCycleLR, linear": lambda lib, o: lib.OneCycleLR(o, 0.5, epochs=6, steps_per_epoch=5, pct_start=0.25,
                                                        anneal_strategy="linear", div_factor=10, final_div_factor=100),
    "OneCycleLR, three phases": lambda lib, o: lib.OneCycleLR(o, [0.5] * len(o.param_groups), total_steps=40,
                                                              three_phase=True, base_momentum=0.8, max_momentum=0.9),
    "OneCycleLR, momentum kept": lambda lib, o: lib.OneCycleLR(o, 0.5, total_steps=30, cycle_momentum=False),
    "SequentialLR": lambda lib, o: lib.SequentialLR(
        o, [lib.LinearLR(o, 0.01, total_iters=5), lib.CosineAnnealingLR(o, 12), lib.ExponentialLR(o, 0.9)], [5, 15]),
    "SequentialLR of steps": lambda lib, o: lib.SequentialLR(
        o, [lib.StepLR(o, 2), lib.MultiStepLR(o, [1, 3]), lib.LambdaLR(o, lambda e: 0.5**e)], [4, 10]),
}
OPTIMIZERS = {
    "SGD": lambda lib, p: lib.SGD([{"params": p[:2], "lr": 0.2}, {"params": p[2:]}], lr=0.1, momentum=0.9),
    "Adam": lambda lib, p: lib.Adam(p, lr=0.05),
}


PLATEAUS = [
    {"patience": 2}, {"patience": 0, "cooldown": 2, "factor": 0.5}, {"mode": "max", "patience": 1, "min_lr": 1e-3},
    {"patience": 1, "threshold": 0.3, "threshold_mode": "abs"}, {"patience": 1, "threshold": 0.2, "eps": 1e-3},
    {"mode": "max", "patience": 1, "threshold": 0.1, "threshold_mode": "abs"},
]


@pytest.mark.parametrize("settings", PLATEAUS)
def test_plateau(settings):
    ours, theirs = params()
    a, b = OPTIMIZERS["SGD"](optim, ours), OPTIMIZERS["SGD"](torch.optim, theirs)
    sa = optim.ReduceLROnPlateau(a, **settings)
    sb = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **settings)
    rng = np.random.default_rng(0)
    for step in range(60):
        metric = float(rng.standard_normal() + 3 / (1 + step))
        sa.step(metric), sb.step(metric)
        assert sa.get_last_lr() == pytest.approx(sb.get_last_lr(), rel=1e-12), step
        assert (sa.last_epoch, sa.best, sa.num_bad_epochs, sa.cooldown_counter) == (
            sb.last_epoch, sb.best, sb.num_bad_epochs, sb.cooldown_counter), step
    assert sa.get_last_lr() != [0.2, 0.1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule, optimizer):
    """Rates, momenta and last_epoch after each step."""
    ours, theirs = params()
    a, b = OPTIMIZERS[optimizer](optim, ours), OPTIMIZERS[optimizer](torch.optim, theirs)
    sa, sb = SCHEDULES[schedule](optim, a), SCHEDULES[schedule](torch.optim.lr_scheduler, b)
    b.step()
    for step in range(STEPS + 1):
        assert sa.last_epoch == sb.last_epoch
        assert sa.get_last_lr() == pytest.approx(sb.get_last_lr(), rel=1e-11, abs=1e-18), step
        for g, h in zip(a.param_groups, b.param_groups, strict=True):
            assert g["lr"] == pytest.approx(h["lr"], rel=1e-11, abs=1e-18), step
            for key in {"momentum", "betas"} & set(h):
                assert g[key] == pytest.approx(h[key], rel=1e-12), step
        if step < STEPS:
            sa.step(), sb.step()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["OneCycleLR", "SequentialLR", "CosineAnnealingLR"])
def test_training_under_a_schedule(schedule, optimizer):
    walk(OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule])


def test_two_schedules_on_one_optimizer():
    """Warm-up and decay at once multiply."""
    ours, theirs = params()
    a, b = optim.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    lib = torch.optim.lr_scheduler
    sa = [optim.LinearLR(a, 0.1, total_iters=4), optim.ExponentialLR(a, 0.9), optim.StepLR(a, 3)]
    sb = [lib.LinearLR(b, 0.1, total_iters=4), lib.ExponentialLR(b, 0.9), lib.StepLR(b, 3)]
    b.step()  # PyTorch warns of schedules that step before the optimizer
    for _ in range(10):
        for s in [*sa, *sb]:
            s.step()
        assert a.param_groups[0]["lr"] == pytest.approx(b.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, 0.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_clip_grad_norm(max_norm, norm_type, dtype):
    ours, theirs = params(dtype)
    set_gradients(ours, theirs, 0, absent=2)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    a = optim.clip_grad_norm_(ours, max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    close(a, b, "norm", tolerance)
    for p, q in zip(ours, theirs, strict=True):
        if q.grad is not None:
            close(p.grad, q.grad, "gradient", tolerance)


def test_clip_grad_norm_of_nothing_and_of_nan():
    close(optim.clip_grad_norm_([mg.zeros(3, requires_grad=True)], 1.0),
          torch.nn.utils.clip_grad_norm_([torch.zeros(3, requires_grad=True)], 1.0), "no gradients")
    ours, theirs = params()
    for lib, ps in ((optim.clip_grad_norm_, ours), (torch.nn.utils.clip_grad_norm_, theirs)):
        for p in ps:
            p.grad = p.detach() * math.nan
        with pytest.raises(RuntimeError):
            lib(ps, 1.0, error_if_nonfinite=True)
        lib(ps, 1.0)
    close(ours[0].grad, theirs[0].grad, "NaN")


def test_clip_grad_value():
    ours, theirs = params()
    set_gradients(ours, theirs, 0, absent=1)
    optim.clip_grad_value_(ours, 0.3), torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for p, q in zip(ours, theirs, strict=True):
        if q.grad is not None:
            close(p.grad, q.grad, "gradient")


BAD = [
    lambda lib, p: lib.SGD([]),
    lambda lib, p: lib.SGD(p[0]),
    lambda lib, p: lib.SGD(["x"]),
    lambda lib, p: lib.SGD([p[0] * 2]),
    lambda lib, p: lib.SGD([p[0]], lr=-0.1),
    lambda lib, p: lib.SGD([p[0]], momentum=-0.1),
    lambda lib, p: lib.SGD([p[0]], weight_decay=-0.1),
    lambda lib, p: lib.SGD([p[0]], nesterov=True),
    lambda lib, p: lib.SGD([p[0]], nesterov=True, momentum=0.9, dampening=0.1),
    lambda lib, p: lib.SGD([{"params": [p[0]]}, {"params": [p[0]]}]),
    lambda lib, p: lib.Adam([p[0]], lr=-1.0),
    lambda lib, p: lib.Adam([p[0]], eps=-1.0),
    lambda lib, p: lib.Adam([p[0]], betas=(1.0, 0.9)),
    lambda lib, p: lib.Adam([p[0]], betas=(0.9, -0.1)),
    lambda lib, p: lib.AdamW([p[0]], weight_decay=-1.0),
    lambda lib, p: lib.SGD([p[0]]).add_param_group([p[1]]),
    lambda lib, p: lib.SGD(p[:2]).load_state_dict(lib.SGD(p[:3]).state_dict()),
    lambda lib, p: lib.SGD(p[:2]).load_state_dict(lib.SGD([{"params": p[:1]}, {"params": p[1:2]}]).state_dict()),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_both_refuse(number):
    ours, theirs = params()
    for lib, p in ((optim, ours), (torch.optim, theirs)):
        with pytest.raises((ValueError, TypeError)):
            BAD[number](lib, p)


BAD_SCHEDULES = [
    lambda lib, o: lib.StepLR("optimizer", 3),
    lambda lib, o: lib.LinearLR(o, start_factor=0.0),
    lambda lib, o: lib.LinearLR(o, end_factor=1.5),
    lambda lib, o: lib.OneCycleLR(o, 0.1),
    lambda lib, o: lib.OneCycleLR(o, 0.1, total_steps=0),
    lambda lib, o: lib.OneCycleLR(o, 0.1, total_steps=10, pct_start=1.5),
    lambda lib, o: lib.OneCycleLR(o, 0.1, total_steps=10, anneal_strategy="cosine"),
    lambda lib, o: lib.OneCycleLR(o, [0.1, 0.2], total_steps=10),
    lambda lib, o: lib.SequentialLR(o, [], []),
    lambda lib, o: lib.SequentialLR(o, [lib.StepLR(o, 1)], [1]),
    lambda lib, o: lib.LambdaLR(o, [lambda e: 1, lambda e: 1]),
    lambda lib, o: lib.StepLR(o, 3, last_epoch=2),
]


@pytest.mark.parametrize("number", range(len(BAD_SCHEDULES)))
def test_both_refuse_schedules(number):
    ours, theirs = params()
    for lib, sched, p in ((optim, optim, ours), (torch.optim, torch.optim.lr_scheduler, theirs)):
        with pytest.raises((ValueError, TypeError, KeyError)):
            BAD_SCHEDULES[number](sched, lib.SGD(p, momentum=0.9))
