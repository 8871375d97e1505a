"""Every op of the table on the CUDA device (the emulator, see conftest) against the CPU: results and gradients."""

import numpy as np
import op_table
import pytest
from test_ops import as_tuple, assert_close, tensors

import minigrad as mg

DEVICE = "cuda"
ROWS = [pytest.param(row, id=row.name) for row in op_table.ROWS]


def run(row, device):
    """The results and the gradients of a row on a device, as arrays; weights of the results are always the same."""
    inputs = []
    for x in tensors(row, "float32", True):
        there = x.detach().to(device)
        inputs.append(there.requires_grad_() if x.requires_grad and row.grad else there)
    outputs = as_tuple(row.call(*inputs))
    assert all(str(y.device) == device for y in outputs)
    leaves = [x for x in inputs if x.requires_grad]
    if not leaves:
        return [y.numpy() for y in outputs], []
    rng = np.random.default_rng(1)
    weights = [mg.tensor(rng.standard_normal(y.shape), y.dtype, device=device) for y in outputs]
    gradients = mg.grad(outputs, leaves, weights)
    assert all(str(g.device) == device for g in gradients)
    return [y.numpy() for y in outputs], [g.numpy() for g in gradients]


@pytest.mark.parametrize("row", ROWS)
def test_same_as_cpu(row):
    (found, found_gradients), (wanted, gradients) = run(row, DEVICE), run(row, "cpu")
    for y, z in zip(found, wanted, strict=True):
        assert y.dtype == z.dtype
        assert_close(y, z, row.tolerance)
    for y, z in zip(found_gradients, gradients, strict=True):
        assert y.dtype == z.dtype
        assert_close(y, z, 10 * row.tolerance)
