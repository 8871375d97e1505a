"""The key of somebody else's kernel in the cache: changes with all that its machine code depends on, else stays."""

import math
import types as python_types

import numba
import numpy as np
import pytest
from numba.extending import intrinsic

from minigrad.kernels.cpu import language, vector_math
from minigrad.kernels.cpu.fingerprint import Unknown, fingerprint


def key(function):
    return fingerprint(function, lambda used: [used.__name__])


def make(source, **names):
    """A function of a source with globals, made anew."""
    names = {"__name__": "typed_in", **names}
    exec(source, names)
    return names["f"]


USES = "def f(x):\n    x[0] = value\n"


@numba.njit
def one(x):
    return x + 1


@numba.njit
def two(x):
    return x + 2


@numba.njit(fastmath=True)
def fast_one(x):
    return x + 1


def module(name="users_module", **attributes):
    made = python_types.ModuleType(name)
    vars(made).update(attributes)
    return made


@pytest.mark.parametrize("a, b", [
    (1, 2), (1, 1.0), (True, 1), ("a", "b"), (b"a", b"b"), (None, ...), (1 + 1j, 2 + 1j),
    ((1, 2), (2, 1)), ((1, 2), (1, (2,))), (frozenset("ab"), frozenset("ac")),
    (np.float32(1), np.float64(1)), (np.arange(3), np.arange(4)), (np.arange(4), np.arange(4).reshape(2, 2)),
    (np.zeros(2, np.float32), np.zeros(2, np.int32)), (np.float32, np.float64), (numba.float32, numba.float64),
    (np.dtype("f4"), np.dtype("f8")), (np.exp, np.log), (math.exp, math.log), (one, two), (one, one.py_func),
    (lambda x: x, lambda x: -x), (math, np), (module(), module("other")), (language, vector_math),
    (vector_math.exp, vector_math._exp32), (vector_math.exp, vector_math.tanh),
    (vector_math.sigmoid, vector_math.log1p),
])  # fmt: skip
def test_another_value_is_another_key(a, b):
    assert key(make(USES, value=a)) == key(make(USES, value=a))
    assert key(make(USES, value=a)) != key(make(USES, value=b))


def test_options_of_what_is_called():
    def renamed(dispatcher, **options):
        return numba.njit(**options)(dispatcher.py_func)

    assert key(make(USES, value=renamed(one))) == key(make(USES, value=renamed(one)))
    assert key(make(USES, value=renamed(one))) != key(make(USES, value=renamed(one, fastmath=True)))


def test_what_a_function_of_a_module_is():
    source = "def f(x):\n    x[0] = users.helper(x[0])\n"
    keys = {key(make(source, users=module(helper=helper))) for helper in (one, two)}
    assert len(keys) == 2
    assert key(make(source, users=module(helper=one, other=1))) == key(make(source, users=module(helper=one, other=2)))


def test_captured_values_and_nested_functions():
    def closure(value):
        def f(x):
            x[0] = value

        return f

    assert key(closure(1)) == key(closure(1)) != key(closure(2))
    nested = "def f(x):\n    def g(y):\n        return y + value\n    x[0] = g(x[0])\n"
    assert key(make(nested, value=1)) == key(make(nested, value=1)) != key(make(nested, value=2))


def test_a_function_that_calls_itself():
    assert key(make("def f(x):\n    return f(x)\n"))


def test_an_intrinsic():
    def maker(number):
        @intrinsic
        def made(typingctx, x):
            return x(x), lambda context, builder, signature, arguments: arguments[number]

        return made

    keys = [key(make(USES, value=maker(number))) for number in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("value", [object(), {"a": 1}, np.array([None]), iter(())])
def test_what_is_not_known_is_not_kept(value):
    with pytest.raises(Unknown):
        key(make(USES, value=value))
