"""Batch normalization, an activation and max pooling in one op: fewer passes over memory, the same results.

A linear layer in front joins them, in evaluation if no graph is recorded. That saves nothing but Python: its kernels
are the same in the same order.

`compose` is the same in separate ops. It gives the higher derivatives, and is what the kernel is tested against.
"""

from minigrad.function import Function
from minigrad.modes import is_grad_enabled
from minigrad.ops import activation as activations
from minigrad.ops.common import check_float
from minigrad.ops.matmul import Linear, linear_gradients
from minigrad.ops.norm import (
    LEAKY_RELU,
    RELU,
    SIGMOID,
    SILU,
    TANH,
    BatchNorm,
    BatchNormEval,
    GhostBatchNorm,
    run_batch_norm,
)
from minigrad.ops.pooling import max_pool2d
from minigrad.tensor import Tensor

ACTIVATIONS = {"none": LEAKY_RELU, "relu": RELU, "leaky_relu": LEAKY_RELU, "sigmoid": SIGMOID, "tanh": TANH,
               "silu": SILU}
"""The activations that can follow, with their number in the kernels."""


class BatchNormAct(BatchNorm):
    """y = maxpool(f((x - mean) / sqrt(var + eps) gamma + beta)); nothing but x and the statistics is kept"""

    answers_are_new = True

    def forward(self, x, weight, bias, running, eps, activation, slope, pool):
        self.settings(activation, slope, pool)
        return super().forward(x, weight, bias, running, eps)

    def settings(self, activation, slope, pool):
        """Note what follows the normalization."""
        self.activation, self.act, self.pool = activation, ACTIVATIONS[activation], int(pool)
        self.slope = 1.0 if activation == "none" else slope

    def compose(self, x, weight, bias):
        return self.follow(super().compose(x, weight, bias))

    def follow(self, y):
        """The activation and the pooling, as ops."""
        if self.activation == "leaky_relu":
            y = activations.leaky_relu(y, self.slope)
        elif self.activation != "none":
            y = getattr(activations, self.activation)(y)
        return max_pool2d(y, 2) if self.pool else y


class GhostBatchNormAct(BatchNormAct, GhostBatchNorm):
    """The same for each of several sub-batches by itself"""

    answers_are_new = True

    def forward(self, x, weight, bias, running, eps, activation, slope, pool, sizes):
        self.settings(activation, slope, pool)
        return GhostBatchNorm.forward(self, x, weight, bias, running, eps, sizes)


BatchNormAct.ghost = GhostBatchNormAct


class LinearBatchNormAct(BatchNormAct):
    """y = f((z - mean) / sqrt(var + eps) gamma + beta) of z = x W' + b;  dx = dz W, dW = dz' x, db = sum dz"""

    answers_are_new = True

    def forward(self, x, weight, bias, gamma, beta, running, eps, activation, slope):
        self.z = Linear.forward(self, x, weight, bias)
        return super().forward(self.z, gamma, beta, running, eps, activation, slope, pool=False)

    def backward(self, grad):
        if is_grad_enabled():
            return Function.backward(self, grad)
        x, weight, _, gamma, beta = self.inputs
        needs = self.needs_input_grad
        dz, dgamma, dbeta = self.gradients(self.z, gamma, beta, grad.data)
        return *linear_gradients(x, weight, dz, needs), dgamma if needs[3] else None, dbeta if needs[4] else None

    def compose(self, x, weight, bias, gamma, beta):
        return super().compose(Linear.apply(x, weight, bias), gamma, beta)


class BatchNormActEval(BatchNormEval):
    """`BatchNormAct` with the running statistics, which are constants"""

    settings, follow = BatchNormAct.settings, BatchNormAct.follow
    backward = Function.backward

    def forward(self, x, weight, bias, mean, variance, eps, activation, slope, pool):
        self.settings(activation, slope, pool)
        return super().forward(x, weight, bias, mean, variance, eps)

    def compose(self, x, weight, bias, mean, variance):
        return self.follow(BatchNormEval.apply(x, weight, bias, mean, variance, eps=self.eps))


class LinearBatchNormActEval(BatchNormActEval):
    """y = f((z - mean) / sqrt(var + eps) gamma + beta) of z = x W' + b, with the running statistics"""

    def forward(self, x, weight, bias, gamma, beta, mean, variance, eps, activation, slope):
        z = Linear.forward(self, x, weight, bias)
        return super().forward(z, gamma, beta, mean, variance, eps, activation, slope, pool=False)

    def compose(self, x, weight, bias, gamma, beta, mean, variance):
        return super().compose(Linear.apply(x, weight, bias), gamma, beta, mean, variance)


def fit_together(x, weight, bias, *per_feature):
    """Whether `LinearBatchNormAct` and `LinearBatchNormActEval` can take x and its parameters as they are.

    None: there is none. That the first wants two rows, and the second running statistics, is the caller's to know.
    """
    if not isinstance(x, Tensor):
        return False
    rows, matrix = x.data, weight.data
    dtype, shape, width = matrix.dtype, rows.shape, matrix.shape[:1]
    if rows.dtype is not dtype or len(shape) != 2 or matrix.shape[1:] != shape[1:]:
        return False
    for parameter in (bias, *per_feature):
        if parameter is not None and (parameter.data.dtype is not dtype or parameter.data.shape != width):
            return False
    return True


def batch_norm_act(x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1,
                   eps=1e-5, activation="relu", negative_slope=0.01, max_pool=False, *, ghost_batch_size=None):
    """`batch_norm`, an activation, and perhaps ``max_pool2d(..., 2)`` in one op.

    Parameters
    ----------
    x : Tensor of shape (N, C) or (N, C, ...); (N, C, H, W) with `max_pool`
    running_mean, running_var, weight, bias, training, momentum, eps
        As of `batch_norm`.
    activation : {"none", "relu", "leaky_relu", "sigmoid", "tanh", "silu"}
    negative_slope : float
        Of leaky ReLU.
    max_pool : bool
        Whether to keep only the largest element of each window of 2 x 2 pixels.
    ghost_batch_size : int, optional
        As of `batch_norm`.

    Raises
    ------
    ValueError
        As of `batch_norm`; if there is no such activation; if no window fits into the image.
    """
    return run_fused("batch_norm_act", x, running_mean, running_var, weight, bias, training, momentum, eps,
                     activation=activation, slope=negative_slope, pool=max_pool, ghost_batch_size=ghost_batch_size)


def run_fused(op, x, *arguments, activation, slope, pool, **options):
    """`run_batch_norm` with what follows."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: expected activation to be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if pool and (check_float(op, x).ndim != 4 or min(x.shape[2:]) < 2):
        raise ValueError(f"{op}: expected images of at least 2 x 2 pixels, (N, C, H, W), to pool, got {x.shape}")
    return run_batch_norm(op, (BatchNormAct, BatchNormActEval), x, *arguments, **options,
                          activation=activation, slope=float(slope), pool=pool)
