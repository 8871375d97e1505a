"""The kernels of batch normalisation without pooling: statistics, forward, backward, moving averages.

Each exists for any x and, in `_by_four`, for images that 128-bit loads of four neighbours make up.
"""

from minigrad.kernels.cuda.batch_norm_parts import (
    ACTIVATIONS,
    KINDS,
    begin,
    channel_map,
    folded_moments,
    forth,
    merged,
)
from minigrad.kernels.cuda.language import (
    Float,
    Int,
    Pointer,
    T,
    cuda,
    device_function,
    divide,
    int32,
    int64,
    kernel,
    load4,
    store4,
)
from minigrad.kernels.cuda.reduce_blocks import folded_pair

QUADS = ("LDG.E.128", "STG.E.128")


@device_function
def _eight(a, b, c, d, e, f, g, h):
    """Sum and squared deviations of eight numbers."""
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    m = total * T(0.125)
    first = ((a - m) * (a - m) + (b - m) * (b - m)) + ((c - m) * (c - m) + (d - m) * (d - m))
    return total, first + (((e - m) * (e - m) + (f - m) * (f - m)) + ((g - m) * (g - m) + (h - m) * (h - m)))


@device_function
def _quad(a, b, c, d):
    total = (a + b) + (c + d)
    m = total * T(0.25)
    return total, ((a - m) * (a - m) + (b - m) * (b - m)) + ((c - m) * (c - m) + (d - m) * (d - m))


@device_function
def _anchor(x, c, size, count):
    """A value to measure those of channel c from, its first one or 0 if that is not finite; `size` is of an image.

    Sums of values far from zero would be rounded by more than a deviation that is small beside them.
    """
    if count == 0:
        return T(0)
    first = x[int32(c * size)]
    return first if first - first == T(0) else T(0)


@device_function
def _store_statistics(c, anchor, n, s, q, mean, variance):
    """The variance is NaN where the mean is infinite, as it is by its definition."""
    average = anchor + divide(s, n)
    mean[c] = average
    variance[c] = divide(q, n) + (average - average)


def _statistics(by_four):
    """The kernel: mean and variance, or sums and squared deviations of parts of channels."""
    items = 2 if by_four else 8  # in flight at once

    def statistics(x: Pointer, mean: Pointer, variance: Pointer, moments: Pointer, in_parts: Int, channels: Int,
                   plane: Int, count: Int, chunk: Int, places: Int, images: Int):
        c, there, e, stop, place, image = begin(channels, plane, count, chunk)
        down, anchor = int32(cuda.blockDim.y), _anchor(x, c, int32(4 * plane) if by_four else plane, count)
        n, s, q = T(0), T(0), T(0)
        v = cuda.local.array(8, T)
        while e + (items - 1) * down < stop:
            for k in range(items):
                if by_four:
                    v[4 * k], v[4 * k + 1], v[4 * k + 2], v[4 * k + 3] = load4(x, int32(4 * (image * plane + place)))
                else:
                    v[k] = x[int32(image * plane + place)]
                place, image = forth(place, image, plane, channels, places, images)
            total, squares = _eight(v[0] - anchor, v[1] - anchor, v[2] - anchor, v[3] - anchor,
                                    v[4] - anchor, v[5] - anchor, v[6] - anchor, v[7] - anchor)
            n, s, q = merged(n, s, q, T(8), total, squares)
            e = int32(e + items * down)
        while e < stop:
            if by_four:
                first = load4(x, int32(4 * (image * plane + place)))
                total, squares = _quad(first[0] - anchor, first[1] - anchor, first[2] - anchor, first[3] - anchor)
                n, s, q = merged(n, s, q, T(4), total, squares)
            else:
                n, s, q = merged(n, s, q, T(1), x[int32(image * plane + place)] - anchor, T(0))
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + down)
        n, s, q = folded_moments(n, s, q)
        if there & (cuda.threadIdx.y == 0):
            if in_parts:
                at = int32(2 * (c * cuda.gridDim.y + cuda.blockIdx.y))
                moments[at], moments[at + 1] = s, q
            else:
                _store_statistics(c, anchor, n, s, q, mean, variance)

    return statistics


