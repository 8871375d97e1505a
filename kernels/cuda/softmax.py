"""logsumexp, softmax and log_softmax of x (M, R, K) over R, and their gradients from the output y.

What threads can hold in their registers is read once: up to 8192 elements of rows that can be read four elements at a
time, 2048 of other rows, fewer of columns. What is longer is read twice, the maximum and the sum taken along together;
the second time from its end, which was read last and may still be in a cache. Where long rows are few, several blocks
share one, leave a maximum and a sum each in scratch memory, and a second launch begins with these.
"""

from minigrad.kernels.cuda.held import HOLDING, ITEMS, LARGE, fours, held_plan, loader, long_plan, storer
from minigrad.kernels.cuda.language import (
    Int,
    Pointer,
    T,
    cuda,
    device_function,
    divide,
    int32,
    kernel,
    load4,
    math,
    store4,
)
from minigrad.kernels.cuda.memory import scratch
from minigrad.kernels.cuda.reduce_blocks import added, larger, place, spread

LOADED = 2  # quads of a long row that a thread loads at once
ELEMENTS = 4 * LOADED
QUADS = ("LDG.E.128", "STG.E.128")
_largest, _sum = spread(larger), spread(added)
_largest_of_large, _sum_of_large = spread(larger, LARGE), spread(added, LARGE)


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


