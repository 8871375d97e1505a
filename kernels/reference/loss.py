"""Losses of class labels: logits (N, C, S), target int64 (N, S), class_weight (C,) or absent (size 0).

A label equal to ignore_index, or outside the classes, adds nothing to the loss and gets no gradient.
"""

import numpy as np


def _weights(class_weight, classes):
    return class_weight.astype(np.float64) if class_weight.size else np.ones(classes)


def _one_hot(target, classes):
    """(N, C, S): 1 at the label; nothing at a label outside the classes (an ignored one)."""
    return (np.arange(classes)[None, :, None] == target[:, None, :]).astype(np.float64)


def _counted(target, classes, ignore_index):
    return (target != ignore_index) & (target >= 0) & (target < classes)


def cross_entropy_forward(logits, target, class_weight, losses, logsumexp, divisor, bounds, label_smoothing,
                          ignore_index, reduction):
    """The loss of each row, -Σ_c q_c w_c log softmax(logits)_c, 0 where ignored, or their sum or weighted mean.

    q is 1 - label_smoothing at the label, plus label_smoothing / C everywhere (Szegedy et al. 2016, section 7).

    reduction 0: losses (N, S); 1: losses holds one element, their sum; 2: one element, their sum over divisor.
    logsumexp (N, S) is kept for backward; divisor (1,) = Σ w[target] of the rows that count if reduction is 2, else 1;
    bounds int64 (2,) = the smallest and the largest label that is not ignored, for a check (see target_range).
    """
    with np.errstate(all="ignore"):
        x, classes = logits.astype(np.float64), logits.shape[1]
        top = x.max(axis=1, initial=-np.inf)
        shift = np.where(np.isinf(top), 0, top)
        total = shift + np.log(np.exp(x - shift[:, None]).sum(axis=1))
        logsumexp[...] = total
        target_range(target, bounds, ignore_index)
        negative_log = total[:, None] - x
        weight = _weights(class_weight, classes)[None, :, None]
        label = _one_hot(target, classes)
        loss = (1 - label_smoothing) * np.where(label > 0, weight * negative_log, 0).sum(axis=1)
        if label_smoothing > 0:
            loss += label_smoothing / classes * (weight * negative_log).sum(axis=1)
        counted = _counted(target, classes, ignore_index)
        loss = np.where(counted, loss, 0)
        divisor[0] = _weights(class_weight, classes)[target[counted]].sum() if reduction == 2 else 1
        losses.reshape(-1)[:] = loss.reshape(-1) if reduction == 0 else loss.sum() / np.float64(divisor[0])


def cross_entropy_backward(logits, logsumexp, target, class_weight, grad, divisor, out, label_smoothing, ignore_index):
    """out (N, C, S) = the gradient of Σ grad losses / divisor with respect to the logits.

    grad has an element per row, or one for all.
    """
    with np.errstate(all="ignore"):
        classes = logits.shape[1]
        weight = _weights(class_weight, classes)[None, :, None]
        label = _one_hot(target, classes)
        wanted = weight * ((1 - label_smoothing) * label + label_smoothing / classes)
        probability = np.exp(logits.astype(np.float64) - logsumexp[:, None])
        above = (grad if grad.size == 1 else grad.reshape(target.shape)[:, None]) / np.float64(divisor[0])
        gradient = (probability * wanted.sum(axis=1, keepdims=True) - wanted) * above
        out[...] = np.where(_counted(target, classes, ignore_index)[:, None], gradient, 0)


def nll_loss_forward(log_probabilities, target, class_weight, losses, ignore_index):
    """losses (N, S) = -w[target] log_probabilities[target], 0 where ignored."""
    with np.errstate(all="ignore"):
        classes = log_probabilities.shape[1]
        weight = _weights(class_weight, classes)[None, :, None]
        loss = np.where(_one_hot(target, classes) > 0, -weight * log_probabilities, 0).sum(axis=1)
        losses[...] = np.where(target == ignore_index, 0, loss)


def nll_loss_backward(grad, target, class_weight, out, ignore_index):
    """out (N, C, S) = -w[target] grad at the label, 0 elsewhere and where ignored."""
    with np.errstate(all="ignore"):
        classes = out.shape[1]
        weight = _weights(class_weight, classes)[None, :, None]
        gradient = np.where(_one_hot(target, classes) > 0, -weight * grad[:, None], 0)
        out[...] = np.where((target == ignore_index)[:, None], 0, gradient)


def class_weight_of(target, class_weight, out, ignore_index):
    """out (N, S) = the weight of each label (1 without class_weight), 0 where ignored or where there is no weight."""
    kept = target != ignore_index
    out[...] = kept
    if class_weight.size:
        counted = _counted(target, class_weight.size, ignore_index)
        out[...] = 0
        out[counted] = class_weight[target[counted]]


def target_range(target, out, ignore_index):
    """out int64 (2,) = the smallest and the largest label that is not ignored; 0, -1 if there is none."""
    kept = target[target != ignore_index]
    out[...] = (kept.min(), kept.max()) if kept.size else (0, -1)


def widen_range(bounds, kept):
    """kept int64 (2,) = from the smaller lower end to the larger upper end of both ranges."""
    kept[...] = min(kept[0], bounds[0]), max(kept[1], bounds[1])