@kernel
def _batch_norm_finish_statistics(x: Pointer, moments: Pointer, mean: Pointer, variance: Pointer, channels: Int,
                                  parts: Int, chunk: Int, count: Int, size: Int):
    """Mean and variance from the sums and squared deviations of parts of `chunk` elements, the last one shorter."""
    channel = int32(cuda.blockIdx.x * cuda.blockDim.z + cuda.threadIdx.z)
    c = int32(min(channel, channels - 1))
    n, s, q, part = T(0), T(0), T(0), int32(cuda.threadIdx.y)
    while part < parts:
        at, size = int32(2 * (c * parts + part)), int32(min(chunk, count - part * chunk))
        n, s, q = merged(n, s, q, T(size), moments[at], moments[at + 1])
        part = int32(part + cuda.blockDim.y)
    n, s, q = folded_moments(n, s, q)
    if (channel < channels) & (cuda.threadIdx.y == 0):
        _store_statistics(c, _anchor(x, c, size, count), n, s, q, mean, variance)


def _forward(activated, by_four):
    """The kernel: out = f((x - mean) * scale + shift)."""

    @device_function
    def output(x, middle, scale, shift, act, slope):
        return activated((x - middle) * scale + shift, act, slope)

    def forward(x: Pointer, mean: Pointer, variance: Pointer, weight: Pointer, bias: Pointer, out: Pointer,
                weighted: Int, biased: Int, eps: Float, act: Int, slope: Float, channels: Int, plane: Int, count: Int,
                chunk: Int, places: Int, images: Int):
        c, _, e, stop, place, image = begin(channels, plane, count, chunk)
        middle, _, scale, shift = channel_map(c, mean, variance, weight, bias, weighted, biased, eps)
        while e < stop:
            if by_four:
                at = int32(4 * (image * plane + place))
                a, b, d, f = load4(x, at)
                store4(out, at, output(a, middle, scale, shift, act, slope),
                       output(b, middle, scale, shift, act, slope), output(d, middle, scale, shift, act, slope),
                       output(f, middle, scale, shift, act, slope))
            else:
                at = int32(image * plane + place)
                out[at] = output(x[at], middle, scale, shift, act, slope)
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + cuda.blockDim.y)

    return forward


def _sums(derived, by_four):
    """A device function: Σ d and Σ d (x - mean) of a thread's items, d being the gradient behind the affine map."""

    @device_function
    def inner(x, grad, middle, scale, shift, act, slope):
        return derived((x - middle) * scale + shift, grad, act, slope)

    @device_function
    def sums(x, grad, middle, scale, shift, act, slope, e, stop, place, image, channels, plane, places, images):
        total, product = T(0), T(0)
        while e < stop:
            if by_four:
                at = int32(4 * (image * plane + place))
                v, g = load4(x, at), load4(grad, at)
                a = inner(v[0], g[0], middle, scale, shift, act, slope)
                b = inner(v[1], g[1], middle, scale, shift, act, slope)
                c = inner(v[2], g[2], middle, scale, shift, act, slope)
                d = inner(v[3], g[3], middle, scale, shift, act, slope)
                total += (a + b) + (c + d)
                product += (a * (v[0] - middle) + b * (v[1] - middle)) + (c * (v[2] - middle) + d * (v[3] - middle))
            else:
                at = int32(image * plane + place)
                v1 = x[at]
                d1 = inner(v1, grad[at], middle, scale, shift, act, slope)
                total += d1
                product += d1 * (v1 - middle)
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + cuda.blockDim.y)
        return total, product

    return sums


def _rest(derived, by_four):
    """A device function: grad_x of a thread's items."""

    @device_function
    def down(x, grad, middle, scale, shift, act, slope, offset, factor):
        """What goes through the affine map, less what mean and deviation take."""
        d = derived((x - middle) * scale + shift, grad, act, slope)
        return scale * ((d - offset) - (x - middle) * factor)

    @device_function
    def rest(x, grad, out, middle, scale, shift, act, slope, offset, factor, e, stop, place, image, channels, plane,
             places, images):
        while e < stop:
            if by_four:
                at = int32(4 * (image * plane + place))
                v, g = load4(x, at), load4(grad, at)
                store4(out, at, down(v[0], g[0], middle, scale, shift, act, slope, offset, factor),
                       down(v[1], g[1], middle, scale, shift, act, slope, offset, factor),
                       down(v[2], g[2], middle, scale, shift, act, slope, offset, factor),
                       down(v[3], g[3], middle, scale, shift, act, slope, offset, factor))
            else:
                at = int32(image * plane + place)
                out[at] = down(x[at], grad[at], middle, scale, shift, act, slope, offset, factor)
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + cuda.blockDim.y)

    return rest


@device_function
def store_sums(c, there, total, product, rstd, grad_weight, grad_bias):
    """The gradients of weight and bias, by one thread."""
    if there & (cuda.blockIdx.y == 0) & (cuda.threadIdx.y == 0):
        grad_bias[c] = total
        grad_weight[c] = product * rstd


