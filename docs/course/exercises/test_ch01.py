"""Tests of the exercises of chapter 1."""

import math

import pytest


@pytest.mark.parametrize("x", [-3.0, -0.5, 0.0, 0.5, 3.0])
def test_sigmoid(chapter, x):
    y = chapter.sigmoid(chapter.Value(x))
    assert y.data == pytest.approx(1 / (1 + math.exp(-x)), rel=1e-14)
    assert y.share(2.0) == pytest.approx((2 * math.exp(-x) / (1 + math.exp(-x)) ** 2,), rel=1e-13)
    assert [parent.data for parent in y.parents] == [x]


@pytest.mark.parametrize("x, wanted", [(-1000.0, 0.0), (1000.0, 1.0)])
def test_sigmoid_does_not_overflow(chapter, x, wanted):
    assert chapter.sigmoid(chapter.Value(x)).data == wanted


@pytest.mark.parametrize("x, y, gradient", [(2.5, 2.5, 3.0), (-2.5, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_relu(chapter, x, y, gradient):
    value = chapter.relu(chapter.Value(x))
    assert value.data == y and tuple(value.share(3.0)) == (gradient,)


@pytest.mark.parametrize("x", [-1.0, 0.0, 0.7, 2.0])
def test_numerical(chapter, x):
    assert chapter.numerical(math.exp, x) == pytest.approx(math.exp(x), rel=1e-8)
    assert chapter.numerical(math.sin, x) == pytest.approx(math.cos(x), rel=1e-8)
