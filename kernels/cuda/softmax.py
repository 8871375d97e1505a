"""logsumexp, softmax and log_softmax of x (M, R, K) over R, and their gradients from the output y.

Up to 8 elements a thread stay in its registers: one read, one exponential each, one write. Longer rows are read twice,
the maximum and the sum taken along together; where they are few, several blocks share one, leave a maximum and a sum
each in scratch memory, and a second launch begins with these.
"""

from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, device_function, divide, int32, kernel, math
from minigrad.kernels.cuda.memory import scratch
from minigrad.kernels.cuda.reduce_blocks import added, larger, place, plan, spread, tiles

HELD = (1, 8)  # elements of a thread that stay in registers
_largest, _sum = spread(larger), spread(added)


@device_function
def finite(top):
    """What is subtracted before exp: the maximum, or 0 if that is infinite or NaN (the sum says so by itself)."""
    return top if (top < T(math.inf)) & (top > T(-math.inf)) else T(0)


@device_function
def _taken_along(top, total, x, share):
    """Maximum and sum of exponentials, those of `share` elements at most x joined to them."""
    new = larger(top, x)
    shift = finite(new)
    return new, total * math.exp(top - shift) + share * math.exp(x - shift)


@device_function
def _log(top, total):
    return math.log(total)


@device_function
def _strict_log(top, total):
    return math.log(total + (top - top))  # NaN where the maximum is infinite


@device_function
def _strict_inverse(top, total):
    return divide(T(1), total + (top - top))


@device_function
def _logsumexp(x, top, last):
    return finite(top) + last


@device_function
def _softmax(x, top, last):
    return math.exp(x - top) * last


@device_function
def _log_softmax(x, top, last):
    return (x - top) - last


