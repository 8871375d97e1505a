"""The op table: for every op some calls with inputs, what NumPy says of them, and whether they have a gradient.

`test_ops` checks from it the forward in float64 and float32, the first and second derivatives, the gradients' dtype,
and that no public op is missing. Inputs are awkward on purpose: 0-d, zero-size, from transposed arrays, of sizes that
fill no SIMD vector or tile (7, 17, 33), in broadcasting pairs; and kept off the kinks, where no derivative exists.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import oracles as o

import minigrad as mg
from minigrad import ops


@dataclass(frozen=True)
class Row:
    """One call of an op."""

    name: str
    op: str
    call: Callable  # of tensors
    oracle: Callable  # of arrays, in float64
    draws: tuple  # of functions of a random generator that return arrays
    grad: bool
    tolerance: float  # of float32, relative to the largest element

    def inputs(self, seed=0):
        """The arrays to call it with; floats among them are float64."""
        rng = np.random.default_rng(seed)
        return [draw(rng) for draw in self.draws]


ROWS = []


def add(
    op, oracle, *inputs, args=(), grad=True, tolerance=1e-5, call=None, oracle_args=None, oracle_kwargs=None, **kwargs
):
    """Put a row into the table. An input is a function of a random generator, an array, or the shape of normals."""
    count = sum(row.op == op for row in ROWS)
    function = call or getattr(ops, op)
    theirs, their_kwargs = (
        args if oracle_args is None else oracle_args,
        kwargs if oracle_kwargs is None else oracle_kwargs,
    )
    ROWS.append(
        Row(
            f"{op}-{count}",
            op,
            lambda *x: function(*x, *args, **kwargs),
            lambda *x: oracle(*x, *theirs, **their_kwargs),
            tuple(_draw(x) for x in inputs),
            grad,
            tolerance,
        )
    )


def _draw(spec):
    if callable(spec):
        return spec
    if isinstance(spec, np.ndarray):
        return lambda rng: spec.copy()
    return lambda rng: rng.standard_normal(spec)


def positive(*shape):
    """Numbers from 0.5 to 2."""
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def away(*shape, kinks=(0.0,), by=0.05):
    """Normal numbers, none of them within `by` of a kink."""

    def draw(rng):
        x = rng.standard_normal(shape)
        for kink in kinks:
            x = np.where(np.abs(x - kink) < by, kink + np.where(x < kink, -2 * by, 2 * by), x)
        return x

    return draw


def distinct(*shape):
    """Numbers without ties, 0.1 apart, in random order."""

    def draw(rng):
        size = int(np.prod(shape))
        return ((rng.permutation(size) - size // 2) * 0.1 + 0.03).reshape(shape)

    return draw


def transposed(*shape, of=None):
    """An array of the shape that is not in C order: reversed in memory, and a view of every other element."""

    def draw(rng):
        source = (of or (lambda *s: lambda rng: rng.standard_normal(s)))(*shape[::-1])(rng).T
        wide = np.zeros((*shape[:-1], 2 * shape[-1]))
        wide[..., ::2] = source
        return wide[..., ::2]

    return draw


def labels(high, *shape):
    """Integers from 0 to high - 1."""
    return lambda rng: rng.integers(0, high, shape)


def truths(*shape):
    """Booleans."""
    return lambda rng: rng.random(shape) < 0.5


def probabilities(*shape):
    """Normalised along axis 1."""
    return lambda rng: o.softmax(rng.standard_normal(shape), 1)


SHAPES = [(), (0,), (2, 0, 3), (7,), (17, 33)]
PAIRS = [
    ((), ()),
    ((3,), ()),
    ((4, 1), (3,)),
    ((2, 3, 4), (3, 1)),
    ((0, 3), (1, 3)),
    ((7, 33), (7, 33)),
    ((2, 1, 3, 1, 2, 1), (1, 4, 1, 3, 1, 2)),
    ((1,), (2, 5)),
    ((2, 17), (17,)),
]

# -- elementwise -------------------------------------------------------------------------------------------------

for name, function, domain in [
    ("neg", np.negative, away),
    ("abs", np.abs, away),
    *[(f.__name__, f, away) for f in (np.exp, np.sin, np.cos, np.tanh)],
    ("log", np.log, positive),
    ("sqrt", np.sqrt, positive),
    ("sign", np.sign, away),
    ("clone", np.copy, away),
    ("relu", lambda x: np.maximum(x, 0), away),
    ("sigmoid", o.sigmoid, away),
    ("gelu", o.gelu, away),
    ("silu", lambda x: x * o.sigmoid(x), away),
    ("softplus", o.softplus, away),
    ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x), away),
]:
    for shape in SHAPES:
        add(name, function, domain(*shape))
    add(name, function, transposed(5, 7, of=domain))
add("gelu", o.gelu, (33,), approximate="tanh")
add("leaky_relu", lambda x: np.where(x > 0, x, 0.3 * x), away(33), args=(0.3,), oracle_args=())
add("softplus", o.softplus, away(33, kinks=(1.5,)), beta=2.0, threshold=3.0)
add("clip", np.clip, away(33, kinks=(-0.5, 0.7)), args=(-0.5, 0.7))
add("clip", np.clip, away(3, 7, kinks=(0.2,)), args=(0.2, None))
add("clip", lambda x: np.minimum(x, 0.2), away(7, kinks=(0.2,)), max=0.2, oracle_kwargs={})
add("clip", lambda x: np.full(x.shape, -1.0), (7,), args=(1.0, -1.0), oracle_args=())
add("clip", np.clip, (0, 3), args=(0.0, 1.0))
add("clip", np.clip, np.array(0.4), args=(0.0, 1.0))

for name, function, domain in [
    ("add", np.add, away),
    ("sub", np.subtract, away),
    ("mul", np.multiply, away),
    ("div", np.divide, positive),
    ("pow", np.power, positive),
]:
    for left, right in PAIRS:
        add(name, function, domain(*left), domain(*right))
    add(name, function, transposed(5, 7, of=domain), domain(7))
    add(name, function, domain(5, 7), args=(2.5,))
    add(name, lambda x, f=function: f(1.5, x), domain(5, 7), call=lambda x, f=name: getattr(ops, f)(1.5, x))
for exponent in (0, 1, 2, 3, 4, -1, -2, 0.5, -0.5, 1.7):
    add("pow", np.power, positive(17), args=(exponent,), oracle_args=(float(exponent),))
for exponent in (0, 1, 2, 3, 4, -1, -3):  # a negative base has integer powers
    add("pow", np.power, away(17), args=(exponent,), oracle_args=(float(exponent),))
for exponent in (0, 1, 2, 3, 4):  # so has 0
    add("pow", np.power, np.array([0.0, -1.0, 2.0]), args=(exponent,), oracle_args=(float(exponent),))
for base, exponent in [([-2.0, -0.5, 0.0, 1.5], [2.0, 3.0, 3.0, 0.0]), ([0.0, 0.0, 0.0, -1.0], [2.0, 1.0, 0.0, -3.0])]:
    add(
        "pow",
        np.power,
        np.array(base),
        call=lambda x, e=exponent: ops.pow(x, mg.tensor(e, x.dtype, x.device)),
        oracle_args=(np.array(exponent),),
    )
add(
    "pow",
    lambda x: np.power(np.array([0.0, 2.0]), x),
    np.array([2.0, -1.0]),
    call=lambda x: ops.pow(mg.tensor([0.0, 2.0], x.dtype, x.device), x),
)
for name, function in [("maximum", np.maximum), ("minimum", np.minimum)]:
    for left, right in PAIRS:
        add(
            name,
            function,
            lambda rng, s=left: 0.4 * rng.integers(-9, 9, s),
            lambda rng, s=right: 0.4 * rng.integers(-9, 9, s) + 0.2,
        )
    add(name, function, away(33, kinks=(0.3,)), args=(0.3,))
for shapes in [
    ((7,), (7,), (7,)),
    ((3, 1), (1, 4), (3, 4)),
    ((), (2, 3), (3,)),
    ((0,), (1,), ()),
    ((2, 1, 3, 1), (1, 4, 1, 3), (2, 1, 1, 3)),
]:
    add("where", np.where, truths(*shapes[0]), *shapes[1:])
add("where", lambda c, a: np.where(c, a, 2.0), truths(3, 7), (7,), args=(2.0,), oracle_args=())
add("where", lambda c, b: np.where(c, -1.0, b), truths(3, 7), (7,), call=lambda c, b: ops.where(c, -1.0, b))
add("cast", lambda x: x, (3, 7), call=lambda x: ops.cast(ops.cast(x, "float64"), x.dtype))
add("cast", lambda x: x.astype(np.int64), (3, 7), args=("int64",), oracle_args=(), grad=False)
add("cast", lambda x: x != 0, np.array([0.0, -1.0, 0.5]), args=("bool",), oracle_args=(), grad=False)
for name, function in [
    ("eq", np.equal),
    ("ne", np.not_equal),
    ("lt", np.less),
    ("le", np.less_equal),
    ("gt", np.greater),
    ("ge", np.greater_equal),
]:
    for left, right in PAIRS:
        add(name, function, labels(3, *left), labels(3, *right), grad=False)
    add(
        name,
        function,
        lambda rng: rng.integers(0, 3, (17,)) * 0.5,
        lambda rng: rng.integers(0, 3, (17,)) * 0.5,
        grad=False,
    )
    add(name, function, labels(3, 7), args=(1,), grad=False)
    add(name, function, labels(3, 7), args=(0.5,), grad=False)
for name, function in [("logical_and", np.logical_and), ("logical_or", np.logical_or)]:
    for left, right in PAIRS[:6]:
        add(name, function, truths(*left), truths(*right), grad=False)
    add(name, function, labels(2, 7), labels(2, 7), grad=False)
for shape in SHAPES:
    add("logical_not", np.logical_not, truths(*shape), grad=False)
for name, function in [
    ("add", np.add),
    ("sub", np.subtract),
    ("mul", np.multiply),
    ("maximum", np.maximum),
    ("minimum", np.minimum),
]:
    add(name, function, labels(9, 4, 1), labels(9, 5), grad=False)
for name, function in [("neg", np.negative), ("abs", np.abs), ("sign", np.sign)]:
    add(name, function, lambda rng: rng.integers(-5, 5, (3, 7)), grad=False)
add("to_device", lambda x: x, (3,), call=lambda x: ops.to_device(x, x.device))

# -- reductions --------------------------------------------------------------------------------------------------

AXES = [
    ((), None),
    ((7,), 0),
    ((33, 17), None),
    ((33, 17), 0),
    ((33, 17), 1),
    ((3, 4, 5), 1),
    ((3, 4, 5), (0, 2)),
    ((3, 4, 5), (1, 2)),
    ((2, 3, 2, 3, 2), (1, 3)),
    ((3, 4, 5), (-1, 0)),
    ((0, 3), 1),
    ((1, 1), None),
]


def axis(dim):
    """NumPy's spelling."""
    return dim if dim is None or isinstance(dim, int) else tuple(dim)