def _held(name, finish, powers, reduced, by_four):
    """The kernel for what threads can hold; with `powers` it is softmax, that needs each exponential once more."""
    items, threads = ITEMS[by_four], HOLDING[by_four]
    count, largest, sum = items * (4 if by_four else 1), spread(larger, threads), spread(added, threads)
    load, store = loader(by_four, items), storer(by_four, items)

    def normalise(x: Pointer, out: Pointer, rows: Int, length: Int, inner: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        y = int32(cuda.threadIdx.y)
        at = int32(4 * (m * length + y)) if by_four else int32((m * length + y) * inner + k)
        v, top, total = cuda.local.array(count, T), T(-math.inf), T(0)
        load(v, x, at, y, length, inner, T(-math.inf))
        for j in range(count):
            top = larger(top, v[j])
        top = largest(top)
        shift = finite(top)
        for j in range(count):
            v[j] -= shift
            power = math.exp(v[j])
            total += power
            if powers:
                v[j] = power
        last = finish(top, sum(total))
        if reduced:
            if there & (y == 0):
                out[m * inner + k] = shift + last
        else:
            for j in range(count):
                v[j] = v[j] * last if powers else v[j] - last
            store(v, out, at, y, length if there else int32(0), inner)

    normalise.__name__ = f"_{name}_held" + "_by_four" * by_four
    return kernel(normalise, promises=(QUADS[:1] if reduced else QUADS) if by_four else ())


@device_function
def of_elements(x, m, k, first, stop, length, inner):
    """Maximum and sum of the thread's elements from `first` on."""
    top, total, r = T(-math.inf), T(0), int32(first)
    while r < stop:
        top, total = _taken_along(top, total, x[int32((m * length + r) * inner + k)], T(1))
        r = int32(r + cuda.blockDim.y)
    return top, total


_load = loader(True, LOADED)


@device_function
def of_quads(x, m, k, first, stop, length, inner):
    """The same of rows of `length` quads."""
    v, top, total, r = cuda.local.array(ELEMENTS, T), T(-math.inf), T(0), int32(first)
    while r < stop:
        _load(v, x, int32(4 * (m * length + r)), r, stop, inner, T(-math.inf))
        new = top
        for j in range(ELEMENTS):
            new = larger(new, v[j])
        shift = finite(new)
        total *= math.exp(top - shift)
        for j in range(ELEMENTS):
            total += math.exp(v[j] - shift)
        top, r = new, int32(r + LOADED * cuda.blockDim.y)
    return top, total


def _part(by_four):
    """The kernel: maximum and sum of a part of each row, side by side."""
    of_items = of_quads if by_four else of_elements

    def part_of_rows(x: Pointer, parts: Pointer, rows: Int, length: Int, inner: Int, chunk: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        part = int32(cuda.blockIdx.y)
        stop = int32(min((part + 1) * chunk, length))
        top, total = of_items(x, m, k, part * chunk + cuda.threadIdx.y, stop, length, inner)
        most = _largest(top)
        total = _sum(total * math.exp(top - finite(most)))
        if there & (cuda.threadIdx.y == 0):
            at = int32(2 * ((m * cuda.gridDim.y + part) * inner + k))
            parts[at], parts[at + 1] = most, total

    part_of_rows.__name__ = "_softmax_part" + "_by_four" * by_four
    return kernel(part_of_rows, promises=QUADS[:1] if by_four else ())


def _long(name, finish, powers, reduced, by_four):
    """The kernel for any number of elements, or of parts (`many`)."""
    of_items = of_quads if by_four else of_elements
    largest, sum = (_largest_of_large, _sum_of_large) if by_four else (_largest, _sum)

    @device_function
    def result(x, top, last):
        return math.exp(x - top) * last if powers else (x - top) - last

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
            top, total = of_items(x, m, k, y, length, length, inner)
        most = largest(top)
        last = finish(most, sum(total * math.exp(top - finite(most))))
        if reduced:
            if there & (y == 0):
                out[m * inner + k] = finite(most) + last
        else:
            first = int32(cuda.blockIdx.y * chunk)
            r = int32(min(first + chunk, length) - 1 - y if there else int32(-1))
            while r >= first:
                if by_four:
                    at = int32(4 * (m * length + r))
                    a, b, c, d = load4(x, at)
                    store4(out, at, result(a, most, last), result(b, most, last), result(c, most, last),
                           result(d, most, last))
                else:
                    at = int32((m * length + r) * inner + k)
                    out[at] = result(x[at], most, last)
                r = int32(r - down)

    normalise.__name__ = f"_{name}_long" + "_by_four" * by_four
    return kernel(normalise, promises=(QUADS[:1] if reduced else QUADS) if by_four else ())


def _kernels(name, finish, powers, reduced):
    """Those that hold, and those that do not; each of any x and by four."""
    return [[make(name, finish, powers, reduced, four) for four in (False, True)] for make in (_held, _long)]


_KERNELS = {
    "logsumexp": _kernels("logsumexp", _log, False, True),
    "softmax": _kernels("softmax", _strict_inverse, True, False),
    "log_softmax": _kernels("log_softmax", _strict_log, False, False),
}
_PARTS = _part(False), _part(True)


def _normalise(name, x, out):
    rows, length, inner = x.shape
    if not out.size:
        return
    held, long = _KERNELS[name]
    four, length = fours(length, inner, x) if name == "logsumexp" else fours(length, inner, x, out)
    p = held_plan(rows, length, inner, four)
    if p is not None:
        held[four][p.grid, p.block](x, out, rows, length, inner, p.strips)
        return
    p = long_plan(rows, length, inner, four, x.dtype)
    numbers = rows, length, inner, p.chunk, p.strips
    if p.parts == 1:
        long[four][p.grid, p.block](x, x, out, 0, *numbers)
        return
    parts = scratch(2 * rows * p.parts * inner, x.dtype)
    _PARTS[four][p.grid, p.block](x, parts, *numbers)
    grid = (p.grid[0], 1) if name == "logsumexp" else p.grid
    long[four][grid, p.block](x, parts, out, p.parts, *numbers)


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


def _grad_held(name, term, result, by_four):
    """The kernel out = result(y, grad, Σ term(y, grad)) for what threads can hold."""
    items, count = ITEMS[by_four], ITEMS[by_four] * (4 if by_four else 1)
    load, store, sum = loader(by_four, items), storer(by_four, items), spread(added, HOLDING[by_four])

    def gradient(y: Pointer, grad: Pointer, out: Pointer, rows: Int, length: Int, inner: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        first = int32(cuda.threadIdx.y)
        at = int32(4 * (m * length + first)) if by_four else int32((m * length + first) * inner + k)
        v, g, total = cuda.local.array(count, T), cuda.local.array(count, T), T(0)
        load(v, y, at, first, length, inner, T(0))
        load(g, grad, at, first, length, inner, T(0))
        for j in range(count):
            total += term(v[j], g[j])
        total = sum(total)
        for j in range(count):
            v[j] = result(v[j], g[j], total)
        store(v, out, at, first, length if there else int32(0), inner)

    gradient.__name__ = f"_{name}_held" + "_by_four" * by_four
    return kernel(gradient, promises=QUADS if by_four else ())


def _grad_long(name, term, result, by_four):
    """Two kernels: for any number of elements or parts; the sums of parts."""
    sum = _sum_of_large if by_four else _sum

    @device_function
    def terms(y, grad, m, k, first, stop, length, inner):
        total, r = T(0), int32(first)
        if by_four:
            v, g = cuda.local.array(ELEMENTS, T), cuda.local.array(ELEMENTS, T)
            while r < stop:
                at = int32(4 * (m * length + r))
                _load(v, y, at, r, stop, inner, T(0))
                _load(g, grad, at, r, stop, inner, T(0))
                for j in range(ELEMENTS):
                    total += term(v[j], g[j])
                r = int32(r + LOADED * cuda.blockDim.y)
        else:
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
        down, thread, total = int32(cuda.blockDim.y), int32(cuda.threadIdx.y), T(0)
        if many:
            number = int32(thread)
            while number < many:
                total += parts[(m * many + number) * inner + k]
                number = int32(number + down)
        else:
            total = terms(y, grad, m, k, thread, length, length, inner)
        total = sum(total)
        first = int32(cuda.blockIdx.y * chunk)
        r = int32(min(first + chunk, length) - 1 - thread if there else int32(-1))
        while r >= first:
            if by_four:
                at = int32(4 * (m * length + r))
                v, g = load4(y, at), load4(grad, at)
                store4(out, at, result(v[0], g[0], total), result(v[1], g[1], total), result(v[2], g[2], total),
                       result(v[3], g[3], total))
            else:
                at = int32((m * length + r) * inner + k)
                out[at] = result(y[at], grad[at], total)
            r = int32(r - down)

    part.__name__ = f"_{name}_part" + "_by_four" * by_four
    gradient.__name__ = f"_{name}_long" + "_by_four" * by_four
    return (kernel(part, promises=QUADS[:1] if by_four else ()), kernel(gradient, promises=QUADS if by_four else ()))


def _gradients(name, term, result):
    """The kernel that holds, the two that do not; of any arrays and by four."""
    return [(_grad_held(name, term, result, four), *_grad_long(name, term, result, four)) for four in (False, True)]


_GRADIENTS = {
    "softmax_grad": _gradients("softmax_grad", _product, _softmax_grad),
    "log_softmax_grad": _gradients("log_softmax_grad", _above, _log_softmax_grad),
}


def _gradient(name, y, grad, out):
    rows, length, inner = y.shape
    if not out.size:
        return
    four, length = fours(length, inner, y, grad, out)
    held, part, long = _GRADIENTS[name][four]
    p = held_plan(rows, length, inner, four)
    if p is not None:
        held[p.grid, p.block](y, grad, out, rows, length, inner, p.strips)
        return
    p = long_plan(rows, length, inner, four, y.dtype)
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
