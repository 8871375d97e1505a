"""The kernels of batch normalisation with an activation and 2 x 2 max pooling behind it.

An item is a window: a thread reads its four elements, and in the backward pass writes their four gradients. There the
rows and columns that no window covers, where extents are odd, are items too, of fewer elements and without a gradient
from above.
"""

from minigrad.kernels.cuda.batch_norm_parts import ACTIVATIONS, KINDS, begin, channel_map, forth
from minigrad.kernels.cuda.batch_norm_plain import store_part, store_sums, sum_of_parts
from minigrad.kernels.cuda.language import Float, Int, Pointer, T, cuda, device_function, div32, divide, int32, kernel
from minigrad.kernels.cuda.reduce_blocks import folded_pair


@device_function
def _beats(new, best):
    """Of equal elements the first is the maximum, of several NaN the last."""
    return (new > best) | (new != new)


@device_function
def _corner(place, image, across, height, width):
    """Row and column of an item's first element, and where that is in memory."""
    row = div32(place, across)
    h, w = int32(2 * row), int32(2 * (place - row * across))
    return h, w, int32((image * height + h) * width + w)


def _forward(activated):
    """The kernel: the largest of f((x - mean) * scale + shift) of each window."""

    def forward(x: Pointer, mean: Pointer, variance: Pointer, weight: Pointer, bias: Pointer, out: Pointer,
                weighted: Int, biased: Int, eps: Float, act: Int, slope: Float, channels: Int, plane: Int,
                count: Int, chunk: Int, places: Int, images: Int, height: Int, width: Int):
        c, _, e, stop, place, image = begin(channels, plane, count, chunk)
        middle, _, scale, shift = channel_map(c, mean, variance, weight, bias, weighted, biased, eps)
        across = int32(width >> 1)
        while e < stop:
            _, _, at = _corner(place, image, across, height, width)
            below = int32(at + width)
            v0, v1, v2, v3 = x[at], x[at + 1], x[below], x[below + 1]
            best = activated((v0 - middle) * scale + shift, act, slope)
            y1 = activated((v1 - middle) * scale + shift, act, slope)
            y2 = activated((v2 - middle) * scale + shift, act, slope)
            y3 = activated((v3 - middle) * scale + shift, act, slope)
            best = y1 if _beats(y1, best) else best
            best = y2 if _beats(y2, best) else best
            best = y3 if _beats(y3, best) else best
            out[int32(image * plane + place)] = best
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + cuda.blockDim.y)

    return forward


