"""Losses of class labels: logits (N, C, S), target int64 (N, S), class_weight (C,) or absent (size 0).

A label equal to ignore_index adds nothing to the loss and gets no gradient.
"""

import numpy as np
from numba import prange

from minigrad.kernels.cpu.compile import kernel
from minigrad.kernels.cpu.softmax import _sum_of_exp, _top
from minigrad.kernels.cpu.vector_math import exp, log


@kernel(parallel=True)
def cross_entropy_forward(logits, target, class_weight, losses, logsumexp, label_smoothing, ignore_index):
    T = logits.dtype.type
    classes = logits.shape[1]
    sharp, even = T(1.0 - label_smoothing), T(label_smoothing / classes)
    for n in prange(logits.shape[0]):
        for s in range(logits.shape[2]):
            shift = _top(logits, n, s)
            if np.isinf(shift):
                shift = T(0)
            total = shift + log(_sum_of_exp(logits, n, s, shift))
            logsumexp[n, s] = total
            label = target[n, s]
            loss = T(0)
            if label != ignore_index:
                loss = sharp * (total - logits[n, label, s])
                if class_weight.size:
                    loss *= class_weight[label]
                if label_smoothing > 0.0:
                    smooth = T(0)
                    for c in range(classes):
                        w = class_weight[c] if class_weight.size else T(1)
                        smooth += w * (total - logits[n, c, s])
                    loss += even * smooth
            losses[n, s] = loss


@kernel(parallel=True)
def cross_entropy_backward(logits, logsumexp, target, class_weight, grad, out, label_smoothing, ignore_index):
    T = logits.dtype.type
    classes = logits.shape[1]
    sharp, even = T(1.0 - label_smoothing), T(label_smoothing / classes)
    weights = T(classes)
    if class_weight.size:
        weights = T(0)
        for c in range(classes):
            weights += class_weight[c]
    for n in prange(logits.shape[0]):
        for s in range(logits.shape[2]):
            label = target[n, s]
            if label == ignore_index:
                for c in range(classes):
                    out[n, c, s] = T(0)
            else:
                g, lse = grad[n, s], logsumexp[n, s]
                at_label = sharp * (class_weight[label] if class_weight.size else T(1))
                wanted = at_label + even * weights
                for c in range(classes):
                    w = class_weight[c] if class_weight.size else T(1)
                    out[n, c, s] = g * (exp(logits[n, c, s] - lse) * wanted - even * w)
                out[n, label, s] -= g * at_label


@kernel
def nll_loss_forward(log_probabilities, target, class_weight, losses, ignore_index):
    for n in range(target.shape[0]):
        for s in range(target.shape[1]):
            label = target[n, s]
            loss = log_probabilities.dtype.type(0)
            if label != ignore_index:
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
            if label != ignore_index:
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
                out[n, s] = class_weight[label]
            else:
                out[n, s] = out.dtype.type(1)


@kernel
def target_range(target, out, ignore_index):
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
