"""Elementwise kernels on 1-D arrays.

A binary kernel takes three arrays of one size, or an operand of size 1, or three 3-D arrays that broadcast.
"""

import numpy as np

from minigrad.kernels.cpu import vector_math
from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.parallel import merged, parallel_for, parallel_kernel
from minigrad.kernels.cpu.vector_math import strict

BLOCK = 16384  # elements of a block: 64 KiB of float32 per array, about 1 µs of the cheapest kernel
# From how many elements on two threads beat one: a launch costs 3 to 5 µs. Adding 40,000 float32 takes one thread
# 4.2 µs and two 5.0, 50,000 take 7.4 and 6.0, 64,000 take 8.2 and 6.0; exp of 30,000 takes 5.7 µs, gelu 14 µs.
PARALLEL = 49152
PARALLEL_COSTLY = 32768


@inline
def blocks(size, width=BLOCK):
    """How many blocks an elementwise loop over `size` elements has."""
    return (size + width - 1) // width


@inline
def span(block, size, width=BLOCK):
    """The first element of a block, and the one behind its last."""
    return block * width, min((block + 1) * width, size)


def unary(name, f, threshold=PARALLEL):
    """The kernel out[i] = f(x[i])."""
    f = strict(f)

    @inline
    def one_block(block, x, out):
        start, stop = span(block, out.size)
        source, target = x[start:stop], out[start:stop]
        for i in range(target.size):
            target[i] = f(source[i])

    @parallel_kernel(name=name)
    def body(x, out):
        parallel_for(one_block, blocks(out.size), out.size >= threshold, (x, out))

    return body


def binary(name, f, threshold=PARALLEL):
    """The kernel out = f(a, b) of three 1-D arrays, a or b perhaps of size 1, or three 3-D arrays that broadcast."""
    f = strict(f)

    @merged
    def row(a, b, out):
        if a.size == out.size and b.size == out.size:
            for i in range(out.size):
                out[i] = f(a[i], b[i])
        elif b.size == 1:
            right = b[0]
            for i in range(out.size):
                out[i] = f(a[i], right)
        else:
            left = a[0]
            for i in range(out.size):
                out[i] = f(left, b[i])

    @inline
    def one_block(block, a, b, out):
        start, stop = span(block, out.size)
        left = a[start:stop] if a.size == out.size else a
        right = b[start:stop] if b.size == out.size else b
        row(left, right, out[start:stop])

    @inline
    def rows(block, a, b, out, count):
        many = out.shape[1]
        i, j = block * count // many, block * count % many
        for _ in range(block * count, min((block + 1) * count, out.shape[0] * many)):
            row(broadcast_row(a, i, j), broadcast_row(b, i, j), out[i, j])
            i, j = (i + 1, 0) if j + 1 == many else (i, j + 1)  # (64, 1000) + (1000): 8.2 us, 13.3 with divisions

    @parallel_kernel(name=name)
    def body(a, b, out):
        if out.ndim == 1:
            parallel_for(one_block, blocks(out.size), out.size >= threshold, (a, b, out))
        else:
            count = rows_of_block(out)
            many = (out.shape[0] * out.shape[1] + count - 1) // count
            parallel_for(rows, many, out.size >= threshold, (a, b, out, count))

    return body


