"""Arithmetic, comparison and the elementary functions, one element at a time."""

import numpy as np

from minigrad.dtypes import as_dtype, float32, int64, is_float
from minigrad.dtypes import bool as bool_
from minigrad.function import Function
from minigrad.ops.common import (
    NUMBER,
    as_float,
    check_tensor,
    elementwise,
    elementwise_pair,
    map_array,
    operands,
    zip_arrays,
)
from minigrad.tensor import Tensor


class Add(Function):
    """y = a + b"""

    saves_inputs = False

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.add, a, b)

    def backward(self, grad):
        return grad, grad


class Sub(Function):
    """y = a - b"""

    saves_inputs = False

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.sub, a, b)

    def backward(self, grad):
        return grad, -grad if self.needs_input_grad[1] else None


class Mul(Function):
    """y = a b"""

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.mul, a, b)

    def backward(self, grad):
        a, b = self.inputs
        return (
            grad * b if self.needs_input_grad[0] else None,
            grad * a if self.needs_input_grad[1] else None,
        )


class Div(Function):
    """y = a / b"""

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.div, a, b)

    def backward(self, grad):
        a, b = self.inputs
        return (
            grad / b if self.needs_input_grad[0] else None,
            -grad * a / (b * b) if self.needs_input_grad[1] else None,
        )


class Pow(Function):
    """y = a ** b for tensors;  dy/da = b a^(b-1), dy/db = y log a, and 0 where the limit is 0 (0^0, 0^b)"""

    saves_output = True

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.pow, a, b)

    def backward(self, grad):
        a, b = self.inputs
        if not isinstance(a, Tensor):
            a = Tensor(self.device.full((), a, grad.dtype), self.device)
        # Where the factor would be 0 * inf the base becomes 1, before the power: second derivatives stay finite too.
        grad_a = grad_b = None
        if self.needs_input_grad[0]:
            grad_a = grad * b * pow(where(logical_and(a == 0.0, b == 0.0), 1.0, a), b - 1.0)
        if self.needs_input_grad[1]:
            grad_b = grad * self.output * log(where(logical_and(a == 0.0, b >= 0.0), 1.0, a))
        return grad_a, grad_b


class PowScalar(Function):
    """y = x ** exponent;  dy/dx = exponent x^(exponent-1)"""

    def forward(self, x, exponent):
        self.exponent = exponent
        return map_array(self, self.device.kernels.pow_scalar, x, exponent)

    def backward(self, grad):
        (x,) = self.inputs
        if self.exponent == 0:
            return (grad * 0.0,)
        return (grad * (self.exponent * pow(x, self.exponent - 1)),)


class Neg(Function):
    """y = -x"""

    saves_inputs = False

    def forward(self, x):
        return map_array(self, self.device.kernels.neg, x)

    def backward(self, grad):
        return (-grad,)