def reduction(op, function, domain, cases, **more):
    for k, (shape, dim) in enumerate(cases):
        for keepdim in (False, True) if k % 2 else (False,):
            add(
                op,
                lambda x, d=dim, keep=keepdim: function(x, axis=axis(d), keepdims=keep),
                domain(*shape),
                args=(dim, keepdim),
                oracle_args=(),
                **more,
            )


EMPTY = [((0,), None), ((3, 0), 1), ((0, 3), None), ((0, 3), 0)]
reduction("sum", np.sum, away, AXES + EMPTY)
reduction("mean", np.mean, away, AXES)
for correction in (0, 1, 2):
    reduction(
        "var",
        lambda x, axis, keepdims, c=correction: np.var(x, axis=axis, ddof=c, keepdims=keepdims),
        away,
        [case for case in AXES[1:-1]],
        **{"call": lambda x, dim, keep, c=correction: ops.var(x, dim, c, keep)},
    )
reduction(
    "std",
    lambda x, axis, keepdims: np.std(x, axis=axis, ddof=1, keepdims=keepdims),
    away,
    AXES[1:7],
    call=lambda x, dim, keep: ops.std(x, dim, 1, keep),
)
reduction("max", np.max, distinct, AXES)
reduction("min", np.min, distinct, AXES)
reduction("logsumexp", lambda x, axis, keepdims: o.logsumexp(x, axis, keepdims), away, AXES)
reduction("sum", np.sum, lambda *s: labels(5, *s), AXES[:6], grad=False)
reduction("max", np.max, lambda *s: labels(50, *s), AXES[:6], grad=False)
reduction("any", np.any, truths, AXES + EMPTY, grad=False)
reduction("all", np.all, truths, AXES + EMPTY, grad=False)
for name, function in [("argmax", np.argmax), ("argmin", np.argmin)]:
    reduction(
        name, function, lambda *s: labels(4, *s), [case for case in AXES if not isinstance(case[1], tuple)], grad=False
    )
    reduction(name, function, distinct, [((33, 17), 1), ((33, 17), None)], grad=False)
