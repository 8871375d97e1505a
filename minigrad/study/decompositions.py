"""Fused ops as the mathematics says them, in primitive ops: what `minigrad.study.decompose` runs in their place.

Each function takes the op's class and then what the op's ``apply`` takes. Under `decompose` the ops that it calls are
decomposed in turn: a cross-entropy runs as a softmax, which runs as exp, sum and div.
"""

import math

from minigrad import ops
from minigrad.ops.activation import GeluTanh, Softplus
from minigrad.ops.fused import (
    BatchNormAct,
    BatchNormActEval,
    GhostBatchNormAct,
    LinearBatchNormAct,
    LinearBatchNormActEval,
)
from minigrad.ops.loss import CrossEntropy, NllLoss, find_wrong_labels, rows_shape, target_distribution
from minigrad.ops.matmul import Linear
from minigrad.ops.norm import BatchNorm, BatchNormEval, GhostBatchNorm, LayerNorm
from minigrad.ops.reduction import LogSoftmax, Logsumexp, Softmax, Var


def linear(_, x, weight, bias):
    """y = x W' + b"""
    y = ops.matmul(x, ops.transpose(weight, 0, 1))
    return y if bias is None else y + bias


def softmax(_, x, dim):
    """y = e^(x - max) / sum e^(x - max)"""
    e = ops.exp(x - _largest(x, (dim,)))
    return e / ops.sum(e, dim, keepdim=True)


def log_softmax(_, x, dim):
    """y = x - log sum e^x"""
    return x - ops.logsumexp(x, dim, keepdim=True)


def logsumexp(_, x, dims, keepdim):
    """y = max + log sum e^(x - max); where the maximum is infinite it is the result"""
    largest = _largest(x, dims)
    shift = ops.where(ops.abs(largest) == math.inf, 0.0, largest)
    e = ops.exp(x - shift)
    y = ops.log(ops.sum(e, dims, keepdim=True) if dims else e) + shift
    return y if keepdim or not dims else ops.squeeze(y, dims)


def _largest(x, dims):
    """The maximum, which is subtracted for safety alone and has no gradient; -inf of nothing."""
    if not dims or not x.ndim:
        return x.detach()
    if 0 in [x.shape[d] for d in dims]:
        return ops.sum(x.detach(), dims, keepdim=True) - math.inf
    return ops.max(x.detach(), dims, keepdim=True)


def variance(_, x, dims, keepdim, correction):
    """y = sum (x - mean)^2 / (n - correction)"""
    n = math.prod(x.shape[d] for d in dims)
    squares = (x - ops.mean(x, dims, keepdim=True)) ** 2.0 if dims else (x - x) ** 2.0
    return ops.sum(squares, dims, keepdim) / (float(n - correction) if n > correction else 0.0)


def cross_entropy(_, x, target, weight, label_smoothing, ignore_index, reduction):
    """loss = -sum over the classes of t log softmax(x), t the target distribution; "mean" divides by the weights"""
    n, classes, s = rows_shape(x.shape)
    labels = ops.reshape(target, (n, s))
    find_wrong_labels("cross_entropy", labels, classes, ignore_index)
    t = target_distribution(labels, classes, x.dtype, weight, label_smoothing, ignore_index)
    losses = -ops.sum(t * ops.log_softmax(ops.reshape(x, (n, classes, s)), 1), 1)
    if reduction == "none":
        return ops.reshape(losses, target.shape)
    if reduction == "sum":
        return ops.sum(losses)
    return ops.sum(losses) / ops.sum(target_distribution(labels, classes, x.dtype, weight, 0.0, ignore_index))


def nll_loss(_, x, target, weight, ignore_index):
    """loss = -x[target] for each row, as a sum over the classes with one-hot weights"""
    return -ops.sum(target_distribution(target, x.shape[1], x.dtype, weight, 0.0, ignore_index) * x, 1)


