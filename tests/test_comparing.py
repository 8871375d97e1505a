"""Answers in one bool, and what the op table cannot say of norms and of shapes taken from another tensor."""

import math

import numpy as np
import pytest

import minigrad as mg


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_allclose_is_numpys(device):
    values = [1.0, 1.0 + 5e-6, 1.0 + 5e-5, 0.0, 1e-9, math.inf, -math.inf, math.nan]
    for a in values:
        for b in values:
            x, y = mg.tensor([a, 1.0], "float64", device), mg.tensor([b, 1.0], "float64", device)
            for options in ({}, {"equal_nan": True}, {"rtol": 1e-4}, {"rtol": 0.0, "atol": 1e-5}):
                assert mg.allclose(x, y, **options) is np.allclose(x.numpy(), y.numpy(), **options), (a, b, options)
    assert mg.allclose(mg.ones(2, device=device), 1.0) and not mg.allclose(0.0, mg.ones(2, device=device))


def test_equal():
    x = mg.tensor([1.0, 2.0])
    assert mg.equal(x, x.clone()) is True and mg.equal(x, x + 1) is False
    assert not mg.equal(x, x.reshape(1, 2)) and not mg.equal(x * math.nan, x * math.nan) and mg.equal(x, x.double())


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_gradient_of_the_norm_of_zeros(p):
    """It is 0, and rows beside it are as without them."""
    x = mg.tensor([[0.0, 0.0], [3.0, -4.0]], requires_grad=True)
    x.norm(p, dim=1).sum().backward()
    wanted = {1: [1.0, -1.0], 2: [0.6, -0.8], math.inf: [0.0, -1.0]}[p]
    np.testing.assert_allclose(x.grad.numpy(), [[0.0, 0.0], wanted], rtol=1e-6)


def test_shapes_of_other_tensors():
    x, other = mg.arange(6), mg.zeros(2, 3)
    assert x.reshape_as(other).tolist() == x.view_as(other).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert mg.arange(3).expand_as(other).tolist() == [[0, 1, 2]] * 2
    assert x.reshape(2, 3).t().shape == (3, 2) and x.t().shape == (6,) and mg.ones(()).t().shape == ()
    assert x.flip(dims=[0]).tolist() == [5, 4, 3, 2, 1, 0] and x.repeat(2, 1).shape == (2, 6) == x.tile(2, 1).shape
    assert mg.tensor([math.nan, math.inf, 1.0]).isnan().tolist() == [True, False, False]
