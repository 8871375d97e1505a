"""Normalization layers.

In the papers' words: `weight` is gamma, `bias` is beta, `running_mean` and `running_var` are the moving averages of
mean and variance.
"""

from minigrad import functional as F
from minigrad.creation import full, ones, zeros
from minigrad.dtypes import as_dtype, float32, int64, is_float
from minigrad.layers.init import ones_, zeros_
from minigrad.layers.module import Buffer, Module, Parameter, check_input, check_sizes
from minigrad.ops.common import product
from minigrad.ops.norm import BatchNorm, BatchNormEval, followed, run_batch_norm


class _BatchNorm(Module):
    """Batch normalization per channel: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    In training, mean and (biased) variance are the batch's, and the running statistics follow them:
    ``running = (1 - momentum) * running + momentum * new``, with the unbiased variance. In evaluation the running
    statistics are used, or the batch's if there are none; after `freeze` in training too.

    Parameters
    ----------
    num_features : int
        The number of channels C.
    eps : float
        Added to the variance.
    momentum : float or None
        The weight of the newest batch in the running statistics; None averages over all batches alike.
    affine : bool
        Whether there are a weight and a bias.
    track_running_stats : bool
        Whether running statistics are kept.
    bias : bool
        Whether there is a bias beside the weight.
    ghost_batch_size : int, optional
        Ghost batch normalization: in training, consecutive sub-batches of so many examples are normalised each with
        its own statistics. What is left over is a sub-batch too; a single value per channel joins the one before.
        As in the paper, each sub-batch moves the running statistics, in order, as if it had come alone, and counts in
        `num_batches_tracked`. Evaluation does not change.

    Attributes
    ----------
    weight, bias : Parameter of shape (C,), or None
    running_mean, running_var : Buffer of shape (C,), or None
    num_batches_tracked : Buffer, int64 of shape (), or None
    frozen : bool
        See `freeze`.

    Raises
    ------
    ValueError
        If the input has another shape, or one value per channel where its own statistics are needed.

    References
    ----------
    Ioffe and Szegedy, arXiv 1502.03167, algorithms 1 and 2. Hoffer, Hubara and Soudry, arXiv 1705.08741, algorithm 1
    (ghost batch normalization).
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None,
                 dtype=None, *, bias=True, ghost_batch_size=None):
        check_sizes(self, num_features=num_features)
        if ghost_batch_size is not None:
            check_sizes(self, ghost_batch_size=ghost_batch_size)
        dtype = as_dtype(dtype or float32)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.ghost_batch_size = affine, track_running_stats, ghost_batch_size
        self.weight = Parameter(ones(num_features, dtype=dtype, device=device)) if affine else None
        self.bias = Parameter(zeros(num_features, dtype=dtype, device=device)) if affine and bias else None
        tracked = track_running_stats
        self.running_mean = Buffer(zeros(num_features, dtype=dtype, device=device)) if tracked else None
        self.running_var = Buffer(ones(num_features, dtype=dtype, device=device)) if tracked else None
        self.num_batches_tracked = Buffer(zeros((), dtype=int64, device=device)) if tracked else None
        self.frozen, self._stopped = False, ()
        self._rate = None  # (what it was made for, a tensor with the weight of the newest batch)

    def reset_running_stats(self):
        """Start over: mean 0, variance 1, no batches."""
        if self.track_running_stats:
            zeros_(self.running_mean)
            ones_(self.running_var)
            self.num_batches_tracked.fill_(0)

    def reset_parameters(self):
        """Start over: weight 1, bias 0, fresh running statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            ones_(self.weight)
        if self.bias is not None:
            zeros_(self.bias)

    def freeze(self, affine=True):
        """Normalise with the running statistics as they are, in training too, until `unfreeze`.

        For fine-tuning, where batches are small or differ from those that the statistics come from. Weight and bias
        stop training as well, as in Keras (``trainable = False``) and torchvision (``FrozenBatchNorm2d``): their
        ``requires_grad`` becomes False. `train`, `eval` and `load_state_dict` leave the layer frozen; the state dict
        doesn't say whether it is.

        Parameters
        ----------
        affine : bool
            Whether weight and bias are frozen too.

        Returns
        -------
        The layer itself.

        Raises
        ------
        ValueError
            If there are no running statistics.
        """
        if self.running_mean is None:
            raise ValueError(f"{type(self).__name__}: expected running statistics to freeze, got a layer with "
                             "track_running_stats=False")
        self.unfreeze()
        self.frozen = True
        if affine:
            members = {"weight": self.weight, "bias": self.bias}
            self._stopped = tuple([name for name, p in members.items() if p is not None and p.requires_grad])
            self._let_train(False)
        return self

    def unfreeze(self):
        """Undo `freeze`: the batch's statistics in training, and weight and bias train if they did before.

        Returns
        -------
        The layer itself.
        """
        self._let_train(True)
        self.frozen, self._stopped = False, ()
        return self

    def _let_train(self, requires_grad):
        for name in self._stopped:
            getattr(self, name).requires_grad_(requires_grad)

    @property
    def learning(self):
        """Whether the running statistics follow the batches: in training, unless frozen."""
        return self.training and not self.frozen

    @property
    def own_statistics(self):
        """Whether the batch's own statistics normalise it."""
        return self.learning or not self.track_running_stats

    def forward(self, x):
        return self.run(x, "batch_norm", (BatchNorm, BatchNormEval))

    def run(self, x, op, kinds, **params):
        """Check the input and apply one of the Functions `kinds`: the first with the batch's own statistics."""
        check_input(self, self._fits, self._expected, x)
        learning, own_statistics = self.learning, self.own_statistics
        if own_statistics and x.data.size <= self.num_features:
            raise ValueError(
                f"{type(self).__name__}: expected more than one value per channel in training, "
                f"got an input of shape {x.shape}"
            )
        if learning:
            params["ghost_batch_size"] = self.ghost_batch_size
        if self.track_running_stats:
            running, counting = (self.running_mean, self.running_var), {}
            if learning:
                counting = {"batches": self.num_batches_tracked, "cumulative": self.momentum is None}
            return run_batch_norm(op, kinds, x, *running, self.weight, self.bias, own_statistics,
                                  self._newest_weight(self.running_mean), self.eps, **counting, **params)
        return run_batch_norm(op, kinds, x, None, None, self.weight, self.bias, True, 0.0, self.eps, **params)

    def followed(self):
        """The running statistics as the Functions take them in training, None if there are none."""
        if not self.track_running_stats:
            return None
        return followed(self.running_mean, self.running_var, self._newest_weight(self.running_mean),
                        self.num_batches_tracked, self.momentum is None)

    def _newest_weight(self, like):
        """The momentum as a tensor of shape (1,): no allocation per step. Without a momentum the kernel writes 1 /
        number of batches into it."""
        made_for = like.device, like.dtype, self.momentum
        if self._rate is None or self._rate[0] != made_for:
            self._rate = made_for, full((1,), float(self.momentum or 0.0), like.dtype, like.device)
        return self._rate[1]

    def extra_repr(self):
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        text = f"{text}, track_running_stats={self.track_running_stats}"
        text += "" if self.ghost_batch_size is None else f", ghost_batch_size={self.ghost_batch_size}"
        return f"{text}, frozen=True" if self.frozen else text


