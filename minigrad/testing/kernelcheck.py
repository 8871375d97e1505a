"""Checks of kernels against their definition in NumPy, for those that you register yourself."""

import importlib

import numpy as np

from minigrad.device import get_device
from minigrad.extension import registered

RTOL = {"float32": 1e-5, "float64": 1e-12}


class KernelcheckError(RuntimeError):
    """A kernel does something else than its definition."""


def kernelcheck(name, inputs, outputs, *numbers, device="cpu", rtol=None, raise_exception=True):
    """Compare a kernel with its reference.

    Outputs are full of NaN before, so that an element that the kernel forgets is found; the inputs must come out
    unchanged; a second run must give the same bits.

    Parameters
    ----------
    name : str
        A kernel registered with a ``reference``, or one of the project's.
    inputs : sequence of numpy.ndarray
    outputs : sequence of (tuple or numpy.ndarray)
        Their shapes, of the first input's dtype; or arrays of which shape and dtype count.
    *numbers : int or float
        The arguments behind the arrays.
    device : str
    rtol : float, optional
        Allowed error, relative to the largest element of the output; by default 1e-5 for float32, 1e-12 for float64.
    raise_exception : bool
        Return False instead of raising if set to False.

    Returns
    -------
    bool

    Raises
    ------
    KernelcheckError
        In one sentence that names the array, the element and both values.
    ValueError
        If there is no such kernel, or no reference of it.
    """
    inputs = [np.array(x, order="C") for x in inputs]
    blank = [_blank(x if isinstance(x, np.ndarray) else np.empty(x, inputs[0].dtype)) for x in outputs]
    wanted = [x.copy() for x in blank]
    with np.errstate(all="ignore"):
        _reference(name)(*[x.copy() for x in inputs], *wanted, *numbers)
    try:
        first, second = [_run(name, get_device(device), inputs, blank, numbers) for _ in range(2)]
        for number, (found, again, right) in enumerate(zip(first, second, wanted, strict=True)):
            _compare(name, number, found, right, rtol)
            if found.tobytes() != again.tobytes():
                raise KernelcheckError(f"kernelcheck: output {number} of {name} differs from run to run")
    except KernelcheckError:
        if raise_exception:
            raise
        return False
    return True


def _reference(name):
    registration = registered(name)
    if registration is not None and registration.reference is None:
        raise ValueError(f"kernelcheck: {name} was registered without a reference, so there is nothing to compare with")
    builtin = importlib.import_module("minigrad.kernels.reference")
    if registration is None and name not in builtin.__all__:
        raise ValueError(f"kernelcheck: expected the name of a kernel, got {name!r}; register_kernel makes one")
    return getattr(builtin, name) if registration is None else registration.reference


def _blank(like):
    """An array of the same shape and dtype in which nothing looks like a result."""
    return np.full(like.shape, np.nan if like.dtype.kind == "f" else -1 if like.dtype.kind == "i" else 0, like.dtype)


def _run(name, device, inputs, outputs, numbers):
    """What a kernel of a device writes into its outputs."""
    arrays = [device.from_numpy(x.copy()) for x in (*inputs, *outputs)]
    getattr(device.kernels, name)(*arrays, *numbers)
    after = [np.array(device.to_numpy(x)) for x in arrays]
    for number, (before, now) in enumerate(zip(inputs, after, strict=False)):
        if before.tobytes() != now.tobytes():
            raise KernelcheckError(f"kernelcheck: {name} changes its input {number}")
    return after[len(inputs) :]


def _compare(name, number, found, right, rtol):
    if right.dtype.kind != "f":
        wrong = found != right
    else:
        finite = np.isfinite(right)
        scale = np.max(np.abs(right[finite]), initial=0.0)
        allowed = (RTOL[str(right.dtype)] if rtol is None else rtol) * scale
        with np.errstate(invalid="ignore"):
            wrong = ~((np.abs(found - right) <= allowed) | (found == right) | np.isnan(found) & np.isnan(right))
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise KernelcheckError(
            f"kernelcheck: output {number} of {name} at {where}: the reference says {right[where]}, the kernel "
            f"{found[where]}; {int(wrong.sum())} of {wrong.size} elements differ"
        )
