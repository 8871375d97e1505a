"""Which kernels an op launches, read from the source of its Function."""

import ast
import functools
import inspect
import re
import textwrap

from minigrad import ops
from minigrad.function import Function
from minigrad.kernels import reference
from minigrad.ops import elementwise, loss
from minigrad.ops.common import expand_array
from minigrad.study.texts import global_names

KERNELS = frozenset(name for name, value in vars(reference).items()
                    if inspect.isfunction(value) and not name.startswith("_") and not name.endswith("_workspace"))

PREPARATION = (expand_array,)  # an operand that the kernels cannot broadcast: of any op, and of none in particular
OPERATORS = {ast.Add: elementwise.Add, ast.Sub: elementwise.Sub, ast.Mult: elementwise.Mul, ast.Div: elementwise.Div,
             ast.USub: elementwise.Neg}
BACKWARD = ("backward", "gradients", "differentiate", "compose")


def kernels_of(cls):
    """The names of the kernels that a Function launches, forward ones first, then those of its gradient.

    Its own methods are read, the helpers that they call, and the Functions that its gradient consists of. Other ops in
    the formula of a gradient (``grad * b``) are not: they have kernels of their own.
    """
    found, seen = {}, set()
    _read_class(cls, found, seen)
    return list(found)


def gradients_of(cls):
    """The Functions that the gradient of a Function consists of, without itself."""
    seen = set()
    _read_class(cls, {}, seen)
    return sorted([item for item in seen if isinstance(item, type) and item is not cls], key=lambda c: c.__qualname__)


def functions_of(function):
    """The Functions that a public function of ops applies, itself and through others.

    In a loss the operators between tensors count too; elsewhere they are the arithmetic of shapes.
    """
    found, seen, waiting = {}, set(), [inspect.unwrap(function)]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, type) and issubclass(item, Function) and item is not Function:
            found.setdefault(item)
        elif isinstance(item, tuple):
            waiting += item
        elif inspect.isfunction(item) and item not in seen and item.__module__.startswith("minigrad.ops"):
            seen.add(item)
            if item.__module__ == loss.__name__:
                signs = [type(getattr(node, "op", None)) for node in ast.walk(ast.parse(_source(item)))]
                waiting += [OPERATORS[sign] for sign in signs if sign in OPERATORS]
            waiting += [item.__globals__[name] for name in global_names(item.__code__) if name in item.__globals__]
    return list(found)


def _read_class(cls, found, seen):
    if cls in seen:
        return
    seen.add(cls)
    gradients = []
    for method in methods_of(cls):
        _read_function(method, found, seen, gradients)
    for name in (*getattr(cls, "kernel_choices", ()), getattr(cls, "kernel", None)):  # what is looked up by name
        if name in KERNELS:
            found.setdefault(name)
    for gradient in gradients:
        _read_class(gradient, found, seen)


def methods_of(cls):
    """The methods that an instance can reach, the forward's first: of its class, and what these hand on to."""
    parts = [part for part in cls.__mro__ if part not in (Function, object)]
    names = dict.fromkeys(name for part in parts for name in vars(part))
    methods = []
    for name in sorted(names, key=lambda name: (name in BACKWARD, name != "forward")):
        for part in parts:
            method = getattr(vars(part).get(name), "__func__", vars(part).get(name))
            if inspect.isfunction(method):
                methods.append(method)
                if not re.search(rf"super\(\)|\b[A-Z]\w+\.{name}\(", _source(method)):
                    break
    return methods


@functools.cache
def _source(function):
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""


def _read_function(function, found, seen, gradients):
    if function in seen or function in PREPARATION:
        return
    seen.add(function)
    text = _source(function)
    if not text:
        return
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a lambda in the middle of an expression
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_kernels(node.value) and not node.attr.endswith("_workspace"):
            found.setdefault(node.attr)
        if isinstance(node, ast.Call):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and argument.value in KERNELS and _looks_up(node):
                    found.setdefault(argument.value)
    for name in global_names(function.__code__):
        value = function.__globals__.get(name)
        for item in value if isinstance(value, tuple) else (value,):
            for part in item if isinstance(item, tuple) else (item,):
                _follow(part, found, seen, gradients)


def _follow(item, found, seen, gradients):
    if isinstance(item, type) and issubclass(item, Function) and item is not Function:
        gradients.append(item)
    elif inspect.isfunction(item) and item.__module__.startswith("minigrad.ops") and item.__name__ not in ops.__all__:
        _read_function(item, found, seen, gradients)


def _is_kernels(node):
    return isinstance(node, ast.Name) and node.id in ("k", "kernels") or (
        isinstance(node, ast.Attribute) and node.attr == "kernels")


def _looks_up(call):
    """Whether a call takes the name of a kernel: ``getattr(kernels, name)``, or a helper with the Function as first."""
    first = call.args[0]
    return _is_kernels(first) or isinstance(first, ast.Name) and first.id == "self"
