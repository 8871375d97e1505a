"""Run a kernel beside its definition in minigrad.kernels.reference."""

import numba
import numpy as np

from minigrad.kernels import cpu, reference

FLOATS = (np.float32, np.float64)
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 88.8, -87.4, -103.5, 1e-7, -1e-7, 30.0, -30.0)


def numbers(shape, dtype, seed=0, scale=3.0, special=False):
    """Normal numbers; the first of them replaced by the special values if wanted and there is room."""
    x = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)
    if special and x.size >= len(SPECIAL):
        x.reshape(-1)[: len(SPECIAL)] = SPECIAL
    return x


def empty(shape, dtype):
    """An output full of rubbish, so that an element left unwritten shows."""
    return np.full(shape, 77, dtype)


def affine(size, dtype):
    """weight and bias: both, none, only the weight."""
    weight, bias = 1 + dtype(0.1) * numbers(size, dtype, 2), numbers(size, dtype, 3)
    return ((weight, bias), (weight[:0], bias[:0]), (weight, bias[:0]))


def copies(arguments):
    return [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]


def run(name, arguments):
    """The arguments after the CPU kernel has run on copies of them, and the kernel has touched no input."""
    result = copies(arguments)
    with np.errstate(all="ignore"):  # only matters under NUMBA_DISABLE_JIT
        getattr(cpu, name)(*result)
    return result


def check(name, arguments, outputs, ulps=4, floor=0.0, threads=False):
    """The CPU kernel against the reference: `ulps` roundings relative to each element plus `floor` to the largest."""
    expected, got = copies(arguments), run(name, arguments)
    getattr(reference, name)(*expected)
    for i, (wanted, result) in enumerate(zip(expected, got, strict=True)):
        if not isinstance(wanted, np.ndarray):
            continue
        what = f"{name}, argument {i}, {wanted.dtype}, shape {wanted.shape}"
        if i not in outputs or wanted.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted, err_msg=what)
            continue
        eps = np.finfo(wanted.dtype).eps
        finite = np.abs(wanted[np.isfinite(wanted)])
        atol = floor * eps * finite.max(initial=1.0) + np.finfo(wanted.dtype).tiny
        np.testing.assert_allclose(result, wanted, rtol=ulps * eps, atol=atol, err_msg=what)
    if threads:
        same_bits(name, arguments)
    return got


def same_bits(name, arguments):
    """The same bits on one thread and on all of them. (With the JIT off there is one.)"""
    if numba.config.DISABLE_JIT:
        return
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = run(name, arguments)
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
        many = run(name, arguments)
    finally:
        numba.set_num_threads(before)
    for a, b in zip(one, many, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(
                a.view(np.uint8), b.view(np.uint8), err_msg=f"{name}: bits change with threads"
            )
