"""Losses of class labels: logits (N, C, S), target int64 (N, S), class_weight (C,) or absent (size 0).

A label equal to ignore_index, or outside the classes, adds nothing to the loss and gets no gradient.
"""

from minigrad.kernels.cuda.array import DeviceArray, np
from minigrad.kernels.cuda.held import ITEMS, fours
from minigrad.kernels.cuda.language import THREADS, blocks
from minigrad.kernels.cuda.loss_kernels import (
    class_weights,
    cross_entropy_grad,
    cross_entropy_rows,
    cross_entropy_totals,
    label_range,
    nll_grad,
    nll_rows,
    wider_range,
)
from minigrad.kernels.cuda.memory import scratch
from minigrad.kernels.cuda.reduce_blocks import BUSY, plan, tiles
from minigrad.kernels.cuda.softmax import logsumexp as logsumexp_of

SHARE = 8  # elements of a thread in the kernels that write a gradient, at least
MOST = 65_535  # blocks along y


def _words(number):
    """The upper and the lower 32 bits of an int64: a kernel takes no larger numbers."""
    return number >> 32, number & 0xFFFFFFFF


def _pieces(blocks, dtype):
    """Scratch memory for two numbers of each block, and for two labels."""
    ends = scratch(2 * 2 * blocks, np.int64)
    return DeviceArray((2 * blocks,), dtype, ends.memory, 16 * blocks), ends[: 2 * blocks]


def cross_entropy_forward(logits, target, class_weight, losses, logsumexp, divisor, bounds, label_smoothing,
                          ignore_index, reduction):
    """The loss of each row, -Σ_c q_c w_c log softmax(logits)_c, 0 where ignored, or their sum or weighted mean.

    q is 1 - label_smoothing at the label, plus label_smoothing / C everywhere (Szegedy et al. 2016, section 7).

    reduction 0: losses (N, S); 1: losses holds one element, their sum; 2: one element, their sum over divisor.
    logsumexp (N, S) is kept for backward; divisor (1,) = Σ w[target] of the rows that count if reduction is 2, else 1;
    bounds int64 (2,) = the smallest and the largest label that is not ignored, for a check (see target_range).
    """
    rows, classes, inner = logits.shape
    p = plan(rows, classes, inner)
    known = p.parts > 1 and target.size > 0
    four, items = fours(classes, inner, logits)
    if known:  # few rows of many classes: several blocks share a row
        logsumexp_of(logits, logsumexp)
    else:  # the fewer threads a row has, the less is handed from one to the other
        p = plan(rows, tiles(items, ITEMS[four]), inner, split=False)
    count = p.grid[0] if target.size else 0
    sums, ends = _pieces(max(count, 1), logits.dtype)
    if count:
        smoothed = 0 if label_smoothing == 0 else 1 + (class_weight.size > 0)
        cross_entropy_rows[smoothed][four][count, p.block](
            logits, target, class_weight, losses, logsumexp, sums, ends, divisor, bounds, known, rows, classes, inner,
            p.strips, class_weight.size, 1.0 - label_smoothing, label_smoothing / max(classes, 1),
            *_words(ignore_index), reduction,
        )  # fmt: skip
    if count != 1:
        cross_entropy_totals[1, THREADS](sums, ends, losses, divisor, bounds, count, reduction)


def _shared(rows, items, inner, four):
    """Grid, block, items of a part, strips: of a kernel that writes a gradient."""
    share = SHARE // 4 if four else SHARE
    p = plan(rows, tiles(items, share) if four else items, inner, split=False)
    down = p.block[1]
    chunk = down * max(share, tiles(items, MOST * down))
    return (p.grid[0], tiles(items, chunk)), p.block, chunk, p.strips


def cross_entropy_backward(logits, logsumexp, target, class_weight, grad, divisor, out, label_smoothing, ignore_index):
    """out (N, C, S) = the gradient of Σ grad losses / divisor with respect to the logits.

    grad has an element per row, or one for all.
    """
    if not out.size:
        return
    rows, classes, inner = logits.shape
    four, items = fours(classes, inner, logits, out, *[class_weight] * (class_weight.size > 0))
    grid, block, chunk, strips = _shared(rows, items, inner, four)
    cross_entropy_grad[four][grid, block](
        logits, logsumexp, target, class_weight, grad, divisor, out, grad.size > 1, rows, classes, inner, chunk, strips,
        class_weight.size, 1.0 - label_smoothing, label_smoothing / classes, *_words(ignore_index),
    )  # fmt: skip


def nll_loss_forward(log_probabilities, target, class_weight, losses, ignore_index):
    """losses (N, S) = -w[target] log_probabilities[target], 0 where ignored."""
    if not losses.size:
        return
    _, classes, inner = log_probabilities.shape
    nll_rows[blocks(losses.size), THREADS](
        log_probabilities, target, class_weight, losses, losses.size, classes, inner, class_weight.size,
        *_words(ignore_index),
    )  # fmt: skip


def nll_loss_backward(grad, target, class_weight, out, ignore_index):
    """out (N, C, S) = -w[target] grad at the label, 0 elsewhere and where ignored."""
    if not out.size:
        return
    rows, classes, inner = out.shape
    four, items = fours(classes, inner, out)
    grid, block, chunk, strips = _shared(rows, items, inner, four)
    nll_grad[four][grid, block](grad, target, class_weight, out, rows, classes, inner, chunk, strips, class_weight.size,
                                *_words(ignore_index))


def class_weight_of(target, class_weight, out, ignore_index):
    """out (N, S) = the weight of each label (1 without class_weight), 0 where ignored or where there is no weight."""
    if out.size:
        class_weights[blocks(out.size), THREADS](target, class_weight, out, out.size, class_weight.size,
                                                 *_words(ignore_index))


def target_range(target, out, ignore_index):
    """out int64 (2,) = the smallest and the largest label that is not ignored; 0, -1 if there is none."""
    chunk = max(SHARE, tiles(target.size, BUSY * THREADS)) * THREADS
    count, words = max(1, tiles(target.size, chunk)), _words(ignore_index)
    if count == 1:
        label_range[1, THREADS](target, out, target.size, chunk, 0, 1, *words)
        return
    ends = scratch(2 * count, np.int64)
    label_range[count, THREADS](target, ends, target.size, chunk, 0, 0, *words)
    label_range[1, THREADS](ends, out, count, tiles(count, THREADS) * THREADS, 1, 1, *words)


def widen_range(bounds, kept):
    """kept int64 (2,) = from the smaller lower end to the larger upper end of both ranges."""
    wider_range[1, 1](bounds, kept)
