"""Optimizer steps, all in place. Arrays are 1-D; what may vary from step to step is read from `settings` (float64)."""

from minigrad.kernels.cuda import memory
from minigrad.kernels.cuda.elementwise import add, mul
from minigrad.kernels.cuda.language import (
    THREADS,
    Int,
    Pointer,
    T,
    blocks,
    device_function,
    int32,
    kernel,
    load4,
    math,
    store4,
    thread_index,
)
from minigrad.kernels.cuda.maps import quads_of

Doubles = Pointer["float64"]
WIDE = ("LDG.E.128", "STG.E.128")


@device_function
def _gradient(p, d, decay, maximize):
    return decay * p - d if maximize else decay * p + d


@kernel(promises=WIDE, doubles=True)  # the settings are float64
def _sgd(param: Pointer, grad: Pointer, settings: Doubles, n: Int, quads: Int, maximize: Int):
    i = thread_index()
    rate, decay = T(settings[0]), T(settings[3])
    if i < quads:
        j = int32(4 * i)
        p0, p1, p2, p3 = load4(param, j)
        d0, d1, d2, d3 = load4(grad, j)
        store4(param, j,
               p0 - rate * _gradient(p0, d0, decay, maximize), p1 - rate * _gradient(p1, d1, decay, maximize),
               p2 - rate * _gradient(p2, d2, decay, maximize), p3 - rate * _gradient(p3, d3, decay, maximize))
    else:
        j = int32(i + 3 * quads)
        if j < n:
            param[j] -= rate * _gradient(param[j], grad[j], decay, maximize)


@device_function
def _momentum_step(p, d, b, rate, keep, new, decay, nesterov, maximize, fresh):
    """The parameter and the buffer after a step."""
    g = _gradient(p, d, decay, maximize)
    moved = g if fresh else keep * b + new * g
    return p - rate * (g + keep * moved if nesterov else moved), moved


@kernel(promises=WIDE, doubles=True)  # the settings are float64
def _sgd_momentum(param: Pointer, grad: Pointer, buffer: Pointer, settings: Doubles, n: Int, quads: Int,
                  nesterov: Int, maximize: Int, first: Int):  # fmt: skip
    """A momentum of 0 shows only here, where the settings are: then the step is `_sgd`'s, and the buffer untouched."""
    i = thread_index()
    rate, keep, new, decay = T(settings[0]), T(settings[1]), T(1.0 - settings[2]), T(settings[3])
    fresh, nesterov = first != 0 or keep == T(0), nesterov != 0 and keep != T(0)
    if i < quads:
        j = int32(4 * i)
        p0, p1, p2, p3 = load4(param, j)
        d0, d1, d2, d3 = load4(grad, j)
        b0, b1, b2, b3 = d0, d1, d2, d3
        if not fresh:
            b0, b1, b2, b3 = load4(buffer, j)
        p0, b0 = _momentum_step(p0, d0, b0, rate, keep, new, decay, nesterov, maximize, fresh)
        p1, b1 = _momentum_step(p1, d1, b1, rate, keep, new, decay, nesterov, maximize, fresh)
        p2, b2 = _momentum_step(p2, d2, b2, rate, keep, new, decay, nesterov, maximize, fresh)
        p3, b3 = _momentum_step(p3, d3, b3, rate, keep, new, decay, nesterov, maximize, fresh)
        store4(param, j, p0, p1, p2, p3)
        if keep != T(0):
            store4(buffer, j, b0, b1, b2, b3)
    else:
        j = int32(i + 3 * quads)
        if j < n:
            b = grad[j]
            if not fresh:
                b = buffer[j]
            p, b = _momentum_step(param[j], grad[j], b, rate, keep, new, decay, nesterov, maximize, fresh)
            param[j] = p
            if keep != T(0):
                buffer[j] = b


def sgd(param, grad, buffer, settings, nesterov, maximize, first):
    """One step of SGD with momentum."""
    n = param.size
    if n and buffer.size:
        quads = quads_of(n, param.offset | grad.offset | buffer.offset)
        _sgd_momentum[blocks(n - 3 * quads), THREADS](
            param, grad, buffer, settings, n, quads, nesterov, maximize, first)  # fmt: skip
    elif n:
        quads = quads_of(n, param.offset | grad.offset)
        _sgd[blocks(n - 3 * quads), THREADS](param, grad, settings, n, quads, maximize)


@device_function
def _correction(beta, t):
    """1 - beta ** t of float64 (`math.pow` would be a call)."""
    return -math.expm1(t * math.log(beta))


