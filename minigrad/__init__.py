"""minigrad: tensors, automatic differentiation and neural networks, every kernel of them in Python.

>>> import minigrad as mg
>>> x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
tensor([2., 4., 6.])
"""

from pathlib import Path as _Path

# In a checkout the folders layers/ and kernels/ stand beside this one; installed, they are inside it.
if not (_Path(__file__).parent / "kernels").exists():
    __path__.append(str(_Path(__file__).parent.parent))

from minigrad import functional, ops, random
from minigrad.autograd import grad
from minigrad.comparing import allclose, equal
from minigrad.creation import (
    arange,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from minigrad.device import Device, cpu, get_device
from minigrad.dtypes import bool, float32, float64, int64
from minigrad.extension import register_kernel
from minigrad.function import Function, apply_multiple
from minigrad.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minigrad.precision import get_float32_matmul_precision, set_float32_matmul_precision
from minigrad.random import Generator, manual_seed
from minigrad.tensor import Tensor
from minigrad.threads import get_num_threads, set_num_threads
from minigrad.version import __version__
from minigrad.watching import Watcher, detect_anomaly, watch

# Imported at their first use, so that import minigrad stays instant.
_ON_DEMAND = ("data", "layers", "optim", "study", "testing")


def __getattr__(name):
    if name in _ON_DEMAND:
        import importlib

        return importlib.import_module(f"minigrad.{name}")
    if name == "capture":
        from minigrad.recording import capture

        return capture
    if name in ("save", "load"):
        from minigrad import serialization

        return getattr(serialization, name)
    if name in ops.__all__:  # every op is also a function of the package: minigrad.cat, minigrad.where, ...
        return getattr(ops, name)
    raise AttributeError(f"module 'minigrad' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_ON_DEMAND, *ops.__all__, "capture", "load", "save"})
