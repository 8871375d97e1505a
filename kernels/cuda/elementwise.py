"""Elementwise kernels on 1-D arrays.

A binary kernel takes three arrays of one size, or an operand of size 1, or three 3-D arrays that broadcast.
"""

from minigrad.kernels.cuda.language import (
    THREADS,
    Float,
    Int,
    Pointer,
    T,
    blocks,
    int32,
    kernel,
    load4,
    math,
    store4,
    thread_index,
)
from minigrad.kernels.cuda.maps import (
    broadcast_strides,
    broadcast_two,
    broadcast_width,
    map_one,
    map_two,
    pairs_of,
    place,
    quad,
)

WIDE = ("LDG.E.128", "STG.E.128")


def unary(name, f, promises=WIDE, **options):
    """The kernel out[i] = f(x[i])."""
    run = map_one(name, f, promises=promises, **options)

    def launch(x, out):
        run(x, out)

    return launch


def binary(name, f, result=Pointer, promises=WIDE, **options):
    """The kernel out = f(a, b) of three 1-D arrays, a or b perhaps of size 1, or three 3-D arrays that broadcast."""
    flat = map_two(name, f, result, promises=promises, **options)
    broadcast = broadcast_two(name, f, result, promises=promises, **options)

    def launch(a, b, out):
        if a.size == out.size == b.size:
            flat(a, b, out)
        else:
            broadcast(a, b, out)

    return launch


def comparison(name, f, **options):
    """The same, out being bool."""
    return binary(name, f, Pointer["bool"], promises=("LDG.E.128",), **options)


def _sign(x):
    return T(1) if x > T(0) else (T(-1) if x < T(0) else x)  # NaN and zero are their own signs


neg = unary("neg", lambda x: -x)
abs = unary("abs", lambda x: -x if x < T(0) else x + T(0))  # -0 + 0 is 0
exp = unary("exp", lambda x: math.exp(x))
log = unary("log", lambda x: math.log(x))
sqrt = unary("sqrt", lambda x: math.sqrt(x))
sign = unary("sign", _sign)
logical_not = unary("logical_not", lambda x: not x, examples=(("bool", "bool"),), promises=("LDG.E", "STG.E"))
copy = unary("copy", lambda x: x, examples=(("float32", "float32"), ("int64", "int64"), ("bool", "bool")), promises=())

add = binary("add", lambda a, b: a + b)
sub = binary("sub", lambda a, b: a - b)
mul = binary("mul", lambda a, b: a * b)
div = binary("div", lambda a, b: a / b)
pow = binary("pow", lambda a, b: math.pow(a, b))
maximum = binary("maximum", lambda a, b: a if (a > b) | (a != a) else b)
minimum = binary("minimum", lambda a, b: a if (a < b) | (a != a) else b)
eq = comparison("eq", lambda a, b: a == b)
ne = comparison("ne", lambda a, b: a != b)
lt = comparison("lt", lambda a, b: a < b)
le = comparison("le", lambda a, b: a <= b)
gt = comparison("gt", lambda a, b: a > b)
ge = comparison("ge", lambda a, b: a >= b)
logical_and = binary("logical_and", lambda a, b: a & b, promises=(), examples=(("bool", "bool", "bool"),))
logical_or = binary("logical_or", lambda a, b: a | b, promises=(), examples=(("bool", "bool", "bool"),))


_square = unary("square", lambda x: x * x)
_cube = unary("cube", lambda x: x * x * x)
_reciprocal = unary("reciprocal", lambda x: T(1) / x)
_power = map_one("power", lambda x, exponent, _: math.pow(x, exponent), promises=WIDE)
_SPECIAL = {2.0: _square, 3.0: _cube, 0.5: sqrt, -1.0: _reciprocal}  # ½ as NumPy and PyTorch: a root, NaN at -inf


def pow_scalar(x, out, exponent):
    """out = x ** exponent, with IEEE's results at zero and for negative bases."""
    special = _SPECIAL.get(exponent)
    if special is None:
        _power(x, out, exponent)
    else:
        special(x, out)


@kernel(promises=WIDE)
def _where(condition: Pointer["bool"], a: Pointer, b: Pointer, out: Pointer, n: Int, n1: Int, n2: Int, width: Int,
           c0: Int, c1: Int, c2: Int, a0: Int, a1: Int, a2: Int, b0: Int, b1: Int, b2: Int):  # fmt: skip
    j = int32(width * thread_index())
    if j < n:
        chosen, left, right = place(j, n1, n2, c0, c1, c2), place(j, n1, n2, a0, a1, a2), place(j, n1, n2, b0, b1, b2)
        if width == 4:
            z0, z1, z2, z3 = quad(condition, chosen, c2)
            x0, x1, x2, x3 = quad(a, left, a2)
            y0, y1, y2, y3 = quad(b, right, b2)
            store4(out, j, x0 if z0 else y0, x1 if z1 else y1, x2 if z2 else y2, x3 if z3 else y3)
        else:
            x, y = a[left], b[right]  # both, rather than wait for the condition
            out[j] = x if condition[chosen] else y


def where(condition, a, b, out):
    """out = a where condition, else b; the operands broadcast as those of a binary kernel."""
    n = out.size
    if n:
        n1, n2, width = broadcast_width(out, condition.offset | a.offset | b.offset | out.offset)
        _where[blocks(-(-n // width)), THREADS](
            condition, a, b, out, n, n1, n2, width,
            *broadcast_strides(condition), *broadcast_strides(a), *broadcast_strides(b))  # fmt: skip


CASTS = tuple([(x, y) for x in ("float32", "float64", "int64", "bool") for y in ("float32", "int64") if x != y])


@kernel(examples=CASTS, promises=("LDG.E", "STG.E"))
def _cast(x: Pointer, out: Pointer, n: Int, pairs: Int):
    i = thread_index()
    if i < pairs:
        j, k = int32(4 * i), int32(4 * (i + pairs))
        a0, a1, a2, a3 = load4(x, j)
        b0, b1, b2, b3 = load4(x, k)
        store4(out, j, a0, a1, a2, a3)
        store4(out, k, b0, b1, b2, b3)
    else:
        j = int32(i + 7 * pairs)
        if j < n:
            out[j] = x[j]


_is_true = map_one("is_true", lambda x: x != T(0), result=Pointer["bool"], promises=("LDG.E.128",))


def cast(x, out):
    """out = x in out's type. A float becomes an integer by truncation; anything but zero (NaN too) is True."""
    if out.dtype == bool and x.dtype != bool:
        _is_true(x, out)
    elif out.size:
        pairs = pairs_of(out.size, x.offset | out.offset)
        _cast[blocks(out.size - 7 * pairs), THREADS](x, out, out.size, pairs)


@kernel(examples=(("float32",), ("int64",), ("bool",)), promises=("STG.E",))
def _fill(out: Pointer, n: Int, pairs: Int, value: Float):
    i = thread_index()
    if i < pairs:
        store4(out, int32(4 * i), value, value, value, value)
        store4(out, int32(4 * (i + pairs)), value, value, value, value)
    else:
        j = int32(i + 7 * pairs)
        if j < n:
            out[j] = value


def fill(out, value):
    """out = value."""
    n = out.size
    if n:
        pairs = pairs_of(n, out.offset)
        _fill[blocks(n - 7 * pairs), THREADS](out, n, pairs, value)
