"""What the CUDA backend needs from outside: packages, a driver, a GPU; or the emulator instead of them.

``MINIGRAD_CUDA=emulate`` in the environment runs the kernels in Python, see `emulator`. It needs greenlet alone.
"""

import importlib.util
import os

EMULATED = os.environ.get("MINIGRAD_CUDA") == "emulate"
HAS_COMPILER = all(importlib.util.find_spec(name) for name in ("numba_cuda", "cuda"))
EXTRA = 'pip install "minigrad-numba[cuda]"'
OLDEST_DRIVER = 13000  # that of the toolkit in the extra, see pyproject.toml
INSTEAD = "MINIGRAD_CUDA=emulate in the environment runs the kernels without a GPU, in Python"


def require():
    """Raise unless kernels can run.

    Raises
    ------
    RuntimeError
        With a sentence that says what is missing.
    """
    if EMULATED:
        if importlib.util.find_spec("greenlet") is None:
            raise RuntimeError("cuda: MINIGRAD_CUDA=emulate needs the package greenlet; pip install greenlet")
        return
    if not HAS_COMPILER:
        raise RuntimeError(f"cuda: the packages numba-cuda and cuda-core are not installed; {EXTRA}. {INSTEAD}")
    reason = _no_gpu()
    if reason:
        raise RuntimeError(f"cuda: {reason}. {INSTEAD}")


def _no_gpu():
    """Why there is no GPU to compute on, or None."""
    from cuda.bindings import driver
    from cuda.core import Device

    try:
        Device().set_current()
    except Exception as error:  # a missing driver and a missing GPU raise different types, all of them cuda.core's own
        return f"no GPU that can be used was found ({str(error).strip().splitlines()[0]})"
    version = driver.cuDriverGetVersion()[1]
    if version < OLDEST_DRIVER:
        return (f"the driver is one for CUDA {_version(version)}, and what is compiled here takes one for "
                f"{_version(OLDEST_DRIVER)} or newer")
    return None


def _version(number):
    return f"{number // 1000}.{number % 1000 // 10}"
