"""The kernels of `loss`."""

from minigrad.kernels.cuda.language import (
    THREADS,
    Float,
    Int,
    Pointer,
    T,
    Unsigned,
    cuda,
    device_function,
    div32,
    divide,
    int32,
    int64,
    kernel,
    load4,
    math,
    store4,
    thread_index,
)
from minigrad.kernels.cuda.reduce_blocks import added, larger, place, spread, thread_of_block
from minigrad.kernels.cuda.softmax import QUADS, finite, of_elements, of_quads

LOWEST, HIGHEST = -(2**63), 2**63 - 1  # int64
_largest, _sum = spread(larger), spread(added)


@device_function
def _number(high, low):
    """An int64 from its words."""
    return int64(high) * 4294967296 + int64(low)


@device_function
def _counts(label, ignored, classes):
    return (label != ignored) & (label >= 0) & (label < classes)


@device_function
def _totals_of_block(loss, weight, lowest, highest):
    """Two sums, a minimum and a maximum over the threads of a block, right in the first one."""
    losses, weights = cuda.shared.array(THREADS, T), cuda.shared.array(THREADS, T)
    lows, highs = cuda.shared.array(THREADS, int64), cuda.shared.array(THREADS, int64)
    t = thread_of_block()
    losses[t], weights[t], lows[t], highs[t] = loss, weight, lowest, highest
    distance = int32((cuda.blockDim.x * cuda.blockDim.y * cuda.blockDim.z) >> 1)
    while distance > 0:
        cuda.syncthreads()
        if t < distance:
            other = int32(t + distance)
            loss, weight = loss + losses[other], weight + weights[other]
            lowest, highest = min(lowest, lows[other]), max(highest, highs[other])
            losses[t], weights[t], lows[t], highs[t] = loss, weight, lowest, highest
        distance = int32(distance >> 1)
    return loss, weight, lowest, highest


@device_function
def _sum_in_shared_memory(value):
    """The sum over y, right in the threads of y = 0. A third `spread` in a kernel makes calls of shuffles for sm_80."""
    shared, t = cuda.shared.array(THREADS, T), thread_of_block()
    group = int32(cuda.blockDim.x * cuda.blockDim.y)
    shared[t] = value
    distance = int32(group >> 1)
    while distance >= cuda.blockDim.x:
        cuda.syncthreads()
        if t & (group - 1) < distance:
            value += shared[t + distance]
            shared[t] = value
        distance = int32(distance >> 1)
    return value


@device_function
def _store_range(lowest, highest, out):
    """0 and -1 if there is no label."""
    out[0] = lowest if lowest <= highest else int64(0)
    out[1] = highest if lowest <= highest else int64(-1)


@device_function
def _store_totals(loss, weight, losses, divisor, reduction):
    divisor[0] = weight if reduction == 2 else T(1)
    if reduction:
        losses[0] = divide(loss, weight) if reduction == 2 else loss


def _rows(smoothed, with_weights, by_four):
    """The kernel of the first launch, without label smoothing or with it, and then with class weights or without."""
    of_items, shift = (of_quads, 2) if by_four else (of_elements, 0)

    def cross_entropy(logits: Pointer, target: Pointer["int64"], class_weight: Pointer, losses: Pointer,
                      logsumexp: Pointer, sums: Pointer, ends: Pointer["int64"], divisor: Pointer,
                    bounds: Pointer["int64"], known: Int, rows: Int, classes: Int, inner: Int, strips: Int,
                    weighted: Int, sharp: Float, even: Float, high: Int, low: Unsigned, reduction: Int):
        """The losses of a block's rows; what comes of all rows together, or this block's part of it."""
        m, k, there = place(rows, inner, strips)
        y, row, items = int32(cuda.threadIdx.y), int32(m * inner + k), int32(classes >> shift)
        # A loop of no steps instead of a branch around shuffles, which would become calls.
        top, share = of_items(logits, m, k, items if known else y, items, items, inner)
        most = _largest(top)
        total = finite(most) + math.log(_sum(share * math.exp(top - finite(most))))
        if known:
            total = logsumexp[row]
        smooth = T(0)
        if smoothed:
            c = int32(y)
            while c < classes:
                distance = total - logits[int32((m * classes + c) * inner + k)]
                smooth += distance * class_weight[c] if with_weights else distance
                c = int32(c + cuda.blockDim.y)
            smooth = _sum_in_shared_memory(smooth)
        loss, weight, lowest, highest = T(0), T(0), int64(HIGHEST), int64(LOWEST)
        if there & (y == 0):
            label, ignored = target[row], _number(high, low)
            if label != ignored:
                lowest, highest = label, label
            if _counts(label, ignored, classes):
                c = int32(label)
                weight = class_weight[c] if weighted else T(1)
                loss = sharp * weight * (total - logits[int32((m * classes + c) * inner + k)])
                if smoothed:
                    loss += even * smooth
            if not known:
                logsumexp[row] = total
            if reduction == 0:
                losses[row] = loss
        loss, weight, lowest, highest = _totals_of_block(loss, weight, lowest, highest)
        if thread_of_block() == 0:
            if cuda.gridDim.x == 1:
                _store_totals(loss, weight, losses, divisor, reduction)
                _store_range(lowest, highest, bounds)
            else:
                at = int32(2 * cuda.blockIdx.x)
                sums[at], sums[at + 1] = loss, weight
                ends[at], ends[at + 1] = lowest, highest

    variant = "_smoothed" * smoothed + "_weighted" * with_weights + "_by_four" * by_four
    cross_entropy.__name__ = "_cross_entropy" + variant
    return kernel(cross_entropy, promises=QUADS[:1] if by_four else ())


