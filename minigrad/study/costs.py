"""What a launch of each kernel costs: floating-point operations and bytes, from the arguments.

Operations are those of the formula in `minigrad.kernels.reference`: an addition, a multiplication, a division or a
comparison of numbers counts as 1, a multiply-add as 2, a call of exp, log, erf, tanh, sqrt, pow, sin or cos as 1, a sum
of n numbers as n. Sizes decide, not values: taps of a convolution or a window that lie in the padding count too (as in
PyTorch's counter), and so do the products that a Winograd convolution saves.

Bytes are those of every array argument, read or written once, and of those changed in place twice; scratch is left out,
and where a kernel touches a part of an array only that part counts.
"""

import functools
import inspect

from minigrad.extension import registered
from minigrad.kernels import reference
from minigrad.kernels.reference.batch_norm import LEAKY_RELU, RELU, SIGMOID, SILU, TANH
from minigrad.ops.common import product

# Operations per element of the argument `out`.
PER_OUTPUT = {
    "abs": 1, "add": 1, "clip": 2, "clip_grad": 2, "cos": 1, "div": 1, "dropout_backward": 1, "dropout_forward": 1,
    "eq": 1, "exp": 1, "ge": 1, "gelu": 5, "gelu_grad": 11, "gelu_tanh": 9, "gelu_tanh_grad": 18, "gt": 1, "le": 1,
    "leaky_relu": 2, "leaky_relu_grad": 2, "log": 1, "log_softmax": 5, "log_softmax_grad": 4, "lt": 1, "maximum": 1,
    "minimum": 1, "mul": 1, "ne": 1, "neg": 1, "pow": 1, "pow_scalar": 1, "random_normal": 4.5, "random_uniform": 1,
    "relu": 1, "relu_grad": 1, "sigmoid": 4, "sigmoid_grad": 3, "sign": 1, "silu": 5, "silu_grad": 9, "sin": 1,
    "softmax": 5, "softmax_grad": 4, "softplus": 6, "softplus_grad": 7, "sqrt": 1, "sub": 1, "tanh": 1, "tanh_grad": 3,
}  # fmt: skip

# Operations per element of the first argument.
PER_INPUT = {
    "argmax": 1, "argmin": 1, "batch_norm_running": 7, "batch_norm_statistics": 4, "fused_add": 1, "logsumexp": 4,
    "max": 1, "max_pool2d_backward": 1, "mean": 1, "min": 1, "nll_loss_backward": 1, "scale_inplace": 1, "sum": 1,
    "sum_of_squares": 2, "take_backward": 1, "variance": 3,
}  # fmt: skip

# Kernels that compute nothing with floats, by the reason.
NOTHING = {
    "copies": ("cast", "copy", "fill", "max_pool2d_gather", "strided_copy", "strided_scatter", "take", "where"),
    "conditions": ("all", "any", "logical_and", "logical_not", "logical_or"),
    "labels, which are integers": ("class_weight_of", "target_range", "widen_range"),
}

ACTIVATION = {RELU: (1, 1), LEAKY_RELU: (2, 2), SIGMOID: (4, 3), TANH: (1, 3), SILU: (5, 9)}  # forward, gradient


def _matmul(a, out, transpose_a, **_):
    return 2 * out.size * a.shape[-2 if transpose_a else -1]


def _linear_forward(weight, bias, out, **_):
    return 2 * out.size * weight.shape[1] + _if(bias, out.size)


def _conv2d_forward(weight, bias, out, **_):
    return 2 * out.size * product(weight.shape[1:]) + _if(bias, out.size)


def _conv2d_grad_input(grad, weight, **_):
    return 2 * grad.size * product(weight.shape[1:])


def _conv2d_grad_weight(grad, out, grad_bias, **_):
    return 2 * grad.size * product(out.shape[1:]) + _if(grad_bias, grad.size)


def _pool_forward(out, kernel_h, kernel_w, **_):
    """A comparison or an addition per tap; the division of a mean in place of the first addition."""
    return out.size * kernel_h * kernel_w


def _avg_pool2d_backward(grad, kernel_h, kernel_w, **_):
    return grad.size * (kernel_h * kernel_w + 1)


