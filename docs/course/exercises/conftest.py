"""The fixture `chapter`: what you wrote in chNN.py, for the tests in test_chNN.py.

    python -m pytest docs/course/exercises/test_ch01.py

With MINIGRAD_COURSE=solutions the tests get the answers in docs/course/solutions instead.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def chapter(request):
    """The module of exercises that belongs to the file of tests."""
    folder = HERE if os.environ.get("MINIGRAD_COURSE", "exercises") == "exercises" else HERE.parent / "solutions"
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where Numba looks for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rng():
    """NumPy's generator, the same numbers every time."""
    return np.random.default_rng(0)
