"""Sine and cosine."""

from minigrad.function import Function
from minigrad.ops.common import as_float, map_array


class Sin(Function):
    """y = sin x;  dy/dx = cos x"""

    def forward(self, x):
        return map_array(self, self.device.kernels.sin, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (grad * cos(x),)


class Cos(Function):
    """y = cos x;  dy/dx = -sin x"""

    def forward(self, x):
        return map_array(self, self.device.kernels.cos, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (-grad * sin(x),)


def sin(x):
    """The sine of an angle in radians."""
    return Sin.apply_one(as_float("sin", x))


def cos(x):
    """The cosine of an angle in radians."""
    return Cos.apply_one(as_float("cos", x))
