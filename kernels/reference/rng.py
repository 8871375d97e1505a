"""Random numbers from the counter-based generator Philox4x32-10 (Salmon et al. 2011, section 3.3).

state is a uint64 (2,) array (seed, counter). Block b of a call is Philox of the counter (counter + b, 0) under the
key seed; a call advances the counter by the number of blocks that it used. A float32 takes one 32-bit word of a
block, a float64 two, a dropout mask one.
"""

import numpy as np

_MASK = np.uint64(0xFFFFFFFF)


def philox(counter, key):
    """The ten rounds on counter words (4 arrays) and key words (2), all uint64 below 2**32; returns 4 arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> np.uint64(32)) ^ c1 ^ k0, p1 & _MASK, (p0 >> np.uint64(32)) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _MASK, (k1 + np.uint64(0xBB67AE85)) & _MASK
    return c0, c1, c2, c3


def _words(state, count):
    """The next `count` words, uint64 below 2**32, in order; advances the state."""
    blocks = -(-count // 4)
    with np.errstate(over="ignore"):
        numbers = state[1] + np.arange(blocks, dtype=np.uint64)
        state[1] += np.uint64(blocks)
        zero = np.zeros_like(numbers)
        seed = state[:1]
        key = seed & _MASK, seed >> np.uint64(32)
        words = philox((numbers & _MASK, numbers >> np.uint64(32), zero, zero), key)
    return np.stack(words, axis=1).reshape(-1)[:count]


def _uniform(count, dtype, state):
    if dtype == np.float32:
        return (_words(state, count) >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    pairs = _words(state, 2 * count).reshape(-1, 2)
    return ((pairs[:, 0] << np.uint64(21)) ^ (pairs[:, 1] >> np.uint64(11))).astype(np.float64) * 2**-53


def random_uniform(out, state):
    """out = uniform in [0, 1), from 24 bits (float32) or 53 (float64)."""
    out[...] = _uniform(out.size, out.dtype, state)


def random_normal(out, state):
    """out = standard normal numbers by pairs: √(-2 log(1 - u)) times cos and sin of 2πv (Box and Muller 1958)."""
    pairs = _uniform(out.size + out.size % 2, out.dtype, state).astype(np.float64).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log1p(-pairs[:, 0])), 2 * np.pi * pairs[:, 1]
    out[...] = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)[: out.size]


def dropout_forward(x, mask, out, state, p):
    """mask = True with probability 1 - p (a random word is at least p 2³²), out = x * mask / (1 - p); 0 x if p is 1."""
    mask[...] = _words(state, x.size) >= np.uint64(round(p * 2**32))
    dropout_backward(x, mask, out, p)


def dropout_backward(grad, mask, out, p):
    """out = grad * mask / (1 - p); 0 grad if p is 1."""
    scale = grad.dtype.type(1 / (1 - p) if p < 1 else 0)
    with np.errstate(all="ignore"):
        out[...] = grad * (mask * scale)
