"""Layer normalisation of x (M, D). An absent weight or bias has size 0.

Up to 8192 elements of rows that can be read four elements at a time, 2048 of others, stay in the registers of their
threads between the sums over their row and what is made of them; longer rows are read again.
"""

from minigrad.kernels.cuda.held import HOLDING, ITEMS, fours, held_plan, loader, storer
from minigrad.kernels.cuda.language import (
    Float,
    Int,
    Pointer,
    T,
    cuda,
    device_function,
    divide,
    int32,
    kernel,
    reciprocal_root,
)
from minigrad.kernels.cuda.memory import scratch
from minigrad.kernels.cuda.reduce_blocks import added, folded_pair, place, plan, spread

QUADS = ("LDG.E.128", "STG.E.128")
ROWS = 4  # of a column that a thread loads at once for the gradients of weight and bias
_sum = spread(added)


@device_function
def _scaled(normalised, weight, bias, weighted, biased, r):
    y = normalised * weight[r] if weighted else normalised
    return y + bias[r] if biased else y


def _held(by_four):
    """The kernel for rows of `length` items, quads or elements, that threads can hold."""
    items, shift = ITEMS[by_four], 2 if by_four else 0
    count, load, store = items << shift, loader(by_four, items), storer(by_four, items)
    sum = spread(added, HOLDING[by_four])

    def forward(x: Pointer, weight: Pointer, bias: Pointer, out: Pointer, mean: Pointer, rstd: Pointer, rows: Int,
                length: Int, weighted: Int, biased: Int, eps: Float):
        m, _, there = place(rows, 1, 1)
        y, down, size = int32(cuda.threadIdx.y), int32(cuda.blockDim.y), T(length << shift)
        at, v, w = int32((m * length + y) << shift), cuda.local.array(count, T), cuda.local.array(count, T)
        total, squares = T(0), T(0)
        load(v, x, at, y, length, 1, T(0))
        for j in range(count):
            total += v[j]
        middle = divide(sum(total), size)
        for j in range(count):
            distance = v[j] - middle if y + (j >> shift) * down < length else T(0)
            squares += distance * distance
        scale = reciprocal_root(divide(sum(squares), size) + eps)
        for j in range(count):
            v[j] = (v[j] - middle) * scale
        if weighted:
            load(w, weight, int32(y << shift), y, length, 1, T(0))
            for j in range(count):
                v[j] *= w[j]
        if biased:
            load(w, bias, int32(y << shift), y, length, 1, T(0))
            for j in range(count):
                v[j] += w[j]
        store(v, out, at, y, length if there else int32(0), 1)
        if there & (y == 0):
            mean[m], rstd[m] = middle, scale

    forward.__name__ = "_layer_norm_held" + "_by_four" * by_four
    return kernel(forward, promises=QUADS if by_four else ())


_layer_norm_held = _held(False), _held(True)


@kernel
def _layer_norm_long(x: Pointer, weight: Pointer, bias: Pointer, out: Pointer, mean: Pointer, rstd: Pointer, rows: Int,
                     length: Int, weighted: Int, biased: Int, eps: Float):
    m, _, there = place(rows, 1, 1)
    y, down, total, squares = int32(cuda.threadIdx.y), int32(cuda.blockDim.y), T(0), T(0)
    r = int32(y)
    while r < length:
        total += x[int32(m * length + r)]
        r = int32(r + down)
    middle = divide(_sum(total), T(length))
    r = int32(y)
    while r < length:
        distance = x[int32(m * length + r)] - middle
        squares += distance * distance
        r = int32(r + down)
    scale = reciprocal_root(divide(_sum(squares), T(length)) + eps)
    r = int32(y if there else length)
    while r < length:
        at = int32(m * length + r)
        out[at] = _scaled((x[at] - middle) * scale, weight, bias, weighted, biased, r)
        r = int32(r + down)
    if there & (y == 0):
        mean[m], rstd[m] = middle, scale


def layer_norm_forward(x, weight, bias, out, mean, rstd, eps):
    """out = (x - mean) * rstd * weight + bias over each row of x (M, D); mean, rstd (M,) are outputs too.

    rstd = 1 / √(biased variance + eps) (Ba, Kiros and Hinton 2016, section 3).
    """
    rows, length = x.shape
    if not rows:
        return
    four, items = fours(length, 1, x, out, *[a for a in (weight, bias) if a.size])
    p = held_plan(rows, items, 1, four)
    run = _layer_norm_long if p is None else _layer_norm_held[four]
    p, items = (plan(rows, length, 1, split=False), length) if p is None else (p, items)
    run[p.grid, p.block](x, weight, bias, out, mean, rstd, rows, items, weight.size, bias.size, eps)


@device_function
def _above(grad, weight, weighted, at, r):
    return grad[at] * weight[r] if weighted else grad[at]


