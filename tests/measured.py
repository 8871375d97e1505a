"""Line coverage of the tests at a bearable price: tracing stops where it shows nothing (imported by conftest).

Traced, Numba's compiler takes 2.5 times as long (a convolution and its gradients: 81 s of processor time, not 32). So
the tracer rests while Numba compiles, and comes back where Numba calls code of the project: what emits LLVM runs only
then. (Where coverage measures by ``sys.monitoring``, there is no tracer, and all of this does nothing.)
"""

import collections
import functools
import re
import sys
import threading

import numba.extending
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase

LAUNCHES = 3  # of a kernel at each power of two of blocks: the emulator takes 3 to 5 times as long when traced
_thread = threading.local()


def _noticed():
    """To be called after ``sys.settrace``, in the same function: the tracer comes back at the next call, and has to be
    back before its caller returns, for it counts calls and returns."""


def _untraced(function):
    """The function without the tracer."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        tracer = sys.gettrace()
        if tracer is None:
            return function(*args, **kwargs)
        outside, _thread.resting = getattr(_thread, "resting", None), tracer
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            _thread.resting = outside
            sys.settrace(tracer)
            _noticed()

    return call


def _traced(function):
    """The function with the tracer that rests while Numba compiles."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        tracer = getattr(_thread, "resting", None)
        if tracer is None or sys.gettrace() is not None:
            return function(*args, **kwargs)
        sys.settrace(tracer)
        _noticed()
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(None)

    return call


def _intrinsic(define, numbas=numba.extending.intrinsic):
    """``numba.extending.intrinsic`` whose definition and code generator are traced where it is the project's own."""
    if not define.__module__.startswith("minigrad."):  # a test's: not counted, and has another fingerprint wrapped
        return numbas(define)

    @functools.wraps(define)
    def defined(*kinds):
        found = _traced(define)(*kinds)
        return found and (found[0], _traced(found[1]))

    return numbas(defined)


def _overload(*args, numbas=numba.extending.overload, **options):
    """``numba.extending.overload`` whose choice is traced."""
    decorate = numbas(*args, **options)
    return lambda choose: decorate(_traced(choose))


def _first_launches(run):
    """The emulator's ``run``, traced for the first launches of each kernel, and there in the corners of the grid
    (norm and pool: 49 s of processor time rather than 79, the same lines; 32 s without coverage)."""
    launches, untraced = collections.Counter(), _untraced(run)

    @functools.wraps(run)
    def call(name, run_block, body, grid, *rest):
        key = name, body.__code__, *[extent.bit_length() for extent in grid]
        launches[key] += sys.gettrace() is not None
        if launches[key] > LAUNCHES:
            return untraced(name, run_block, body, grid, *rest)
        return run(name, _in_corners(run_block, grid), body, grid, *rest)

    return call


def _in_corners(run_block, grid):
    """The emulator's ``run_block``, traced for blocks that are the first or last of the grid in every direction: what
    lies between them runs their lines."""
    untraced = _untraced(run_block)

    def call(body, number, index, *rest):
        corner = all([i in (0, extent - 1) for i, extent in zip(index, grid, strict=True)])
        (run_block if corner else untraced)(body, number, index, *rest)

    return call


def _set(library, name, value):
    """What the project puts in place of a method of Numba's is traced."""
    object.__setattr__(library, name, _traced(value) if name == "add_ir_module" else value)


def install():
    """Has to come before the import of the kernels."""
    numba.extending.intrinsic, numba.extending.overload = _intrinsic, _overload
    for name in ("compile_extra", "compile_ir"):
        setattr(CompilerBase, name, _untraced(getattr(CompilerBase, name)))
    JITCodeLibrary.__setattr__ = _set
    from minigrad.kernels.cuda import emulator

    emulator.run = _first_launches(emulator.run)


# The same lines again, at several times the price: the kernels of the CUDA emulator in float64, their products and
# convolutions (the op table runs these), the derivative checks. What other processes run is not counted anyway.
_ADDS_NOTHING = re.compile(r"test_cuda\w+\.py.*float64|test_cuda_(code|conv|matmul|docs)\.py|test_packaging\.py"
                           r"|test_gradcheck|test_gradgradcheck")


def pytest_collection_modifyitems(items):
    """No tracing in tests that add nothing."""
    for item in items:
        if _ADDS_NOTHING.search(item.nodeid):
            item.obj = _untraced(item.obj)
