"""Scalar functions that LLVM turns into vectors: exp, log, tanh, pow, ... as polynomials without branches.

``math.exp`` in a loop is one call of the C library per element; these are a handful of multiplications. They are
compiled without ``reassoc`` and ``afn``: the first would fold the two steps of an argument reduction into one, the
second replaces a vector's division and square root, but not a lone scalar's, by an estimate, and so makes the
result depend on where a thread's share of the array begins.

The polynomials are Chebyshev interpolants, fitted with mpmath on the interval named beside each. Largest errors
against mpmath, in units in the last place (float32 / float64): see tests/kernels/test_elementwise.py.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

STRICT = {
    "error_model": "numpy",
    "nogil": True,
    "fastmath": {"contract"},
    "forceinline": True,
    "no_cpython_wrapper": True,  # never called from Python: a fifth of the compile time
}


def strict(function):
    """Compile a scalar function: always inlined, its arithmetic exactly as written (but for fused multiply-add)."""
    return numba.njit(function, **STRICT)


@strict
def finite(value):
    """Neither infinite nor NaN."""
    return value - value == 0


_BITS = {types.float32: types.int32, types.float64: types.int64}
_FLOATS = {bits: number for number, bits in _BITS.items()}

if numba.config.DISABLE_JIT:

    def bits_of(x):
        return x.view(np.int32) if isinstance(x, np.float32) else np.float64(x).view(np.int64)

    def float_of(i):
        return i.view(np.float32) if isinstance(i, np.int32) else np.int64(i).view(np.float64)

else:

    @intrinsic
    def bits_of(typingctx, x):
        """The bits of a float32 or float64 as an int32 or int64."""

        def emit(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

        return _BITS[x](x), emit

    @intrinsic
    def float_of(typingctx, i):
        """The float32 or float64 of these bits."""

        def emit(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

        return _FLOATS[i](i), emit


def by_type(single, double):
    """One scalar function out of its float32 and its float64 version."""

    def pick(x):
        return single(x) if isinstance(x, np.float32) else double(x)

    @overload(pick, jit_options=STRICT)
    def choose(x):
        return single if x == types.float32 else double

    return pick


def _reduce32(x):
    """x = n log 2 + r with |r| <= log(2) / 2; the low bits of `t` are n. Adding 1.5 * 2**23 rounds to an integer
    without the float-to-int conversion, which is undefined for NaN."""
    t = x * np.float32(1.4426950408889634) + np.float32(12582912.0)
    n = t - np.float32(12582912.0)
    r = x - n * np.float32(0.693359375)
    return r + n * np.float32(0.00021219444005469057), np.int32(bits_of(t) - np.int32(0x4B400000))


def _reduce64(x):
    t = x * 1.4426950408889634 + 6755399441055744.0
    n = t - 6755399441055744.0
    r = x - n * 0.6931471803691238
    return r - n * 1.9082149292705877e-10, bits_of(t) - 0x4338000000000000


def _power32(n):
    return float_of(np.int32(np.int32(n + np.int32(127)) << np.int32(23)))


def _power64(n):
    return float_of(np.int64(n + 1023) << np.int64(52))


def _tail32(r):
    """exp(r) - 1 for |r| <= log(2) / 2."""
    q = np.float32(0.00139262508314976117)
    q = q * r + np.float32(0.0083632328836826182)
    q = q * r + np.float32(0.0416665542129841503)
    q = q * r + np.float32(0.166665766661199283)
    q = q * r + np.float32(0.5)
    return q * (r * r) + r


def _tail64(r):
    q = 2.09147553258932022e-9
    q = q * r + 2.51053127296221018e-8
    q = q * r + 2.75572734787185805e-7
    q = q * r + 2.75572551700008874e-6
    q = q * r + 0.0000248015873256774619
    q = q * r + 0.000198412698750022788
    q = q * r + 0.00138888888888837112
    q = q * r + 0.00833333333332608312
    q = q * r + 0.0416666666666666698
    q = q * r + 0.16666666666666671
    q = q * r + 0.5
    return q * (r * r) + r


_reduce32, _reduce64, _power32, _power64, _tail32, _tail64 = map(
    strict, (_reduce32, _reduce64, _power32, _power64, _tail32, _tail64)
)


def _exp32(x):
    x = np.float32(-104.0) if x < np.float32(-104.0) else x
    x = np.float32(89.0) if x > np.float32(89.0) else x
    r, n = _reduce32(x)
    half = np.int32(n >> np.int32(1))  # two factors: 2**n alone would overflow, or be subnormal
    return (np.float32(1.0) + _tail32(r)) * _power32(half) * _power32(np.int32(n - half))


def _exp64(x):
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    r, n = _reduce64(x)
    half = n >> 1
    return (1.0 + _tail64(r)) * _power64(half) * _power64(n - half)


exp = by_type(_exp32, _exp64)


def _log32(x):
    small = x < np.float32(1.17549435e-38)
    y = x * np.float32(8388608.0) if small else x
    bits = np.int32(bits_of(y) - np.int32(0x3F3504F3))  # from √½: the mantissa comes out in [√½, √2)
    e = np.float32(np.int32(bits >> np.int32(23))) - (np.float32(23.0) if small else np.float32(0.0))
    f = float_of(np.int32(np.int32(bits & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3))) - np.float32(1.0)
    q = np.float32(-0.0767364150167402572)
    q = q * f + np.float32(0.127226727880109615)
    q = q * f + np.float32(-0.131275556512876516)
    q = q * f + np.float32(0.142048559525710139)
    q = q * f + np.float32(-0.166266456291274628)
    q = q * f + np.float32(0.200012344610934552)
    q = q * f + np.float32(-0.250007812398126962)
    q = q * f + np.float32(0.333333300283547969)
    q = q * f + np.float32(-0.5)
    result = (q * (f * f) - e * np.float32(0.00021219444005469057)) + f + e * np.float32(0.693359375)
    result = result if x < np.float32(np.inf) else x  # inf and NaN are their own logarithms
    result = np.float32(-np.inf) if x == np.float32(0.0) else result
    return np.float32(np.nan) if x < np.float32(0.0) else result


def _log64(x):
    small = x < 2.2250738585072014e-308
    y = x * 4503599627370496.0 if small else x
    bits = bits_of(y) - 0x3FE6A09E667F3BCD
    e = np.float64(bits >> 52) - (52.0 if small else 0.0)
    f = float_of((bits & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD) - 1.0
    s = f / (2.0 + f)  # log(1 + f) = 2 artanh(s)
    z = s * s
    q = 0.13094416666525344
    q = q * z + 0.132680261404287393
    q = q * z + 0.15386267672882225
    q = q * z + 0.181817951244767535
    q = q * z + 0.222222223965529808
    q = q * z + 0.285714285707822077
    q = q * z + 0.40000000000000912
    q = q * z + 0.666666666666666665
    half = 0.5 * f * f
    result = e * 0.6931471803691238 - ((half - (s * (half + q * z) + e * 1.9082149292705877e-10)) - f)
    result = result if x < np.inf else x
    result = -np.inf if x == 0.0 else result
    return np.nan if x < 0.0 else result


log = by_type(_log32, _log64)


def log1p(x):
    """log(1 + x) for x in [0, 1]: the logarithm of the rounded sum, plus what the rounding lost."""
    one = type(x)(1)
    u = one + x
    return log(u) + (x - (u - one)) / u


log1p = strict(log1p)


def _tanh32(x):
    a = abs(x)
    a = np.float32(10.0) if a > np.float32(10.0) else a
    r, n = _reduce32(a + a)
    power = _power32(n)
    t = power * _tail32(r) + (power - np.float32(1.0))  # exp(2 |x|) - 1, exact near 0
    t = t / (t + np.float32(2.0))
    return float_of(np.int32(bits_of(t) | np.int32(bits_of(x) & np.int32(-0x80000000))))


def _tanh64(x):
    a = abs(x)
    a = 20.0 if a > 20.0 else a
    r, n = _reduce64(a + a)
    power = _power64(n)
    t = power * _tail64(r) + (power - 1.0)
    t = t / (t + 2.0)
    return -t if x < 0.0 else t


tanh = by_type(_tanh32, _tanh64)


def _normal32(x):
    """Below |x| a tail of exp(-x²/2) A(|x|) / B(|x|) is left, a ratio of polynomials; from 13.2 on it is 0."""
    half, one, limit = np.float32(0.5), np.float32(1.0), np.float32(13.2)
    t = abs(x)
    t = limit if t > limit else t
    a = np.float32(0.00411619861930464184)
    a = a * t + np.float32(0.0406328695675709475)
    a = a * t + np.float32(0.18323465572033338)
    a = a * t + np.float32(0.43829519909697495)
    a = a * t + half
    b = np.float32(0.0103176601741455197)
    b = b * t + np.float32(0.101857944069458142)
    b = b * t + np.float32(0.469469183545470814)
    b = b * t + np.float32(1.20250258757870439)
    b = b * t + np.float32(1.67447537730534387)
    b = b * t + one
    r, n = _reduce32(-half * t * t)  # n is at least -126: one factor of the exponential instead of `exp`'s two
    power = (one + _tail32(r)) * _power32(n)
    power = np.float32(0.0) if t >= limit else power
    tail = power * a / b
    return (one - tail if x > np.float32(0.0) else tail), power


def _normal64(x):
    return 0.5 * math.erfc(x * -0.7071067811865476), exp(-0.5 * x * x)


# Φ(x), the normal distribution function, exact to a few units in the last place in its tail too, and exp(-x²/2). The
# ratio is to erf what exp is to exp - 1: gelu by way of 1 + erf loses its digits at x < -1, and took twice the time.
normal = by_type(_normal32, _normal64)


def _pow32(x, y):
    """x ** y by way of float64, whose 29 further bits are more than y log2 x loses: correctly rounded but for 1 in 100.

    Zero, infinity, NaN and negative bases as in C (IEEE 754-2019, 9.2.1), without a branch.
    """
    a, exponent = np.float64(abs(x)), np.float64(y)
    # a = 2**e m with m in [√½, √2). The shift is one of unsigned numbers: AVX2 has no other for 64 bits.
    bits = np.uint64(bits_of(a)) + np.uint64(0x00095F619980C433)
    e = float_of(np.int64((bits >> np.uint64(52)) | np.uint64(0x4330000000000000))) - 4503599627371519.0
    f = float_of(np.int64((bits & np.uint64(0xFFFFFFFFFFFFF)) + np.uint64(0x3FE6A09E667F3BCD))) - 1.0
    s = f / (2.0 + f)  # log2(1 + f) = 2 artanh(s) / log 2
    z = s * s
    q = 0.282901438725318678
    q = q * z + 0.319905612254389982
    q = q * z + 0.412209254323004503
    q = q * z + 0.577077942346740513
    q = q * z + 0.961796694113401338
    q = q * z + 2.88539008177784996
    logarithm = q * s + e
    logarithm = logarithm if a < np.inf else a
    logarithm = logarithm if a > 0.0 else (-np.inf if a == 0.0 else a)
    t = exponent * logarithm
    t = -200.0 if t < -200.0 else t
    t = 200.0 if t > 200.0 else t
    shifted = t + 6755399441055744.0
    r = t - (shifted - 6755399441055744.0)
    q = 0.0000152524923710900469  # 2**r, |r| <= ½
    q = q * r + 0.000154613290146878769
    q = q * r + 0.00133336703023914761
    q = q * r + 0.00961805703975830312
    q = q * r + 0.055504107268026469
    q = q * r + 0.240226509200345252
    q = q * r + 0.693147180581678632
    q = q * r + 1.0
    power = np.float32(q * float_of(np.int64((bits_of(shifted) + np.int64(1023)) << np.int64(52))))
    zero, one, half = np.float32(0.0), np.float32(1.0), y * np.float32(0.5)
    whole, infinite = np.floor(y) == y, abs(y) == np.float32(np.inf)
    negative = bits_of(x) < np.int32(0)  # minus zero is
    power = -power if negative & whole & (np.floor(half) != half) else power
    power = np.float32(np.nan) if (x < zero) & (a < np.inf) & (not whole) else power
    return one if (y == zero) | (x == one) | ((x == -one) & infinite) else power


def _pow64(x, y):
    return x**y


_pow32, _pow64 = strict(_pow32), strict(_pow64)


def pow(x, y):
    """x ** y of two floats of one type."""
    return _pow32(x, y) if isinstance(x, np.float32) else _pow64(x, y)


@overload(pow, jit_options=STRICT)
def _pow(x, y):
    return (lambda x, y: _pow32(x, y)) if x == types.float32 else (lambda x, y: _pow64(x, y))


def _turned32(quadrant, angle):
    """cos and sin of `quadrant` (0 to 3) right angles and an angle of at most π/4."""
    z = angle * angle
    s = np.float32(-0.000195876390987376193)
    s = s * z + np.float32(0.00833274710466453002)
    s = s * z + np.float32(-0.166666646563122088)
    s = s * z * angle + angle
    c = np.float32(0.000024547689772460029)
    c = c * z + np.float32(-0.00138883018675623691)
    c = c * z + np.float32(0.0416666646534887929)
    c = c * (z * z) + (np.float32(1.0) - np.float32(0.5) * z)
    swap = np.int32(quadrant & np.int32(1)) != np.int32(0)
    cosine, sine = (s if swap else c), (c if swap else s)
    cosine = -cosine if (quadrant == np.int32(1)) | (quadrant == np.int32(2)) else cosine
    return cosine, (-sine if quadrant >= np.int32(2) else sine)


def _turned64(quadrant, angle):
    z = angle * angle
    s = 1.59179889793974333e-10
    s = s * z + -2.50511298964501863e-8
    s = s * z + 2.75573160931984052e-6
    s = s * z + -0.000198412698367405321
    s = s * z + 0.00833333333333093655
    s = s * z + -0.166666666666666646
    s = s * z * angle + angle
    c = -1.13825446453492504e-11
    c = c * z + 2.08761450494131791e-9
    c = c * z + -2.755731726587808e-7
    c = c * z + 0.0000248015872987544012
    c = c * z + -0.00138888888888873898
    c = c * z + 0.0416666666666666654
    c = c * (z * z) + (1.0 - 0.5 * z)
    swap = (quadrant & 1) != 0
    cosine, sine = (s if swap else c), (c if swap else s)
    cosine = -cosine if (quadrant == 1) | (quadrant == 2) else cosine
    return cosine, (-sine if quadrant >= 2 else sine)


_turned32, _turned64 = strict(_turned32), strict(_turned64)


def _cos_sin32(x):
    """cos and sin of 2πx for x in [0, 1): quadrants are exact in x, and each leaves |angle| <= π/4."""
    t = x * np.float32(4.0) + np.float32(12582912.0)
    angle = (x * np.float32(4.0) - (t - np.float32(12582912.0))) * np.float32(1.5707963267948966)
    return _turned32(np.int32(bits_of(t) & np.int32(3)), angle)


def _cos_sin64(x):
    t = x * 4.0 + 6755399441055744.0
    angle = (x * 4.0 - (t - 6755399441055744.0)) * 1.5707963267948966
    return _turned64(bits_of(t) & 3, angle)


cos_sin = by_type(_cos_sin32, _cos_sin64)

# Up to which |x| `sin` and `cos` hold: n times a part of π/2 is exact, with fused multiply-add or without.
CIRCLE32, CIRCLE64 = 16777216.0, 1048576.0


def _quadrant32(x):
    """x = n π/2 + angle: n modulo 4 and the angle, |angle| <= π/4.

    In float64, with π/2 in parts of 29 and 53 bits: a float32 next to a multiple of π/2 keeps its digits.
    """
    wide = np.float64(x)
    t = wide * 0.6366197723675814 + 6755399441055744.0
    n = t - 6755399441055744.0
    angle = (wide - n * 1.570796325802803) - n * 9.920935796805404e-10
    return np.int32(bits_of(t) & 3), np.float32(angle)


def _quadrant64(x):
    """The same with π/2 in three parts of 33 bits and one of 53."""
    t = x * 0.6366197723675814 + 6755399441055744.0
    n = t - 6755399441055744.0
    angle = (x - n * 1.5707963267341256) - n * 6.077100506303966e-11
    angle = (angle - n * 2.0222662487111665e-21) - n * 8.4784276603689e-32
    return bits_of(t) & 3, angle


_quadrant32, _quadrant64 = strict(_quadrant32), strict(_quadrant64)


def _sin32(x):
    quadrant, angle = _quadrant32(x)
    sine = _turned32(quadrant, angle)[1]
    return sine if x != np.float32(0.0) else x  # minus zero is its own sine


def _sin64(x):
    quadrant, angle = _quadrant64(x)
    sine = _turned64(quadrant, angle)[1]
    return sine if x != 0.0 else x


def _cos32(x):
    quadrant, angle = _quadrant32(x)
    return _turned32(quadrant, angle)[0]


def _cos64(x):
    quadrant, angle = _quadrant64(x)
    return _turned64(quadrant, angle)[0]


sin, cos = by_type(_sin32, _sin64), by_type(_cos32, _cos64)


def sigmoid(x):
    one = type(x)(1)
    return one / (one + exp(-x))


sigmoid = strict(sigmoid)
