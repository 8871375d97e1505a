"""Loss functions as layers; see the functions of the same names in `minigrad.functional` for shapes and errors."""

from minigrad import functional as F
from minigrad.layers.module import Buffer, Module

REDUCTIONS = ("mean", "sum", "none")


class _Loss(Module):
    def __init__(self, reduction):
        if reduction not in REDUCTIONS:
            raise ValueError(f"{type(self).__name__}: expected reduction to be one of {REDUCTIONS}, got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self):
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """Cross-entropy between logits (N, C, ...) and class indices (N, ...) or probabilities (N, C, ...).

    Parameters
    ----------
    weight : Tensor of shape (C,), optional
        A weight per class; part of the state, as in PyTorch.
    ignore_index : int
        Rows with this class index do not count.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        From 0 to 1: the part of the target distribution that is uniform.
    """

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"CrossEntropyLoss: expected label_smoothing from 0 to 1, got {label_smoothing}")
        self.weight = None if weight is None else Buffer(weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, x, target):
        return F.cross_entropy(x, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class NLLLoss(_Loss):
    """Negative log-likelihood of class indices (N, ...) under log-probabilities (N, C, ...)."""

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean"):
        super().__init__(reduction)
        self.weight = None if weight is None else Buffer(weight)
        self.ignore_index = ignore_index

    def forward(self, x, target):
        return F.nll_loss(x, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """Squared error ``(x - target) ** 2``."""

    def __init__(self, *, reduction="mean"):
        super().__init__(reduction)

    def forward(self, x, target):
        return F.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """Absolute error ``|x - target|``."""

    def __init__(self, *, reduction="mean"):
        super().__init__(reduction)

    def forward(self, x, target):
        return F.l1_loss(x, target, self.reduction)


class SmoothL1Loss(_Loss):
    """``d ** 2 / (2 * beta)`` where ``|d| < beta``, else ``|d| - beta / 2``, with ``d = x - target``."""

    def __init__(self, *, reduction="mean", beta=1.0):
        super().__init__(reduction)
        if beta < 0:
            raise ValueError(f"SmoothL1Loss: expected beta >= 0, got {beta}")
        self.beta = beta

    def forward(self, x, target):
        return F.smooth_l1_loss(x, target, self.reduction, self.beta)


class HuberLoss(_Loss):
    """``d ** 2 / 2`` where ``|d| <= delta``, else ``delta * (|d| - delta / 2)``, with ``d = x - target``."""

    def __init__(self, reduction="mean", delta=1.0):
        super().__init__(reduction)
        if delta <= 0:
            raise ValueError(f"HuberLoss: expected delta > 0, got {delta}")
        self.delta = delta

    def forward(self, x, target):
        return F.huber_loss(x, target, self.reduction, self.delta)


class BCEWithLogitsLoss(_Loss):
    """Cross-entropy of independent yes/no targets, from logits, safe from overflow.

    Parameters
    ----------
    weight, pos_weight : Tensor, optional
        Factors of each element and of the positive targets, broadcast; part of the state, as in PyTorch.
    reduction : {"mean", "sum", "none"}
    """

    def __init__(self, weight=None, *, reduction="mean", pos_weight=None):
        super().__init__(reduction)
        self.weight = None if weight is None else Buffer(weight)
        self.pos_weight = None if pos_weight is None else Buffer(pos_weight)

    def forward(self, x, target):
        return F.binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight)
