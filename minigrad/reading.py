"""What Python and other libraries read out of a tensor. On a GPU, reading values waits for what computes them."""

import numpy as np

from minigrad.dtypes import int64


class Readable:
    """The part of `minigrad.Tensor` that hands out its values or its memory."""

    __slots__ = ()

    def numpy(self):
        """The values as a NumPy array, sharing memory on the CPU."""
        return self.device.to_numpy(self.data)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options):
        """A DLPack capsule that shares the tensor's memory; ``torch.from_dlpack(x)`` and the like ask for it."""
        if self.requires_grad:
            raise RuntimeError("dlpack: expected a tensor that needs no gradient, which would be lost; detach it first")
        return self.device.to_dlpack(self.data, **options)

    def __dlpack_device__(self):
        return self.device.dlpack_device

    @property
    def __cuda_array_interface__(self):
        """The CUDA array interface of a tensor on a GPU: CuPy, Numba and PyTorch share its memory."""
        if self.device == "cpu":
            raise AttributeError("a tensor on the CPU has no __cuda_array_interface__")
        return self.data.__cuda_array_interface__

    def item(self):
        """The value of a tensor of one element, as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item: expected a tensor of one element, got one of shape {self.shape}")
        return self.numpy().item()

    def tolist(self):
        """The values as nested Python lists."""
        return self.numpy().tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        if self.data.size != 1:
            raise ValueError(
                f"bool: the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()"
            )
        return bool(self.item())

    def __index__(self):
        if self.dtype != int64:
            raise TypeError(f"index: expected an int64 tensor, got {self.dtype}")
        return int(self.item())

    def __format__(self, spec):
        return format(self.item(), spec) if self.data.size == 1 and spec else str(self)
