"""Matrix products. The gradients of a product are products again."""

from functools import lru_cache

from minigrad.dtypes import promote
from minigrad.function import Function
from minigrad.ops.common import broadcast_shapes, check_float, check_one_dtype, check_tensor, product
from minigrad.ops.shape import expand, reshape
from minigrad.tensor import Tensor


@lru_cache(4096)
def _plan(workspace, a, b, transpose_a, transpose_b, itemsize):
    """The shapes of a product and of its scratch memory, None if it needs none, given the operands' shapes."""
    m, n = a[-1 if transpose_a else -2], b[-2 if transpose_b else -1]
    size = workspace(a, b, transpose_a, transpose_b, itemsize)
    if len(a) == 2:
        return (m, n), (1, size) if size else None
    return (a[0] if b[0] == 1 else b[0], m, n), (1, 1, size) if size else None


@lru_cache(4096)
def _linear_plan(workspace, x, weight, itemsize):
    """The same of a linear layer."""
    size = workspace(x, weight, itemsize)
    return (x[0], weight[0]), (1, size) if size else None


class Matmul(Function):
    """C = op(A) op(B) of matrices or stacks of them, op the identity or the transpose;  dA = dC B', dB = A' dC"""

    answers_are_new = True
    transpose_a = transpose_b = 0

    def forward(self, a, b):
        device, ta, tb = self.device, self.transpose_a, self.transpose_b
        k = device.kernels
        shape, scratch = _plan(k.matmul_workspace, a.shape, b.shape, ta, tb, a.itemsize)
        out = device.empty(shape, a.dtype)
        k.matmul(a, b, out, device.empty(scratch, a.dtype) if scratch else out, ta, tb)
        return out

    def backward(self, grad):
        a, b = self.inputs
        ta, tb = self.transpose_a, self.transpose_b
        grad_a = grad_b = None
        if self.needs_input_grad[0]:
            grad_a = product_of(b, grad, tb, 1) if ta else product_of(grad, b, 0, 1 - tb)
        if self.needs_input_grad[1]:
            grad_b = product_of(grad, a, 1, ta) if tb else product_of(a, grad, 1 - ta, 0)
        return grad_a, grad_b


# The flags are the class's, not arguments, so that a product goes the short way of an op of two tensors.


class _MatmulTransposed(Matmul):
    answers_are_new = True
    transpose_b = 1


class _TransposedMatmul(Matmul):
    answers_are_new = True
    transpose_a = 1


class _TransposedMatmulTransposed(Matmul):
    answers_are_new = True
    transpose_a = transpose_b = 1


_PRODUCTS = (Matmul, _MatmulTransposed), (_TransposedMatmul, _TransposedMatmulTransposed)
for _product in (*_PRODUCTS[0], *_PRODUCTS[1]):
    _product.name = "matmul"


def product_of(a, b, transpose_a=0, transpose_b=0):
    """The product of two matrices, or of two stacks (B, M, K) and (B, K, N); either may be transposed."""
    return _PRODUCTS[transpose_a][transpose_b].apply_two(a, b)


class Linear(Function):
    """y = x W' + b for a batch of rows;  dx = dy W, dW = dy' x, db = sum dy"""

    answers_are_new = True

    def forward(self, x, weight, bias):
        device = self.device
        k = device.kernels
        shape, scratch = _linear_plan(k.linear_forward_workspace, x.shape, weight.shape, x.itemsize)
        out = device.empty(shape, x.dtype)
        if bias is None:
            bias = device.empty((0,), x.dtype)
        k.linear_forward(x, weight, bias, out, device.empty(scratch, x.dtype) if scratch else out)
        return out

    def backward(self, grad):
        x, weight, _ = self.inputs
        return linear_gradients(x, weight, grad, self.needs_input_grad)


def linear_gradients(x, weight, grad, needs):
    """dx, dW and db of ``x W' + b``, those that are needed."""
    return (
        product_of(grad, weight) if needs[0] else None,
        product_of(grad, x, 1, 0) if needs[1] else None,
        SumOfRows.apply_one(grad) if needs[2] else None,
    )


