"""Fixtures. Compiled kernels go to the user's cache folder, so that a second run compiles nothing."""

import os
import sys

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MINIGRAD_CUDA", "emulate")  # device="cuda" is the emulator, also where there is a GPU
os.environ.setdefault("MINIGRAD_COMPILERS", "0")  # no processes that compile beside a test

if "coverage" in sys.modules:  # python -m coverage run -m pytest
    import measured

    measured.install()
    pytest_collection_modifyitems = measured.pytest_collection_modifyitems

import minigrad as mg

# The same examples on every run and machine, without deadlines: a first call may compile a kernel.
settings.register_profile("minigrad", derandomize=True, deadline=None, max_examples=100, database=None)
settings.load_profile("minigrad")


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random numbers."""
    mg.manual_seed(0)


@pytest.fixture
def rng():
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)