def _adaptive_taps(image, pixels):
    """The elements of all windows, of which window i of n over m begins at floor(i m / n) and ends at ceil."""
    taps = image.shape[0] * image.shape[1]
    for m, n in zip(image.shape[2:], pixels.shape[2:], strict=True):
        taps *= sum([-(-(i + 1) * m // n) - i * m // n for i in range(n)])
    return taps


def _adaptive_avg_pool2d_forward(x, out):
    return _adaptive_taps(x, out)


def _adaptive_avg_pool2d_backward(grad, out):
    return _adaptive_taps(out, grad) + grad.size


def _affine(weight, bias, elements):
    return _if(weight, elements) + _if(bias, elements)


def _batch_norm_forward(x, weight, bias, act, slope, pool, **_):
    """x - mean, times 1 / std; gamma and beta; the activation; a comparison per element to find the maxima."""
    active = 0 if _is_none(act, slope) else ACTIVATION[act][0]
    return x.size * (2 + active + bool(pool)) + _affine(weight, bias, x.size)


def _batch_norm_backward(x, weight, bias, act, slope, pool, **_):
    """Normalise (2), two sums (3), put together (4); before that the forward again, if f' or the maxima need it."""
    again = not _is_none(act, slope) or pool
    active = 0 if _is_none(act, slope) else sum(ACTIVATION[act])
    return x.size * (9 + active + bool(pool)) + (_affine(weight, bias, x.size) if again else 0)


def _layer_norm_forward(x, weight, bias, **_):
    return 6 * x.size + _affine(weight, bias, x.size)


def _layer_norm_backward(x, weight, **_):
    return 12 * x.size + _if(weight, x.size)


def _cross_entropy_forward(logits, target, class_weight, label_smoothing, reduction, **_):
    """log sum e^x: 4 per logit; log, + and - per row, and the sum of rows; smoothing: - and + per logit."""
    per_logit = 4 + (2 if label_smoothing > 0 else 0)
    return per_logit * logits.size + (4 if reduction else 3) * target.size + _if(class_weight, target.size)


def _cross_entropy_backward(logits, **_):
    """e^(x - logsumexp) - wanted, times the gradient."""
    return 4 * logits.size


def _nll_loss_forward(target, class_weight, **_):
    return target.size + _if(class_weight, target.size)


def _sgd(param, buffer, nesterov, maximize, **_):
    return param.size * (4 + 2 * nesterov + maximize) + _if(buffer, 3 * param.size)


def _adam(param, max_exp_avg_sq, decoupled, maximize, **_):
    return param.size * (15 - decoupled + maximize) + _if(max_exp_avg_sq, param.size)


def _if(array, count):
    """An absent array has size 0."""
    return count if array.size else 0


def _is_none(act, slope):
    return act == LEAKY_RELU and slope == 1


FORMULAS = {
    "adam": _adam, "adaptive_avg_pool2d_backward": _adaptive_avg_pool2d_backward,
    "adaptive_avg_pool2d_forward": _adaptive_avg_pool2d_forward, "avg_pool2d_backward": _avg_pool2d_backward,
    "avg_pool2d_forward": _pool_forward, "batch_norm_backward": _batch_norm_backward,
    "batch_norm_forward": _batch_norm_forward, "conv2d_forward": _conv2d_forward,
    "conv2d_grad_input": _conv2d_grad_input, "conv2d_grad_weight": _conv2d_grad_weight,
    "cross_entropy_backward": _cross_entropy_backward, "cross_entropy_forward": _cross_entropy_forward,
    "layer_norm_backward": _layer_norm_backward, "layer_norm_forward": _layer_norm_forward,
    "linear_forward": _linear_forward, "matmul": _matmul, "max_pool2d_forward": _pool_forward,
    "nll_loss_forward": _nll_loss_forward, "sgd": _sgd,
}  # fmt: skip

CHANGED_IN_PLACE = {
    "adam": ("param", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"), "batch_norm_running": ("running_mean", "running_var"),
    "fused_add": ("x",), "scale_inplace": ("x",), "sgd": ("param", "buffer"), "widen_range": ("kept",),
}  # fmt: skip
TOUCHED_IN_PART = {
    "max_pool2d_gather": lambda x, indices, out: 2 * out.nbytes + indices.nbytes,
    "strided_copy": lambda x, out, *_: min(x.nbytes, out.nbytes) + out.nbytes,
    "strided_scatter": lambda x, *_: 2 * x.nbytes,
    "take": lambda x, indices, out: 2 * out.nbytes + indices.nbytes,
}
SCRATCH = "work"


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
    """Floating-point operations of a launch; None if nobody has said what the kernel costs.

    Of array arguments only shape, size and nbytes are looked at.
    """
    if kernel in FORMULAS:
        return FORMULAS[kernel](**dict(zip(parameters(kernel), arguments, strict=True)))
    if kernel in PER_OUTPUT:
        return int(PER_OUTPUT[kernel] * arguments[parameters(kernel).index("out")].size)
    if kernel in PER_INPUT:
        return PER_INPUT[kernel] * arguments[0].size
    return 0 if any(kernel in kernels for kernels in NOTHING.values()) else None


def traffic(kernel, arguments):
    """Bytes that a launch reads and writes: each array once, those changed in place twice, scratch not at all."""
    if kernel in TOUCHED_IN_PART:
        return TOUCHED_IN_PART[kernel](*arguments)
    twice = CHANGED_IN_PLACE.get(kernel, ())
    names = parameters(kernel) or ("",) * len(arguments)
    return sum([a.nbytes * (2 if name in twice else 1) for name, a in zip(names, arguments, strict=True)
                if hasattr(a, "nbytes") and name != SCRATCH])
