"""The kernels of `reduction`. They do not stand there because there `max` and `min` are its own."""

from minigrad.kernels.cuda.language import (
    THREADS,
    WARP,
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
)
from minigrad.kernels.cuda.reduce_blocks import (
    ALL,
    added,
    folded,
    larger,
    place,
    smaller,
    thread_of_block,
    unchanged,
)

FLOAT = (("float32",) * 3,)
NUMBER = (("float32",) * 3, ("int64",) * 3)
TRUTH = (("uint8",) * 3,)


@device_function
def _zero(x, at):
    return T(0)


@device_function
def _one(x, at):
    return T(1)


@device_function
def _first(x, at):
    return x[at]


@device_function
def _itself(x, centre):
    return x


@device_function
def _square(x, centre):
    return x * x


@device_function
def _square_about(x, centre):
    return (x - centre) * (x - centre)


@device_function
def _total(total, divisor):
    return total


@device_function
def _mean(total, divisor):
    return divide(total, T(divisor))


@device_function
def _as_int(value):
    return int32(value)


def reducer(name, start, element, combine, finish, word=unchanged, centred=False, by_four=False, examples=FLOAT):
    """A kernel: out = finish(the elements combined, divisor).

    Every thread begins with start(x, an index inside its part), so `combine` has to bear that several begin with the
    same element. With `by_four`, K is 1 and R counts quadruples.
    """
    fold = folded(combine, word)
    lanes = 4 if by_four else 1

    def reduce(x: Pointer, centre: Pointer, out: Pointer, rows: Int, length: Int, inner: Int, chunk: Int, strips: Int,
               divisor: Float):
        m, k, there = place(rows, inner, strips)
        part, parts, down = int32(cuda.blockIdx.y), int32(cuda.gridDim.y), int32(cuda.blockDim.y)
        stop = int32(min((part + 1) * chunk, length))
        r = int32(part * chunk + cuda.threadIdx.y)
        step = int32(down * inner * lanes)
        begin = int32((m * length + min(r, stop - 1)) * inner + k) * lanes
        at = int32(begin)
        middle = centre[m * inner + k] if centred else T(0)
        a = start(x, begin)
        b, c, d = a, a, a
        if by_four:
            while r + down < stop:  # both loads are under way before either is used
                first, second = load4(x, at), load4(x, int32(at + step))
                a, b = combine(a, element(first[0], middle)), combine(b, element(first[1], middle))
                c, d = combine(c, element(first[2], middle)), combine(d, element(first[3], middle))
                a, b = combine(a, element(second[0], middle)), combine(b, element(second[1], middle))
                c, d = combine(c, element(second[2], middle)), combine(d, element(second[3], middle))
                r, at = int32(r + 2 * down), int32(at + 2 * step)
            if r < stop:
                first = load4(x, at)
                a, b = combine(a, element(first[0], middle)), combine(b, element(first[1], middle))
                c, d = combine(c, element(first[2], middle)), combine(d, element(first[3], middle))
        else:
            while r + 3 * down < stop:
                p, q, s, t = x[at], x[at + step], x[at + 2 * step], x[at + 3 * step]
                a, b = combine(a, element(p, middle)), combine(b, element(q, middle))
                c, d = combine(c, element(s, middle)), combine(d, element(t, middle))
                r, at = int32(r + 4 * down), int32(at + 4 * step)
            while r < stop:
                a = combine(a, element(x[at], middle))
                r, at = int32(r + down), int32(at + step)
        total = fold(combine(combine(a, b), combine(c, d)))
        if there & (cuda.threadIdx.y == 0):
            out[(m * parts + part) * inner + k] = finish(total, divisor)

    reduce.__name__ = f"_{name}_by_four" if by_four else f"_{name}"
    return kernel(reduce, examples=examples, promises=("LDG.E.128",) if by_four else ())


def both(*arguments, **options):
    """The `reducer` of any x, and the one that loads four elements at once."""
    return reducer(*arguments, **options), reducer(*arguments, **options, by_four=True)


