"""Sine and cosine."""

import numpy as np


def sin(x, out):
    """out = sin x, NaN where x is infinite."""
    with np.errstate(invalid="ignore"):
        np.sin(x, out=out)


def cos(x, out):
    """out = cos x, NaN where x is infinite."""
    with np.errstate(invalid="ignore"):
        np.cos(x, out=out)
