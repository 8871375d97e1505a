"""Initial values of parameters, in place, drawn from the default generator unless another is given.

Every function returns the tensor that it has filled.
"""

import math

from minigrad.creation import eye, rand, randn
from minigrad.modes import no_grad
from minigrad.tensor import Tensor

GAINS = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}


def _check(op, tensor):
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: expected a Tensor, got {type(tensor).__name__}")


def _write(tensor, values):
    with no_grad():
        return tensor.copy_(values)


def uniform_(tensor, a=0.0, b=1.0, generator=None):
    """Fill with numbers drawn uniformly from [a, b)."""
    _check("uniform_", tensor)
    values = rand(*tensor.shape, dtype=tensor.dtype, device=tensor.device, generator=generator)
    return _write(tensor, values * (b - a) + a)


def normal_(tensor, mean=0.0, std=1.0, generator=None):
    """Fill with numbers drawn from the normal distribution of a mean and a standard deviation."""
    _check("normal_", tensor)
    values = randn(*tensor.shape, dtype=tensor.dtype, device=tensor.device, generator=generator)
    return _write(tensor, values * std + mean)


def constant_(tensor, val):
    """Fill with one number."""
    _check("constant_", tensor)
    return _write(tensor, val)


def zeros_(tensor):
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor):
    """Fill with ones."""
    return constant_(tensor, 1.0)


def eye_(tensor):
    """Fill a matrix with the identity; rows or columns beyond the square stay zero."""
    _check("eye_", tensor)
    if tensor.ndim != 2:
        raise ValueError(f"eye_: expected a matrix, got a tensor of shape {tensor.shape}")
    rows, columns = tensor.shape
    return _write(tensor, eye(max(rows, columns), tensor.dtype, tensor.device)[:rows, :columns])


def fans(tensor):
    """How many inputs and outputs an element of a weight ``(out, in, ...)`` connects: ``(fan_in, fan_out)``."""
    _check("init", tensor)
    if tensor.ndim < 2:
        raise ValueError(f"init: expected a weight of shape (out, in, ...), got {tensor.shape}")
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def calculate_gain(nonlinearity, param=None):
    """The factor by which weights grow to make up for an activation; `param` is the slope of a leaky_relu."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        raise ValueError(f"calculate_gain: expected one of {', '.join(GAINS)} or leaky_relu, got {nonlinearity!r}")
    return GAINS[nonlinearity]


def _kaiming_std(op, tensor, a, mode, nonlinearity):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{op}: expected mode to be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """U(-bound, bound) with bound = gain sqrt(3 / fan) (He et al., arXiv 1502.01852)."""
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """N(0, gain^2 / fan) (He et al., arXiv 1502.01852)."""
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator)


def xavier_uniform_(tensor, gain=1.0, generator=None):
    """U(-bound, bound) with bound = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010)."""
    bound = gain * math.sqrt(6.0 / max(sum(fans(tensor)), 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor, gain=1.0, generator=None):
    """N(0, 2 gain^2 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(fans(tensor)), 1)), generator)


def weight_and_bias_(weight, bias):
    """What Linear and Conv2d start from: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for the weight, then for the bias."""
    fan_in, _ = fans(weight)
    bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)
