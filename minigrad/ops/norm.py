"""Batch and layer normalization, and dropout.

Batch normalization: Ioffe and Szegedy, arXiv 1502.03167, algorithm 1. Their gamma is `weight` here, their beta
`bias`; the moving averages of mean and variance are `running_mean` and `running_var`.
"""

from minigrad.dtypes import bool as bool_
from minigrad.dtypes import int64
from minigrad.function import Function, apply_multiple
from minigrad.modes import is_grad_enabled
from minigrad.ops.common import check_float, check_one_dtype, product
from minigrad.ops.elementwise import sqrt
from minigrad.ops.reduction import mean, sum
from minigrad.ops.shape import reshape
from minigrad.random import default_generator
from minigrad.tensor import Tensor


def _absent(fn, x):
    return fn.device.empty((0,), x.dtype)


RELU, LEAKY_RELU, SIGMOID, TANH, SILU = range(5)
"""The kernels' numbers of activations (see ``kernels.batch_norm_forward``); leaky ReLU of slope 1 is none."""


class BatchNorm(Function):
    """y = f((x - mean) / sqrt(var + eps) gamma + beta), statistics per channel over the batch; x is (N, C, ...)

    The activation f is none here, see `ops.fused`. Nothing is kept but x and the statistics: the backward pass computes
    the rest again.
    """

    act, slope, pool = LEAKY_RELU, 1.0, 0

    def forward(self, x, weight, bias, running, eps):
        k, empty, channels, images = self.device.kernels, self.device.empty, x.shape[1], _images(x)
        self.eps = eps
        self.mean, self.variance = empty(channels, x.dtype), empty(channels, x.dtype)
        k.batch_norm_statistics(images, self.mean, self.variance)
        if running is not None:  # running_mean, running_var, momentum, batches, cumulative
            k.batch_norm_running(self.mean, self.variance, *running[:4], x.size // channels, running[4])
        return self.normalise(x, images, self.mean, self.variance, weight, bias)

    def normalise(self, x, images, mean, variance, weight, bias):
        """The kernel that does it with statistics from anywhere; `images` is x as (N, C, H, W)."""
        n, c, h, w = images.shape
        out = self.device.empty((n, c, h // 2, w // 2) if self.pool else x.shape, x.dtype)
        weight = _absent(self, x) if weight is None else weight
        bias = _absent(self, x) if bias is None else bias
        self.device.kernels.batch_norm_forward(
            images, mean, variance, weight, bias, _images(out), self.eps, self.act, self.slope, self.pool
        )
        return out

    def backward(self, grad):
        if is_grad_enabled():
            return super().backward(grad)  # by `compose`, to be differentiated again
        x, weight, bias = self.inputs
        grads = self.gradients(x.data, weight, bias, grad.data)
        return [g if need else None for g, need in zip(grads, self.needs_input_grad, strict=True)]

    def gradients(self, x, weight, bias, grad):
        """dL/dx, dL/dgamma and dL/dbeta as tensors, from the arrays x and dL/dy, by the kernel."""
        device, dtype, channels = self.device, x.dtype, x.shape[1]
        empty = device.empty
        weight = _absent(self, x) if weight is None else weight.data
        bias = _absent(self, x) if bias is None else bias.data
        dx, dgamma, dbeta = empty(x.shape, dtype), empty(channels, dtype), empty(channels, dtype)
        device.kernels.batch_norm_backward(
            _images(x), self.mean, self.variance, weight, bias, _images(grad), _images(dx), dgamma, dbeta, self.eps,
            self.act, self.slope, self.pool,
        )  # fmt: skip
        return Tensor(dx, device), Tensor(dgamma, device), Tensor(dbeta, device)

    def compose(self, x, weight, bias):
        dims, column = (0, *range(2, x.ndim)), (1, x.shape[1]) + (1,) * (x.ndim - 2)
        centred, inverse_std = standardise(x, dims, self.eps)
        y = centred * inverse_std
        y = y if weight is None else y * reshape(weight, column)
        return y if bias is None else y + reshape(bias, column)


def _images(x):
    """An array (N, C, ...) as (N, C, H, W)."""
    shape = x.shape
    if len(shape) == 2:
        return x.reshape((*shape, 1, 1))
    return x if len(shape) == 4 else x.reshape((shape[0], shape[1], 1, product(shape[2:])))


def standardise(x, dims, eps):
    """``x - mean`` and ``1 / sqrt(var + eps)`` over some dimensions, in primitive ops."""
    centred = x - mean(x, dims, keepdim=True)
    return centred, 1.0 / sqrt(mean(centred * centred, dims, keepdim=True) + eps)


class BatchNormEval(BatchNorm):
    """y = f((x - running_mean) / sqrt(running_var + eps) gamma + beta): the statistics are constants"""

    def forward(self, x, weight, bias, mean, variance, eps):
        self.eps = eps
        return self.normalise(x, _images(x), mean, variance, weight, bias)

    def backward(self, grad):
        x, weight, _, mean, variance = self.inputs
        dims, column = (0, *range(2, x.ndim)), (1, x.shape[1]) + (1,) * (x.ndim - 2)
        inverse_std = reshape(1.0 / sqrt(variance + self.eps), column)
        needs = self.needs_input_grad
        scale = inverse_std if weight is None else inverse_std * reshape(weight, column)
        return (
            grad * scale if needs[0] else None,
            sum(grad * ((x - reshape(mean, column)) * inverse_std), dims) if needs[1] else None,
            sum(grad, dims) if needs[2] else None,
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


def _fit(x, *parameters):
    """Whether all is clearly as it should be: in 1 us, where `_check_channels`, which knows what to say, takes 5."""
    if not isinstance(x, Tensor) or x.data.dtype.kind != "f" or len(x.data.shape) < 2:
        return False
    dtype, shape = x.data.dtype, x.data.shape[1:2]
    for p in parameters:
        if p is not None and not (isinstance(p, Tensor) and p.data.dtype is dtype and p.data.shape == shape):
            return False
    return True


def run_batch_norm(op, kinds, x, running_mean, running_var, weight, bias, training, momentum, eps, batches=None,
                   cumulative=False, **params):
    """Check the arguments of `batch_norm` and apply one of two Functions, the first in training.

    Parameters
    ----------
    op : str
        The name for errors.
    kinds : pair of Function classes
    batches : Tensor of shape (1,) or (), int64, optional
        In training it is counted up with the running statistics.
    cumulative : bool
        Whether to set the tensor `momentum` to ``1 / batches`` first.
    **params
        For the Function.
    """
    if not _fit(x, weight, bias, running_mean, running_var):
        _check_channels(op, x, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(f"{op}: expected running_mean and running_var outside of training")
        return kinds[1].apply(x, weight, bias, running_mean, running_var, eps=eps, **params)
    if x.data.size < 2 * x.data.shape[1] or x.data.size == 0:
        raise ValueError(
            f"{op}: expected more than one value per channel in training, got an input of shape {x.shape}"
        )
    running = None
    if running_mean is not None and running_var is not None:
        if running_mean.device is not x.device:
            raise ValueError(f"{op}: expected all tensors on one device, got {x.device} and running statistics on "
                             f"{running_mean.device}")
        running = followed(running_mean, running_var, momentum, batches, cumulative)
    return kinds[0].apply(x, weight, bias, running=running, eps=eps, **params)


def followed(running_mean, running_var, momentum, batches=None, cumulative=False):
    """The running statistics as `BatchNorm` takes them, to change them in place."""
    device, dtype = running_mean.device, running_mean.data.dtype
    if not isinstance(momentum, Tensor):
        momentum = Tensor(device.full((1,), float(momentum), dtype), device)
    for changed in (running_mean, running_var, batches):
        if changed is not None:
            changed.version[0] += 1
    count = device.empty((0,), int64) if batches is None else batches.data.reshape(1)
    return running_mean.data, running_var.data, momentum.data, count, int(cumulative)


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
    return run_batch_norm("batch_norm", (BatchNorm, BatchNormEval), x, running_mean, running_var, weight, bias,
                          training, momentum, eps)


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
