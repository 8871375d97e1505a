"""The precision of float32 matrix products and convolutions on a GPU."""

import importlib

from minigrad import modes

PRECISIONS = ("highest", "3xtf32", "high", "medium")


def _setting():
    return importlib.import_module("minigrad.kernels.precision").matmul_precision


def get_float32_matmul_precision():
    """What `set_float32_matmul_precision` has chosen in this context (thread or task), ``"highest"`` at first."""
    return _setting().get()


def set_float32_matmul_precision(precision):
    """Choose how float32 matrix products and convolutions are computed on ``"cuda"``, gradients included.

    It holds in this context (thread or task) from now on. The tensors stay float32; the CPU, float64 and convolutions
    with few output channels per group are not concerned. A captured step keeps what held when it was recorded.

    Parameters
    ----------
    precision : str
        ``"highest"``: in float32. The default.

        ``"3xtf32"``: on tensor cores, each operand as the sum of two tf32 numbers of which three products are added:
        a relative error of about 1e-6, as in float32. (Not PyTorch's.)

        ``"high"``: on tensor cores, operands rounded to tf32, a float32 with 10 bits of mantissa instead of 23: a
        relative error of about 1e-3. Sums are float32. PyTorch's ``"high"`` on an NVIDIA GPU.

        ``"medium"``: on tensor cores, operands rounded to bfloat16, a float32 with 7 bits of mantissa: a relative error
        of about 8e-3. Sums are float32. (PyTorch's ``"medium"`` on an NVIDIA GPU computes in tf32, says its
        documentation.)

    Raises
    ------
    ValueError
        If it is none of these.
    RuntimeError
        Inside a step that is being captured.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"set_float32_matmul_precision: expected one of {', '.join(map(repr, PRECISIONS))}, got "
                         f"{precision!r}")
    if modes.recorder.get() is not None:
        raise RuntimeError("set_float32_matmul_precision: a captured step has one precision; choose it before the step")
    _setting().set(precision)
