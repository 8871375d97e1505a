"""Dropout."""

from minigrad import functional as F
from minigrad.layers.module import Module


class Dropout(Module):
    """In training, zero each element with probability `p` and scale the others by ``1 / (1 - p)``.

    Parameters
    ----------
    p : float
        From 0 to 1.
    inplace : bool
        Taken for PyTorch's sake; the result is always a new tensor.
    generator : Generator, optional
        Where the randomness comes from; the default one (see `minigrad.manual_seed`) if left out.

    References
    ----------
    Srivastava et al., Journal of Machine Learning Research 15 (2014).
    """

    def __init__(self, p=0.5, inplace=False, *, generator=None):
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"Dropout: expected a probability p from 0 to 1, got {p}")
        self.p, self.inplace, self.generator = p, inplace, generator

    def forward(self, x):
        return F.dropout(x, self.p, self.training, self.generator)

    def extra_repr(self):
        return f"p={self.p}"
