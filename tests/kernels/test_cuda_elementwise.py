"""The elementwise CUDA kernels against the reference."""

import pytest
from agreement import FLOATS, numbers
from cuda_agreement import check


@pytest.mark.parametrize("dtype", FLOATS)
def test_fill(dtype):
    for size in (1, 5, 300):
        check("fill", (numbers(size, dtype), 0.25), {0})