sums = both("sum", _zero, _itself, added, _total, examples=NUMBER)
means = both("mean", _zero, _itself, added, _mean)
squares = both("sum_of_squares", _zero, _square, added, _total)
squares_about = both("squares_about", _zero, _square_about, added, _total, centred=True)
variances = both("variance", _zero, _square_about, added, _mean, centred=True)
largest = both("max", _first, _itself, larger, _total, examples=NUMBER)
smallest = both("min", _first, _itself, smaller, _total, examples=NUMBER)
truth_of_any = (reducer("any", _zero, _itself, larger, _total, _as_int, examples=TRUTH),) * 2
truth_of_all = (reducer("all", _one, _itself, smaller, _total, _as_int, examples=TRUTH),) * 2


@device_function
def _above(b, j, a, i):
    """Whether b, at j, is the maximum rather than a, at i: NaN before numbers, of equals the first."""
    return ((b != b) & ((a == a) | (j < i))) | (b > a) | ((b == a) & (j < i))


@device_function
def _below(b, j, a, i):
    return ((b != b) & ((a == a) | (j < i))) | (b < a) | ((b == a) & (j < i))


def finder(name, better, result, of_places=False):
    """A kernel: out = where in R the best element is. With `of_places` it looks only there where the parts found it."""

    def find(x: Pointer, places: Pointer["int32"], out: Pointer["int64"], extent: Int, rows: Int, length: Int,
             inner: Int, chunk: Int, strips: Int):
        m, k, there = place(rows, inner, strips)
        part, parts, down = int32(cuda.blockIdx.y), int32(cuda.gridDim.y), int32(cuda.blockDim.y)
        across, group = int32(cuda.blockDim.x), int32(cuda.blockDim.x * down)
        stop = int32(min((part + 1) * chunk, length))
        r = int32(min(part * chunk + cuda.threadIdx.y, stop - 1))
        best = places[(m * length + r) * inner + k] if of_places else r
        value = x[(m * extent + best) * inner + k]
        r = int32(r + down)
        step = int32(down * inner)
        while (not of_places) & (r + 3 * down < stop):  # four loads are under way together
            at = int32((m * extent + r) * inner + k)
            p, q, s, t = x[at], x[at + step], x[at + 2 * step], x[at + 3 * step]
            value, best = (p, r) if better(p, r, value, best) else (value, best)
            value, best = (q, int32(r + down)) if better(q, r + down, value, best) else (value, best)
            value, best = (s, int32(r + 2 * down)) if better(s, r + 2 * down, value, best) else (value, best)
            value, best = (t, int32(r + 3 * down)) if better(t, r + 3 * down, value, best) else (value, best)
            r = int32(r + 4 * down)
        while r < stop:
            here = places[(m * length + r) * inner + k] if of_places else r
            new = x[(m * extent + here) * inner + k]
            if better(new, here, value, best):
                value, best = new, here
            r = int32(r + down)
        for step in range(5):
            distance = WARP >> (step + 1)
            new, here = cuda.shfl_down_sync(ALL, value, distance), cuda.shfl_down_sync(ALL, best, distance)
            if (across <= distance < group) & better(new, here, value, best):
                value, best = new, here
        stride = int32(max(across, WARP))
        if group > stride:
            values, indices = cuda.shared.array(THREADS, T), cuda.shared.array(THREADS, int32)
            own = thread_of_block()
            values[own], indices[own] = value, best
            cuda.syncthreads()
            if cuda.threadIdx.y == 0:
                i = int32(own + stride)
                while i < own + group:
                    if better(values[i], indices[i], value, best):
                        value, best = values[i], indices[i]
                    i = int32(i + stride)
        if there & (cuda.threadIdx.y == 0):
            out[(m * parts + part) * inner + k] = best

    find.__annotations__["out"] = result
    find.__name__ = f"_{name}_of_places" if of_places else f"_{name}"
    return kernel(find, examples=(("float32",), ("int64",)))


INDEX, PART = Pointer["int64"], Pointer["int32"]
argmax_of_values = finder("argmax_part", _above, PART), finder("argmax", _above, INDEX)
argmin_of_values = finder("argmin_part", _below, PART), finder("argmin", _below, INDEX)
argmax_of_places = finder("argmax", _above, INDEX, of_places=True)
argmin_of_places = finder("argmin", _below, INDEX, of_places=True)
