"""Tests of the exercises of chapter 2."""

import numpy as np
import pytest

import minigrad as mg


@pytest.mark.parametrize("a, b", [
    ((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 1), (6, 1, 3)),
])  # fmt: skip
def test_matmul_grads(chapter, rng, a, b):
    a, b = rng.standard_normal(a), rng.standard_normal(b)
    grad = rng.standard_normal((a @ b).shape)
    tensors = [mg.from_numpy(x.copy()).requires_grad_() for x in (a, b)]
    wanted = mg.grad(tensors[0] @ tensors[1], tensors, mg.from_numpy(grad))
    for ours, theirs in zip(chapter.matmul_grads(a, b, grad), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-12, strict=True)


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (7, 4)])
def test_centre_grad(chapter, rng, shape):
    x, grad = mg.from_numpy(rng.standard_normal(shape)).requires_grad_(), rng.standard_normal(shape)
    (wanted,) = mg.grad(x - x.mean(0), [x], mg.from_numpy(grad))
    np.testing.assert_allclose(chapter.centre_grad(grad), wanted.numpy(), rtol=1e-10, atol=1e-12)
