"""Layer normalisation against the reference."""

import numpy as np
import pytest
from agreement import FLOATS, affine, check, empty, numbers

LAYER_SHAPES = ((1, 2), (3, 5), (17, 130), (200, 33), (5, 3000), (600, 128))
PARALLEL = ((600, 128),)


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm(dtype):
    for shape in LAYER_SHAPES:
        rows, length = shape
        x, grad = numbers(shape, dtype) + dtype(2), numbers(shape, dtype, 1)
        column, vector, threads = empty(rows, dtype), empty(length, dtype), shape in PARALLEL
        mean, rstd = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + dtype(1e-5))
        for weight, bias in affine(length, dtype):
            arguments = (x, weight, bias, empty(shape, dtype), column, column, 1e-5)
            check("layer_norm_forward", arguments, {3, 4, 5}, 32, 32, threads)
            arguments = (x, mean, rstd, weight, grad, empty(shape, dtype), vector, vector)
            check("layer_norm_backward", arguments, {5, 6, 7}, 32, 64, threads)
