"""Layer normalisation of x (M, D). An absent weight or bias has size 0.

Up to 8 elements a thread stay in its registers between the sums over their row and what is made of them; longer rows
are read again.
"""

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
from minigrad.kernels.cuda.reduce_blocks import added, folded_pair, place, plan, spread, tiles

HELD = 8  # elements of a thread that stay in registers
_sum = spread(added)


@device_function
def _scaled(normalised, weight, bias, weighted, biased, r):
    y = normalised * weight[r] if weighted else normalised
    return y + bias[r] if biased else y


@kernel
def _layer_norm_held(x: Pointer, weight: Pointer, bias: Pointer, out: Pointer, mean: Pointer, rstd: Pointer, rows: Int,
                     length: Int, weighted: Int, biased: Int, eps: Float):
    m, _, there = place(rows, 1, 1)
    y, down = int32(cuda.threadIdx.y), int32(cuda.blockDim.y)
    v, total = cuda.local.array(HELD, T), T(0)
    for j in range(HELD):
        r = int32(y + j * down)
        v[j] = x[int32(m * length + r)] if r < length else T(0)
    for j in range(HELD):
        total += v[j]
    middle, squares = divide(_sum(total), T(length)), T(0)
    for j in range(HELD):
        distance = v[j] - middle if y + j * down < length else T(0)
        squares += distance * distance
    scale = reciprocal_root(divide(_sum(squares), T(length)) + eps)
    for j in range(HELD):
        r = int32(y + j * down)
        if there & (r < length):
            out[int32(m * length + r)] = _scaled((v[j] - middle) * scale, weight, bias, weighted, biased, r)
    if there & (y == 0):
        mean[m], rstd[m] = middle, scale


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
    p = plan(rows, length, 1, split=False)
    run = _layer_norm_held if tiles(length, p.block[1]) <= HELD else _layer_norm_long
    run[p.grid, p.block](x, weight, bias, out, mean, rstd, rows, length, weight.size, bias.size, eps)


@device_function
def _above(grad, weight, weighted, at, r):
    return grad[at] * weight[r] if weighted else grad[at]


@kernel
def _layer_norm_backward_held(x: Pointer, mean: Pointer, rstd: Pointer, weight: Pointer, grad: Pointer, grad_x: Pointer,
                              rows: Int, length: Int, weighted: Int):
    m, _, there = place(rows, 1, 1)
    y, down, middle, scale = int32(cuda.threadIdx.y), int32(cuda.blockDim.y), mean[m], rstd[m]
    v, g, total, product = cuda.local.array(HELD, T), cuda.local.array(HELD, T), T(0), T(0)
    for j in range(HELD):
        r = int32(y + j * down)
        at = int32(m * length + r)
        v[j] = (x[at] - middle) * scale if r < length else T(0)
        g[j] = _above(grad, weight, weighted, at, r) if r < length else T(0)
    for j in range(HELD):
        total += g[j]
        product += g[j] * v[j]
    total, product = folded_pair(total, product)
    offset, factor = divide(total, T(length)), divide(product, T(length))
    for j in range(HELD):
        r = int32(y + j * down)
        if there & (r < length):
            grad_x[int32(m * length + r)] = scale * ((g[j] - offset) - v[j] * factor)


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
    while m < stop:
        at = int32(m * length + k)
        g = grad[at]
        total += g
        product += g * ((x[at] - mean[m]) * rstd[m])
        m = int32(m + cuda.blockDim.y)
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
        p = plan(rows, length, 1, split=False)
        run = _layer_norm_backward_held if tiles(length, p.block[1]) <= HELD else _layer_norm_backward_long
        run[p.grid, p.block](x, mean, rstd, weight, grad, grad_x, rows, length, weight.size)
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
