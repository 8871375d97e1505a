"""Checks of gradients and kernels, for the ops of this project and for those that you write yourself."""

from minigrad.testing.gradcheck import GradcheckError, gradcheck, gradgradcheck
from minigrad.testing.kernelcheck import KernelcheckError, kernelcheck

__all__ = ["GradcheckError", "KernelcheckError", "gradcheck", "gradgradcheck", "kernelcheck"]