for name, function in [("softmax", o.softmax), ("log_softmax", o.log_softmax)]:
    for shape, dim in [
        ((), 0),
        ((7,), 0),
        ((17, 33), 1),
        ((17, 33), 0),
        ((3, 4, 5), 1),
        ((3, 4, 5), -1),
        ((0, 4), 1),
        ((4, 0), 1),
    ]:
        add(name, function if shape else lambda x, d, f=function: f(x[None], 0)[0], shape, args=(dim,))
    add(name, function, (3, 4, 5), args=((0, 2),))
    add(name, function, (3, 4), args=(None,))
for shape, target in [((2, 3, 4), (3, 4)), ((2, 3, 4), (1, 4)), ((2, 3), ()), ((3, 1), (3, 1)), ((0, 3), (3,))]:
    add(
        "sum_to",
        lambda x, t: x.sum(
            tuple(range(x.ndim - len(t))) + tuple(i + x.ndim - len(t) for i, e in enumerate(t) if e == 1)
        ).reshape(t),
        shape,
        args=(target,),
    )

# -- products ----------------------------------------------------------------------------------------------------

for left, right in [
    ((7,), (7,)),
    ((17, 7), (7,)),
    ((7,), (7, 33)),
    ((17, 33), (33, 7)),
    ((1, 1), (1, 1)),
    ((3, 5, 7), (7, 4)),
    ((3, 5, 7), (3, 7, 4)),
    ((5, 7), (3, 7, 4)),
    ((2, 1, 5, 7), (3, 7, 4)),
    ((1, 5, 7), (3, 7, 4)),
    ((3, 5, 7), (1, 7, 4)),
    ((2, 3, 5), (5,)),
    ((5,), (2, 5, 3)),
    ((0, 4), (4, 3)),
    ((3, 0), (0, 4)),
    ((2, 0, 3), (3, 4)),
    ((0, 2, 3), (0, 3, 4)),
    ((0,), (0,)),
    ((0, 2, 3), (3, 4)),
    ((2, 3), (0, 3, 4)),
]:
    add("matmul", np.matmul, left, right, tolerance=1e-5)