class BatchNorm1d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace("per channel:", "of (N, C) or (N, C, L), per channel:")

    def _fits(self, shape):
        return len(shape) in (2, 3) and shape[1] == self.num_features

    def _expected(self):
        return f"(N, {self.num_features}) or (N, {self.num_features}, L)"


class BatchNorm2d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace("per channel:", "of (N, C, H, W), per channel:")

    def _fits(self, shape):
        return len(shape) == 4 and shape[1] == self.num_features

    def _expected(self):
        return f"(N, {self.num_features}, H, W)"


class Folded(Module):
    """What stands in the place of a batch normalization that the layer before has taken over (see `fold_batchnorm`).

    It hands on what it gets, if that has the right shape.
    """

    learning = own_statistics = False  # as of a batch normalization: see `minigrad.layers.fusion`

    def __init__(self, norm):
        self.was, self.training = type(norm).__name__, False
        self.num_features, self.dimensions = norm.num_features, 4 if type(norm) is BatchNorm2d else 2
        like = {"dtype": norm.running_mean.dtype, "device": norm.running_mean.device}
        self.mean = Buffer(zeros(norm.num_features, **like), persistent=False)
        self.variance = Buffer(ones(norm.num_features, **like), persistent=False)

    def forward(self, x):
        check_input(self, self._fits, self._expected, x)
        return x

    def run(self, x, op, kinds, **params):
        """What follows, in one op: the second of the Functions with mean 0 and variance 1."""
        return run_batch_norm(op, kinds, self(x), self.mean, self.variance, None, None, False, 0.0, 0.0, **params)

    def _fits(self, shape):
        # A linear layer's features are the last dimension, the channels of a BatchNorm1d are the second.
        return len(shape) == self.dimensions and shape[1] == self.num_features

    def _expected(self):
        return f"(N, {self.num_features}{', H, W' * (self.dimensions == 4)})"

    def extra_repr(self):
        return f"{self.was}, {self.num_features}"


