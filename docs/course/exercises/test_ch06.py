"""Tests of the exercises of chapter 6."""

import numpy as np
import pytest

import minigrad as mg


@pytest.mark.parametrize("shape", [(1, 4), (5, 3), (6, 20)])
def test_layer_norm_grad(chapter, rng, shape):
    x, weight, grad = rng.normal(2.0, 3.0, shape), rng.standard_normal(shape[1]), rng.standard_normal(shape)
    tensor = mg.from_numpy(x.copy()).requires_grad_()
    result = mg.layer_norm(tensor, shape[1], mg.from_numpy(weight), eps=1e-3)
    (wanted,) = mg.grad(result, [tensor], mg.from_numpy(grad))
    np.testing.assert_allclose(chapter.layer_norm_grad(x, weight, grad, 1e-3), wanted.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 8), (100, 1)])
@pytest.mark.parametrize("middle", [0.0, 1e6])
def test_merge(chapter, rng, sizes, middle):
    a, b = (rng.normal(middle, 1.0, size) for size in sizes)
    together = np.concatenate([a, b])
    count, mean, variance = chapter.merge(*((part.size, part.mean(), part.var()) for part in (a, b)))
    assert count == together.size
    assert mean == pytest.approx(together.mean(), rel=1e-14, abs=1e-14)
    assert variance == pytest.approx(together.var(), rel=1e-8)


def test_merge_in_float32(chapter, rng):
    a, b = (rng.normal(1e6, 100.0, 500).astype(np.float32) for _ in range(2))
    parts = [(500, np.float32(part.astype(float).mean()), np.float32(part.astype(float).var())) for part in (a, b)]
    wanted = np.concatenate([a, b]).astype(float).var()
    assert chapter.merge(*parts)[2] == pytest.approx(wanted, rel=1e-2)
