"""Reductions over any dimensions, and softmax."""

import math
from functools import lru_cache

from minigrad.dtypes import bool as bool_
from minigrad.dtypes import int64
from minigrad.function import Function
from minigrad.ops.common import (
    as_float,
    check_float,
    check_tensor,
    normalize_dim,
    normalize_dims,
    product,
)
from minigrad.ops.elementwise import Sqrt, exp, where
from minigrad.ops.shape import expand, permute, reshape


def _runs(dims):
    """Ascending dimensions as runs of neighbours: (1, 2, 4) -> [(1, 2), (4,)]."""
    runs = []
    for dim in dims:
        if runs and runs[-1][-1] == dim - 1:
            runs[-1].append(dim)
        else:
            runs.append([dim])
    return runs


def outer_reduced_inner(shape, first, last):
    """The three extents that a reduction kernel sees, for reduced dimensions first..last."""
    return product(shape[:first]), product(shape[first : last + 1]), product(shape[last + 1 :])


def reduce_array(fn, kernel, x, dims, dtype=None):
    """Reduce an array over ascending dimensions, one run of neighbours after the other; dims stay as 1."""
    for view, result, kept in _steps(x.shape, dims):
        out = fn.device.empty(kept, dtype or x.dtype)
        kernel(x.reshape(view), out.reshape(result))
        x = out
    return x


@lru_cache(4096)
def _steps(shape, dims):
    """The launches of a reduction: how each kernel sees its input and its output, and the output's shape."""
    steps = []
    for first, last in [(run[0], run[-1]) for run in reversed(_runs(dims))] or [(0, -1)]:
        m, r, k = outer_reduced_inner(shape, first, last)
        shape = shape[:first] + (1,) * (last + 1 - first) + shape[last + 1 :]
        steps.append(((m, r, k), (m, k), shape))
    return steps


@lru_cache(4096)
def keep_shape(shape, dims):
    """The shape with the reduced dimensions as 1."""
    return tuple([1 if i in dims else extent for i, extent in enumerate(shape)])


@lru_cache(4096)
def _drop(shape, dims):
    return tuple([extent for i, extent in enumerate(shape) if i not in dims])


class Reduction(Function):
    """What reductions share: dims to reduce, and the result's shape with or without them."""

    def prepare(self, x, dims, keepdim):
        """Remember the geometry; returns the result's shape."""
        self.source, self.kept = x.shape, keep_shape(x.shape, dims)
        self.dims = dims
        return self.kept if keepdim else _drop(x.shape, dims)

    def spread(self, y):
        """A result-shaped tensor repeated along the reduced dimensions."""
        return expand(reshape(y, self.kept), self.source)


class Sum(Reduction):
    """y = sum x;  dy/dx = 1"""

    saves_inputs = False

    def forward(self, x, dims, keepdim):
        shape = self.prepare(x, dims, keepdim)
        return reduce_array(self, self.device.kernels.sum, x, dims).reshape(shape)

    def backward(self, grad):
        return (self.spread(grad),)


class Max(Reduction):
    """y = max x; elements that share the maximum share the gradient equally (torch.amax)"""

    saves_output = True
    kernel = "max"

    def forward(self, x, dims, keepdim):
        shape = self.prepare(x, dims, keepdim)
        return reduce_array(self, getattr(self.device.kernels, self.kernel), x, dims).reshape(shape)

    def backward(self, grad):
        (x,) = self.inputs
        chosen = (x == self.spread(self.output.detach())).to(x.dtype)
        count = sum(chosen, self.dims, keepdim=True)
        return (chosen * (reshape(grad, self.kept) / count),)


class Min(Max):
    """y = min x; elements that share the minimum share the gradient equally (torch.amin)"""

    kernel = "min"


class Var(Reduction):
    """y = sum (x - mean)^2 / (n - correction);  dy/dx = 2 (x - mean) / (n - correction)"""

    def forward(self, x, dims, keepdim, correction):
        shape = self.prepare(x, dims, keepdim)
        m, r, k = outer_reduced_inner(x.shape, dims[0], dims[-1]) if dims else (x.size, 1, 1)
        average, out = self.device.empty((m, k), x.dtype), self.device.empty((m, k), x.dtype)
        x = x.reshape((m, r, k))
        self.device.kernels.mean(x, average)
        self.device.kernels.variance(x, average, out, correction)
        self.divisor = r - correction
        return out.reshape(shape)

    def backward(self, grad):
        (x,) = self.inputs
        scale = 2.0 / self.divisor if self.divisor > 0 else math.inf
        return ((x - mean(x, self.dims, keepdim=True)) * (reshape(grad, self.kept) * scale),)


class RootOfSum(Sqrt):
    """y = sqrt of a sum of squares;  dy/dx = 1 / (2 y), and 0 where y is 0, for there 0 * inf would make NaN of it"""

    def backward(self, grad):
        return (grad / (2.0 * where(self.output == 0.0, math.inf, self.output)),)


class Std(RootOfSum):
    """y = sqrt of a variance, which is a sum of squares"""


