"""Batch and layer normalization, and dropout.

Batch normalization: Ioffe and Szegedy, arXiv 1502.03167, algorithm 1. Their gamma is `weight` here, their beta
`bias`; the moving averages of mean and variance are `running_mean` and `running_var`.
"""

from minigrad.dtypes import bool as bool_
from minigrad.function import Function, apply_multiple
from minigrad.ops.common import check_float, check_one_dtype, product
from minigrad.ops.elementwise import sqrt
from minigrad.ops.reduction import mean, sum
from minigrad.ops.shape import reshape
from minigrad.random import default_generator
from minigrad.tensor import Tensor


def _absent(fn, x):
    return fn.device.empty((0,), x.dtype)


class BatchNorm(Function):
    """y = (x - mean) / sqrt(var + eps) gamma + beta, statistics per channel over the batch; x is (N, C, S)"""

    def forward(self, x, weight, bias, running, eps):
        k, empty, channels = self.device.kernels, self.device.empty, x.shape[1]
        self.eps = eps
        self.mean, self.variance = empty(channels, x.dtype), empty(channels, x.dtype)
        k.batch_norm_statistics(x, self.mean, self.variance)
        if running is not None:  # running_mean, running_var, momentum
            k.batch_norm_running(self.mean, self.variance, *running, x.shape[0] * x.shape[2])
        return normalise_array(self, x, self.mean, self.variance, weight, bias, eps)

    def backward(self, grad):
        x, weight, _ = self.inputs
        statistics = Tensor(self.mean, self.device), Tensor(self.variance, self.device)
        grads = apply_multiple(BatchNormGrad, x, weight, grad, *statistics, eps=self.eps)
        return tuple([g if needed else None for g, needed in zip(grads, self.needs_input_grad, strict=True)])


def normalise_array(fn, x, mean, variance, weight, bias, eps):
    """Normalise an (N, C, S) array with given statistics."""
    out = fn.device.empty(x.shape, x.dtype)
    weight = _absent(fn, x) if weight is None else weight
    bias = _absent(fn, x) if bias is None else bias
    fn.device.kernels.batch_norm_forward(x, mean, variance, weight, bias, out, eps)
    return out


class BatchNormGrad(Function):
    """dL/dx, dL/dgamma, dL/dbeta of batch norm, through the batch's statistics as well"""

    def forward(self, x, weight, grad, mean, variance, eps):
        empty, channels = self.device.empty, x.shape[1]
        self.eps = eps
        out = empty(x.shape, x.dtype), empty(channels, x.dtype), empty(channels, x.dtype)
        weight = _absent(self, x) if weight is None else weight
        self.device.kernels.batch_norm_backward(x, mean, variance, weight, grad, *out, eps)
        return out

    def compose(self, x, weight, grad, *statistics):
        centred, inverse_std = standardise(x, (0, 2), self.eps)
        normal = centred * inverse_std
        grad_weight, grad_bias = sum(grad * normal, (0, 2)), sum(grad, (0, 2))
        count = float(x.shape[0] * x.shape[2])
        column = (1, x.shape[1], 1)
        inner = grad - reshape(grad_bias, column) / count - normal * (reshape(grad_weight, column) / count)
        scale = inverse_std if weight is None else inverse_std * reshape(weight, column)
        return inner * scale, grad_weight, grad_bias


def standardise(x, dims, eps):
    """``x - mean`` and ``1 / sqrt(var + eps)`` over some dimensions, in primitive ops."""
    centred = x - mean(x, dims, keepdim=True)
    return centred, 1.0 / sqrt(mean(centred * centred, dims, keepdim=True) + eps)


class BatchNormEval(Function):
    """y = (x - running_mean) / sqrt(running_var + eps) gamma + beta: the statistics are constants"""

    def forward(self, x, weight, bias, mean, variance, eps):
        self.eps = eps
        return normalise_array(self, x, mean, variance, weight, bias, eps)

    def backward(self, grad):
        x, weight, _, mean, variance = self.inputs
        column = (1, x.shape[1], 1)
        inverse_std = reshape(1.0 / sqrt(variance + self.eps), column)
        normal = (x - reshape(mean, column)) * inverse_std
        needs = self.needs_input_grad
        scale = inverse_std if weight is None else inverse_std * reshape(weight, column)
        return (
            grad * scale if needs[0] else None,
            sum(grad * normal, (0, 2)) if needs[1] else None,
            sum(grad, (0, 2)) if needs[2] else None,
            None,
            None,
        )


class LayerNorm(Function):
    """y = (x - mean) / sqrt(var + eps) gamma + beta, statistics per row; x is (M, D)"""

    def forward(self, x, weight, bias, eps):
        rows, empty = x.shape[0], self.device.empty
        self.eps = eps
        self.mean, self.rstd = empty(rows, x.dtype), empty(rows, x.dtype)
        out = empty(x.shape, x.dtype)
        weight = _absent(self, x) if weight is None else weight
        bias = _absent(self, x) if bias is None else bias
        self.device.kernels.layer_norm_forward(x, weight, bias, out, self.mean, self.rstd, eps)
        return out

    def backward(self, grad):
        x, weight, _ = self.inputs
        statistics = Tensor(self.mean, self.device), Tensor(self.rstd, self.device)
        grads = apply_multiple(LayerNormGrad, x, weight, grad, *statistics, eps=self.eps)
        return tuple([g if needed else None for g, needed in zip(grads, self.needs_input_grad, strict=True)])


