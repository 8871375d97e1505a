"""Loss functions."""

from functools import lru_cache

import numpy as np

from minigrad.dtypes import int64
from minigrad.function import Function
from minigrad.ops.activation import softplus
from minigrad.ops.common import broadcast_shapes, check_float, check_tensor, product
from minigrad.ops.elementwise import abs, exp, where
from minigrad.ops.reduction import log_softmax, mean, sum
from minigrad.ops.shape import reshape
from minigrad.tensor import Tensor

REDUCTIONS = ("mean", "sum", "none")
KERNEL_REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}


class CrossEntropy(Function):
    """loss = log sum e^x - x[target] for each row, smoothed and weighted, or their sum or mean: in one launch"""

    def forward(self, x, target, weight, label_smoothing, ignore_index, reduction):
        self.params = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
        empty, dtype = self.device.empty, x.dtype
        rows, labels = as_rows(x, target)
        if weight is None:
            weight = empty((0,), dtype)
        loss = empty(target.shape if reduction == "none" else (), dtype)
        self.logsumexp, self.divisor, bounds = empty(labels.shape, dtype), empty((1,), dtype), empty((2,), int64)
        self.device.kernels.cross_entropy_forward(
            rows, labels, weight, loss, self.logsumexp, self.divisor, bounds, label_smoothing, ignore_index,
            KERNEL_REDUCTIONS[reduction],
        )
        _check_labels("cross_entropy", self.device, bounds, rows.shape[1])
        return loss

    def backward(self, grad):
        x, target, weight = self.inputs
        saved = Tensor(self.logsumexp, self.device), Tensor(self.divisor, self.device)
        return CrossEntropyGrad.apply(x, grad, target, weight, *saved, **self.params), None, None


class CrossEntropyGrad(Function):
    """grad / divisor (softmax(x) sum t - t), t the smoothed and weighted target distribution"""

    def forward(self, x, grad, target, weight, logsumexp, divisor, label_smoothing, ignore_index):
        self.params = label_smoothing, ignore_index
        rows, labels = as_rows(x, target)
        out = self.device.empty(x.shape, x.dtype)
        if weight is None:
            weight = self.device.empty((0,), x.dtype)
        self.device.kernels.cross_entropy_backward(
            rows, logsumexp, labels, weight, grad.ravel(), divisor, out.reshape(rows.shape), label_smoothing,
            ignore_index,
        )
        return out

    def compose(self, x, grad, target, weight, logsumexp, divisor):
        n, classes, s = rows_shape(x.shape)
        rows, labels = reshape(x, (n, classes, s)), reshape(target, (n, s))
        probabilities = exp(log_softmax(rows, 1))
        t = target_distribution(labels, classes, x.dtype, weight, *self.params)
        above = reshape(grad, (n, 1, s) if grad.ndim else (1, 1, 1)) / divisor
        return reshape(above * (probabilities * sum(t, 1, keepdim=True) - t), x.shape)


@lru_cache(4096)
def rows_shape(shape):
    """The shape (C,), (N, C) or (N, C, ...) of logits as (N, C, S)."""
    if len(shape) == 2:
        return *shape, 1
    return (shape[0], shape[1], product(shape[2:])) if shape[1:] else (1, shape[0], 1)


def as_rows(x, target):
    """Arrays of logits and of class indices as (N, C, S) and (N, S)."""
    shape = rows_shape(x.shape)
    return x.reshape(shape), target.reshape(shape[::2])


def target_distribution(target, classes, dtype, weight, label_smoothing, ignore_index):
    """Class indices (N, S) as smoothed, weighted target probabilities (N, C, S); zeros where ignored."""
    labels = reshape(target, (target.shape[0], 1, target.shape[1]))
    every = Tensor(target.device.from_numpy(np.arange(classes).reshape(1, classes, 1)), target.device)
    one_hot = (labels == every).to(dtype)
    t = one_hot * (1.0 - label_smoothing) + label_smoothing / classes
    t = t if weight is None else t * reshape(weight, (1, classes, 1))
    return t * (labels != ignore_index).to(dtype)


class NllLoss(Function):
    """loss = -x[target] for each row, weighted; x is (N, C, S), the target (N, S)"""

    saves_inputs = False

    def forward(self, x, target, weight, ignore_index):
        self.target, self.source, self.ignore_index = target, x.shape, ignore_index
        self.weight = self.device.empty((0,), x.dtype) if weight is None else weight
        out = self.device.empty(target.shape, x.dtype)
        self.device.kernels.nll_loss_forward(x, target, self.weight, out, ignore_index)
        return out

    def backward(self, grad):
        target, weight = Tensor(self.target, self.device), Tensor(self.weight, self.device)
        params = {"shape": self.source, "ignore_index": self.ignore_index}
        return NllLossGrad.apply(grad, target, weight, **params), None, None


