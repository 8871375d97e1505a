"""Activation functions. Each gradient is a fused kernel, and an op with a gradient of its own."""

import math

from minigrad.function import Function
from minigrad.ops.common import as_float, map_array, zip_arrays
from minigrad.ops.elementwise import exp, where


class Relu(Function):
    """y = max(x, 0);  dy/dx = 1 where y > 0"""

    saves_inputs = False
    saves_output = True

    def forward(self, x):
        return map_array(self, self.device.kernels.relu, x)

    def backward(self, grad):
        return (ReluGrad.apply_two(self.output, grad),)


class ReluGrad(Function):
    """grad where y > 0, else 0"""

    def forward(self, y, grad):
        return zip_arrays(self, self.device.kernels.relu_grad, y, grad)

    def backward(self, grad):
        y, _ = self.inputs
        return None, ReluGrad.apply_two(y, grad)


class LeakyRelu(Function):
    """y = x where x > 0, else slope x"""

    def forward(self, x, slope):
        self.slope = slope
        return map_array(self, self.device.kernels.leaky_relu, x, slope)

    def backward(self, grad):
        (x,) = self.inputs
        return (LeakyReluGrad.apply(x, grad, slope=self.slope),)


class LeakyReluGrad(Function):
    """grad where x > 0, else slope grad"""

    def forward(self, x, grad, slope):
        self.slope = slope
        return zip_arrays(self, self.device.kernels.leaky_relu_grad, x, grad, slope)

    def backward(self, grad):
        x, _ = self.inputs
        return None, LeakyReluGrad.apply(x, grad, slope=self.slope)


class Sigmoid(Function):
    """y = 1 / (1 + e^-x);  dy/dx = y (1 - y)"""

    saves_inputs = False
    saves_output = True

    def forward(self, x):
        return map_array(self, self.device.kernels.sigmoid, x)

    def backward(self, grad):
        return (SigmoidGrad.apply_two(self.output, grad),)


class SigmoidGrad(Function):
    """grad y (1 - y), in one pass"""

    def forward(self, y, grad):
        return zip_arrays(self, self.device.kernels.sigmoid_grad, y, grad)

    def compose(self, y, grad):
        return grad * y * (1.0 - y)


class Tanh(Function):
    """y = tanh x;  dy/dx = 1 - y^2"""

    saves_inputs = False
    saves_output = True

    def forward(self, x):
        return map_array(self, self.device.kernels.tanh, x)

    def backward(self, grad):
        return (TanhGrad.apply_two(self.output, grad),)


class TanhGrad(Function):
    """grad (1 - y^2), in one pass"""

    def forward(self, y, grad):
        return zip_arrays(self, self.device.kernels.tanh_grad, y, grad)

    def compose(self, y, grad):
        return grad * (1.0 - y * y)


class Gelu(Function):
    """y = x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel, arXiv 1606.08415)"""

    def forward(self, x):
        return map_array(self, self.device.kernels.gelu, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (GeluGrad.apply_two(x, grad),)


class GeluGrad(Function):
    """grad (Phi(x) + x phi(x)), phi the normal density"""

    def forward(self, x, grad):
        return zip_arrays(self, self.device.kernels.gelu_grad, x, grad)

    def backward(self, grad_out):
        x, grad = self.inputs
        density = exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
        return (
            grad_out * grad * density * (2.0 - x * x) if self.needs_input_grad[0] else None,
            GeluGrad.apply(x, grad_out) if self.needs_input_grad[1] else None,
        )


class GeluTanh(Function):
    """y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the approximation of the same paper"""

    def forward(self, x):
        return map_array(self, self.device.kernels.gelu_tanh, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (GeluTanhGrad.apply_two(x, grad),)


class GeluTanhGrad(Function):
    """grad (1 + t)/2 + grad x/2 (1 - t^2) du/dx with t = tanh u"""

    def forward(self, x, grad):
        return zip_arrays(self, self.device.kernels.gelu_tanh_grad, x, grad)

    def compose(self, x, grad):
        scale = math.sqrt(2.0 / math.pi)
        t = tanh(scale * (x + 0.044715 * x * x * x))
        return grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (scale * (1.0 + 3.0 * 0.044715 * x * x)))


class Silu(Function):
    """y = x sigmoid(x)"""

    def forward(self, x):
        return map_array(self, self.device.kernels.silu, x)

    def backward(self, grad):
        (x,) = self.inputs
        return (SiluGrad.apply_two(x, grad),)


class SiluGrad(Function):
    """grad (s + x s (1 - s)) with s = sigmoid x"""

    def forward(self, x, grad):
        return zip_arrays(self, self.device.kernels.silu_grad, x, grad)

    def compose(self, x, grad):
        s = sigmoid(x)
        return grad * (s + x * s * (1.0 - s))


class Softplus(Function):
    """y = log(1 + e^(beta x)) / beta, and x where beta x > threshold"""

    def forward(self, x, beta, threshold):
        self.params = {"beta": beta, "threshold": threshold}
        return map_array(self, self.device.kernels.softplus, x, beta, threshold)

    def backward(self, grad):
        (x,) = self.inputs
        return (SoftplusGrad.apply(x, grad, **self.params),)


class SoftplusGrad(Function):
    """grad sigmoid(beta x), and grad where beta x > threshold"""

    def forward(self, x, grad, beta, threshold):
        self.beta, self.threshold = beta, threshold
        return zip_arrays(self, self.device.kernels.softplus_grad, x, grad, beta, threshold)

    def compose(self, x, grad):
        return where(self.beta * x > self.threshold, grad, grad * sigmoid(self.beta * x))


def relu(x):
    """``max(x, 0)``"""
    return Relu.apply_one(as_float("relu", x))


def leaky_relu(x, negative_slope=0.01):
    """x where it is positive, ``negative_slope * x`` elsewhere."""
    return LeakyRelu.apply(as_float("leaky_relu", x), slope=float(negative_slope))


def sigmoid(x):
    """``1 / (1 + exp(-x))``"""
    return Sigmoid.apply_one(as_float("sigmoid", x))


def tanh(x):
    """The hyperbolic tangent."""
    return Tanh.apply_one(as_float("tanh", x))


def gelu(x, approximate="none"):
    """Gaussian error linear unit, ``x * Phi(x)``.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        The exact function or its approximation by tanh.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: expected approximate to be 'none' or 'tanh', got {approximate!r}")
    return (Gelu if approximate == "none" else GeluTanh).apply(as_float("gelu", x))


def silu(x):
    """Sigmoid linear unit, ``x * sigmoid(x)``; also called swish."""
    return Silu.apply_one(as_float("silu", x))


def softplus(x, beta=1.0, threshold=20.0):
    """``log(1 + exp(beta * x)) / beta``, and x itself where ``beta * x > threshold``."""
    return Softplus.apply(as_float("softplus", x), beta=float(beta), threshold=float(threshold))
