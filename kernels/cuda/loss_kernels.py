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
    math,
    thread_index,
)
from minigrad.kernels.cuda.reduce_blocks import added, larger, place, spread, thread_of_block
from minigrad.kernels.cuda.softmax import finite, of_elements

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


def _rows(smoothed, with_weights):
    """The kernel of the first launch, without label smoothing or with it, and then with class weights or without."""

    def cross_entropy(logits: Pointer, target: Pointer["int64"], class_weight: Pointer, losses: Pointer,
                      logsumexp: Pointer, sums: Pointer, ends: Pointer["int64"], divisor: Pointer,
                    bounds: Pointer["int64"], known: Int, rows: Int, classes: Int, inner: Int, strips: Int,
                    weighted: Int, sharp: Float, even: Float, high: Int, low: Unsigned, reduction: Int):
        """The losses of a block's rows; what comes of all rows together, or this block's part of it."""
        m, k, there = place(rows, inner, strips)
        y, row = int32(cuda.threadIdx.y), int32(m * inner + k)
        # A loop of no steps instead of a branch around shuffles, which would become calls.
        top, share = of_elements(logits, m, k, classes if known else y, classes, classes, inner)
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

    cross_entropy.__name__ = "_cross_entropy" + "_smoothed" * smoothed + "_weighted" * with_weights
    return kernel(cross_entropy)


cross_entropy_rows = _rows(False, False), _rows(True, False), _rows(True, True)


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


@kernel
def cross_entropy_grad(logits: Pointer, logsumexp: Pointer, target: Pointer["int64"], class_weight: Pointer,
                       grad: Pointer, divisor: Pointer, out: Pointer, many: Int, rows: Int, classes: Int, inner: Int,
                       chunk: Int, strips: Int, weighted: Int, sharp: Float, even: Float, high: Int, low: Unsigned):
    m, k, there = place(rows, inner, strips)
    row, c = int32(m * inner + k), int32(cuda.threadIdx.y)
    weights = T(classes)
    if (weighted != 0) & (even > T(0)):
        weights = T(0)
        while c < classes:
            weights += class_weight[c]
            c = int32(c + cuda.blockDim.y)
        weights = _sum(weights)
    label, ignored, total = target[row], _number(high, low), logsumexp[row]
    counted = _counts(label, ignored, classes)
    at_label, above = T(0), T(0)
    if counted:
        at_label = sharp * class_weight[int32(label)] if weighted else sharp
        above = divide(grad[row if many else 0], divisor[0])
    scale = at_label + even * weights
    c = int32(cuda.blockIdx.y * chunk + cuda.threadIdx.y)
    stop = int32(min((cuda.blockIdx.y + 1) * chunk, classes)) if there else int32(0)
    while c < stop:
        at = int32((m * classes + c) * inner + k)
        wanted = T(0)
        if even > T(0):
            wanted = even * class_weight[c] if weighted else even
        wanted += at_label if c == label else T(0)
        value = (math.exp(logits[at] - total) * scale - wanted) * above
        out[at] = value if counted else T(0)
        c = int32(c + cuda.blockDim.y)


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


@kernel
def nll_grad(grad: Pointer, target: Pointer["int64"], class_weight: Pointer, out: Pointer, rows: Int, classes: Int,
             inner: Int, chunk: Int, strips: Int, weighted: Int, high: Int, low: Unsigned):
    m, k, there = place(rows, inner, strips)
    row = int32(m * inner + k)
    label, value = target[row], T(0)
    if _counts(label, _number(high, low), classes):
        value = -grad[row]
        if weighted:
            value *= class_weight[int32(label)]
    c = int32(cuda.blockIdx.y * chunk + cuda.threadIdx.y)
    stop = int32(min((cuda.blockIdx.y + 1) * chunk, classes)) if there else int32(0)
    while c < stop:
        out[int32((m * classes + c) * inner + k)] = value if c == label else T(0)
        c = int32(c + cuda.blockDim.y)


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