class Abs(Function):
    """y = |x|;  dy/dx = sign x, 0 at 0"""

    def forward(self, x):
        return map_array(self, self.device.kernels.abs, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (grad * sign(x),)


class Sign(Function):
    """y = -1, 0 or 1;  dy/dx = 0"""

    saves_inputs = False

    def forward(self, x):
        return map_array(self, self.device.kernels.sign, x)

    def backward(self, grad):
        return (grad * 0.0,)


class Exp(Function):
    """y = e^x;  dy/dx = y"""

    saves_inputs = False
    saves_output = True

    def forward(self, x):
        return map_array(self, self.device.kernels.exp, x)

    def backward(self, grad):
        return (grad * self.output,)


class Log(Function):
    """y = log x;  dy/dx = 1 / x"""

    def forward(self, x):
        return map_array(self, self.device.kernels.log, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (grad / x,)


class Sqrt(Function):
    """y = sqrt x;  dy/dx = 1 / (2 y)"""

    saves_inputs = False
    saves_output = True

    def forward(self, x):
        return map_array(self, self.device.kernels.sqrt, x)

    def backward(self, grad):
        return (grad / (2.0 * self.output),)


class Maximum(Function):
    """y = max(a, b); where they are equal each gets half the gradient"""

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.maximum, a, b)

    def backward(self, grad):
        a, b = self.inputs
        return _shares(grad, a > b, a == b, self.needs_input_grad)


class Minimum(Function):
    """y = min(a, b); where they are equal each gets half the gradient"""

    def forward(self, a, b):
        return elementwise_pair(self, self.device.kernels.minimum, a, b)

    def backward(self, grad):
        a, b = self.inputs
        return _shares(grad, a < b, a == b, self.needs_input_grad)


def _shares(grad, first, equal, needs):
    """The gradient where the first operand won, half of it where they were equal; the rest for the second."""
    of_first = where(equal, grad * 0.5, where(first, grad, 0.0))
    return of_first if needs[0] else None, grad - of_first if needs[1] else None


class Clip(Function):
    """y = min(max(x, low), high);  dy/dx = 1 inside the bounds, both included, 0 outside"""

    def forward(self, x, low, high):
        self.bounds = low, high
        return map_array(self, self.device.kernels.clip, x, low, high)

    def backward(self, grad):
        (x,) = self.inputs
        low, high = self.bounds
        return (ClipGrad.apply(x, grad, low=low, high=high),)


class ClipGrad(Function):
    """The gradient of clip: grad where low <= x <= high"""

    def forward(self, x, grad, low, high):
        self.bounds = low, high
        return zip_arrays(self, self.device.kernels.clip_grad, x, grad, low, high)

    def backward(self, grad):
        x, _ = self.inputs
        low, high = self.bounds
        return None, ClipGrad.apply(x, grad, low=low, high=high)


class Where(Function):
    """y = a where the condition holds, b elsewhere"""

    def forward(self, condition, a, b):
        dtype = b.dtype if isinstance(a, NUMBER) else a.dtype
        a, b = [self.device.full((), x, dtype) if isinstance(x, NUMBER) else x for x in (a, b)]
        return elementwise(self, self.device.kernels.where, dtype, condition, a, b)

    def backward(self, grad):
        condition = self.inputs[0]
        return (
            None,
            where(condition, grad, 0.0) if self.needs_input_grad[1] else None,
            where(condition, 0.0, grad) if self.needs_input_grad[2] else None,
        )


class Cast(Function):
    """y = x in another dtype; the gradient goes back to the dtype of x"""

    saves_inputs = False

    def forward(self, x, dtype):
        self.source = x.dtype
        out = self.device.empty(x.shape, dtype)
        self.device.kernels.cast(x.ravel(), out.ravel())
        return out

    def backward(self, grad):
        return (cast(grad, self.source),)


class Clone(Function):
    """y = x, in memory of its own"""

    saves_inputs = False

    def forward(self, x):
        return map_array(self, self.device.kernels.copy, x)

    def backward(self, grad):
        return (grad,)


class Compare(Function):
    """y = whether a <relation> b, elementwise"""

    kernel_choices = ("eq", "ne", "lt", "le", "gt", "ge")
    differentiable = False
    saves_inputs = False

    def forward(self, a, b, relation):
        return elementwise_pair(self, getattr(self.device.kernels, relation), a, b, bool_)


class Logical(Function):
    """y = a <relation> b of truth values"""

    kernel_choices = ("logical_and", "logical_or")
    differentiable = False
    saves_inputs = False

    def forward(self, a, b, relation):
        return elementwise_pair(self, getattr(self.device.kernels, relation), a, b, bool_)


class LogicalNot(Function):
    """y = not x"""

    differentiable = False
    saves_inputs = False

    def forward(self, x):
        return map_array(self, self.device.kernels.logical_not, x)


# -- the functions -----------------------------------------------------------------------------------------------


def _arithmetic(function, op, a, b):
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.data.dtype is b.data.dtype is not bool_:
        return function.apply_two(a, b)  # the frequent case
    a, b = operands(op, a, b)
    if (b if isinstance(b, Tensor) else a).data.dtype is bool_:  # True + True is 2
        a, b = [x.long() if isinstance(x, Tensor) else x for x in (a, b)]
    return function.apply(a, b)


def add(a, b):
    """Sum of two tensors, or a tensor and a number, broadcast."""
    return _arithmetic(Add, "add", a, b)


def sub(a, b):
    """Difference of two tensors, or a tensor and a number, broadcast."""
    return _arithmetic(Sub, "sub", a, b)


def mul(a, b):
    """Product of two tensors, or a tensor and a number, broadcast."""
    return _arithmetic(Mul, "mul", a, b)


def div(a, b):
    """Quotient of two tensors, or a tensor and a number, broadcast; of integers too it is a float."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.data.dtype is b.data.dtype and is_float(a.data.dtype):
        return Div.apply_two(a, b)  # the frequent case: 2.6 us instead of 4.4
    a, b = operands("div", a, b)
    a, b = [as_float("div", x) if isinstance(x, Tensor) else x for x in (a, b)]
    return Div.apply(a, b)


def pow(a, b):
    """Power: ``a ** b``, broadcast; of integers too it is a float."""
    if type(b) is float and isinstance(a, Tensor) and is_float(a.data.dtype):
        return PowScalar.apply(a, exponent=b)  # the frequent case
    a, b = operands("pow", a, b)
    a, b = [as_float("pow", x) if isinstance(x, Tensor) else x for x in (a, b)]
    return PowScalar.apply(a, exponent=float(b)) if isinstance(b, NUMBER) else Pow.apply(a, b)


def neg(x):
    """``-x``"""
    return Neg.apply_one(check_tensor("neg", x))


def abs(x):
    """Absolute value."""
    return Abs.apply_one(check_tensor("abs", x))


def sign(x):
    """-1, 0 or 1 by the sign of each element."""
    return Sign.apply_one(check_tensor("sign", x))


def exp(x):
    """The exponential function."""
    return Exp.apply_one(as_float("exp", x))


def log(x):
    """The natural logarithm."""
    return Log.apply_one(as_float("log", x))


def sqrt(x):
    """The square root."""
    return Sqrt.apply_one(as_float("sqrt", x))


def maximum(a, b):
    """The larger of two, elementwise, broadcast; NaN if either is."""
    return _arithmetic(Maximum, "maximum", a, b)


def minimum(a, b):
    """The smaller of two, elementwise, broadcast; NaN if either is."""
    return _arithmetic(Minimum, "minimum", a, b)


def clip(x, min=None, max=None):
    """Limit the elements to ``[min, max]``; a bound of None is none.

    Raises
    ------
    ValueError
        If both bounds are None.
    """
    if min is None and max is None:
        raise ValueError("clip: expected min or max or both, got neither")
    for bound in (min, max):
        if bound is not None and not isinstance(bound, (*NUMBER, np.generic)):
            raise TypeError(f"clip: expected the bounds as numbers, got {type(bound).__name__}")
    low = float("-inf") if min is None else float(min)
    high = float("inf") if max is None else float(max)
    return Clip.apply(as_float("clip", x), low=low, high=high)


def where(condition, a, b):
    """Elements of `a` where the bool tensor `condition` holds, of `b` elsewhere, broadcast.

    `a` and `b` are tensors or numbers.
    """
    check_tensor("where", condition, "condition")
    if condition.dtype != bool_:
        raise TypeError(f"where: expected a condition of dtype bool, got {condition.dtype}")
    if isinstance(a, (*NUMBER, np.generic)) and not isinstance(b, Tensor):
        kind = bool_ if isinstance(a, (bool, np.bool_)) else int64 if isinstance(a, (int, np.integer)) else float32
        a = Tensor(condition.device.from_numpy(np.array(a, kind)), condition.device)
    a, b = operands("where", a, b)
    return Where.apply(condition, a, b)


def cast(x, dtype):
    """The tensor in another dtype; itself if it has that one. Only between floats is there a gradient."""
    dtype = as_dtype(dtype)
    if check_tensor("cast", x).dtype == dtype:
        return x
    return Cast.apply(x if is_float(dtype) else x.detach(), dtype=dtype)


def clone(x):
    """A copy in memory of its own."""
    return Clone.apply_one(check_tensor("clone", x))


def _compare(relation, a, b):
    a, b = operands(relation, a, b)
    return Compare.apply(a, b, relation=relation)


def eq(a, b):
    """``a == b``, elementwise."""
    return _compare("eq", a, b)


def ne(a, b):
    """``a != b``, elementwise."""
    return _compare("ne", a, b)


def lt(a, b):
    """``a < b``, elementwise."""
    return _compare("lt", a, b)


def le(a, b):
    """``a <= b``, elementwise."""
    return _compare("le", a, b)


def gt(a, b):
    """``a > b``, elementwise."""
    return _compare("gt", a, b)


def ge(a, b):
    """``a >= b``, elementwise."""
    return _compare("ge", a, b)


def logical_and(a, b):
    """Whether both are true (not 0), elementwise."""
    return Logical.apply(check_tensor("logical_and", a).bool(), check_tensor("logical_and", b).bool(),
                         relation="logical_and")


def logical_or(a, b):
    """Whether one is true (not 0), elementwise."""
    return Logical.apply(check_tensor("logical_or", a).bool(), check_tensor("logical_or", b).bool(),
                         relation="logical_or")


def logical_not(x):
    """Whether the element is false (0)."""
    return LogicalNot.apply_one(check_tensor("logical_not", x).bool())
