"""Run a CUDA kernel, in the emulator or on a GPU, beside its definition in minigrad.kernels.reference."""

import numpy as np
from agreement import copies

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import array


def run(name, arguments):
    """The arguments after the CUDA kernel has run on copies of them; an output's elements were never written before."""
    sent = [array.from_host(a) if isinstance(a, np.ndarray) else a for a in arguments]
    getattr(cuda, name)(*sent)
    return [a.numpy() if isinstance(a, array.DeviceArray) else a for a in sent]


def run_fresh(name, arguments, outputs):
    """`run` with outputs of fresh memory, which the kernel may not read and has to write as a whole."""
    sent = []
    for i, a in enumerate(arguments):
        if isinstance(a, np.ndarray):
            sent.append(array.empty(a.shape, a.dtype) if i in outputs else array.from_host(a))
        else:
            sent.append(a)
    getattr(cuda, name)(*sent)
    for i in outputs:
        written = getattr(sent[i].memory, "written", None)  # the emulator's
        step = sent[i].dtype.itemsize
        whole = written is None or all(written[: sent[i].nbytes : step])
        assert whole, f"{name}: argument {i} is not written as a whole"
    return [a.numpy() if isinstance(a, array.DeviceArray) else a for a in sent]


def beside(values):
    """An array with these values on the device that does not begin at a multiple of 16 bytes."""
    return array.from_host(np.concatenate([values.ravel()[:1], values.ravel()]))[1:].reshape(*values.shape)


def check(name, arguments, outputs, ulps=4, floor=0.0, in_place=()):
    """The CUDA kernel against the reference: `ulps` roundings relative to each element plus `floor` to the largest.

    `outputs` are the positions of arrays that the kernel writes without having read them, `in_place` of those that it
    changes. All others must come back as they were.
    """
    expected = copies(arguments)
    with np.errstate(all="ignore"):
        getattr(reference, name)(*expected)
    got = run_fresh(name, copies(arguments), set(outputs))
    for i, (wanted, result) in enumerate(zip(expected, got, strict=True)):
        if not isinstance(wanted, np.ndarray):
            continue
        what = f"{name}, argument {i}, {wanted.dtype}, shape {wanted.shape}"
        if i not in outputs and i not in in_place or wanted.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted, err_msg=what)
            continue
        eps = np.finfo(wanted.dtype).eps
        finite = np.abs(wanted[np.isfinite(wanted)])
        atol = floor * eps * finite.max(initial=1.0) + np.finfo(wanted.dtype).tiny
        np.testing.assert_allclose(result, wanted, rtol=ulps * eps, atol=atol, err_msg=what)
    return got
