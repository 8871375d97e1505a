"""A learning rate that follows what it leads to, not the count of epochs."""

import math

from minigrad.optim.lr_scheduler import LRScheduler


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by `factor` when a metric has not improved for more than `patience` epochs.

    ``step(metric)`` takes the metric of the epoch, a number or a tensor of one element. It looks at it, so it has no
    place in a step that `minigrad.capture` records.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether the metric should fall or rise.
    factor : float
        Below 1.
    patience : int
    threshold : float
        What counts as an improvement: this fraction of the best metric so far, or ("abs") this much.
    threshold_mode : {"rel", "abs"}
    cooldown : int
        So many epochs after a reduction none is counted as bad.
    min_lr : float
        The rate never falls below.
    eps : float
        A reduction by less is left out.
    """

    def __init__(self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0,
                 min_lr=0.0, eps=1e-8):
        name = "ReduceLROnPlateau"
        if mode not in ("min", "max"):
            raise ValueError(f"{name}: expected mode to be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"{name}: expected threshold_mode to be 'rel' or 'abs', got {threshold_mode!r}")
        if not 0.0 <= factor < 1.0:
            raise ValueError(f"{name}: expected factor from 0 to below 1, got {factor!r}")
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0
        super().__init__(optimizer)

    def first(self, lr, base):
        return lr

    def step(self, metrics):
        """Tell the metric of the epoch that is over.

        Parameters
        ----------
        metrics : float or Tensor of one element
        """
        metric = float(metrics)
        self.last_epoch += 1
        if self._improves(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.num_bad_epochs > self.patience:
            lower = [max(lr * self.factor, self.min_lr) for lr in rates]
            rates = [new if lr - new > self.eps else lr for lr, new in zip(rates, lower, strict=True)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._write(rates)

    def _improves(self, metric):
        falls = self.mode == "min"
        if self.threshold_mode == "rel":
            limit = self.best * (1.0 - self.threshold if falls else 1.0 + self.threshold)
        else:
            limit = self.best - self.threshold if falls else self.best + self.threshold
        return metric < limit if falls else metric > limit