class LayerNorm(Module):
    """Layer normalization over the last dimensions: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The extents of the last dimensions, which are normalised together.
    eps : float
        Added to the (biased) variance.
    elementwise_affine : bool
        Whether there is a weight.
    bias : bool
        Whether there is a bias beside it.

    References
    ----------
    Ba, Kiros and Hinton, arXiv 1607.06450.
    """

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, device=None, dtype=None):
        dtype = as_dtype(dtype or float32)
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape or product(shape) < 1 or not is_float(dtype):
            raise ValueError(f"LayerNorm: expected extents of at least 1 and a float dtype, got {shape} and {dtype}")
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.weight = Parameter(ones(shape, dtype=dtype, device=device)) if elementwise_affine else None
        self.bias = Parameter(zeros(shape, dtype=dtype, device=device)) if elementwise_affine and bias else None

    def reset_parameters(self):
        """Start over: weight 1, bias 0."""
        if self.weight is not None:
            ones_(self.weight)
        if self.bias is not None:
            zeros_(self.bias)

    def forward(self, x):
        check_input(self, self._fits, f"(..., {str(self.normalized_shape)[1:-1].rstrip(',')})", x)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def _fits(self, shape):
        return shape[-len(self.normalized_shape):] == self.normalized_shape

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Group normalization of (N, C, ...): ``(x - mean) / sqrt(var + eps) * weight + bias``, per example and group.

    Parameters
    ----------
    num_groups : int
        Into how many groups of neighbours the channels are divided.
    num_channels : int
    eps : float
        Added to the (biased) variance.
    affine : bool
        Whether there are a weight and a bias per channel.

    References
    ----------
    Wu and He, arXiv 1803.08494.
    """

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype=None):
        check_sizes(self, num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: expected num_channels to be a multiple of num_groups, got {num_channels} "
                             f"and {num_groups}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight = Parameter(ones(num_channels, dtype=dtype or float32, device=device)) if affine else None
        self.bias = Parameter(zeros(num_channels, dtype=dtype or float32, device=device)) if affine else None

    def reset_parameters(self):
        """Start over: weight 1, bias 0."""
        if self.affine:
            ones_(self.weight)
            zeros_(self.bias)

    def forward(self, x):
        check_input(self, lambda shape: shape[1:2] == (self.num_channels,), f"(N, {self.num_channels}, ...)", x)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