add("matmul", np.matmul, transposed(5, 7), transposed(7, 3))
for x, weight in [
    ((17, 7), (33, 7)),
    ((7,), (3, 7)),
    ((2, 3, 7), (5, 7)),
    ((0, 7), (3, 7)),
    ((4, 0), (3, 0)),
    ((1, 1), (1, 1)),
    ((4, 3), (0, 3)),
]:
    add("linear", lambda x, w: x @ w.T, x, weight)
    add("linear", lambda x, w, b: x @ w.T + b, x, weight, weight[:1])

# -- shapes ------------------------------------------------------------------------------------------------------

for shape, target in [
    ((6,), (2, 3)),
    ((2, 3), (-1,)),
    ((), (1, 1)),
    ((1,), ()),
    ((0, 3), (3, 0)),
    ((4, 3), (2, -1, 2)),
]:
    add("reshape", np.reshape, shape, args=(target,))
add("flatten", np.ravel, (2, 3, 4))
add("flatten", lambda x: x.reshape(2, 12), (2, 3, 4), args=(1,), oracle_args=())
add("flatten", lambda x: x.reshape(6, 4), (2, 3, 4), args=(0, 1), oracle_args=())
add("flatten", np.ravel, ())
for shape, dims in [
    ((2, 3), (1, 0)),
    ((2, 3, 4), (2, 0, 1)),
    ((2, 3, 4, 5), (0, -1, 1, 2)),
    ((2, 1, 3, 2, 1, 2, 2), (6, 4, 2, 0, 1, 3, 5)),
    ((0, 3), (1, 0)),
    ((), ()),
    ((33, 17), (1, 0)),
]:
    add("permute", np.transpose, shape, args=(dims,))
add("transpose", np.swapaxes, (17, 33), args=(0, 1))
add("transpose", np.swapaxes, (2, 3, 4), args=(-1, 0))
add("transpose", lambda x, a, b: x, (), args=(0, -1))
add("squeeze", np.squeeze, (1, 3, 1))
add("squeeze", np.squeeze, (1, 3, 1), args=(0,))
add("squeeze", lambda x: x, (1, 3, 1)[1:2], args=(0,), oracle_args=())
add("squeeze", lambda x: x.reshape(3, 2), (1, 3, 1, 2), args=((0, 1, 2),), oracle_args=())
for shape, dim in [((3,), 0), ((3,), -1), ((2, 3), 1), ((), 0), ((0,), 1)]:
    add("unsqueeze", np.expand_dims, shape, args=(dim,))