class Logsumexp(Reduction):
    """y = log sum e^x;  dy/dx = e^(x - y)"""

    saves_output = True

    def forward(self, x, dims, keepdim):
        shape = self.prepare(x, dims, keepdim)
        m, r, k = outer_reduced_inner(x.shape, dims[0], dims[-1]) if dims else (x.size, 1, 1)
        out = self.device.empty(shape, x.dtype)
        self.device.kernels.logsumexp(x.reshape((m, r, k)), out.reshape((m, k)))
        return out

    def backward(self, grad):
        (x,) = self.inputs
        return (reshape(grad, self.kept) * exp(x - reshape(self.output, self.kept)),)


class ArgReduce(Function):
    """The index of the first largest (or smallest) element"""

    kernel_choices = ("argmax", "argmin")
    differentiable = False
    saves_inputs = False

    def forward(self, x, kernel, dim, keepdim):
        m, r, k = outer_reduced_inner(x.shape, dim, dim) if x.shape else (1, 1, 1)
        shape = keep_shape(x.shape, (dim,)) if keepdim else _drop(x.shape, (dim,))
        out = self.device.empty(shape, int64)
        getattr(self.device.kernels, kernel)(x.reshape((m, r, k)), out.reshape((m, k)))
        return out


class Truth(Reduction):
    """Whether any or all elements are true"""

    kernel_choices = ("any", "all")
    differentiable = False
    saves_inputs = False

    def forward(self, x, kernel, dims, keepdim):
        shape = self.prepare(x, dims, keepdim)
        return reduce_array(self, getattr(self.device.kernels, kernel), x, dims).reshape(shape)


@lru_cache(4096)
def _along(shape, dim):
    """The three extents that a kernel along one dimension sees."""
    return outer_reduced_inner(shape, dim, dim) if shape else (1, 1, 1)


def run_softmax(fn, kernel, dim, *arrays):
    """Run a kernel of the softmax family along one dimension."""
    shape = arrays[0].shape
    view = _along(shape, dim)
    out = fn.device.empty(shape, arrays[0].dtype)
    kernel(*[x.reshape(view) for x in arrays], out.reshape(view))
    return out


class Softmax(Function):
    """y = e^x / sum e^x"""

    saves_inputs = False
    saves_output = True

    def forward(self, x, dim):
        self.dim = dim
        return run_softmax(self, self.device.kernels.softmax, dim, x)

    def backward(self, grad):
        return (SoftmaxGrad.apply(self.output, grad, dim=self.dim),)


class SoftmaxGrad(Function):
    """y (grad - sum grad y), in one pass"""

    def forward(self, y, grad, dim):
        self.dim = dim
        return run_softmax(self, self.device.kernels.softmax_grad, dim, y, grad)

    def compose(self, y, grad):
        return y * (grad - sum(grad * y, self.dim, keepdim=True))


class LogSoftmax(Function):
    """y = x - log sum e^x"""

    saves_inputs = False
    saves_output = True

    def forward(self, x, dim):
        self.dim = dim
        return run_softmax(self, self.device.kernels.log_softmax, dim, x)

    def backward(self, grad):
        return (LogSoftmaxGrad.apply(self.output, grad, dim=self.dim),)


class LogSoftmaxGrad(Function):
    """grad - e^y sum grad, in one pass"""

    def forward(self, y, grad, dim):
        self.dim = dim
        return run_softmax(self, self.device.kernels.log_softmax_grad, dim, y, grad)

    def compose(self, y, grad):
        return grad - exp(y) * sum(grad, self.dim, keepdim=True)


# -- the functions -----------------------------------------------------------------------------------------------


def sum(x, dim=None, keepdim=False):
    """Sum over a dimension, several, or all (None). Sums of bool are int64.

    Parameters
    ----------
    x : Tensor
    dim : int, sequence of int or None
    keepdim : bool
        Whether the reduced dimensions stay, with extent 1.
    """
    check_tensor("sum", x)
    x = x.long() if x.dtype == bool_ else x
    return Sum.apply(x, dims=normalize_dims("sum", dim, x.ndim), keepdim=keepdim)


def mean(x, dim=None, keepdim=False):
    """Mean over a dimension, several, or all (None); NaN over no elements."""
    check_float("mean", x)
    dims = normalize_dims("mean", dim, x.ndim)
    count = product([x.shape[d] for d in dims])
    return sum(x, dims, keepdim) / float(count)


def var(x, dim=None, correction=1, keepdim=False):
    """Variance over a dimension, several, or all (None), in two passes.

    Parameters
    ----------
    correction : int
        The sum of squares is divided by ``n - correction``: 1 for the unbiased estimate, 0 for the biased one.
    """
    check_float("var", x)
    dims = normalize_dims("var", dim, x.ndim)
    x, dims, restore = _neighbours(x, dims)
    return restore(Var.apply(x, dims=dims, keepdim=keepdim, correction=correction), keepdim)


def std(x, dim=None, correction=1, keepdim=False):
    """Standard deviation: the root of `var`. Where it is 0, all values being equal, so is its gradient."""
    return Std.apply_one(var(x, dim, correction, keepdim))