class SumOfRows(Function):
    """y = sum over the rows of a matrix: `sum` over dimension 0, with 1.3 us of Python instead of 3.4"""

    saves_inputs = False

    def forward(self, x):
        self.source = rows, width = x.shape
        out = self.device.empty((width,), x.dtype)
        self.device.kernels.sum(x.reshape((1, rows, width)), out.reshape((1, width)))
        return out

    def backward(self, grad):
        return (expand(grad, self.source),)


def matmul(a, b):
    """Matrix product with NumPy's rules: vectors, matrices, and broadcast stacks of matrices.

    Parameters
    ----------
    a : Tensor of shape (K,), (M, K) or (..., M, K)
    b : Tensor of shape (K,), (K, N) or (..., K, N)

    Raises
    ------
    ValueError
        If an operand is 0-d or the inner extents differ.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        left, right = a.data, b.data
        if (
            left.dtype is right.dtype
            and left.dtype.kind == "f"
            and left.ndim == right.ndim == 2
            and left.shape[1] == right.shape[0]
        ):  # most products: the checks below would take 1.2 us
            return Matmul.apply_two(a, b)
    check_float("matmul", a, "the first operand")
    check_float("matmul", b, "the second operand")
    if a.dtype != b.dtype:
        dtype = promote(a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: expected operands with at least one dimension, got {a.shape} and {b.shape}")
    rows, columns = a.ndim > 1, b.ndim > 1
    if a.shape[-1] != b.shape[-2 if columns else -1]:
        raise ValueError(
            f"matmul: expected the last extent of the first operand to match the second's, got {a.shape} and {b.shape}"
        )
    left = a if rows else reshape(a, (1, a.shape[0]))
    right = b if columns else reshape(b, (b.shape[0], 1))
    out = _matmul_stacks(left, right)
    shape = out.shape[:-2] + ((out.shape[-2],) if rows else ()) + ((out.shape[-1],) if columns else ())
    return out if shape == out.shape else reshape(out, shape)


def _matmul_stacks(a, b):
    """Matrix product of operands with at least two dimensions each."""
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if b.ndim == 2:  # one matrix on the right: the stack on the left is one tall matrix
        if a.ndim == 2:
            return product_of(a, b)
        return reshape(product_of(reshape(a, (product(a.shape[:-1]), k)), b), (*a.shape[:-1], n))
    batch = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    stacks = []
    for x in (a, b):
        single = product(x.shape[:-2]) == 1
        if not single and x.shape[:-2] != batch:
            x = expand(x, (*batch, *x.shape[-2:]))
        stacks.append(reshape(x, (1 if single else product(batch), *x.shape[-2:])))
    out = product_of(*stacks)
    return reshape(out, (*batch, m, n))


def linear(x, weight, bias=None):
    """``x @ weight.T + bias``

    Parameters
    ----------
    x : Tensor of shape (..., in_features)
    weight : Tensor of shape (out_features, in_features)
    bias : Tensor of shape (out_features,), optional

    Returns
    -------
    Tensor of shape (..., out_features)
    """
    if not _fit(x, weight, bias):
        _check_linear(x, weight, bias)
    if x.ndim == 2:
        return Linear.apply(x, weight, bias)
    out = Linear.apply(reshape(x, (product(x.shape[:-1]), x.shape[-1])), weight, bias)
    return reshape(out, (*x.shape[:-1], weight.shape[0]))


def _fit(x, weight, bias):
    """Whether everything is as it should be: 0.9 us, against 4 for the checks that know what to say."""
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return False
    rows, matrix = x.data, weight.data
    dtype, extents = matrix.dtype, matrix.shape
    if rows.dtype is not dtype or dtype.kind != "f" or len(extents) != 2 or rows.shape[-1:] != extents[1:]:
        return False
    return bias is None or (isinstance(bias, Tensor) and bias.data.dtype is dtype and bias.data.shape == extents[:1])


def _check_linear(x, weight, bias):
    """Raise if the arguments of `linear` do not fit together."""
    check_float("linear", x)
    check_float("linear", weight, "weight")
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: weight of shape {weight.shape} expects {weight.shape[-1] if weight.ndim else 0} input features, "
            f"got {x.shape[-1] if x.ndim else 0} (input shape {x.shape})"
        )
    if bias is not None and check_tensor("linear", bias, "bias").shape != weight.shape[:1]:
        raise ValueError(f"linear: expected bias of shape {weight.shape[:1]}, got {bias.shape}")
    check_one_dtype("linear", x, weight=weight, bias=bias)
