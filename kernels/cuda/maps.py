"""Loops of one thread per element, or per eight: out = f(x), out = f(a, b), out = f(a, b) of operands that broadcast.

A thread of a large array takes two quads of elements, each by one 128-bit load, that lie half an array apart: so both
loads are on their way before the first is needed, and the loads of neighbouring threads are neighbours.
"""

from minigrad.kernels.cuda.language import (
    THREADS,
    Float,
    Int,
    Pointer,
    blocks,
    device_function,
    div32,
    int32,
    kernel,
    load4,
    store4,
    thread_index,
)

# From how many elements on a thread takes several. An H100 runs 132 * 2048 threads at once: as long as a thread per
# element is no more than that, all loads are on their way at once as it is, and a thread that does more takes longer.
WAVE = 1 << 18


def pairs_of(n, offsets):
    """How many threads take two quads each of `n` elements; `offsets` are those of all arrays, or-ed."""
    return n >> 3 if n >= WAVE and not offsets & 15 else 0


def quads_of(n, offsets):
    """How many threads take one quad each, of several arrays."""
    return n >> 2 if n >= WAVE and not offsets & 15 else 0


def named(name, body, **options):
    """A kernel of a function, under another name."""
    body.__name__ = name
    return kernel(body, **options)


def with_numbers(f, count):
    """A device function of `count` arrays' elements, that is also handed the two numbers of a loop, if f takes none."""
    f = device_function(f)
    if f.function.__code__.co_argcount > count:
        return f
    return device_function((lambda x, p, q: f(x)) if count == 1 else (lambda x, y, p, q: f(x, y)))


def map_one(name, f, result=Pointer, **options):
    """The kernel out = f(x) or f(x, p, q), with p and q numbers; call it as ``(x, out, p, q)``."""
    f = with_numbers(f, 1)

    def body(x: Pointer, out: result, n: Int, pairs: Int, p: Float, q: Float):
        i = thread_index()
        if i < pairs:
            j, k = int32(4 * i), int32(4 * (i + pairs))
            a0, a1, a2, a3 = load4(x, j)
            b0, b1, b2, b3 = load4(x, k)
            store4(out, j, f(a0, p, q), f(a1, p, q), f(a2, p, q), f(a3, p, q))
            store4(out, k, f(b0, p, q), f(b1, p, q), f(b2, p, q), f(b3, p, q))
        else:
            j = int32(i + 7 * pairs)
            if j < n:
                out[j] = f(x[j], p, q)

    run = named("_" + name, body, **options).launch

    def launch(x, out, p=0, q=0):
        n = out.size
        if n:
            pairs = pairs_of(n, x.offset | out.offset)
            run(blocks(n - 7 * pairs), THREADS, x, out, n, pairs, p, q)

    return launch


def map_two(name, f, result=Pointer, second=Pointer, **options):
    """The kernel out = f(a, b) or f(a, b, p, q) of three arrays of one size; call it as ``(a, b, out, p, q)``."""
    f = with_numbers(f, 2)

    def body(a: Pointer, b: second, out: result, n: Int, pairs: Int, p: Float, q: Float):
        i = thread_index()
        if i < pairs:
            j, k = int32(4 * i), int32(4 * (i + pairs))
            a0, a1, a2, a3 = load4(a, j)
            b0, b1, b2, b3 = load4(b, j)
            c0, c1, c2, c3 = load4(a, k)
            d0, d1, d2, d3 = load4(b, k)
            store4(out, j, f(a0, b0, p, q), f(a1, b1, p, q), f(a2, b2, p, q), f(a3, b3, p, q))
            store4(out, k, f(c0, d0, p, q), f(c1, d1, p, q), f(c2, d2, p, q), f(c3, d3, p, q))
        else:
            j = int32(i + 7 * pairs)
            if j < n:
                out[j] = f(a[j], b[j], p, q)

    run = named("_" + name, body, **options).launch

    def launch(a, b, out, p=0, q=0):
        n = out.size
        if n:
            pairs = pairs_of(n, a.offset | b.offset | out.offset)
            run(blocks(n - 7 * pairs), THREADS, a, b, out, n, pairs, p, q)

    return launch


# -- operands that broadcast -------------------------------------------------------------------------------------


@device_function
def quad(x, i, step):
    """x[i], x[i + 1], x[i + 2], x[i + 3], or x[i] four times where the step from element to element is 0."""
    if step == 0:
        value = x[i]
        return value, value, value, value
    return load4(x, i)


@device_function
def place(j, n1, n2, s0, s1, s2):
    """Where an operand of strides s0, s1, s2 has what belongs to element j of a result of shape (..., n1, n2)."""
    row = div32(j, n2)
    outer = div32(row, n1)
    return int32(outer * s0 + int32(row - outer * n1) * s1 + int32(j - row * n2) * s2)


def broadcast_strides(x):
    """The strides of a 3-D operand, or one in one dimension, in a result that it is broadcast to."""
    if len(x.shape) == 1:
        return 0, 0, int(x.size > 1)
    n0, n1, n2 = x.shape
    return n1 * n2 if n0 > 1 else 0, n2 if n1 > 1 else 0, int(n2 > 1)


def broadcast_width(out, offsets):
    """n1 and n2 of a result's shape (n0, n1, n2), and how many elements a thread takes: 4 in one row, or 1."""
    n1, n2 = out.shape[-2:] if len(out.shape) == 3 else (1, out.size)
    return n1, n2, 4 if out.size >= WAVE and n2 % 4 == 0 and not offsets & 15 else 1


def broadcast_two(name, f, result=Pointer, **options):
    """The kernel out = f(a, b) of operands that broadcast; call it as ``(a, b, out)``."""
    f = device_function(f)

    def body(a: Pointer, b: Pointer, out: result, n: Int, n1: Int, n2: Int, width: Int,
             a0: Int, a1: Int, a2: Int, b0: Int, b1: Int, b2: Int):  # fmt: skip
        j = int32(width * thread_index())
        if j < n:
            left, right = place(j, n1, n2, a0, a1, a2), place(j, n1, n2, b0, b1, b2)
            if width == 4:
                x0, x1, x2, x3 = quad(a, left, a2)
                y0, y1, y2, y3 = quad(b, right, b2)
                store4(out, j, f(x0, y0), f(x1, y1), f(x2, y2), f(x3, y3))
            else:
                out[j] = f(a[left], b[right])

    run = named(f"_{name}_broadcast", body, **options).launch

    def launch(a, b, out):
        n = out.size
        if n:
            n1, n2, width = broadcast_width(out, a.offset | b.offset | out.offset)
            run(blocks(-(-n // width)), THREADS, a, b, out, n, n1, n2, width,
                *broadcast_strides(a), *broadcast_strides(b))

    return launch