@inline
def rows_of_block(out):
    """How many rows of a 3-D array make up a block."""
    return max(1, BLOCK // max(1, out.shape[2]))


@inline
def broadcast_row(a, i, j):
    """Row (i, j) of a 3-D array in which an extent of 1 stands for any."""
    return a[i if a.shape[0] > 1 else 0, j if a.shape[1] > 1 else 0]


def _sign(x):
    zero, one = type(x)(0), type(x)(1)
    return one if x > zero else (-one if x < zero else x)  # NaN and zero are their own signs


neg = unary("neg", lambda x: -x)
abs = unary("abs", lambda x: np.abs(x))
exp = unary("exp", lambda x: vector_math.exp(x), PARALLEL_COSTLY)
log = unary("log", lambda x: vector_math.log(x), PARALLEL_COSTLY)
sqrt = unary("sqrt", lambda x: np.sqrt(x))
sign = unary("sign", _sign)
logical_not = unary("logical_not", lambda x: not x)
copy = unary("copy", lambda x: x)

add = binary("add", lambda a, b: a + b)
sub = binary("sub", lambda a, b: a - b)
mul = binary("mul", lambda a, b: a * b)
div = binary("div", lambda a, b: a / b)
pow = binary("pow", lambda a, b: vector_math.pow(a, b), BLOCK)
maximum = binary("maximum", lambda a, b: a if (a > b) | (a != a) else b)
minimum = binary("minimum", lambda a, b: a if (a < b) | (a != a) else b)
eq = binary("eq", lambda a, b: a == b)
ne = binary("ne", lambda a, b: a != b)
lt = binary("lt", lambda a, b: a < b)
le = binary("le", lambda a, b: a <= b)
gt = binary("gt", lambda a, b: a > b)
ge = binary("ge", lambda a, b: a >= b)
logical_and = binary("logical_and", lambda a, b: a & b)
logical_or = binary("logical_or", lambda a, b: a | b)


@strict
def _power(x, exponent):
    return vector_math.pow(x, exponent)


@strict
def _over(a, b):
    return a / b


@inline
def _pow_block(block, x, out, exponent):
    start, stop = span(block, out.size)
    source, target = x[start:stop], out[start:stop]
    one = x.dtype.type(1)
    if exponent == 2.0:
        for i in range(target.size):
            target[i] = source[i] * source[i]
    elif exponent == 3.0:
        for i in range(target.size):
            target[i] = source[i] * source[i] * source[i]
    elif exponent == 0.5:  # as NumPy and PyTorch: the square root, NaN at -inf
        for i in range(target.size):
            target[i] = np.sqrt(source[i])
    elif exponent == -1.0:
        for i in range(target.size):
            target[i] = _over(one, source[i])
    else:
        e = x.dtype.type(exponent)
        for i in range(target.size):
            target[i] = _power(source[i], e)


@parallel_kernel
def pow_scalar(x, out, exponent):
    parallel_for(_pow_block, blocks(out.size), out.size >= PARALLEL, (x, out, exponent))


@merged
def _where_row(condition, a, b, out):
    full_condition, full_a, full_b = condition.size == out.size, a.size == out.size, b.size == out.size
    if full_condition and full_a and full_b:
        for i in range(out.size):  # both are loaded, so that a vector can choose
            left, right = a[i], b[i]
            out[i] = left if condition[i] else right
    elif full_condition and full_b:
        left = a[0]
        for i in range(out.size):
            right = b[i]
            out[i] = left if condition[i] else right
    elif full_condition and full_a:
        right = b[0]
        for i in range(out.size):
            left = a[i]
            out[i] = left if condition[i] else right
    else:
        step_condition, step_a, step_b = int(full_condition), int(full_a), int(full_b)
        for i in range(out.size):
            out[i] = a[i * step_a] if condition[i * step_condition] else b[i * step_b]


@inline
def _where_block(block, condition, a, b, out):
    start, stop = span(block, out.size)
    chosen = condition[start:stop] if condition.size == out.size else condition
    left = a[start:stop] if a.size == out.size else a
    right = b[start:stop] if b.size == out.size else b
    _where_row(chosen, left, right, out[start:stop])


@inline
def _where_rows(block, condition, a, b, out, count):
    many = out.shape[1]
    i, j = block * count // many, block * count % many
    for _ in range(block * count, min((block + 1) * count, out.shape[0] * many)):
        _where_row(broadcast_row(condition, i, j), broadcast_row(a, i, j), broadcast_row(b, i, j), out[i, j])
        i, j = (i + 1, 0) if j + 1 == many else (i, j + 1)


@parallel_kernel
def where(condition, a, b, out):
    if out.ndim == 1:
        parallel_for(_where_block, blocks(out.size), out.size >= PARALLEL, (condition, a, b, out))
    else:
        count = rows_of_block(out)
        many = (out.shape[0] * out.shape[1] + count - 1) // count
        parallel_for(_where_rows, many, out.size >= PARALLEL, (condition, a, b, out, count))


@inline
def _cast_block(block, x, out):
    start, stop = span(block, out.size)
    source, target = x[start:stop], out[start:stop]
    for i in range(target.size):
        target[i] = out.dtype.type(source[i])


@parallel_kernel
def cast(x, out):
    parallel_for(_cast_block, blocks(out.size), out.size >= PARALLEL, (x, out))


@inline
def _fill_block(block, out, value):
    start, stop = span(block, out.size)
    target, v = out[start:stop], out.dtype.type(value)
    for i in range(target.size):
        target[i] = v


@parallel_kernel
def fill(out, value):
    parallel_for(_fill_block, blocks(out.size), out.size >= PARALLEL, (out, value))