class NllLossGrad(Function):
    """-grad at the target of each row, zeros elsewhere"""

    saves_inputs = False

    def forward(self, grad, target, weight, shape, ignore_index):
        self.target, self.weight, self.ignore_index = target, weight, ignore_index
        out = self.device.empty(shape, grad.dtype)
        self.device.kernels.nll_loss_backward(grad, target, weight, out, ignore_index)
        return out

    def backward(self, grad):
        target, weight = Tensor(self.target, self.device), Tensor(self.weight, self.device)
        return NllLoss.apply(grad, target, weight, ignore_index=self.ignore_index), None, None


class ClassWeightOf(Function):
    """The weight of each row's class: 1 without weights, 0 where ignored"""

    differentiable = False
    saves_inputs = False

    def forward(self, target, weight, dtype, ignore_index):
        out = self.device.empty(target.shape, dtype)
        weight = self.device.empty((0,), dtype) if weight is None else weight
        self.device.kernels.class_weight_of(target, weight, out, ignore_index)
        return out


def _check_reduction(op, reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f"{op}: expected reduction to be 'mean', 'sum' or 'none', got {reduction!r}")


def _reduce(op, losses, reduction):
    if reduction == "mean":
        _check_some(op, losses)
        return mean(losses)
    return losses if reduction == "none" else sum(losses)


def _check_some(op, x):
    if x.numel() == 0:
        raise ValueError(f"{op}: expected at least one element to average over, got shape {x.shape} (an empty batch?)")


def _check_classes(op, x, target, weight):
    """Check the shapes of logits, class indices and weights; returns how many classes there are."""
    classes = _classes_of(op, x.data.shape, target.data.shape)
    if weight is not None and (check_tensor(op, weight, "weight").shape != (classes,) or weight.dtype != x.dtype):
        raise ValueError(
            f"{op}: expected weight of shape {(classes,)} and dtype {x.dtype}, got {weight.shape} and {weight.dtype}"
        )
    return classes


@lru_cache(4096)
def _classes_of(op, shape, target_shape):
    if not shape or len(shape) == 1 and target_shape:
        raise ValueError(f"{op}: expected an input of shape (N, C, ...) for targets of {target_shape}, got {shape}")
    batch = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if target_shape != batch:
        raise ValueError(f"{op}: expected class indices of shape {batch} for an input of {shape}, got {target_shape}")
    return shape[1] if len(shape) > 1 else shape[0]


def _check_labels(op, device, bounds, classes):
    """Raise if the smallest or the largest label that counts is not a class.

    The kernels skip labels that are no classes, so nothing is harmed before.
    """
    device.check_range(bounds, ValueError, f"{op}: expected class indices", classes)


def find_wrong_labels(op, labels, classes, ignore_index):
    """Raise if one of the labels (N, S) that count is not a class; on a GPU at the next read of a value."""
    bounds = labels.device.empty((2,), int64)
    labels.device.kernels.target_range(labels.data, bounds, ignore_index)
    _check_labels(op, labels.device, bounds, classes)


