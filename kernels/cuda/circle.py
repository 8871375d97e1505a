"""Sine and cosine without a stack: libdevice's keep the bits of 2 / π for a large argument in local memory."""

from minigrad.kernels.cuda.language import (
    T,
    bits_of,
    cuda,
    device_function,
    int32,
    math,
    uint32,
    uint64,
)
from minigrad.kernels.cuda.maps import map_one, public


@device_function
def turned(quadrant, angle):
    """cos and sin of `quadrant` right angles (0 to 4) and an angle of at most π/4.

    The polynomials are fitted for float64; the last terms change nothing in float32.
    """
    z = angle * angle
    s = T(1.59179889793974333e-10)
    s = s * z + T(-2.50511298964501863e-8)
    s = s * z + T(2.75573160931984052e-6)
    s = s * z + T(-0.000198412698367405321)
    s = s * z + T(0.00833333333333093655)
    s = s * z + T(-0.166666666666666646)
    s = s * z * angle + angle
    c = T(-1.13825446453492504e-11)
    c = c * z + T(2.08761450494131791e-9)
    c = c * z + T(-2.755731726587808e-7)
    c = c * z + T(0.0000248015872987544012)
    c = c * z + T(-0.00138888888888873898)
    c = c * z + T(0.0416666666666666654)
    c = c * (z * z) + (T(1) - T(0.5) * z)
    odd = quadrant == int32(1) or quadrant == int32(3)
    cosine, sine = (s if odd else c), (c if odd else s)
    cosine = -cosine if quadrant == int32(1) or quadrant == int32(2) else cosine
    sine = -sine if quadrant == int32(2) or quadrant == int32(3) else sine
    return cosine, sine


@device_function
def _one_of(i, a, b, c, d, e):
    """The word number i of five: an array would be a stack."""
    return a if i == int32(0) else b if i == int32(1) else c if i == int32(2) else d if i == int32(3) else e


@device_function
def _shifted(high, low, shift):
    """The upper word of two, shifted to the left by 0 to 31 bits."""
    both = (uint64(high) << uint64(32)) | uint64(low)
    return uint64(uint32(both >> uint64(int32(32) - shift)))


@device_function
def _far(x):
    """Quadrant and angle of a float32 of at least 2**16 (Payne and Hanek 1983): x times 96 bits of 2 / π.

    |x| is m * 2**e. Bits of 2 / π that times 2**e are multiples of four right angles do not matter; the 96 that follow
    leave, times m, two bits of quadrant and 62 of an angle, which is 2**-31 or more.
    """
    bits = bits_of(abs(x))
    m = uint64(uint32(bits & uint32(0x7FFFFF)) | uint32(0x800000))
    first = int32(int32(bits >> uint32(23)) - int32(120))  # of the bits, counted from 32 zeros before the point
    i, shift = int32(first >> int32(5)), int32(first & int32(31))
    p0, p1, p2, p3 = uint32(0), uint32(0xA2F9836E), uint32(0x4E441529), uint32(0xFC2757D1)
    p4, p5, p6, p7 = uint32(0xF534DDC0), uint32(0xDB629599), uint32(0x3C439041), uint32(0xFE5163AB)
    a, b = _one_of(i, p0, p1, p2, p3, p4), _one_of(i, p1, p2, p3, p4, p5)
    c, d = _one_of(i, p2, p3, p4, p5, p6), _one_of(i, p3, p4, p5, p6, p7)
    low = m * _shifted(b, c, shift) + ((m * _shifted(c, d, shift)) >> uint64(32))
    high = m * _shifted(a, b, shift) + (low >> uint64(32))
    turns = uint64(high << uint64(32)) | uint64(uint32(low))
    quadrant = int32(turns >> uint64(62))
    part = uint64(turns << uint64(2))
    over = part >> uint64(63) != uint64(0)  # more than half a right angle: what the next one lacks
    angle = T(uint64(~part) if over else part) * T(8.515303950216386e-20)  # π/2 * 2**-64
    angle = (-angle if over else angle) + (x - x)  # infinity and NaN have none
    quadrant = int32(quadrant + int32(1)) if over else quadrant
    return (int32(-quadrant), -angle) if x < T(0) else (quadrant, angle)


@device_function
def _cos_sin32(x):
    """Fused multiply-adds with π/2 in three parts of 24 bits keep all digits next to its multiples."""
    if abs(x) <= T(65536):
        n = math.floor(x * T(0.6366197723675814) + T(0.5))
        angle = cuda.fma(-n, T(1.5707963705062866), x)
        angle = cuda.fma(-n, T(-4.371138828673793e-08), angle)
        angle = cuda.fma(-n, T(-1.7151245100058819e-15), angle)
        quadrant = int32(n)
    else:
        quadrant, angle = _far(x)
    return turned(int32(quadrant & int32(3)), angle)


@device_function
def _cos_sin64(x):
    """The same with parts of 53 bits; NaN from 2**30 on, whose reduction would take 18 times as many bits of 2 / π."""
    near = abs(x) <= T(1073741824)
    n = math.floor(x * T(0.6366197723675814) + T(0.5)) if near else T(0)
    angle = cuda.fma(-n, T(1.5707963267948966), x)
    angle = cuda.fma(-n, T(6.123233995736766e-17), angle)
    angle = cuda.fma(-n, T(-1.4973849048591698e-33), angle)
    cosine, sine = turned(int32(int32(n) & int32(3)), angle)
    return (cosine, sine) if near else (T(math.nan), T(math.nan))


def circular(name, f32, f64):
    """The kernel out[i] = f(x[i]), in a version for each type."""
    wide = ("LDG.E.128", "STG.E.128")
    single = map_one(name, f32, promises=wide)
    double = map_one(f"{name}64", f64, promises=wide, examples=(("float64", "float64"),))

    def launch(x, out):
        (double if x.dtype == "float64" else single)(x, out)

    return public(name, launch)


# Zero is its own sine, with its sign.
sin = circular("sin", lambda x: _cos_sin32(x)[1] if x != T(0) else x, lambda x: _cos_sin64(x)[1] if x != T(0) else x)
cos = circular("cos", lambda x: _cos_sin32(x)[0], lambda x: _cos_sin64(x)[0])
