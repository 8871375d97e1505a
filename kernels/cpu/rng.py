"""Random numbers from the counter-based generator Philox4x32-10 (Salmon et al. 2011, section 3.3)."""

import numpy as np

from minigrad.kernels.cpu.compile import kernel
from minigrad.kernels.cpu.vector_math import cos_sin, log, strict

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@strict
def philox(number, seed):
    """Block `number` under the key `seed` (uint64): four words, uint64 below 2**32."""
    c0, c1, c2, c3 = number & _LOW, number >> _32, np.uint64(0), np.uint64(0)
    k0, k1 = seed & _LOW, seed >> _32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return c0, c1, c2, c3


@strict
def _unit32(word):
    return np.float32(np.int32(word >> np.uint64(8))) * np.float32(2.0**-24)


@strict
def _unit64(first, second):
    return np.float64(np.int64((first << np.uint64(21)) ^ (second >> np.uint64(11)))) * 2.0**-53


@kernel
def random_uniform(out, state):
    T = out.dtype.type
    if out.itemsize == 4:
        blocks = (out.size + 3) // 4
    else:
        blocks = (out.size + 1) // 2
    for b in range(blocks):
        w0, w1, w2, w3 = philox(state[1] + np.uint64(b), state[0])
        if out.itemsize == 4:
            values = (T(_unit32(w0)), T(_unit32(w1)), T(_unit32(w2)), T(_unit32(w3)))
            for j in range(4):
                if 4 * b + j < out.size:
                    out[4 * b + j] = values[j]
        else:
            pair = (T(_unit64(w0, w1)), T(_unit64(w2, w3)))
            for j in range(2):
                if 2 * b + j < out.size:
                    out[2 * b + j] = pair[j]
    state[1] += np.uint64(blocks)


@kernel
def random_normal(out, state):
    T = out.dtype.type
    per_block = 4 if out.itemsize == 4 else 2
    blocks = (out.size + per_block - 1) // per_block
    for b in range(blocks):
        w0, w1, w2, w3 = philox(state[1] + np.uint64(b), state[0])
        for j in range(per_block // 2):
            if out.itemsize == 4:
                u = T(_unit32(w0 if j == 0 else w2))
                v = T(_unit32(w1 if j == 0 else w3))
            else:
                u = T(_unit64(w0, w1))
                v = T(_unit64(w2, w3))
            radius = np.sqrt(T(-2) * log(T(1) - u))
            c, s = cos_sin(v)
            i = per_block * b + 2 * j
            out[i] = radius * c
            if i + 1 < out.size:
                out[i + 1] = radius * s
            if i + 2 >= out.size:
                break
    state[1] += np.uint64(blocks)


@kernel
def dropout_forward(x, mask, out, state, p):
    T = x.dtype.type
    scale = T(1.0 / (1.0 - p)) if p < 1.0 else T(0)
    limit = np.uint64(round(p * 4294967296.0))
    blocks = (x.size + 3) // 4
    for b in range(blocks):
        words = philox(state[1] + np.uint64(b), state[0])
        for j in range(4):
            i = 4 * b + j
            if i < x.size:
                keep = words[j] >= limit
                mask[i] = keep
                out[i] = x[i] * (scale if keep else T(0))
    state[1] += np.uint64(blocks)


@kernel
def dropout_backward(grad, mask, out, p):
    T = grad.dtype.type
    scale = T(1.0 / (1.0 - p)) if p < 1.0 else T(0)
    for i in range(grad.size):
        out[i] = grad[i] * (scale if mask[i] else T(0))