def _class_reduction(op, losses, target, weight, dtype, reduction, ignore_index, shape):
    """Mean (weighted by class), sum, or the losses in the target's shape."""
    if reduction == "none":
        return reshape(losses, shape)
    if reduction == "sum":
        return sum(losses)
    _check_some(op, losses)
    counted = ClassWeightOf.apply(target, weight, dtype=dtype, ignore_index=ignore_index)
    return sum(losses) / sum(counted)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross-entropy between logits and targets.

    Parameters
    ----------
    x : Tensor of shape (N, C), (N, C, ...) or (C,)
        Unnormalised log-probabilities (logits).
    target : Tensor
        Class indices, int64 of shape (N,), (N, ...) or (); or probabilities, of the shape and dtype of `x`.
    weight : Tensor of shape (C,), optional
        A weight per class. "mean" divides by the sum of the targets' weights.
    ignore_index : int
        Rows with this class index do not count.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        From 0 to 1: the part of the target distribution that is uniform (Szegedy et al., arXiv 1512.00567).

    Raises
    ------
    ValueError
        If shapes do not fit or a class index is out of range; the latter on a GPU when a value is read next.
    """
    op = "cross_entropy"
    check_float(op, x)
    check_tensor(op, target, "target")
    _check_reduction(op, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{op}: expected label_smoothing from 0 to 1, got {label_smoothing}")
    labels = target.data.dtype
    if labels == x.data.dtype:
        return _cross_entropy_probabilities(x, target, weight, reduction, label_smoothing)
    if labels != int64:
        raise TypeError(f"{op}: expected int64 class indices or probabilities of {x.dtype}, got {labels}")
    _check_classes(op, x, target, weight)
    if reduction == "mean":
        _check_some(op, target)
    return CrossEntropy.apply(x, target, weight, label_smoothing=float(label_smoothing), ignore_index=ignore_index,
                              reduction=reduction)


def _cross_entropy_probabilities(x, target, weight, reduction, label_smoothing):
    op = "cross_entropy"
    if target.shape != x.shape or x.ndim == 0:
        raise ValueError(f"{op}: expected probabilities of the input's shape {x.shape}, got {target.shape}")
    dim = 1 if x.ndim > 1 else 0
    classes = x.shape[dim]
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        if weight.shape != (classes,):
            raise ValueError(f"{op}: expected weight of shape {(classes,)}, got {weight.shape}")
        target = target * reshape(weight, (classes,) + (1,) * (x.ndim - dim - 1))
    losses = -sum(target * log_softmax(x, dim), dim)
    return _reduce(op, losses, reduction)


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood of class indices.

    Parameters
    ----------
    x : Tensor of shape (N, C), (N, C, ...) or (C,)
        Log-probabilities.
    target : Tensor of int64, shape (N,), (N, ...) or ()
    weight, ignore_index, reduction :
        As in `cross_entropy`.
    """
    op = "nll_loss"
    check_float(op, x)
    check_tensor(op, target, "target")
    if target.device is not x.device:  # the range of the labels is looked at before any op sees them
        raise ValueError(f"{op}: expected all tensors on one device, got {x.device} and {target.device}")
    _check_reduction(op, reduction)
    if target.dtype != int64:
        raise TypeError(f"{op}: expected class indices of dtype int64, got {target.dtype}")
    classes = _check_classes(op, x, target, weight)
    n, _, s = rows_shape(x.shape)
    rows, labels = reshape(x, (n, classes, s)), reshape(target, (n, s))
    find_wrong_labels(op, labels, classes, ignore_index)
    losses = NllLoss.apply(rows, labels, weight, ignore_index=ignore_index)
    return _class_reduction(op, losses, labels, weight, x.dtype, reduction, ignore_index, target.shape)


def _pairwise(op, x, target, reduction):
    """Check prediction and target of an elementwise loss; broadcasting is an error, as it hides mistakes."""
    check_float(op, x)
    check_float(op, target, "target")
    _check_reduction(op, reduction)
    if x.shape != target.shape:
        broadcast_shapes(op, x.shape, target.shape)
        raise ValueError(f"{op}: expected target of the input's shape {x.shape}, got {target.shape}")
    return x - target


def mse_loss(x, target, reduction="mean"):
    """Squared error ``(x - target) ** 2`` of two tensors of one shape."""
    difference = _pairwise("mse_loss", x, target, reduction)
    return _reduce("mse_loss", difference * difference, reduction)


def l1_loss(x, target, reduction="mean"):
    """Absolute error ``|x - target|`` of two tensors of one shape."""
    return _reduce("l1_loss", abs(_pairwise("l1_loss", x, target, reduction)), reduction)


def smooth_l1_loss(x, target, reduction="mean", beta=1.0):
    """``d ** 2 / (2 * beta)`` where ``|d| < beta``, else ``|d| - beta / 2``, with ``d = x - target``."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: expected beta >= 0, got {beta}")
    if beta == 0:
        return l1_loss(x, target, reduction)
    d = _pairwise("smooth_l1_loss", x, target, reduction)
    size = abs(d)
    return _reduce("smooth_l1_loss", where(size < beta, d * d * (0.5 / beta), size - 0.5 * beta), reduction)


def huber_loss(x, target, reduction="mean", delta=1.0):
    """``d ** 2 / 2`` where ``|d| <= delta``, else ``delta * (|d| - delta / 2)``, with ``d = x - target``."""
    if delta <= 0:
        raise ValueError(f"huber_loss: expected delta > 0, got {delta}")
    d = _pairwise("huber_loss", x, target, reduction)
    size = abs(d)
    return _reduce("huber_loss", where(size <= delta, d * d * 0.5, delta * (size - 0.5 * delta)), reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    """Cross-entropy of independent yes/no targets, from logits, safe from overflow.

    Parameters
    ----------
    x, target : Tensor of one shape
        Logits, and probabilities from 0 to 1.
    weight : Tensor, optional
        Factor of each element, broadcast.
    pos_weight : Tensor, optional
        Factor of the positive targets, broadcast.
    """
    op = "binary_cross_entropy_with_logits"
    _pairwise(op, x.detach() if isinstance(x, Tensor) else x, target, reduction)
    # -t log s(x) - (1 - t) log (1 - s(x)) = (1 - t) x + log (1 + e^-x); past 40 float64 sees no difference
    positive = softplus(-x, threshold=40.0)
    scaled = positive if pos_weight is None else positive * ((pos_weight - 1.0) * target + 1.0)
    losses = (1.0 - target) * x + scaled
    return _reduce(op, losses if weight is None else losses * weight, reduction)