def _backward_held(by_four):
    """The kernel of grad_x for rows of `length` items that threads can hold."""
    items, shift = ITEMS[by_four], 2 if by_four else 0
    count, load, store = items << shift, loader(by_four, items), storer(by_four, items)
    sum = spread(added, HOLDING[by_four])

    def backward(x: Pointer, mean: Pointer, rstd: Pointer, weight: Pointer, grad: Pointer, grad_x: Pointer, rows: Int,
                 length: Int, weighted: Int):
        m, _, there = place(rows, 1, 1)
        y, size, middle, scale = int32(cuda.threadIdx.y), T(length << shift), mean[m], rstd[m]
        at, total, product = int32((m * length + y) << shift), T(0), T(0)
        v, g, w = cuda.local.array(count, T), cuda.local.array(count, T), cuda.local.array(count, T)
        load(v, x, at, y, length, 1, middle)
        load(g, grad, at, y, length, 1, T(0))
        if weighted:
            load(w, weight, int32(y << shift), y, length, 1, T(0))
            for j in range(count):
                g[j] *= w[j]
        for j in range(count):
            v[j] = (v[j] - middle) * scale
            total += g[j]
            product += g[j] * v[j]
        offset, factor = divide(sum(total), size), divide(sum(product), size)
        for j in range(count):
            v[j] = scale * ((g[j] - offset) - v[j] * factor)
        store(v, grad_x, at, y, length if there else int32(0), 1)

    backward.__name__ = "_layer_norm_backward_held" + "_by_four" * by_four
    return kernel(backward, promises=QUADS if by_four else ())


_layer_norm_backward_held = _backward_held(False), _backward_held(True)


@kernel
def _layer_norm_backward_long(x: Pointer, mean: Pointer, rstd: Pointer, weight: Pointer, grad: Pointer, grad_x: Pointer,
                              rows: Int, length: Int, weighted: Int):
    m, _, there = place(rows, 1, 1)
    down, middle, scale = int32(cuda.blockDim.y), mean[m], rstd[m]
    r, total, product = int32(cuda.threadIdx.y), T(0), T(0)
    while r < length:
        at = int32(m * length + r)
        g = _above(grad, weight, weighted, at, r)
        total += g
        product += g * ((x[at] - middle) * scale)
        r = int32(r + down)
    total, product = folded_pair(total, product)
    offset, factor = divide(total, T(length)), divide(product, T(length))
    r = int32(cuda.threadIdx.y if there else length)
    while r < length:
        at = int32(m * length + r)
        g = _above(grad, weight, weighted, at, r)
        grad_x[at] = scale * ((g - offset) - (x[at] - middle) * scale * factor)
        r = int32(r + down)


@kernel
def _layer_norm_backward_columns(x: Pointer, mean: Pointer, rstd: Pointer, grad: Pointer, grad_weight: Pointer,
                                 grad_bias: Pointer, rows: Int, length: Int, chunk: Int, strips: Int):
    """Sums over the rows, or over a part of them, which then stand side by side."""
    _, k, there = place(1, length, strips)
    part, total, product = int32(cuda.blockIdx.y), T(0), T(0)
    m, stop = int32(part * chunk + cuda.threadIdx.y), int32(min((part + 1) * chunk, rows))
    g, v, down = cuda.local.array(ROWS, T), cuda.local.array(ROWS, T), int32(cuda.blockDim.y)
    while m < stop:
        for j in range(ROWS):
            row = int32(m + j * down)
            if row < stop:
                at = int32(row * length + k)
                g[j], v[j] = grad[at], (x[at] - mean[row]) * rstd[row]
            else:
                g[j], v[j] = T(0), T(0)
        for j in range(ROWS):
            total += g[j]
            product += g[j] * v[j]
        m = int32(m + ROWS * down)
    total, product = folded_pair(total, product)
    if there & (cuda.threadIdx.y == 0):
        grad_bias[int32(part * length + k)], grad_weight[int32(part * length + k)] = total, product


@kernel
def _layer_norm_backward_parts(products: Pointer, totals: Pointer, grad_weight: Pointer, grad_bias: Pointer, parts: Int,
                               length: Int, strips: Int):
    """The sums of the parts."""
    _, k, there = place(1, length, strips)
    total, product, part = T(0), T(0), int32(cuda.threadIdx.y)
    while part < parts:
        total += totals[int32(part * length + k)]
        product += products[int32(part * length + k)]
        part = int32(part + cuda.blockDim.y)
    total, product = folded_pair(total, product)
    if there & (cuda.threadIdx.y == 0):
        grad_bias[k], grad_weight[k] = total, product


def layer_norm_backward(x, mean, rstd, weight, grad, grad_x, grad_weight, grad_bias):
    """The three gradients of layer_norm_forward, from its mean and rstd."""
    rows, length = x.shape
    if not length:
        return
    if rows:
        four, items = fours(length, 1, x, grad, grad_x, *[weight] * (weight.size > 0))
        p = held_plan(rows, items, 1, four)
        run = _layer_norm_backward_long if p is None else _layer_norm_backward_held[four]
        p, items = (plan(rows, length, 1, split=False), length) if p is None else (p, items)
        run[p.grid, p.block](x, mean, rstd, weight, grad, grad_x, rows, items, weight.size)
    p = plan(1, rows, length)
    numbers = rows, length, p.chunk, p.strips
    if p.parts == 1:
        _layer_norm_backward_columns[p.grid, p.block](x, mean, rstd, grad, grad_weight, grad_bias, *numbers)
        return
    half = p.parts * length
    sums = scratch(2 * half, x.dtype)
    _layer_norm_backward_columns[p.grid, p.block](x, mean, rstd, grad, sums[:half], sums[half:], *numbers)
    q = plan(1, p.parts, length, split=False)
    _layer_norm_backward_parts[q.grid, q.block](sums[:half], sums[half:], grad_weight, grad_bias, p.parts, length,
                                                q.strips)