for shape, target in [
    ((3, 1), (3, 4)),
    ((3,), (2, 3)),
    ((), (2, 2)),
    ((1, 0), (5, 0)),
    ((2, 1, 3), (4, 2, 5, 3)),
    ((3,), (3,)),
    ((1,), (0,)),
]:
    add("expand", np.broadcast_to, shape, args=(target,))
    add("broadcast_to", np.broadcast_to, shape, args=(target,))
add("expand", lambda x: np.broadcast_to(x, (3, 4)), (3, 1), args=(-1, 4), oracle_args=())


def joined(function, **kwargs):
    return lambda *x: function(list(x), **kwargs)


for shapes, dim in [
    (((2, 3), (4, 3)), 0),
    (((2, 3), (2, 1), (2, 0)), 1),
    (((3,),), 0),
    (((2, 2, 3), (2, 5, 3)), -2),
    (((0, 2), (0, 3)), 1),
    (((2,),) * 11, 0),
]:
    add("cat", joined(np.concatenate, axis=dim), *shapes, call=joined(ops.cat, dim=dim))
for shapes, dim in [(((3,), (3,)), 0), (((2, 3),) * 3, 1), (((2, 3),) * 2, -1), (((), ()), 0), (((0, 2),) * 2, 1)]:
    add("stack", joined(np.stack, axis=dim), *shapes, call=joined(ops.stack, dim=dim))
for shape, sizes, dim, cuts in [
    ((7,), 3, 0, [3, 6]),
    ((7, 4), [2, 0, 5], 0, [2, 2]),
    ((2, 6), 2, 1, [2, 4]),
    ((2, 6), [1, 5], -1, [1]),
]:
    add("split", lambda x, cuts=cuts, dim=dim: tuple(np.split(x, cuts, dim)), shape, args=(sizes, dim), oracle_args=())

# -- indexing ----------------------------------------------------------------------------------------------------

S, E = slice(None), Ellipsis
INDICES = [
    ((5,), 2),
    ((5,), -1),
    ((5, 4), (1, 2)),
    ((5, 4), slice(1, 4)),
    ((5, 4), (S, slice(None, None, -1))),
    ((5, 4), (slice(4, 0, -2), 1)),
    ((5, 4), (E, 1)),
    ((5, 4), (None, 2)),
    ((2, 3, 4), (0, E, None, slice(1, 3))),
    ((5,), slice(3, 3)),
    ((), E),
    ((), None),
    ((0, 3), S),
    ((5, 4), ([0, 2, 2],)),
    ((5, 4), ([0, -1], [1, 3])),
    ((5, 4), (S, [3, 3, 0])),
    ((5, 4), ([[0, 1], [2, 2]],)),
    ((2, 3, 4), (0, S, [1, 1])),
    ((2, 3, 4), (S, [0, 2], slice(1, 3))),
    ((2, 3, 4), ([0, 1], S, [1, 2])),
    ((2, 3, 4), (S, 1, [0, 3])),
    ((2, 3, 4), ([0, 1], None, [1, 2])),
    ((2, 3, 4), (E, [0, 2])),
    ((5, 4), (slice(1, 4), [[0], [3]])),
    ((5, 4), ([],)),
    ((4, 3), np.array([True, False, True, True])),
    ((2, 3), np.array([[True, False, True], [False, False, True]])),
    ((3, 4), (S, np.array([True, False, False, True]))),
    ((3, 4), ([0, 2], np.array([True, False, False, True]))),
    ((2, 2, 2, 2, 2, 2), (S, slice(None, None, -1), S, slice(1), S, slice(None, None, -1))),
]
for shape, index in INDICES:
    theirs = (
        np.array([], np.int64) if type(index) is tuple and index and type(index[0]) is list and not index[0] else index
    )
    add("getitem", lambda x, i=theirs: x[i], shape, args=(index,), oracle_args=())

import op_table_composed  # noqa: E402, F401
import op_table_nn  # noqa: E402, F401 - the other parts of the table: compositions; layers and losses