@device_function
def store_part(c, there, total, product, parts):
    """The sums of a part of a channel, by one thread."""
    if there & (cuda.threadIdx.y == 0):
        at = int32(2 * (c * cuda.gridDim.y + cuda.blockIdx.y))
        parts[at], parts[at + 1] = total, product


@device_function
def sum_of_parts(c, parts, many):
    """A thread's share of the sums of a channel's parts."""
    total, product, part = T(0), T(0), int32(cuda.threadIdx.y)
    while part < many:
        at = int32(2 * (c * many + part))
        total, product = total + parts[at], product + parts[at + 1]
        part = int32(part + cuda.blockDim.y)
    return total, product


def _backward(derived, by_four):
    """Two kernels: all of it, or what is left when the sums of parts are there; the sums of parts of channels."""
    sums, rest = _sums(derived, by_four), _rest(derived, by_four)

    def backward(x: Pointer, mean: Pointer, variance: Pointer, weight: Pointer, bias: Pointer, grad: Pointer,
                 grad_x: Pointer, grad_weight: Pointer, grad_bias: Pointer, parts: Pointer, many: Int, size: Int,
                 weighted: Int, biased: Int, eps: Float, act: Int, slope: Float, channels: Int, plane: Int, count: Int,
                 chunk: Int, places: Int, images: Int):
        c, there, e, stop, place, image = begin(channels, plane, count, chunk)
        middle, rstd, scale, shift = channel_map(c, mean, variance, weight, bias, weighted, biased, eps)
        if many:
            total, product = sum_of_parts(c, parts, many)
        else:
            total, product = sums(x, grad, middle, scale, shift, act, slope, e, stop, place, image, channels, plane,
                                  places, images)
        total, product = folded_pair(total, product)
        store_sums(c, there, total, product, rstd, grad_weight, grad_bias)
        offset, factor = divide(total, T(size)), divide(product, T(size)) * rstd * rstd
        rest(x, grad, grad_x, middle, scale, shift, act, slope, offset, factor, e, stop, place, image, channels, plane,
             places, images)

    def part(x: Pointer, mean: Pointer, variance: Pointer, weight: Pointer, bias: Pointer, grad: Pointer,
             parts: Pointer, weighted: Int, biased: Int, eps: Float, act: Int, slope: Float, channels: Int, plane: Int,
             count: Int, chunk: Int, places: Int, images: Int):
        c, there, e, stop, place, image = begin(channels, plane, count, chunk)
        middle, _, scale, shift = channel_map(c, mean, variance, weight, bias, weighted, biased, eps)
        total, product = sums(x, grad, middle, scale, shift, act, slope, e, stop, place, image, channels, plane, places,
                              images)
        total, product = folded_pair(total, product)
        store_part(c, there, total, product, parts)

    return backward, part


def _named(function, name, by_four, promises=QUADS):
    function.__name__ = f"_batch_norm_{name}_by_four" if by_four else f"_batch_norm_{name}"
    return kernel(function, promises=promises if by_four else ())


statistics = [_named(_statistics(four), "statistics", four, QUADS[:1]) for four in (False, True)]
forward: list = []
backward: list = []  # of each kind of activation, the kernels of any x and those that load four elements at once
for _kind, (_activated, _derived) in zip(KINDS, ACTIVATIONS, strict=True):
    forward.append([_named(_forward(_activated, four), f"forward_{_kind}", four) for four in (False, True)])
    backward.append([])
    for _four in (False, True):
        _whole, _part = _backward(_derived, _four)
        backward[-1].append((_named(_whole, f"backward_{_kind}", _four),
                             _named(_part, f"backward_{_kind}_part", _four, QUADS[:1])))


@kernel
def _batch_norm_running(mean: Pointer, variance: Pointer, running_mean: Pointer, running_var: Pointer,
                        momentum: Pointer, batches: Pointer["int64"], channels: Int, counted: Int, cumulative: Int,
                        unbiased: Float):
    """One block: the thread that changes the momentum writes it behind a barrier, when all have read it."""
    new = momentum[0]
    if counted:
        number = batches[0] + 1
        if cumulative:
            new = divide(T(1), T(number))
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            batches[0] = number
            momentum[0] = new
    c = int32(cuda.threadIdx.x)
    while c < channels:
        running_mean[c] = (T(1) - new) * running_mean[c] + new * mean[c]
        running_var[c] = (T(1) - new) * running_var[c] + new * (variance[c] * unbiased)
        c = int32(c + cuda.blockDim.x)


finish_statistics, running = _batch_norm_finish_statistics, _batch_norm_running
