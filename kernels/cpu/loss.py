"""Losses of class labels: logits (N, C, S), target int64 (N, S), class_weight (C,) or absent (size 0).

A label equal to ignore_index, or outside the classes, adds nothing to the loss and gets no gradient. Rows of classes
(S = 1) and images of labels have kernels of their own: only what is used is compiled.
"""

from minigrad.kernels.cpu.compile import chosen, inline, kernel
from minigrad.kernels.cpu.elementwise import BLOCK, PARALLEL_COSTLY
from minigrad.kernels.cpu.parallel import flat, merged, parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.softmax import logsumexp_of_columns, logsumexp_of_rows
from minigrad.kernels.cpu.vector_math import exp

PART = 64  # losses added up before they join the total
STRIP = 256  # positions (of S) that a task of the backward pass takes side by side


@inline
def _range_of(target, out, ignore_index):
    """out = the smallest and the largest label that is not ignored; 0, -1 if there is none."""
    smallest, largest, found = 0, -1, False
    for n in range(target.shape[0]):
        for s in range(target.shape[1]):
            label = target[n, s]
            if label != ignore_index:
                if not found or label < smallest:
                    smallest = label
                if not found or label > largest:
                    largest = label
                found = True
    out[0] = smallest
    out[1] = largest


@inline
def _smooth_loss(logits, class_weight, n, s, total):
    """Σ_c w_c (total - logits_c)."""
    loss = total - total
    for c in range(logits.shape[1]):
        distance = total - logits[n, c, s]
        loss += distance * class_weight[c] if class_weight.size else distance
    return loss


@inline
def _counts(label, classes, ignore_index):
    return label != ignore_index and 0 <= label < classes


def _forward(name, logsumexp_of):
    """A kernel, of logits whose logsumexp over the classes is found this way."""

    @parallel_kernel(name=name)
    def forward(logits, target, class_weight, losses, logsumexp, divisor, bounds, label_smoothing, ignore_index,
                reduction):
        T = logits.dtype.type
        classes = logits.shape[1]
        sharp, even = T(1.0 - label_smoothing), T(label_smoothing / classes)
        logsumexp_of(logits, logsumexp)
        _range_of(target, bounds, ignore_index)
        each = flat(losses)
        # In float64, which costs nothing beside the exponentials; in parts, since rounding grows with length.
        total, weights, part, part_weights = 0.0, 0.0, 0.0, 0.0
        for n in range(target.shape[0]):
            for s in range(target.shape[1]):
                label, loss = target[n, s], T(0)
                if _counts(label, classes, ignore_index):
                    weight = class_weight[label] if class_weight.size else T(1)
                    loss = sharp * weight * (logsumexp[n, s] - logits[n, label, s])
                    if label_smoothing > 0.0:
                        loss += even * _smooth_loss(logits, class_weight, n, s, logsumexp[n, s])
                    part_weights += weight
                position = n * target.shape[1] + s
                if reduction == 0:
                    each[position] = loss
                part += loss
                if position % PART == 0:
                    total, weights, part, part_weights = total + part, weights + part_weights, 0.0, 0.0
        total, weights = total + part, weights + part_weights
        divisor[0] = weights if reduction == 2 else 1.0
        if reduction:
            each[0] = total / weights if reduction == 2 else total

    return forward


_forward_of_rows = _forward("cross_entropy_of_rows", logsumexp_of_rows)
_forward_of_columns = _forward("cross_entropy_of_columns", logsumexp_of_columns)


@chosen
def cross_entropy_forward(logits, target, class_weight, losses, logsumexp, divisor, bounds, label_smoothing,
                          ignore_index, reduction):
    return _forward_of_rows if logits.shape[2] == 1 else _forward_of_columns, (
        logits, target, class_weight, losses, logsumexp, divisor, bounds, label_smoothing, ignore_index, reduction)


@inline
def _rows_backward(block, logits, logsumexp, target, class_weight, grad, out, numbers, count):
    """Rows of classes (S = 1). The exponentials run over the whole block: a row may be shorter than a vector."""
    sharp, even, weights, divisor, ignore_index = numbers
    classes, one, many = logits.size // target.size, logits.dtype.type(1), grad.size > 1
    first, last = block * count, min((block + 1) * count, target.size)
    for m in range(first, last):
        row, result = logits[m * classes : (m + 1) * classes], out[m * classes : (m + 1) * classes]
        for c in range(classes):
            result[c] = row[c] - logsumexp[m]
    run = out[first * classes : last * classes]
    for i in range(run.size):
        run[i] = exp(run[i])
    for m in range(first, last):
        result, label = out[m * classes : (m + 1) * classes], target[m]
        if not _counts(label, classes, ignore_index):
            for c in range(classes):
                result[c] = 0.0
        else:
            above = grad[m if many else 0] / divisor
            at_label = sharp * (class_weight[label] if class_weight.size else one)
            scale = at_label + even * weights
            if class_weight.size:
                for c in range(classes):
                    result[c] = above * (result[c] * scale - even * class_weight[c])
            else:
                for c in range(classes):
                    result[c] = above * (result[c] * scale - even)
            result[label] -= above * at_label