@kernel(doubles=True)  # the settings are float64, and 1 - 0.999 ** t is to keep its digits
def _adam_numbers(numbers: Pointer, step: Doubles, settings: Doubles, decoupled: Int,
                  maximize: Int):  # fmt: skip
    """What is the same for all elements, worked out once. One thread."""
    lr, beta1, beta2, eps, decay = settings[0], settings[1], settings[2], settings[3], settings[4]
    t = step[0] + 1.0
    step[0] = t
    numbers[0] = T(lr / _correction(beta1, t))
    numbers[1] = T(1.0 / math.sqrt(_correction(beta2, t)))
    numbers[2] = T(eps)
    numbers[3] = T(-1.0 if maximize else 1.0)
    numbers[4], numbers[5], numbers[6], numbers[7] = T(beta1), T(1.0 - beta1), T(beta2), T(1.0 - beta2)
    numbers[8], numbers[9] = T(1.0 - lr * decay if decoupled else 1.0), T(0.0 if decoupled else decay)


@device_function
def _average(p, d, m, b1, c1, sign, decay):
    return b1 * m + c1 * (sign * d + decay * p)


@device_function
def _average_square(p, d, v, b2, c2, sign, decay):
    g = sign * d + decay * p
    return b2 * v + c2 * (g * g)


@device_function
def _larger(a, b):
    return a if (a > b) | (a != a) else b


@device_function
def _moved(p, m, v, size, root, eps, shrink):
    return p * shrink - size * (m / (math.sqrt(v) * root + eps))


@kernel(promises=WIDE)
def _adam(param: Pointer, grad: Pointer, exp_avg: Pointer, exp_avg_sq: Pointer, max_exp_avg_sq: Pointer,
          numbers: Pointer, n: Int, quads: Int, amsgrad: Int):  # fmt: skip
    i = thread_index()
    size, root, eps, sign = load4(numbers, 0)
    b1, c1, b2, c2 = load4(numbers, 4)
    shrink, decay = numbers[8], numbers[9]
    if i < quads:
        j = int32(4 * i)
        p0, p1, p2, p3 = load4(param, j)
        d0, d1, d2, d3 = load4(grad, j)
        m0, m1, m2, m3 = load4(exp_avg, j)
        v0, v1, v2, v3 = load4(exp_avg_sq, j)
        m0, m1 = _average(p0, d0, m0, b1, c1, sign, decay), _average(p1, d1, m1, b1, c1, sign, decay)
        m2, m3 = _average(p2, d2, m2, b1, c1, sign, decay), _average(p3, d3, m3, b1, c1, sign, decay)
        v0, v1 = _average_square(p0, d0, v0, b2, c2, sign, decay), _average_square(p1, d1, v1, b2, c2, sign, decay)
        v2, v3 = _average_square(p2, d2, v2, b2, c2, sign, decay), _average_square(p3, d3, v3, b2, c2, sign, decay)
        store4(exp_avg, j, m0, m1, m2, m3)
        store4(exp_avg_sq, j, v0, v1, v2, v3)
        if amsgrad:
            t0, t1, t2, t3 = load4(max_exp_avg_sq, j)
            v0, v1, v2, v3 = _larger(t0, v0), _larger(t1, v1), _larger(t2, v2), _larger(t3, v3)
            store4(max_exp_avg_sq, j, v0, v1, v2, v3)
        store4(param, j,
               _moved(p0, m0, v0, size, root, eps, shrink), _moved(p1, m1, v1, size, root, eps, shrink),
               _moved(p2, m2, v2, size, root, eps, shrink), _moved(p3, m3, v3, size, root, eps, shrink))
    else:
        j = int32(i + 3 * quads)
        if j < n:
            p, d = param[j], grad[j]
            m = _average(p, d, exp_avg[j], b1, c1, sign, decay)
            v = _average_square(p, d, exp_avg_sq[j], b2, c2, sign, decay)
            exp_avg[j], exp_avg_sq[j] = m, v
            if amsgrad:
                v = _larger(max_exp_avg_sq[j], v)
                max_exp_avg_sq[j] = v
            param[j] = _moved(p, m, v, size, root, eps, shrink)


def adam(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, step, settings, decoupled, maximize):
    """One step of Adam or AdamW, with AMSGrad if max_exp_avg_sq is not empty."""
    numbers = memory.scratch(12, param.dtype)
    _adam_numbers[1, 1](numbers, step, settings, decoupled, maximize)
    n, amsgrad = param.size, int(max_exp_avg_sq.size > 0)
    if n:
        offsets = param.offset | grad.offset | exp_avg.offset | exp_avg_sq.offset | max_exp_avg_sq.offset
        quads = quads_of(n, offsets)
        _adam[blocks(n - 3 * quads), THREADS](
            param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, numbers, n, quads, amsgrad)  # fmt: skip


def scale_inplace(x, scale):
    """x *= scale[0]."""
    mul(x, scale, x)


def fused_add(x, y):
    """x += y."""
    add(x, y, x)
