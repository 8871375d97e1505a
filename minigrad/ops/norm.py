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
from minigrad.ops.reduction import mean, reduce_array, sum
from minigrad.ops.shape import cat, reshape, split
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

    answers_are_new = True
    act, slope, pool = LEAKY_RELU, 1.0, 0
    ghost: type[Function] | None = None  # the same by sub-batches

    def forward(self, x, weight, bias, running, eps):
        empty, channels, images, out = self.device.empty, x.shape[1], _images(x), self.room(x)
        self.eps = eps
        self.mean, self.variance = empty(channels, x.dtype), empty(channels, x.dtype)
        self.measure(images, self.mean, self.variance, running)
        self.normalise(images, self.mean, self.variance, weight, bias, _images(out))
        return out

    def room(self, x):
        """A new array for the output."""
        shape = x.shape
        return self.device.empty((*shape[:2], shape[2] // 2, shape[3] // 2) if self.pool else shape, x.dtype)

    def measure(self, images, mean, variance, running):
        """Write the statistics of `images` (N, C, H, W), and let the running ones (see `followed`) go after them."""
        k = self.device.kernels
        k.batch_norm_statistics(images, mean, variance)
        if running is not None:  # running_mean, running_var, momentum, batches, cumulative
            k.batch_norm_running(mean, variance, *running[:4], images.size // mean.size, running[4])

    def normalise(self, images, mean, variance, weight, bias, out):
        """The kernel that does it with statistics from anywhere."""
        weight = _absent(self, images) if weight is None else weight
        bias = _absent(self, images) if bias is None else bias
        self.device.kernels.batch_norm_forward(
            images, mean, variance, weight, bias, out, self.eps, self.act, self.slope, self.pool
        )

    def backward(self, grad):
        if is_grad_enabled():
            return super().backward(grad)  # by `compose`, to be differentiated again
        x, weight, bias = self.inputs
        grads = self.gradients(x.data, weight, bias, grad.data)
        return [g if need else None for g, need in zip(grads, self.needs_input_grad, strict=True)]

    def gradients(self, x, weight, bias, grad):
        """dL/dx, dL/dgamma and dL/dbeta as tensors, from the arrays x and dL/dy."""
        device, dtype, channels = self.device, x.dtype, x.shape[1]
        empty = device.empty
        dx, dgamma, dbeta = empty(x.shape, dtype), empty(channels, dtype), empty(channels, dtype)
        self.differentiate(_images(x), self.mean, self.variance, weight, bias, _images(grad), _images(dx), dgamma,
                           dbeta)
        return Tensor(dx, device), Tensor(dgamma, device), Tensor(dbeta, device)

    def differentiate(self, images, mean, variance, weight, bias, *arrays):
        """The kernel: dL/dy (N, C, H, W) among the arrays is read, dL/dx, dL/dgamma and dL/dbeta are written."""
        weight = _absent(self, images) if weight is None else weight.data
        bias = _absent(self, images) if bias is None else bias.data
        self.device.kernels.batch_norm_backward(
            images, mean, variance, weight, bias, *arrays, self.eps, self.act, self.slope, self.pool
        )

    def compose(self, x, weight, bias):
        dims, column = (0, *range(2, x.ndim)), (1, x.shape[1]) + (1,) * (x.ndim - 2)
        centred, inverse_std = standardise(x, dims, self.eps)
        y = centred * inverse_std
        y = y if weight is None else y * reshape(weight, column)
        return y if bias is None else y + reshape(bias, column)


class GhostBatchNorm(BatchNorm):
    """The same for each of several sub-batches by itself: x[:4], x[4:8], ... with statistics of their own

    The kernels get slices of the arrays, nothing is copied. Every sub-batch has a row of `mean` and `variance`, and a
    row of dL/dgamma and dL/dbeta, which are added up.
    """

    answers_are_new = True

    def forward(self, x, weight, bias, running, eps, sizes):
        images, out, many = _images(x), self.room(x), (len(sizes), x.shape[1])
        self.eps, self.sizes = eps, sizes
        self.mean, self.variance = self.device.empty(many, x.dtype), self.device.empty(many, x.dtype)
        rows = _cut(images, sizes), _cut(_images(out), sizes), _rows(self.mean), _rows(self.variance)
        for part, result, *moments in zip(*rows, strict=True):
            self.measure(part, *moments, running)
            self.normalise(part, *moments, weight, bias, result)
        return out

    def gradients(self, x, weight, bias, grad):
        device, sizes = self.device, self.sizes
        dx, dgamma, dbeta = [device.empty(shape, x.dtype) for shape in (x.shape, self.mean.shape, self.mean.shape)]
        images = [_cut(_images(array), sizes) for array in (x, grad, dx)]
        rows = [_rows(array) for array in (self.mean, self.variance, dgamma, dbeta)]
        for part, above, below, middle, spread, *of_gamma_and_beta in zip(*images, *rows, strict=True):
            self.differentiate(part, middle, spread, weight, bias, above, below, *of_gamma_and_beta)
        totals = [reduce_array(self, device.kernels.sum, array, (0,)).reshape(-1) for array in (dgamma, dbeta)]
        return Tensor(dx, device), *[Tensor(total, device) for total in totals]

    def compose(self, x, weight, bias):
        return cat([BatchNorm.compose(self, part, weight, bias) for part in split(x, self.sizes)])


BatchNorm.ghost = GhostBatchNorm


def sub_batches(op, shape, size):
    """How many examples each sub-batch of `size` has.

    What is left over is a sub-batch of its own, but if it is a single value per channel, which has no variance: then it
    joins the one before.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{op}: expected ghost_batch_size to be an int >= 1, got {size!r}")
    if size == 1 == product(shape[2:]):
        raise ValueError(f"{op}: expected more than one value per channel in every sub-batch, got ghost_batch_size 1 "
                         f"and an input of shape {shape}")
    many, rest = divmod(shape[0], size)
    sizes = [size] * many + [rest] * (rest > 0)
    return [*sizes[:-2], size + 1] if many and rest == 1 == product(shape[2:]) else sizes


def _cut(array, sizes):
    """Consecutive parts along the first dimension, in the same memory."""
    parts, start, flat, row = [], 0, array.ravel(), array.shape[1:]
    step = product(row)
    for size in sizes:
        parts.append(flat[start * step : (start + size) * step].reshape((size, *row)))
        start += size
    return parts


def _rows(matrix):
    """The rows of a matrix, in the same memory."""
    width, flat = matrix.shape[1], matrix.ravel()
    return [flat[start : start + width] for start in range(0, matrix.size, width)]


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
        self.eps, out = eps, self.room(x)
        self.normalise(_images(x), mean, variance, weight, bias, _images(out))
        return out

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
                   cumulative=False, ghost_batch_size=None, **params):
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
    ghost_batch_size : int, optional
        In training, the first Function's `ghost` takes its place.
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
    running, sizes = None, None
    if ghost_batch_size is not None:
        sizes = sub_batches(op, x.data.shape, ghost_batch_size)
    if running_mean is not None and running_var is not None:
        if running_mean.device is not x.device:
            raise ValueError(f"{op}: expected all tensors on one device, got {x.device} and running statistics on "
                             f"{running_mean.device}")
        running = followed(running_mean, running_var, momentum, batches, cumulative)
    if sizes is not None:
        return kinds[0].ghost.apply(x, weight, bias, running=running, eps=eps, sizes=sizes, **params)
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


def batch_norm(x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5,
               *, ghost_batch_size=None):
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
    ghost_batch_size : int, optional
        In training, consecutive sub-batches of so many examples are normalised each by itself, and the running
        statistics move once for each. What is left over is a sub-batch too; a single value per channel joins the one
        before.

    Raises
    ------
    ValueError
        If shapes do not fit, if the batch or a sub-batch has one value per channel in training, or none; if statistics
        are missing otherwise.

    References
    ----------
    Ioffe and Szegedy, arXiv 1502.03167, algorithm 1 (training) and 2 (inference). Ghost batch normalization: Hoffer,
    Hubara and Soudry, arXiv 1705.08741, algorithm 1.
    """
    return run_batch_norm("batch_norm", (BatchNorm, BatchNormEval), x, running_mean, running_var, weight, bias,
                          training, momentum, eps, ghost_batch_size=ghost_batch_size)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Layer normalization over the last dimensions (Ba, Kiros and Hinton, arXiv 1607.06450).

    Parameters
    ----------
    x : Tensor of shape ``(..., *normalized_shape)``
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