def _held(name, finish, result, count, reduced):
    """The kernel for at most `count` elements a thread."""

    def normalise(x: Pointer, out: Pointer, rows: Int, length: Int, inner: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        down, y = int32(cuda.blockDim.y), int32(cuda.threadIdx.y)
        at, step = int32((m * length + y) * inner + k), int32(down * inner)
        v = cuda.local.array(count, T)
        top, total = T(-math.inf), T(0)
        for j in range(count):
            v[j] = x[int32(at + j * step)] if y + j * down < length else T(-math.inf)
            top = larger(top, v[j])
        top = _largest(top)
        shift = finite(top)
        for j in range(count):
            total += math.exp(v[j] - shift)
        last = finish(top, _sum(total))
        if reduced:
            if there & (y == 0):
                out[m * inner + k] = result(T(0), top, last)
        else:
            for j in range(count):
                if there & (y + j * down < length):
                    out[int32(at + j * step)] = result(v[j], top, last)

    normalise.__name__ = f"_{name}_held_{count}"
    return kernel(normalise)


@device_function
def of_elements(x, m, k, first, stop, length, inner):
    """Maximum and sum of the thread's elements from `first` on."""
    top, total, r = T(-math.inf), T(0), int32(first)
    while r < stop:
        top, total = _taken_along(top, total, x[int32((m * length + r) * inner + k)], T(1))
        r = int32(r + cuda.blockDim.y)
    return top, total


@kernel
def _softmax_part(x: Pointer, parts: Pointer, rows: Int, length: Int, inner: Int, chunk: Int, strips: Int):
    """Maximum and sum of a part of each row, side by side."""
    m, k, there = place(rows, inner, strips)
    part = int32(cuda.blockIdx.y)
    stop = int32(min((part + 1) * chunk, length))
    top, total = of_elements(x, m, k, part * chunk + cuda.threadIdx.y, stop, length, inner)
    most = _largest(top)
    total = _sum(total * math.exp(top - finite(most)))
    if there & (cuda.threadIdx.y == 0):
        at = int32(2 * ((m * cuda.gridDim.y + part) * inner + k))
        parts[at], parts[at + 1] = most, total


def _long(name, finish, result, reduced):
    """The kernel for any number of elements, or of parts (`many`)."""

    def normalise(x: Pointer, parts: Pointer, out: Pointer, many: Int, rows: Int, length: Int, inner: Int, chunk: Int,
                  strips: Int):
        m, k, there = place(rows, inner, strips)
        down, y = int32(cuda.blockDim.y), int32(cuda.threadIdx.y)
        if many:
            top, total, part = T(-math.inf), T(0), int32(y)
            while part < many:
                at = int32(2 * ((m * many + part) * inner + k))
                top, total = _taken_along(top, total, parts[at], parts[at + 1])
                part = int32(part + down)
        else:
            top, total = of_elements(x, m, k, y, length, length, inner)
        most = _largest(top)
        last = finish(most, _sum(total * math.exp(top - finite(most))))
        if reduced:
            if there & (y == 0):
                out[m * inner + k] = result(T(0), most, last)
        else:
            r = int32(cuda.blockIdx.y * chunk + y)
            stop = int32(min((cuda.blockIdx.y + 1) * chunk, length)) if there else int32(0)
            while r < stop:
                at = int32((m * length + r) * inner + k)
                out[at] = result(x[at], most, last)
                r = int32(r + down)

    normalise.__name__ = f"_{name}_long"
    return kernel(normalise)


def _kernels(name, finish, result, reduced):
    return [_held(name, finish, result, count, reduced) for count in HELD], _long(name, finish, result, reduced)


_KERNELS = {
    "logsumexp": _kernels("logsumexp", _log, _logsumexp, True),
    "softmax": _kernels("softmax", _strict_inverse, _softmax, False),
    "log_softmax": _kernels("log_softmax", _strict_log, _log_softmax, False),
}


def _normalise(name, x, out):
    rows, length, inner = x.shape
    if not out.size:
        return
    held, long = _KERNELS[name]
    p = plan(rows, length, inner, split=False)
    each = tiles(length, p.block[1])
    if each <= HELD[-1]:
        held[each > 1][p.grid, p.block](x, out, rows, length, inner, p.strips)
        return
    p = plan(rows, length, inner)
    numbers = rows, length, inner, p.chunk, p.strips
    if p.parts == 1:
        long[p.grid, p.block](x, x, out, 0, *numbers)
        return
    parts = scratch(2 * rows * p.parts * inner, x.dtype)
    _softmax_part[p.grid, p.block](x, parts, *numbers)
    grid = (p.grid[0], 1) if name == "logsumexp" else p.grid
    long[grid, p.block](x, parts, out, p.parts, *numbers)


def logsumexp(x, out):
    """out (M, K) = log Σ exp(x) over R, without overflow; -inf if R is 0."""
    _normalise("logsumexp", x, out)


def softmax(x, out):
    """out (M, R, K) = exp(x) / Σ exp(x)."""
    _normalise("softmax", x, out)


def log_softmax(x, out):
    """out (M, R, K) = x - log Σ exp(x)."""
    _normalise("log_softmax", x, out)


# -- gradients -----------------------------------------------------------------------------------------------------


@device_function
def _product(y, grad):
    return y * grad


@device_function
def _above(y, grad):
    return grad


@device_function
def _softmax_grad(y, grad, total):
    return y * (grad - total)


@device_function
def _log_softmax_grad(y, grad, total):
    return grad - math.exp(y) * total


def _grad_held(name, term, result, count):
    """The kernel out = result(y, grad, Σ term(y, grad)) for at most `count` elements a thread."""

    def gradient(y: Pointer, grad: Pointer, out: Pointer, rows: Int, length: Int, inner: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        down, first = int32(cuda.blockDim.y), int32(cuda.threadIdx.y)
        at, step = int32((m * length + first) * inner + k), int32(down * inner)
        v, g, total = cuda.local.array(count, T), cuda.local.array(count, T), T(0)
        for j in range(count):
            if first + j * down < length:
                v[j], g[j] = y[int32(at + j * step)], grad[int32(at + j * step)]
            else:
                v[j], g[j] = T(0), T(0)
        for j in range(count):
            total += term(v[j], g[j])
        total = _sum(total)
        for j in range(count):
            if there & (first + j * down < length):
                out[int32(at + j * step)] = result(v[j], g[j], total)

    gradient.__name__ = f"_{name}_held_{count}"
    return kernel(gradient)


def _grad_long(name, term, result):
    """Two kernels: for any number of elements or parts; the sums of parts."""

    @device_function
    def terms(y, grad, m, k, first, stop, length, inner):
        total, r = T(0), int32(first)
        while r < stop:
            at = int32((m * length + r) * inner + k)
            total += term(y[at], grad[at])
            r = int32(r + cuda.blockDim.y)
        return total

    def part(y: Pointer, grad: Pointer, parts: Pointer, rows: Int, length: Int, inner: Int, chunk: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        number = int32(cuda.blockIdx.y)
        stop = int32(min((number + 1) * chunk, length))
        total = _sum(terms(y, grad, m, k, number * chunk + cuda.threadIdx.y, stop, length, inner))
        if there & (cuda.threadIdx.y == 0):
            parts[(m * cuda.gridDim.y + number) * inner + k] = total

    def gradient(y: Pointer, grad: Pointer, parts: Pointer, out: Pointer, many: Int, rows: Int, length: Int, inner: Int,
                 chunk: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        down, first, total = int32(cuda.blockDim.y), int32(cuda.threadIdx.y), T(0)
        if many:
            number = int32(first)
            while number < many:
                total += parts[(m * many + number) * inner + k]
                number = int32(number + down)
        else:
            total = terms(y, grad, m, k, first, length, length, inner)
        total = _sum(total)
        r = int32(cuda.blockIdx.y * chunk + first)
        stop = int32(min((cuda.blockIdx.y + 1) * chunk, length)) if there else int32(0)
        while r < stop:
            at = int32((m * length + r) * inner + k)
            out[at] = result(y[at], grad[at], total)
            r = int32(r + down)

    part.__name__, gradient.__name__ = f"_{name}_part", f"_{name}_long"
    return kernel(part), kernel(gradient)


def _gradients(name, term, result):
    return [_grad_held(name, term, result, count) for count in HELD], *_grad_long(name, term, result)


_GRADIENTS = {
    "softmax_grad": _gradients("softmax_grad", _product, _softmax_grad),
    "log_softmax_grad": _gradients("log_softmax_grad", _above, _log_softmax_grad),
}


def _gradient(name, y, grad, out):
    rows, length, inner = y.shape
    if not out.size:
        return
    held, part, long = _GRADIENTS[name]
    p = plan(rows, length, inner, split=False)
    each = tiles(length, p.block[1])
    if each <= HELD[-1]:
        held[each > 1][p.grid, p.block](y, grad, out, rows, length, inner, p.strips)
        return
    p = plan(rows, length, inner)
    numbers = rows, length, inner, p.chunk, p.strips
    if p.parts == 1:
        long[p.grid, p.block](y, grad, y, out, 0, *numbers)
        return
    parts = scratch(rows * p.parts * inner, y.dtype)
    part[p.grid, p.block](y, grad, parts, *numbers)
    long[p.grid, p.block](y, grad, parts, out, p.parts, *numbers)


def softmax_grad(y, grad, out):
    """out = y (grad - Σ y grad)."""
    _gradient("softmax_grad", y, grad, out)


def log_softmax_grad(y, grad, out):
    """out = grad - exp(y) Σ grad."""
    _gradient("log_softmax_grad", y, grad, out)
