"""Tests of the exercises of chapter 7."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.testing import gradcheck, gradgradcheck, kernelcheck


def points():
    return np.array([-30.0, -1.0, -0.1, 0.0, 0.4, 2.0, 50.0])


def gradient(chapter, device):
    """The gradient by x at the points, and what it should be: a central difference."""
    x = mg.tensor(points(), device=device, requires_grad=True)
    (found,) = mg.grad(chapter.Squareplus.apply(x, b=4.0).sum(), [x])
    above, below, h = np.empty(7), np.empty(7), 1e-5
    chapter.squareplus_reference(points() + h, above, 4.0)
    chapter.squareplus_reference(points() - h, below, 4.0)
    return found.numpy(), (above - below) / (2 * h)


@pytest.mark.parametrize("b", [4.0, 0.5])
def test_1_the_kernel_is_the_definition(chapter, b):
    kernelcheck("squareplus", [points()], [(7,)], b)
    kernelcheck("squareplus", [points().astype(np.float32)], [(7,)], b)


def test_1_the_gradient(chapter):
    found, wanted = gradient(chapter, "cpu")
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_1_gradcheck_of_both_orders(chapter):
    x = mg.tensor(points().reshape(7, 1), requires_grad=True)
    assert gradcheck(lambda x: chapter.Squareplus.apply(x, b=1.0), [x])
    assert gradgradcheck(lambda x: chapter.Squareplus.apply(x, b=1.0), [x])


def test_2_the_kernel_is_the_definition(chapter):
    kernelcheck("squareplus", [points()], [(7,)], 4.0, device="cuda")
    kernelcheck("squareplus", [np.linspace(-3, 3, 300, dtype=np.float32)], [(300,)], 2.0, device="cuda")


def test_2_the_gradient_is_that_of_the_cpu(chapter):
    found, wanted = gradient(chapter, "cuda")
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