@inline
def _columns_backward(block, logits, logsumexp, target, class_weight, grad, out, numbers, shape):
    """A strip of positions of one n (S > 1), class after class."""
    sharp, even, weights, divisor, ignore_index = numbers
    classes, inner = shape
    one, many = logits.dtype.type(1), grad.size > 1
    at_label, above = scratch(one, STRIP), scratch(one, STRIP)
    strips = (inner + STRIP - 1) // STRIP
    n, start = block // strips, block % strips * STRIP
    width, position = min(STRIP, inner - start), n * inner + start
    labels, total = target[position : position + width], logsumexp[position : position + width]
    for s in range(width):
        above[s] = grad[position + s if many else 0] / divisor
        label = labels[s] if _counts(labels[s], classes, ignore_index) else 0
        at_label[s] = sharp * (class_weight[label] if class_weight.size else one)
    first = n * classes * inner + start
    for c in range(classes):
        at, w = first + c * inner, even * (class_weight[c] if class_weight.size else one)
        row, result = logits[at : at + width], out[at : at + width]
        for s in range(width):
            result[s] = above[s] * (exp(row[s] - total[s]) * (at_label[s] + even * weights) - w)
    for s in range(width):
        if _counts(labels[s], classes, ignore_index):
            out[first + labels[s] * inner + s] -= above[s] * at_label[s]
        else:
            for c in range(classes):
                out[first + c * inner + s] = 0.0


@merged
def _numbers(logits, class_weight, divisor, label_smoothing, ignore_index):
    T, classes = logits.dtype.type, logits.shape[1]
    weights = T(classes)
    if class_weight.size:
        weights = T(0)
        for c in range(classes):
            weights += class_weight[c]
    return T(1.0 - label_smoothing), T(label_smoothing / classes), weights, divisor[0], ignore_index


@parallel_kernel
def _backward_of_rows(logits, logsumexp, target, class_weight, grad, divisor, out, label_smoothing, ignore_index):
    rows, classes = logits.shape[:2]
    numbers, count = _numbers(logits, class_weight, divisor, label_smoothing, ignore_index), max(1, BLOCK // classes)
    parallel_for(_rows_backward, (rows + count - 1) // count, logits.size >= PARALLEL_COSTLY, (
        flat(logits), flat(logsumexp), flat(target), class_weight, flat(grad), flat(out), numbers, count))


@parallel_kernel
def _backward_of_columns(logits, logsumexp, target, class_weight, grad, divisor, out, label_smoothing, ignore_index):
    rows, classes, inner = logits.shape
    numbers = _numbers(logits, class_weight, divisor, label_smoothing, ignore_index)
    parallel_for(_columns_backward, rows * ((inner + STRIP - 1) // STRIP), logits.size >= PARALLEL_COSTLY, (
        flat(logits), flat(logsumexp), flat(target), class_weight, flat(grad), flat(out), numbers, (classes, inner)))


@chosen
def cross_entropy_backward(logits, logsumexp, target, class_weight, grad, divisor, out, label_smoothing, ignore_index):
    return _backward_of_rows if logits.shape[2] == 1 else _backward_of_columns, (
        logits, logsumexp, target, class_weight, grad, divisor, out, label_smoothing, ignore_index)


@kernel
def nll_loss_forward(log_probabilities, target, class_weight, losses, ignore_index):
    for n in range(target.shape[0]):
        for s in range(target.shape[1]):
            label = target[n, s]
            loss = log_probabilities.dtype.type(0)
            if _counts(label, log_probabilities.shape[1], ignore_index):
                loss = -log_probabilities[n, label, s]
                if class_weight.size:
                    loss *= class_weight[label]
            losses[n, s] = loss


@kernel
def nll_loss_backward(grad, target, class_weight, out, ignore_index):
    for n in range(target.shape[0]):
        for c in range(out.shape[1]):
            for s in range(target.shape[1]):
                out[n, c, s] = out.dtype.type(0)
        for s in range(target.shape[1]):
            label = target[n, s]
            if _counts(label, out.shape[1], ignore_index):
                w = class_weight[label] if class_weight.size else out.dtype.type(1)
                out[n, label, s] = -w * grad[n, s]


@kernel
def class_weight_of(target, class_weight, out, ignore_index):
    for n in range(target.shape[0]):
        for s in range(target.shape[1]):
            label = target[n, s]
            if label == ignore_index:
                out[n, s] = out.dtype.type(0)
            elif class_weight.size:
                out[n, s] = class_weight[label] if 0 <= label < class_weight.size else out.dtype.type(0)
            else:
                out[n, s] = out.dtype.type(1)


@kernel
def target_range(target, out, ignore_index):
    _range_of(target, out, ignore_index)


@kernel
def widen_range(bounds, kept):
    kept[0], kept[1] = min(kept[0], bounds[0]), max(kept[1], bounds[1])