def layer_norm(_, x, weight, bias, eps):
    """y = (x - mean) / sqrt(var + eps) gamma + beta for each row"""
    return _scaled(_standardised(x, 1, eps)[0], weight, bias, (1, x.shape[1]))


def batch_norm(cls, x, weight, bias, running, eps, sizes=None, **what_follows):
    """y = f((x - mean) / sqrt(var + eps) gamma + beta) for each channel, over the batch or each sub-batch"""
    dims, column = (0, *range(2, x.ndim)), (1, x.shape[1]) + (1,) * (x.ndim - 2)
    outputs = []
    for part in [x] if sizes is None else ops.split(x, sizes):
        y, mean, var = _standardised(part, dims, eps)
        if running is not None:  # running_mean, running_var, momentum, batches, cumulative
            moments = [ops.reshape(m.detach(), (x.shape[1],)).data for m in (mean, var)]
            x.device.kernels.batch_norm_running(*moments, *running[:4], part.numel() // x.shape[1], running[4])
        outputs.append(_scaled(y, weight, bias, column))
    return _followed(cls, outputs[0] if sizes is None else ops.cat(outputs), **what_follows)


def batch_norm_eval(cls, x, weight, bias, mean, variance, eps, **what_follows):
    """y = f((x - running_mean) / sqrt(running_var + eps) gamma + beta)"""
    column = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    y = (x - ops.reshape(mean, column)) / ops.sqrt(ops.reshape(variance, column) + eps)
    return _followed(cls, _scaled(y, weight, bias, column), **what_follows)


def linear_batch_norm_act(cls, x, weight, bias, gamma, beta, *running, **settings):
    """y = f(batch_norm(x W' + b)), with the running statistics if they are given"""
    normalised = batch_norm_eval if running else batch_norm
    return normalised(cls, ops.linear(x, weight, bias), gamma, beta, *running, pool=False, **settings)


def _standardised(x, dims, eps):
    """(x - mean) / sqrt(var + eps), the mean, and the (biased) variance"""
    mean = ops.mean(x, dims, keepdim=True)
    centred = x - mean
    var = ops.mean(centred * centred, dims, keepdim=True)
    return centred / ops.sqrt(var + eps), mean, var


def _scaled(y, weight, bias, shape):
    """y gamma + beta"""
    y = y if weight is None else y * ops.reshape(weight, shape)
    return y if bias is None else y + ops.reshape(bias, shape)


def _followed(cls, y, **settings):
    """The activation and the pooling of a `BatchNormAct`."""
    if not settings:
        return y
    fn = cls()
    fn.settings(**settings)
    return fn.follow(y)


def gelu_tanh(_, x):
    """y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def softplus(_, x, beta, threshold):
    """y = log(1 + e^(beta x)) / beta, and x where beta x > threshold"""
    large = x * beta > threshold
    return ops.where(large, x, ops.log(1.0 + ops.exp(ops.where(large, 0.0, x) * beta)) / beta)


TABLE = {
    "linear": {Linear: linear},
    "softmax": {Softmax: softmax},
    "log_softmax": {LogSoftmax: log_softmax},
    "logsumexp": {Logsumexp: logsumexp},
    "var": {Var: variance},
    "cross_entropy": {CrossEntropy: cross_entropy},
    "nll_loss": {NllLoss: nll_loss},
    "layer_norm": {LayerNorm: layer_norm},
    "batch_norm": {
        BatchNorm: batch_norm, GhostBatchNorm: batch_norm, BatchNormAct: batch_norm, GhostBatchNormAct: batch_norm,
        LinearBatchNormAct: linear_batch_norm_act, BatchNormEval: batch_norm_eval, BatchNormActEval: batch_norm_eval,
        LinearBatchNormActEval: linear_batch_norm_act,
    },
    "gelu_tanh": {GeluTanh: gelu_tanh},
    "softplus": {Softplus: softplus},
}  # fmt: skip
"""The names that `decompose` takes, each with the Functions and their formulas."""
