"""The CUDA kernels: ``numba.cuda`` Python, on a GPU or in the emulator."""

import importlib

from minigrad.kernels import reference
from minigrad.kernels.cuda import toolkit

toolkit.require()

# While the families are being written: what is there is exported.
for _family in ("activation", "batch_norm", "conv", "elementwise", "index", "loss", "matmul", "norm", "optim", "pool",
                "reduction", "rng", "softmax"):
    try:
        _module = importlib.import_module(f"minigrad.kernels.cuda.{_family}")
    except ModuleNotFoundError:
        continue
    for _name in reference.__all__:
        if hasattr(_module, _name):
            globals()[_name] = getattr(_module, _name)
