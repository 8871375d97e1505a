"""``cuda`` as kernels import it: Numba's, or a stand-in where only the emulator is there, which brings its own."""

from minigrad.kernels.cuda import toolkit

if toolkit.HAS_COMPILER:
    from numba import cuda
else:

    class cuda:
        """Stands for `numba.cuda`."""


__all__ = ["cuda"]