cross_entropy_rows = [[_rows(smoothed, weighted, four) for four in (False, True)]
                      for smoothed, weighted in ((False, False), (True, False), (True, True))]


@kernel
def cross_entropy_totals(sums: Pointer, ends: Pointer["int64"], losses: Pointer, divisor: Pointer,
                         bounds: Pointer["int64"], count: Int, reduction: Int):
    """What comes of all rows together, from what the blocks left. One block."""
    loss, weight, lowest, highest = T(0), T(0), int64(HIGHEST), int64(LOWEST)
    i = int32(cuda.threadIdx.x)
    while i < count:
        loss, weight = loss + sums[2 * i], weight + sums[2 * i + 1]
        lowest, highest = min(lowest, ends[2 * i]), max(highest, ends[2 * i + 1])
        i = int32(i + cuda.blockDim.x)
    loss, weight, lowest, highest = _totals_of_block(loss, weight, lowest, highest)
    if cuda.threadIdx.x == 0:
        _store_totals(loss, weight, losses, divisor, reduction)
        _store_range(lowest, highest, bounds)


@device_function
def _of_logit(logit, share, of_label, total, scale, above):
    """The gradient of one logit; the distribution wanted of it is `share` and what its label adds."""
    return (math.exp(logit - total) * scale - (share + of_label)) * above


def _cross_entropy_grad(by_four):
    """The kernel of the gradient; `chunk` counts quads or classes."""
    shift = 2 if by_four else 0

    def cross_entropy_grad(logits: Pointer, logsumexp: Pointer, target: Pointer["int64"], class_weight: Pointer,
                           grad: Pointer, divisor: Pointer, out: Pointer, many: Int, rows: Int, classes: Int,
                           inner: Int, chunk: Int, strips: Int, weighted: Int, sharp: Float, even: Float, high: Int,
                           low: Unsigned):
        m, k, there = place(rows, inner, strips)
        row, c, items = int32(m * inner + k), int32(cuda.threadIdx.y), int32(classes >> shift)
        uneven = (weighted != 0) & (even > T(0))
        weights = T(classes)
        if uneven:
            weights = T(0)
            while c < classes:
                weights += class_weight[c]
                c = int32(c + cuda.blockDim.y)
            weights = _sum(weights)
        label, ignored, total = target[row], _number(high, low), logsumexp[row]
        counted = _counts(label, ignored, classes)
        at_label, above, zero = T(0), T(0), T(0)
        if counted:
            at_label = sharp * class_weight[int32(label)] if weighted else sharp
            above = divide(grad[row if many else 0], divisor[0])
        scale = at_label + even * weights
        c = int32(cuda.blockIdx.y * chunk + cuda.threadIdx.y)
        stop = int32(min((cuda.blockIdx.y + 1) * chunk, items)) if there else int32(0)
        while c < stop:
            if by_four:
                first, s0, s1, s2, s3 = int32(4 * c), even, even, even, even
                at = int32(m * classes + first)
                x = load4(logits, at)
                if uneven:
                    w = load4(class_weight, first)
                    s0, s1, s2, s3 = even * w[0], even * w[1], even * w[2], even * w[3]
                v0 = _of_logit(x[0], s0, at_label if first == label else zero, total, scale, above)
                v1 = _of_logit(x[1], s1, at_label if first + 1 == label else zero, total, scale, above)
                v2 = _of_logit(x[2], s2, at_label if first + 2 == label else zero, total, scale, above)
                v3 = _of_logit(x[3], s3, at_label if first + 3 == label else zero, total, scale, above)
                store4(out, at, v0 if counted else zero, v1 if counted else zero, v2 if counted else zero,
                       v3 if counted else zero)
            else:
                at = int32((m * classes + c) * inner + k)
                share = even * class_weight[c] if uneven else even
                value = _of_logit(logits[at], share, at_label if c == label else zero, total, scale, above)
                out[at] = value if counted else zero
            c = int32(c + cuda.blockDim.y)

    cross_entropy_grad.__name__ += "_by_four" * by_four
    return kernel(cross_entropy_grad, promises=QUADS if by_four else ())


