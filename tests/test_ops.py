"""Every op of the table: forward against NumPy, first and second derivatives, and the dtypes of both."""

import numpy as np
import op_table
import pytest

import minigrad as mg
from minigrad import ops
from minigrad.testing import gradcheck, gradgradcheck

ROWS = [pytest.param(row, id=row.name) for row in op_table.ROWS]
DIFFERENTIABLE = [pytest.param(row, id=row.name) for row in op_table.ROWS if row.grad]


def tensors(row, dtype, requires_grad=False):
    """The row's inputs as tensors, its floats in `dtype`."""
    made = []
    for x in row.inputs():
        is_float = x.dtype.kind == "f"
        made.append(mg.tensor(x, dtype if is_float else None, requires_grad=requires_grad and is_float))
    return made


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def assert_close(found, wanted, tolerance):
    """Same shape, and equal up to a fraction of the largest element; NaN and infinity in the same places."""
    assert found.shape == wanted.shape
    finite = wanted[np.isfinite(wanted)] if wanted.dtype.kind == "f" else wanted
    scale = max(1.0, float(np.abs(finite).max())) if finite.size and finite.dtype != bool else 1.0
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("row", ROWS)
def test_forward(row, dtype):
    """The op gives what NumPy gives; floats keep their dtype and the inputs their values."""
    arrays = row.inputs()
    inputs = tensors(row, dtype)
    found = as_tuple(row.call(*inputs))
    wanted = as_tuple(row.oracle(*arrays))
    assert len(found) == len(wanted)
    for y, z in zip(found, wanted, strict=True):
        z = np.asarray(z)
        y_dtype = y.dtype
        if z.dtype.kind == "f" and any(x.dtype.kind == "f" for x in arrays):
            assert y_dtype == dtype
        else:
            assert y_dtype.kind == z.dtype.kind
        assert y.data.flags.c_contiguous
        assert_close(y.numpy(), z, 1e-12 if dtype == "float64" else row.tolerance)
    for x, a in zip(inputs, arrays, strict=True):
        np.testing.assert_array_equal(x.numpy(), a.astype(x.dtype))


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_gradcheck(row):
    """The gradient agrees with central differences along random directions."""
    assert gradcheck(row.call, tensors(row, "float64", True))


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_gradgradcheck(row):
    """So does the gradient's gradient."""
    assert gradgradcheck(row.call, tensors(row, "float64", True))


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_float32_gradients(row):
    """float32 in, float32 gradients out; they are those of float64 up to rounding."""
    gradients = {}
    for dtype in ("float64", "float32"):
        inputs = tensors(row, dtype, True)
        leaves = [x for x in inputs if x.requires_grad]
        outputs = as_tuple(row.call(*inputs))
        rng = np.random.default_rng(1)
        weights = [mg.tensor(rng.standard_normal(y.shape), y.dtype) for y in outputs]
        gradients[dtype] = mg.grad(outputs, leaves, weights)
        for x, g in zip(leaves, gradients[dtype], strict=True):
            assert g.dtype == dtype and g.shape == x.shape and not g.requires_grad
    for g32, g64 in zip(gradients["float32"], gradients["float64"], strict=True):
        assert_close(g32.numpy(), g64.numpy(), 10 * row.tolerance)


def test_every_public_op_has_a_row():
    """Whoever adds an op adds a row."""
    assert {row.op for row in op_table.ROWS} == set(ops.__all__)


def test_names_are_unique():
    names = [row.name for row in op_table.ROWS]
    assert len(set(names)) == len(names)


def test_gradient_of_std_of_equal_values():
    """It is 0 in the row that is constant, not 0 * inf, and as without that row in the other one; so is the next."""
    x = mg.tensor([[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]], "float64", requires_grad=True)
    (g,) = mg.grad(ops.std(x, 1).sum(), x, create_graph=True)
    (h,) = mg.grad((g * g * g).sum(), x)
    row = mg.tensor([1.0, 2.0, 4.0], "float64", requires_grad=True)
    (g_row,) = mg.grad(ops.std(row), row, create_graph=True)
    (h_row,) = mg.grad((g_row * g_row * g_row).sum(), row)
    np.testing.assert_array_equal(g.detach().numpy(), [np.zeros(3), g_row.detach().numpy()])
    np.testing.assert_allclose(h.numpy(), [np.zeros(3), h_row.numpy()], rtol=1e-14)


def test_elu_keeps_its_digits_near_zero():
    x = -np.geomspace(1e-30, 1.0, 31, dtype=np.float32)
    np.testing.assert_allclose(mg.ops.elu(mg.tensor(x)).numpy(), np.expm1(x), rtol=1e-6)
