"""What the ops should compute, in plain NumPy: slow, obvious, and independent of the kernels and their reference."""

import math

import numpy as np


def erf(x):
    """The error function, elementwise."""
    return np.array([math.erf(v) for v in np.ravel(x)], dtype=np.float64).reshape(np.shape(x))


def sigmoid(x):
    """The logistic function."""
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x, dim):
    """e^x over its sum along one or several axes."""
    dim = tuple(dim) if isinstance(dim, list) else dim
    if x.size == 0:
        return x
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def logsumexp(x, dim=None, keepdim=False):
    """log sum e^x."""
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x).sum(axis=dim, keepdims=keepdim))


def pair(v):
    """An int or a pair as a pair."""
    return (v, v) if isinstance(v, int) else tuple(v)


def pad_amounts(padding, kernel, dilation):
    """((top, bottom), (left, right)) of conv2d's padding argument."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    return tuple((p, p) for p in pair(padding))


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution, one output pixel at a time."""
    if x.ndim == 3:
        return conv2d(x[None], w, b, stride, padding, dilation, groups)[0]
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    (top, bottom), (left, right) = pad_amounts(padding, w.shape[2:], (dh, dw))
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, o, per, (kh, kw) = x.shape[0], w.shape[0], w.shape[1], w.shape[2:]
    oh, ow = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1, (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((n, o, oh, ow))
    for f in range(o):
        c = f // (o // groups) * per
        for i in range(oh):
            for j in range(ow):
                window = x[
                    :, c : c + per, i * sh : i * sh + dh * (kh - 1) + 1 : dh, j * sw : j * sw + dw * (kw - 1) + 1 : dw
                ]
                y[:, f, i, j] = (window * w[f]).sum((1, 2, 3))
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def pool_size(size, kernel, stride, padding, dilation, ceil_mode):
    """How many windows fit along one axis."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (math.ceil if ceil_mode else math.floor)(span / stride) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest element of each window."""
    if x.ndim == 3:
        return max_pool2d(x[None], kernel_size, stride, padding, dilation, ceil_mode)[0]
    k, s, p, d = pair(kernel_size), pair(stride or kernel_size), pair(padding), pair(dilation)
    size = [pool_size(x.shape[2 + a], k[a], s[a], p[a], d[a], ceil_mode) for a in (0, 1)]
    y = np.full((*x.shape[:2], *size), -np.inf)
    for i, j in np.ndindex(*size):
        rows = [r for r in range(i * s[0] - p[0], i * s[0] - p[0] + k[0] * d[0], d[0]) if 0 <= r < x.shape[2]]
        cols = [c for c in range(j * s[1] - p[1], j * s[1] - p[1] + k[1] * d[1], d[1]) if 0 <= c < x.shape[3]]
        y[:, :, i, j] = x[:, :, rows][:, :, :, cols].max((2, 3))
    return y


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window; what lies beyond the padding is never counted."""
    if x.ndim == 3:
        return avg_pool2d(x[None], kernel_size, stride, padding, ceil_mode, count_include_pad)[0]
    k, s, p = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    h, w = x.shape[2:]
    size = [pool_size(x.shape[2 + a], k[a], s[a], p[a], 1, ceil_mode) for a in (0, 1)]
    y = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        r0, c0 = i * s[0] - p[0], j * s[1] - p[1]
        r1, c1 = min(r0 + k[0], h + p[0]), min(c0 + k[1], w + p[1])
        inside = x[:, :, max(r0, 0) : min(r1, h), max(c0, 0) : min(c1, w)]
        count = (r1 - r0) * (c1 - c0) if count_include_pad else inside.shape[2] * inside.shape[3]
        y[:, :, i, j] = inside.sum((2, 3)) / count
    return y


def adaptive_avg_pool2d(x, output_size):
    """Means over windows from floor(i m / n) to ceil((i + 1) m / n)."""
    if x.ndim == 3:
        return adaptive_avg_pool2d(x[None], output_size)[0]
    size = output_size if isinstance(output_size, tuple) else (output_size, output_size)
    size = [m if n is None else n for n, m in zip(size, x.shape[2:], strict=True)]
    y = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        r, c = [
            slice(k * m // n, math.ceil((k + 1) * m / n)) for k, m, n in zip((i, j), x.shape[2:], size, strict=True)
        ]
        y[:, :, i, j] = x[:, :, r, c].mean((2, 3))
    return y


def batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Normalisation per channel."""
    axes, column = (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
    if training:
        mean, var = x.mean(axes), x.var(axes)
    y = (x - mean.reshape(column)) / np.sqrt(var.reshape(column) + eps)
    y = y if weight is None else y * weight.reshape(column)
    return y if bias is None else y + bias.reshape(column)


def ghost_batch_norm(x, size, weight, bias):
    """batch_norm of consecutive sub-batches; a rest of one value per channel belongs to the one before."""
    starts = list(range(0, len(x), size))
    if len(x) - starts[-1] == 1 and x[0, 0].size == 1:
        starts.pop()
    parts = np.split(x, starts[1:])
    return np.concatenate([batch_norm(part, np.zeros(()), np.ones(()), weight, bias, training=True) for part in parts])


def batch_norm_act(x, *args, activation="relu", negative_slope=0.01, max_pool=False, **kwargs):
    """batch_norm, an activation and max_pool2d one after the other."""
    z = batch_norm(x, *args, **kwargs)
    y = {"none": z, "relu": np.maximum(z, 0), "leaky_relu": np.where(z > 0, z, negative_slope * z),
         "sigmoid": sigmoid(z), "tanh": np.tanh(z), "silu": z * sigmoid(z)}[activation]
    return max_pool2d(y, 2) if max_pool else y


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    """Normalisation over the last axes."""
    axes = tuple(range(x.ndim - len(pair_shape(shape)), x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def pair_shape(shape):
    """An int or a tuple as a tuple."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def reduce(losses, reduction):
    """The reduction argument of elementwise losses."""
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def class_loss(log_probabilities, target, weight, ignore_index, reduction, smoothing=0.0):
    """Cross-entropy against (smoothed) class indices, row by row."""
    x = log_probabilities if log_probabilities.ndim > 1 else log_probabilities[None]
    t = target if log_probabilities.ndim > 1 else target[None]
    classes = x.shape[1]
    weight = np.ones(classes) if weight is None else weight
    losses, counted = np.zeros(t.shape), np.zeros(t.shape)
    for place in np.ndindex(*t.shape):
        label, row = t[place], x[(place[0], slice(None), *place[1:])]
        if label != ignore_index:
            wanted = np.full(classes, smoothing / classes)
            wanted[label] += 1.0 - smoothing
            losses[place] = -(wanted * weight * row).sum()
            counted[place] = weight[label]
    if reduction == "none":
        return losses if log_probabilities.ndim > 1 else losses[0]
    return losses.sum() if reduction == "sum" else losses.sum() / counted.sum()


def log_softmax(x, dim):
    """log of softmax."""
    return np.log(softmax(x, dim))


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross-entropy from logits."""
    dim = 1 if x.ndim > 1 else 0
    logs = log_softmax(x, dim)
    if target.dtype == np.int64:
        return class_loss(logs, target, weight, ignore_index, reduction, label_smoothing)
    target = target * (1.0 - label_smoothing) + label_smoothing / x.shape[dim]
    scale = 1.0 if weight is None else weight.reshape((-1,) + (1,) * (x.ndim - dim - 1))
    return reduce(-(target * scale * logs).sum(dim), reduction)


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood."""
    return class_loss(x, target, weight, ignore_index, reduction)


def smooth_l1(x, t, reduction="mean", beta=1.0):
    """The smooth L1 loss."""
    d = np.abs(x - t)
    return reduce(d if beta == 0 else np.where(d < beta, d * d / (2 * beta), d - beta / 2), reduction)


def huber(x, t, reduction="mean", delta=1.0):
    """The Huber loss."""
    d = np.abs(x - t)
    return reduce(np.where(d <= delta, d * d / 2, delta * (d - delta / 2)), reduction)


def bce_with_logits(x, t, weight=None, reduction="mean", pos_weight=None):
    """Binary cross-entropy."""
    losses = -((1.0 if pos_weight is None else pos_weight) * t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x)))
    return reduce(losses if weight is None else losses * weight, reduction)


def gelu(x, approximate="none"):
    """The Gaussian error linear unit."""
    if approximate == "tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + erf(x / math.sqrt(2)))


def softplus(x, beta=1.0, threshold=20.0):
    """A smooth relu."""
    return np.where(x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, threshold))) / beta)


def pad(x, padding, mode="constant", value=0.0):
    """Padding from the last axis on; negative amounts crop."""
    if not padding:
        return x
    pairs = [(0, 0)] * (x.ndim - len(padding) // 2) + list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    cut = tuple(slice(max(-b, 0), e - max(-a, 0)) for (b, a), e in zip(pairs, x.shape, strict=True))
    grow = [(max(b, 0), max(a, 0)) for b, a in pairs]
    if mode == "constant":
        return np.pad(x[cut], grow, constant_values=value)
    return np.pad(x[cut], grow, mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])
