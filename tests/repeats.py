"""Nets whose passes are repeated soon, and the same nets without; used by the tests of `layers/repeating.py`."""

import numba
import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.recording.passes import RepeatedPass

compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK), reason="launches are joined as machine code"
)

OFTEN = 3
NETS = {
    "mlp": ((6, 12), lambda: [nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Dropout(0.3), nn.Linear(8, 4)]),
    "cnn": ((3, 2, 8, 8), lambda: [
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, groups=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(32, 4)]),
    "pooled": ((3, 2, 7, 7), lambda: [
        nn.MaxPool2d(3, stride=2, padding=1), nn.BatchNorm2d(2), nn.LeakyReLU(), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4, bias=False)]),
    "activations": ((5, 6), lambda: [
        nn.Linear(6, 6), nn.ELU(), nn.Linear(6, 6), nn.GELU(), nn.LayerNorm(6), nn.Tanh(), nn.Identity(), nn.Softplus(),
        nn.Sequential(nn.Linear(6, 4), nn.LinearBlock(4, 4)), nn.Softmax(1), nn.Unflatten(1, (2, 2)), nn.Flatten(),
        nn.LogSoftmax(1)]),
    "ghosts": ((6, 3, 4), lambda: [
        nn.BatchNorm1d(3, ghost_batch_size=2), nn.ReLU(), nn.BatchNorm1d(3, affine=False, track_running_stats=False),
        nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, bias=False), nn.ReLU()]),
}  # fmt: skip


def make(net="mlp", dtype=mg.float32, repeats=True):
    """A model and its inputs, always the same; one that repeats nothing to compare with."""
    shape, layers = NETS[net] if isinstance(net, str) else net
    mg.manual_seed(3)
    model = nn.Sequential(*layers()).to(dtype)
    if not repeats:
        model.forward = model._run
    rng = np.random.default_rng(5)
    return model, [mg.tensor(rng.standard_normal(shape), dtype) for _ in range(10)]


def warm(model, xs, grad=True):
    """Call a model, and its gradient, until its pass is known."""
    for x in xs[: OFTEN + 1]:
        y = model(x)
        if grad:
            y.sum().backward()
    model.zero_grad()
    for x in xs:
        x.grad = None
    return model


def pair(net="mlp", dtype=mg.float32, grad=True):
    """A model that knows its pass, then one that repeats nothing, called as often; with their inputs."""
    for repeats in (True, False):
        model, xs = make(net, dtype, repeats)
        warm(model, xs, grad)
        assert known(model) == repeats
        yield model, xs


def known(model):
    """How many passes a model knows."""
    return 0 if model._passes is None else sum(len(kind.passes) for kind in model._passes._kinds.values())


def repeated(y):
    return type(y.fn) is RepeatedPass


def bits(arrays):
    return [None if a is None else np.asarray(a).copy() for a in arrays]


def gradients(model):
    return bits(p.grad for p in model.parameters())


def same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def outcome(function):
    """What a function returns, or the error that it raises."""
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
