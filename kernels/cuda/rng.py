"""Random numbers from the counter-based generator Philox4x32-10 (Salmon et al. 2011, section 3.3).

A thread makes one or two blocks of four words. The state is advanced by a launch of its own, when all have read it.
"""

from minigrad.kernels.cuda.circle import turned
from minigrad.kernels.cuda.language import (
    THREADS,
    Float,
    Int,
    Pointer,
    T,
    Unsigned,
    blocks,
    device_function,
    int32,
    int64,
    kernel,
    load4,
    math,
    store4,
    thread_index,
    uint32,
    uint64,
)
from minigrad.kernels.cuda.maps import map_two

State = Pointer["uint64"]


@device_function
def _philox(number, seed):
    """Block `number` under the key `seed` (uint64): four words, uint32."""
    c0, c1, c2, c3 = uint32(number), uint32(number >> uint64(32)), uint32(0), uint32(0)
    k0, k1 = uint32(seed), uint32(seed >> uint64(32))
    for _ in range(10):
        p, q = uint64(0xD2511F53) * uint64(c0), uint64(0xCD9E8D57) * uint64(c2)
        c0, c1 = uint32(uint32(q >> uint64(32)) ^ c1 ^ k0), uint32(q)
        c2, c3 = uint32(uint32(p >> uint64(32)) ^ c3 ^ k1), uint32(p)
        k0, k1 = uint32(k0 + uint32(0x9E3779B9)), uint32(k1 + uint32(0xBB67AE85))
    return c0, c1, c2, c3


@device_function
def _number(state, block):
    """The counter of a block: uint64 plus int would be float64."""
    return state[1] + uint64(uint32(block))


@device_function
def _unit24(word):
    """Uniform in [0, 1) from 24 bits of a word."""
    return T(int32(word >> uint32(8))) * T(2.0**-24)


@device_function
def _unit53(high, low):
    """Uniform in [0, 1) from 53 bits of two words."""
    return T(int64((uint64(high) << uint64(21)) ^ (uint64(low) >> uint64(11)))) * T(2.0**-53)


@device_function
def _four24(state, i):
    a, b, c, d = _philox(_number(state, i), state[0])
    return _unit24(a), _unit24(b), _unit24(c), _unit24(d)


@device_function
def _four53(state, i):
    a, b, c, d = _philox(_number(state, 2 * i), state[0])
    e, f, g, h = _philox(_number(state, 2 * i + 1), state[0])
    return _unit53(a, b), _unit53(c, d), _unit53(e, f), _unit53(g, h)


@device_function
def _store(out, j, n, whole, a, b, c, d):
    """The elements j to j + 3 that there are; `whole` where all four are and one instruction can write them."""
    if whole and j + 4 <= n:
        store4(out, j, a, b, c, d)
    else:
        out[j] = a
        if j + 1 < n:
            out[j + 1] = b
        if j + 2 < n:
            out[j + 2] = c
        if j + 3 < n:
            out[j + 3] = d


@device_function
def _circle(u, v):
    """Two normal numbers (Box and Muller 1958): √(-2 log(1 - u)) times cos and sin of 2πv.

    The quadrant of the angle is exact in v, what is left of it at most π/4: no reduction by 2π, which takes libdevice
    a stack.
    """
    radius = math.sqrt(T(-2) * math.log(T(1) - u))
    quarters = math.floor(T(4) * v + T(0.5))
    angle = (T(4) * v - quarters) * T(1.5707963267948966)
    cosine, sine = turned(int32(quarters), angle)
    return radius * cosine, radius * sine


def _draws(bits, four, example):
    """The kernels that fill an array of a float type with uniform and with normal numbers."""

    def uniform(out: Pointer, state: State, n: Int, whole: Int):
        i = thread_index()
        j = int32(4 * i)
        if j < n:
            a, b, c, d = four(state, i)
            _store(out, j, n, whole, a, b, c, d)

    def normal(out: Pointer, state: State, n: Int, whole: Int):
        i = thread_index()
        j = int32(4 * i)
        if j < n:
            u, v, w, x = four(state, i)
            a, b = _circle(u, v)
            c, d = _circle(w, x)
            _store(out, j, n, whole, a, b, c, d)

    made = []
    for body in (uniform, normal):
        body.__name__ = f"_{body.__name__}{bits}"
        made.append(kernel(body, examples=((example,),), promises=("STG.E.128",)))
    return made


_uniform32, _normal32 = _draws(32, _four24, "float32")
_uniform64, _normal64 = _draws(64, _four53, "float64")


@kernel
def _advance(state: State, count: Unsigned):
    state[1] += uint64(count)


def _draw(single, double, out, state):
    n = out.size
    if n:
        words = out.dtype.itemsize // 4
        (single if words == 1 else double)[blocks(-(-n // 4)), THREADS](out, state, n, int(out.offset & 15 == 0))
        _advance[1, 1](state, -(-n * words // 4))


def random_uniform(out, state):
    """out = uniform in [0, 1), from 24 bits (float32) or 53 (float64)."""
    _draw(_uniform32, _uniform64, out, state)


def random_normal(out, state):
    """out = standard normal numbers by pairs: √(-2 log(1 - u)) times cos and sin of 2πv (Box and Muller 1958)."""
    _draw(_normal32, _normal64, out, state)


@kernel(promises=("LDG.E.128", "STG.E.128"))
def _dropout(x: Pointer, mask: Pointer["bool"], out: Pointer, state: State, n: Int, whole: Int, limit: Unsigned,
             none: Int, scale: Float):  # fmt: skip
    i = thread_index()
    j = int32(4 * i)
    if j < n:
        a, b, c, d = _philox(_number(state, i), state[0])
        some = none == 0
        ka, kb, kc, kd = some and a >= limit, some and b >= limit, some and c >= limit, some and d >= limit
        fa, fb = scale if ka else T(0), scale if kb else T(0)
        fc, fd = scale if kc else T(0), scale if kd else T(0)
        if whole and j + 4 <= n:
            xa, xb, xc, xd = load4(x, j)
            store4(mask, j, ka, kb, kc, kd)
            store4(out, j, xa * fa, xb * fb, xc * fc, xd * fd)
        else:
            mask[j], out[j] = ka, x[j] * fa
            if j + 1 < n:
                mask[j + 1], out[j + 1] = kb, x[j + 1] * fb
            if j + 2 < n:
                mask[j + 2], out[j + 2] = kc, x[j + 2] * fc
            if j + 3 < n:
                mask[j + 3], out[j + 3] = kd, x[j + 3] * fd


def dropout_forward(x, mask, out, state, p):
    """mask = True with probability 1 - p (a random word is at least p 2³²), out = x * mask / (1 - p); 0 x if p is 1."""
    n = x.size
    if n:
        limit = round(p * 2**32)  # 2³², of 33 bits, if p is 1: no word is as large
        none = int(limit >> 32)
        whole = int((x.offset | mask.offset | out.offset) & 15 == 0)
        scale = 1 / (1 - p) if p < 1 else 0.0
        _dropout[blocks(-(-n // 4)), THREADS](x, mask, out, state, n, whole, limit - (none << 32), none, scale)
        _advance[1, 1](state, -(-n // 4))


_dropout_backward = map_two("dropout_backward", lambda grad, kept, scale, _: grad * (scale if kept else T(0)),
                            second=Pointer["bool"], promises=("LDG.E.128", "STG.E.128"))  # fmt: skip


def dropout_backward(grad, mask, out, p):
    """out = grad * mask / (1 - p); 0 grad if p is 1."""
    _dropout_backward(grad, mask, out, 1 / (1 - p) if p < 1 else 0.0)
