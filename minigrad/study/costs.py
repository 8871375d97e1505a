"""What a launch of each kernel costs: floating-point operations and bytes, from the arguments.

Operations are those of the formula in `minigrad.kernels.reference`: an addition, a multiplication, a division or a
comparison of floats counts as 1, a multiply-add as 2, a call of exp, log, erf, tanh, sqrt or pow as 1. Taps of a
convolution that lie in the padding count too (as in PyTorch's counter). Copies, integers and random numbers count as 0.
Bytes are those of every array argument, read or written once, and of those changed in place twice; scratch is left out.
"""

import functools
import inspect

from minigrad.extension import registered
from minigrad.kernels import reference
from minigrad.ops.common import product

# Operations per element of the last array that the kernel writes.
PER_OUTPUT = {
    "abs": 1, "add": 1, "avg_pool2d_backward": 1, "adaptive_avg_pool2d_backward": 2, "clip": 2, "clip_grad": 2,
    "div": 1, "dropout_backward": 1, "dropout_forward": 1, "eq": 1, "exp": 1, "ge": 1, "gelu": 5, "gelu_grad": 11,
    "gelu_tanh": 9, "gelu_tanh_grad": 17, "gt": 1, "le": 1, "leaky_relu": 2, "leaky_relu_grad": 2, "log": 1,
    "log_softmax": 5, "log_softmax_grad": 4, "lt": 1, "maximum": 1, "minimum": 1, "mul": 1, "ne": 1, "neg": 1, "pow": 1,
    "pow_scalar": 1, "relu": 1, "relu_grad": 1, "sigmoid": 4, "sigmoid_grad": 3, "sign": 1, "silu": 5, "silu_grad": 9,
    "softmax": 5, "softmax_grad": 4, "softplus": 5, "softplus_grad": 5, "sqrt": 1, "sub": 1, "tanh": 1, "tanh_grad": 3,
}  # fmt: skip

# Operations per element of the first array.
PER_INPUT = {
    "adaptive_avg_pool2d_forward": 1, "adam": 14, "argmax": 1, "argmin": 1, "batch_norm_backward": 13,
    "batch_norm_forward": 4, "batch_norm_running": 6, "batch_norm_statistics": 4, "cross_entropy_backward": 4,
    "cross_entropy_forward": 4, "fused_add": 1, "layer_norm_backward": 11, "layer_norm_forward": 8, "logsumexp": 4,
    "max": 1, "max_pool2d_backward": 1, "mean": 1, "min": 1, "nll_loss_backward": 1, "scale_inplace": 1, "sgd": 6,
    "strided_scatter": 1, "sum": 1, "sum_of_squares": 2, "take_backward": 1, "variance": 3,
}  # fmt: skip

# Nothing is computed with floats: copies, conditions, integers, random bits.
NOTHING = (
    "all", "any", "cast", "class_weight_of", "copy", "fill", "logical_and", "logical_not", "logical_or",
    "max_pool2d_gather", "nll_loss_forward", "random_normal", "random_uniform", "strided_copy", "take", "target_range",
    "where", "widen_range",
)  # fmt: skip

CHANGED_IN_PLACE = {
    "adam": ("param", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"), "fused_add": ("x",), "scale_inplace": ("x",),
    "sgd": ("param", "buffer"),
}  # fmt: skip
SCRATCH = "work"


def _matmul(a, b, out, transpose_a, **_):
    return 2 * out.size * a.shape[-2 if transpose_a else -1]


def _linear_forward(x, weight, bias, out, **_):
    return 2 * out.size * weight.shape[1] + (out.size if bias.size else 0)


def _conv2d_forward(weight, bias, out, **_):
    return 2 * out.size * product(weight.shape[1:]) + (out.size if bias.size else 0)


def _conv2d_grad_input(grad, weight, **_):
    return 2 * grad.size * product(weight.shape[1:])


def _conv2d_grad_weight(grad, out, grad_bias, **_):
    return 2 * grad.size * product(out.shape[1:]) + (grad.size if grad_bias.size else 0)


def _windows(out, kernel_h, kernel_w, **_):
    return out.size * kernel_h * kernel_w


FORMULAS = {
    "avg_pool2d_forward": _windows, "conv2d_forward": _conv2d_forward, "conv2d_grad_input": _conv2d_grad_input,
    "conv2d_grad_weight": _conv2d_grad_weight, "linear_forward": _linear_forward, "matmul": _matmul,
    "max_pool2d_forward": _windows,
}  # fmt: skip


def parameters(kernel):
    """The names of a kernel's arguments; none are known of a kernel that was registered without a reference."""
    definition = getattr(reference, kernel, None)
    if definition is None and registered(kernel) is not None:
        definition = registered(kernel).reference
    return _names(definition) if definition else ()


@functools.cache
def _names(function):
    return tuple(inspect.signature(function).parameters)


def operations(kernel, arguments):
    """Floating-point operations of a launch; None if nobody has said what the kernel costs."""
    arrays = [a for a in arguments if hasattr(a, "nbytes")]
    if kernel in FORMULAS:
        return FORMULAS[kernel](**dict(zip(parameters(kernel), arguments, strict=True)))
    if kernel in PER_OUTPUT:
        named = dict(zip(parameters(kernel), arguments, strict=True))
        return PER_OUTPUT[kernel] * named["out"].size
    if kernel in PER_INPUT:
        return PER_INPUT[kernel] * arrays[0].size
    return 0 if kernel in NOTHING else None


def traffic(kernel, arguments):
    """Bytes that a launch reads and writes, each array once, those changed in place twice."""
    twice = CHANGED_IN_PLACE.get(kernel, ())
    names = parameters(kernel) or ("",) * len(arguments)
    return sum(a.nbytes * (2 if name in twice else 1) for name, a in zip(names, arguments, strict=True)
               if hasattr(a, "nbytes") and name != SCRATCH)