class LayerNormGrad(Function):
    """dL/dx, dL/dgamma, dL/dbeta of layer norm"""

    def forward(self, x, weight, grad, mean, rstd, eps):
        empty, width = self.device.empty, x.shape[1]
        self.eps = eps
        out = empty(x.shape, x.dtype), empty(width, x.dtype), empty(width, x.dtype)
        weight = _absent(self, x) if weight is None else weight
        self.device.kernels.layer_norm_backward(x, mean, rstd, weight, grad, *out)
        return out

    def compose(self, x, weight, grad, *statistics):
        centred, inverse_std = standardise(x, 1, self.eps)
        normal = centred * inverse_std
        scaled = grad if weight is None else grad * weight
        average, projected = mean(scaled, 1, keepdim=True), mean(scaled * normal, 1, keepdim=True)
        return (scaled - average - normal * projected) * inverse_std, sum(grad * normal, 0), sum(grad, 0)


class Dropout(Function):
    """y = x mask / (1 - p), the mask drawn anew: each element is kept with probability 1 - p"""

    saves_inputs = False

    def forward(self, x, state, p):
        self.p, self.mask = p, self.device.empty(x.shape, bool_)
        out = self.device.empty(x.shape, x.dtype)
        self.device.kernels.dropout_forward(x.ravel(), self.mask.ravel(), out.ravel(), state, p)
        return out

    def backward(self, grad):
        return (DropoutGrad.apply(grad, Tensor(self.mask, self.device), p=self.p),)


class DropoutGrad(Function):
    """grad mask / (1 - p)"""

    saves_inputs = False

    def forward(self, grad, mask, p):
        self.p, self.mask = p, mask
        out = self.device.empty(grad.shape, grad.dtype)
        self.device.kernels.dropout_backward(grad.ravel(), mask.ravel(), out.ravel(), p)
        return out

    def backward(self, grad):
        return DropoutGrad.apply(grad, Tensor(self.mask, self.device), p=self.p), None


def _check_channels(op, x, **parameters):
    """Raise unless x has channels and every parameter one value for each."""
    check_float(op, x)
    if x.ndim < 2:
        raise ValueError(f"{op}: expected an input of shape (N, C) or (N, C, ...), got {x.shape}")
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != (x.shape[1],):
            raise ValueError(f"{op}: expected {name} of shape {(x.shape[1],)}, got {parameter.shape}")
    check_one_dtype(op, x, **parameters)


def batch_norm(x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Batch normalization: ``(x - mean) / sqrt(var + eps) * weight + bias`` per channel.

    Parameters
    ----------
    x : Tensor of shape (N, C) or (N, C, ...)
    running_mean, running_var : Tensor of shape (C,), optional
        In training they are updated in place: ``running = (1 - momentum) * running + momentum * new``, with the
        unbiased variance. Otherwise they are the statistics.
    weight, bias : Tensor of shape (C,), optional
        gamma and beta of the paper; 1 and 0 if left out.
    training : bool
        Whether to normalise with the batch's own mean and (biased) variance.
    momentum : float or Tensor of shape (1,)
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        If shapes do not fit, if the batch has one value per channel in training, or none; if statistics are
        missing otherwise.

    References
    ----------
    Ioffe and Szegedy, arXiv 1502.03167, algorithm 1 (training) and 2 (inference).
    """
    op = "batch_norm"
    _check_channels(op, x, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    view = reshape(x, (x.shape[0], x.shape[1], product(x.shape[2:])))
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(f"{op}: expected running_mean and running_var outside of training")
        out = BatchNormEval.apply(view, weight, bias, running_mean, running_var, eps=eps)
        return reshape(out, x.shape)
    if view.shape[0] * view.shape[2] < 2:
        raise ValueError(
            f"{op}: expected more than one value per channel in training, got an input of shape {x.shape}"
        )
    running = None
    if running_mean is not None and running_var is not None:
        if not isinstance(momentum, Tensor):
            momentum = Tensor(x.device.full((1,), float(momentum), x.dtype), x.device)
        running = running_mean.data, running_var.data, momentum.data
        running_mean.version[0] += 1
        running_var.version[0] += 1
    return reshape(BatchNorm.apply(view, weight, bias, running=running, eps=eps), x.shape)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Layer normalization over the last dimensions (Ba, Kiros and Hinton, arXiv 1607.06450).

    Parameters
    ----------
    x : Tensor of shape (..., *normalized_shape)
    normalized_shape : int or sequence of int
    weight, bias : Tensor of shape normalized_shape, optional
    eps : float
        Added to the (biased) variance.
    """
    op = "layer_norm"
    check_float(op, x)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[x.ndim - len(shape):] != shape or x.ndim < len(shape):
        raise ValueError(f"{op}: expected an input whose last extents are {shape}, got shape {x.shape}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != shape:
            raise ValueError(f"{op}: expected {name} of shape {shape}, got {parameter.shape}")
    check_one_dtype(op, x, weight=weight, bias=bias)
    width = product(shape)
    flat = [None if p is None else reshape(p, (width,)) for p in (weight, bias)]
    rows = reshape(x, (product(x.shape[: x.ndim - len(shape)]), width))
    return reshape(LayerNorm.apply(rows, *flat, eps=eps), x.shape)


def dropout(x, p=0.5, training=True, generator=None):
    """Set each element to 0 with probability `p` and scale the others by ``1 / (1 - p)``.

    Parameters
    ----------
    p : float
        From 0 to 1.
    training : bool
        Nothing happens if False.
    generator : Generator, optional
        Where the randomness comes from; the default one (see `manual_seed`) if left out.

    References
    ----------
    Srivastava et al., Journal of Machine Learning Research 15 (2014).
    """
    check_float("dropout", x)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: expected a probability p from 0 to 1, got {p}")
    if not training or p == 0.0:
        return x
    state = (generator or default_generator).state(x.device)
    return Dropout.apply(x, state=state, p=float(p))
