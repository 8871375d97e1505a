"""Elementwise kernels on 1-D arrays.

A binary kernel takes three arrays of one size, or an operand of size 1, or three 3-D arrays that broadcast.
"""

import numpy as np


def _unary(function):
    def kernel(x, out):
        with np.errstate(all="ignore"):
            function(x, out=out)

    return kernel


def _binary(function):
    def kernel(a, b, out):
        with np.errstate(all="ignore"):
            function(a, b, out=out)

    return kernel


neg = _unary(np.negative)
abs = _unary(np.absolute)
exp = _unary(np.exp)
log = _unary(np.log)
sqrt = _unary(np.sqrt)
sign = _unary(np.sign)
logical_not = _unary(np.logical_not)

add = _binary(np.add)
sub = _binary(np.subtract)
mul = _binary(np.multiply)
div = _binary(np.divide)
pow = _binary(np.power)
maximum = _binary(np.maximum)
minimum = _binary(np.minimum)
eq = _binary(np.equal)
ne = _binary(np.not_equal)
lt = _binary(np.less)
le = _binary(np.less_equal)
gt = _binary(np.greater)
ge = _binary(np.greater_equal)
logical_and = _binary(np.logical_and)
logical_or = _binary(np.logical_or)


def pow_scalar(x, out, exponent):
    """out = x ** exponent, with IEEE's results at zero and for negative bases."""
    with np.errstate(all="ignore"):
        np.power(x, x.dtype.type(exponent), out=out)


def where(condition, a, b, out):
    """out = a where condition, else b; the operands broadcast as those of a binary kernel."""
    out[...] = np.where(condition, a, b)


def cast(x, out):
    """out = x in out's type. A float becomes an integer by truncation; anything but zero (NaN too) is True."""
    with np.errstate(all="ignore"):
        out[...] = x.astype(out.dtype)


def copy(x, out):
    """out = x."""
    out[...] = x


def fill(out, value):
    """out = value."""
    out[...] = value