cross_entropy_grad = _cross_entropy_grad(False), _cross_entropy_grad(True)


@kernel
def nll_rows(log_probabilities: Pointer, target: Pointer["int64"], class_weight: Pointer, losses: Pointer, size: Int,
             classes: Int, inner: Int, weighted: Int, high: Int, low: Unsigned):
    row = thread_index()
    if row < size:
        label, loss = target[row], T(0)
        if _counts(label, _number(high, low), classes):
            c, m = int32(label), div32(row, inner)
            loss = -log_probabilities[int32((m * classes + c) * inner + (row - m * inner))]
            if weighted:
                loss *= class_weight[c]
        losses[row] = loss


def _nll_grad(by_four):
    """The kernel of the gradient; `chunk` counts quads or classes."""
    shift = 2 if by_four else 0

    def nll_grad(grad: Pointer, target: Pointer["int64"], class_weight: Pointer, out: Pointer, rows: Int, classes: Int,
                 inner: Int, chunk: Int, strips: Int, weighted: Int, high: Int, low: Unsigned):
        m, k, there = place(rows, inner, strips)
        row = int32(m * inner + k)
        label, value, zero = target[row], T(0), T(0)
        if _counts(label, _number(high, low), classes):
            value = -grad[row]
            if weighted:
                value *= class_weight[int32(label)]
        c = int32(cuda.blockIdx.y * chunk + cuda.threadIdx.y)
        stop = int32(min((cuda.blockIdx.y + 1) * chunk, classes >> shift)) if there else int32(0)
        while c < stop:
            if by_four:
                first = int32(4 * c)
                store4(out, int32(m * classes + first), value if first == label else zero,
                       value if first + 1 == label else zero, value if first + 2 == label else zero,
                       value if first + 3 == label else zero)
            else:
                out[int32((m * classes + c) * inner + k)] = value if c == label else zero
            c = int32(c + cuda.blockDim.y)

    nll_grad.__name__ += "_by_four" * by_four
    return kernel(nll_grad, promises=QUADS[1:] if by_four else ())


nll_grad = _nll_grad(False), _nll_grad(True)


@kernel
def class_weights(target: Pointer["int64"], class_weight: Pointer, out: Pointer, size: Int, classes: Int, high: Int,
                  low: Unsigned):
    row = thread_index()
    if row < size:
        label, ignored = target[row], _number(high, low)
        value = T(1) if label != ignored else T(0)
        if classes:
            value = class_weight[int32(label)] if _counts(label, ignored, classes) else T(0)
        out[row] = value


@kernel
def label_range(labels: Pointer["int64"], out: Pointer["int64"], size: Int, chunk: Int, in_pairs: Int, last: Int,
                high: Int, low: Unsigned):
    """The range of a part of the labels, or of some ranges (`in_pairs`). The last launch writes 0, -1 for none."""
    lowest, highest, ignored = int64(HIGHEST), int64(LOWEST), _number(high, low)
    i = int32(cuda.blockIdx.x * chunk + cuda.threadIdx.x)
    stop = int32(min((cuda.blockIdx.x + 1) * chunk, size))
    while i < stop:
        if in_pairs:
            lowest, highest = min(lowest, labels[2 * i]), max(highest, labels[2 * i + 1])
        elif labels[i] != ignored:
            lowest, highest = min(lowest, labels[i]), max(highest, labels[i])
        i = int32(i + cuda.blockDim.x)
    _, _, lowest, highest = _totals_of_block(T(0), T(0), lowest, highest)
    if cuda.threadIdx.x == 0:
        if last:
            _store_range(lowest, highest, out)
        else:
            out[2 * cuda.blockIdx.x], out[2 * cuda.blockIdx.x + 1] = lowest, highest


@kernel
def wider_range(bounds: Pointer["int64"], kept: Pointer["int64"]):
    kept[0], kept[1] = min(kept[0], bounds[0]), max(kept[1], bounds[1])