def _backward(activated, derived):
    """Two kernels: all of it, or what is left when the sums of parts are there; the sums of parts of channels."""

    @device_function
    def inner(x, grad, place, image, across, height, width, middle, scale, shift, act, slope):
        """Where an item's first element is, its four elements, and the gradients behind the affine map of each.

        An element beyond the image is the mean, the gradient there 0, so that it adds nothing to a sum.
        """
        h, w, at = _corner(place, image, across, height, width)
        right, down, below = w + 1 < width, h + 1 < height, int32(at + width)
        v0 = x[at]
        v1 = x[at + 1] if right else middle
        v2 = x[below] if down else middle
        v3 = x[below + 1] if right & down else middle
        z0, z1 = (v0 - middle) * scale + shift, (v1 - middle) * scale + shift
        z2, z3 = (v2 - middle) * scale + shift, (v3 - middle) * scale + shift
        best, which = activated(z0, act, slope), int32(0)
        y1, y2, y3 = activated(z1, act, slope), activated(z2, act, slope), activated(z3, act, slope)
        if _beats(y1, best):
            best, which = y1, int32(1)
        if _beats(y2, best):
            best, which = y2, int32(2)
        if _beats(y3, best):
            best, which = y3, int32(3)
        zero, above = T(0), T(0)
        if right & down:
            above = grad[int32((image * (height >> 1) + (h >> 1)) * (width >> 1) + (w >> 1))]
        d0 = derived(z0, above if which == 0 else zero, act, slope)
        d1 = derived(z1, above if which == 1 else zero, act, slope)
        d2 = derived(z2, above if which == 2 else zero, act, slope)
        d3 = derived(z3, above if which == 3 else zero, act, slope)
        return (at, right, down, v0, v1, v2, v3, d0, d1 if right else zero, d2 if down else zero,
                d3 if right & down else zero)

    @device_function
    def sums(x, grad, middle, scale, shift, act, slope, e, stop, place, image, channels, plane, places, images, height,
             width):
        across, total, product = int32((width + 1) >> 1), T(0), T(0)
        while e < stop:
            _, _, _, v0, v1, v2, v3, d0, d1, d2, d3 = inner(
                x, grad, place, image, across, height, width, middle, scale, shift, act, slope)
            total += (d0 + d1) + (d2 + d3)
            product += (d0 * (v0 - middle) + d1 * (v1 - middle)) + (d2 * (v2 - middle) + d3 * (v3 - middle))
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + cuda.blockDim.y)
        return total, product

    def part(x: Pointer, mean: Pointer, variance: Pointer, weight: Pointer, bias: Pointer,
             grad: Pointer, parts: Pointer, weighted: Int, biased: Int, eps: Float, act: Int,
             slope: Float, channels: Int, plane: Int, count: Int, chunk: Int, places: Int,
             images: Int, height: Int, width: Int):
        c, there, e, stop, place, image = begin(channels, plane, count, chunk)
        middle, _, scale, shift = channel_map(c, mean, variance, weight, bias, weighted, biased, eps)
        total, product = sums(x, grad, middle, scale, shift, act, slope, e, stop, place, image, channels, plane, places,
                              images, height, width)
        total, product = folded_pair(total, product)
        store_part(c, there, total, product, parts)

    def backward(x: Pointer, mean: Pointer, variance: Pointer, weight: Pointer, bias: Pointer,
                 grad: Pointer, grad_x: Pointer, grad_weight: Pointer, grad_bias: Pointer, parts: Pointer,
                 many: Int, size: Int, weighted: Int, biased: Int, eps: Float, act: Int, slope: Float,
                 channels: Int, plane: Int, count: Int, chunk: Int, places: Int, images: Int, height: Int,
                 width: Int):
        c, there, e, stop, place, image = begin(channels, plane, count, chunk)
        middle, rstd, scale, shift = channel_map(c, mean, variance, weight, bias, weighted, biased, eps)
        if many:
            total, product = sum_of_parts(c, parts, many)
        else:
            total, product = sums(x, grad, middle, scale, shift, act, slope, e, stop, place, image, channels, plane,
                                  places, images, height, width)
        total, product = folded_pair(total, product)
        store_sums(c, there, total, product, rstd, grad_weight, grad_bias)
        offset, factor = divide(total, T(size)), divide(product, T(size)) * rstd * rstd
        across = int32((width + 1) >> 1)
        while e < stop:
            at, right, down, v0, v1, v2, v3, d0, d1, d2, d3 = inner(
                x, grad, place, image, across, height, width, middle, scale, shift, act, slope)
            below = int32(at + width)
            grad_x[at] = scale * ((d0 - offset) - (v0 - middle) * factor)
            if right:
                grad_x[at + 1] = scale * ((d1 - offset) - (v1 - middle) * factor)
            if down:
                grad_x[below] = scale * ((d2 - offset) - (v2 - middle) * factor)
            if right & down:
                grad_x[below + 1] = scale * ((d3 - offset) - (v3 - middle) * factor)
            place, image = forth(place, image, plane, channels, places, images)
            e = int32(e + cuda.blockDim.y)

    return backward, part


def _named(function, name):
    function.__name__ = f"_batch_norm_pool_{name}"
    return kernel(function)


forward: list = []
backward: list = []  # of each kind of activation
for _kind, (_activated, _derived) in zip(KINDS, ACTIVATIONS, strict=True):
    forward.append(_named(_forward(_activated), f"forward_{_kind}"))
    _whole, _part = _backward(_activated, _derived)
    backward.append((_named(_whole, f"backward_{_kind}"), _named(_part, f"backward_{_kind}_part")))
