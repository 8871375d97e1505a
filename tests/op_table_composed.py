"""The third part of the op table: ops that are compositions of others."""

import math

import numpy as np
import oracles as o
from op_table import SHAPES, add, away, distinct, labels, positive, transposed, truths

from minigrad import ops


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def apart(*shape):
    """Numbers of both signs whose absolute values are 0.1 apart."""
    def draw(rng):
        x = distinct(*shape)(rng)
        return x * np.sign(np.sin(7.0 * x))

    return draw


for shape in SHAPES:
    add("elu", elu, away(*shape))
    add("square", np.square, shape)
add("elu", elu, np.array([-3.0, -0.1, 2.0, 1000.0]), args=(1.5,))
add("square", np.square, transposed(5, 7))
add("square", np.square, labels(5, 3), grad=False)
for mask, shape in [((3, 7), (3, 7)), ((7,), (3, 1)), ((), (2,)), ((0,), (1,))]:
    add("masked_fill", lambda x, m: np.where(m, 0.5, x), shape, truths(*mask), args=(0.5,), oracle_args=())
for shape, classes in [((3, 2), 5), ((), 3), ((0,), 2)]:
    add("one_hot", lambda x, n: np.eye(n, dtype=np.int64)[x], labels(classes, *shape), args=(classes,), grad=False)
for chunks, dim, cuts in [(2, 0, [4]), (3, 0, [3, 6]), (4, 0, [2, 4, 6]), (9, 0, range(1, 7)), (2, -1, [1])]:
    add("chunk", lambda x, chunks, dim, cuts=cuts: tuple(np.split(x, cuts, dim)), (7, 2), args=(chunks, dim))
for dim in (0, 1, -1):
    add("unbind", lambda x, dim: tuple(np.moveaxis(x, dim, 0)), (2, 1, 3), args=(dim,))
for sizes, dim, shape in [((2, 3), 0, (6, 2)), ((-1, 2), 1, (2, 4)), ((3, -1, 1), -1, (2, 3)), ((0, 5), 0, (0, 2))]:
    wanted = (*shape[: dim % len(shape)], *sizes, *shape[dim % len(shape) + 1 :])
    add("unflatten", lambda x, wanted=wanted: x.reshape(wanted), shape, args=(dim, sizes), oracle_args=())


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    rows = x.reshape(x.shape[0], groups, int(np.prod(x.shape[1:])) // groups)
    y = o.layer_norm(rows, rows.shape[-1], eps=eps).reshape(x.shape)
    wide = (-1,) + (1,) * (x.ndim - 2)
    y = y if weight is None else y * weight.reshape(wide)
    return y if bias is None else y + bias.reshape(wide)


for groups, shape in [(1, (2, 3)), (2, (3, 4, 5)), (3, (2, 6, 3, 2)), (2, (1, 4, 1, 2, 2))]:
    parameters = [positive(shape[1]), (shape[1],)]
    for given in range(3):
        add("group_norm", lambda x, *p, groups=groups: group_norm(x, groups, *p), shape, *parameters[:given],
            call=lambda x, *p, groups=groups: ops.group_norm(x, groups, *p), tolerance=1e-4)
add("group_norm", group_norm, (0, 4, 3), args=(2,))
add("group_norm", group_norm, (2, 4, 3), args=(2,), eps=0.5)
SPECIAL = np.array([1.0, -np.inf, np.nan, 0.0, np.inf, 1e30, -2.0])
for name in ("isnan", "isinf", "isfinite"):
    oracle = getattr(np, name)
    for values in (SPECIAL, labels(5, 3), truths(2), np.zeros((0, 2)), np.array(np.nan)):
        add(name, oracle, values, grad=False)
CLOSE = np.array([[1.0, 2.0, np.inf, np.inf, 5.0, np.nan, np.nan, 1.0, 0.0]])
TO = np.array([1.000001, 2.1, np.inf, -np.inf, np.inf, np.nan, 1.0, 1.1, 1e-9])
for kwargs in ({}, {"equal_nan": True}, {"rtol": 0.2, "atol": 0.0}, {"rtol": 0.0, "atol": 0.05}):
    add("isclose", np.isclose, CLOSE, TO, grad=False, **kwargs)
add("isclose", np.isclose, TO, CLOSE.T, grad=False)
add("isclose", np.isclose, labels(4, 5), labels(4, 5), grad=False)
add("isclose", lambda x: np.isclose(x, 1.0), TO, grad=False, call=lambda x: ops.isclose(x, 1.0))
add("isclose", lambda x: np.isclose(np.inf, x), TO, grad=False, call=lambda x: ops.isclose(np.inf, x))
for dims, shape in [((0,), (5,)), ((0, -1), (2, 3, 4)), ((1,), (2, 3, 1, 2)), ((), (2, 3)), ((), ()), ((1,), (2, 0))]:
    add("flip", np.flip, transposed(*shape) if shape == (2, 3) else shape, args=(dims,))
add("flip", lambda x: x[::-1, ::-1], labels(9, 2, 3), call=lambda x: x.flip(0, 1), grad=False)
for sizes, shape in [((2,), (3,)), ((2, 3), (2, 2)), ((3,), (2, 2)), ((2, 1, 2), (3,)), ((2, 2), ()), ((0, 2), (1, 2)),
                     ((), (2,)), ((2, 1, 2, 1, 2, 1), (1, 2, 1, 2, 1, 2))]:
    add("tile", np.tile, shape, args=(sizes,))
add("tile", np.tile, (2, 3), args=((2, 1, 2),), call=lambda x, sizes: x.repeat(*sizes))
for dim in (None, 0, -1, (0, 2), (0, 1, 2)):
    for keepdim in (False, True):
        add("vector_norm", lambda x, dim, keepdim: np.sqrt(np.sum(x * x, dim, keepdims=keepdim)), transposed(2, 5, 3),
            args=(2, dim, keepdim), oracle_args=(dim, keepdim))
        add("vector_norm", lambda x, dim, keepdim: np.sum(np.abs(x), dim, keepdims=keepdim), away(2, 5, 3),
            args=(1, dim, keepdim), oracle_args=(dim, keepdim))
        add("vector_norm", lambda x, dim, keepdim: np.max(np.abs(x), dim, keepdims=keepdim), apart(2, 5, 3),
            args=(math.inf, dim, keepdim), oracle_args=(dim, keepdim))
add("vector_norm", np.abs, away(), call=lambda x: x.norm())
add("vector_norm", lambda x: np.zeros(3), np.zeros((0, 3)), call=lambda x: ops.vector_norm(x, dim=0), grad=False)