def _extreme(function, op, x, dim, keepdim):
    check_tensor(op, x)
    dims = normalize_dims(op, dim, x.ndim)
    if product([x.shape[d] for d in dims]) == 0:
        raise ValueError(f"{op}: expected at least one element to choose from, got shape {x.shape} over dim {dim}")
    return function.apply(x, dims=dims, keepdim=keepdim)


def max(x, dim=None, keepdim=False):
    """The largest element over a dimension, several, or all (None); NaN if there is one.

    Elements that share the maximum share its gradient equally.
    """
    return _extreme(Max, "max", x, dim, keepdim)


def min(x, dim=None, keepdim=False):
    """The smallest element over a dimension, several, or all (None); NaN if there is one.

    Elements that share the minimum share its gradient equally.
    """
    return _extreme(Min, "min", x, dim, keepdim)


def _arg(kernel, x, dim, keepdim):
    check_tensor(kernel, x)
    if dim is None:
        flat = ArgReduce.apply(reshape(x, (x.numel(),)), kernel=kernel, dim=0, keepdim=False) if _some(kernel, x) else x
        return reshape(flat, (1,) * x.ndim) if keepdim else flat
    dim = normalize_dim(kernel, dim, x.ndim)
    if x.shape and x.shape[dim] == 0:
        raise ValueError(f"{kernel}: expected at least one element along dim {dim}, got shape {x.shape}")
    return ArgReduce.apply(x, kernel=kernel, dim=dim, keepdim=keepdim)


def _some(op, x):
    if x.numel() == 0:
        raise ValueError(f"{op}: expected at least one element, got shape {x.shape}")
    return True


def argmax(x, dim=None, keepdim=False):
    """The index of the first largest element along a dimension, or of the flattened tensor (None)."""
    return _arg("argmax", x, dim, keepdim)


def argmin(x, dim=None, keepdim=False):
    """The index of the first smallest element along a dimension, or of the flattened tensor (None)."""
    return _arg("argmin", x, dim, keepdim)


def any(x, dim=None, keepdim=False):
    """Whether some element is true (not 0)."""
    x = check_tensor("any", x).bool()
    return Truth.apply(x, kernel="any", dims=normalize_dims("any", dim, x.ndim), keepdim=keepdim)


def all(x, dim=None, keepdim=False):
    """Whether every element is true (not 0)."""
    x = check_tensor("all", x).bool()
    return Truth.apply(x, kernel="all", dims=normalize_dims("all", dim, x.ndim), keepdim=keepdim)


def _neighbours(x, dims):
    """Permute so that the reduced dimensions are neighbours, at the end; and how to undo it on the result."""
    if len(_runs(dims)) <= 1:
        return x, dims, lambda y, keepdim: y
    rest = tuple([d for d in range(x.ndim) if d not in dims])
    kept = keep_shape(x.shape, dims)
    moved = permute(x, rest + dims)
    return moved, tuple(range(len(rest), x.ndim)), lambda y, keepdim: reshape(y, kept) if keepdim else y


def logsumexp(x, dim=None, keepdim=False):
    """``log(sum(exp(x)))`` over a dimension, several, or all (None), safe from overflow."""
    x = as_float("logsumexp", x)
    x, dims, restore = _neighbours(x, normalize_dims("logsumexp", dim, x.ndim))
    return restore(Logsumexp.apply(x, dims=dims, keepdim=keepdim), keepdim)


def _softmax(function, op, x, dim):
    x = as_float(op, x)
    if type(dim) is int:
        if 0 <= dim < len(x.data.shape):
            return function.apply(x, dim=dim)
        return function.apply(x, dim=normalize_dim(op, dim, x.ndim))
    dims = normalize_dims(op, dim, x.ndim)
    if len(dims) <= 1:
        return function.apply(x, dim=dims[0] if dims else 0)
    rest = tuple([d for d in range(x.ndim) if d not in dims])  # several dimensions: as one, at the end
    moved = permute(x, rest + dims)
    flat = reshape(moved, (*[x.shape[d] for d in rest], product([x.shape[d] for d in dims])))
    back = [0] * x.ndim
    for position, d in enumerate(rest + dims):
        back[d] = position
    return permute(reshape(function.apply(flat, dim=len(rest)), moved.shape), tuple(back))


def softmax(x, dim):
    """``exp(x) / sum(exp(x))`` along a dimension, several, or all (None)."""
    return _softmax(Softmax, "softmax", x, dim)


def log_softmax(x, dim):
    """``x - logsumexp(x)`` along a dimension, several, or all (None)."""
    return _softmax(LogSoftmax, "log_softmax", x, dim)


def sum_to(x, shape):
    """Undo broadcasting: sum over the dimensions along which a tensor of `shape` was repeated."""
    lead = x.ndim - len(shape)
    dims = tuple(range(lead)) + tuple([i + lead for i, e in enumerate(shape) if e == 1 and x.shape[i + lead] != 1])
    return reshape(sum(x, dims, keepdim=True), shape)
