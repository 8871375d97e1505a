"""The third part of the op table: ops that are compositions of others."""

import numpy as np
from op_table import SHAPES, add, away, labels, transposed, truths


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


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
