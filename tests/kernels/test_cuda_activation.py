"""The activations' CUDA kernels against the reference."""

import math

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import check, run

from minigrad.kernels.cuda import maps

SIZES = (0, 1, 43)
# 1 + tanh cancels, x³ (1 - tanh²) magnifies what is lost: a floor relative to the largest result.
UNARY = {"relu": (0, 0), "sigmoid": (4, 0), "tanh": (4, 0), "silu": (4, 0), "gelu": (8, 2), "gelu_tanh": (8, 2)}
GRADIENTS = {"relu_grad": 0, "sigmoid_grad": 2, "tanh_grad": 2, "gelu_grad": 2, "gelu_tanh_grad": 64, "silu_grad": 2}


@pytest.fixture(params=(maps.WAVE, 8), ids=("single", "wide"), autouse=True)
def wave(request, monkeypatch):
    """Every test runs with a thread per element, and again with the loops of large arrays."""
    monkeypatch.setattr(maps, "WAVE", request.param)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    for size in SIZES:
        check(name, (numbers(size, dtype, special=True), empty(size, dtype)), {1}, *UNARY[name])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name, dtype):
    for size in SIZES:
        x, grad = numbers(size, dtype, special=name == "relu_grad"), numbers(size, dtype, 1)
        if name in ("sigmoid_grad", "tanh_grad"):
            x = np.tanh(x)
        check(name, (x, grad, empty(size, dtype)), {2}, 12, GRADIENTS[name])


@pytest.mark.parametrize("dtype", FLOATS)
def test_parametric_activations(dtype):
    for size in SIZES:
        x, grad, out = numbers(size, dtype, special=True), numbers(size, dtype, 1), empty(size, dtype)
        check("leaky_relu", (x, out, 0.1), {1}, 0)
        check("leaky_relu_grad", (x, grad, out, 0.1), {2}, 0)
        check("clip", (x, out, -1.0, np.inf), {1}, 0)
        check("clip", (x, out, 1.0, -1.0), {1}, 0)
        check("clip_grad", (x, grad, out, -1.0, 0.5), {2}, 0)
        for beta, threshold in ((1.0, 20.0), (2.5, 3.0)):
            check("softplus", (x, out, beta, threshold), {1}, 32)  # exp magnifies the rounding of beta x
            check("softplus_grad", (x, grad, out, beta, threshold), {2}, 32)


def test_float32_gelu_keeps_its_digits_in_the_tail():
    x = np.linspace(-9, 0, 400, dtype=np.float32)
    got = run("gelu", (x, empty(x.size, np.float32)))[1]
    wanted = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
