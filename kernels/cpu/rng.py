"""Random numbers from the counter-based generator Philox4x32-10 (Salmon et al. 2011, section 3.3)."""

import numpy as np

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.elementwise import PARALLEL, blocks, span
from minigrad.kernels.cpu.parallel import parallel_for, parallel_kernel, scratch
from minigrad.kernels.cpu.vector_math import cos_sin, log, strict

LANES = 256  # Philox blocks that a task makes side by side
WORDS = 4 * LANES
PARALLEL_RANDOM = 16384  # numbers: Philox takes about 1 ns a word
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@strict
def philox(number, seed):
    """Block `number` under the key `seed` (uint64): four words, uint64 below 2**32."""
    c0, c1, c2, c3 = number & _LOW, number >> _HALF, np.uint64(0), np.uint64(0)
    k0, k1 = seed & _LOW, seed >> _HALF
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return c0, c1, c2, c3


@inline
def _words(block, seed, counter, words):
    """The words of LANES Philox blocks, in order."""
    first = counter + np.uint64(block) * np.uint64(LANES)
    for lane in range(LANES):
        w0, w1, w2, w3 = philox(first + np.uint64(lane), seed)
        words[4 * lane] = np.uint32(w0)
        words[4 * lane + 1] = np.uint32(w1)
        words[4 * lane + 2] = np.uint32(w2)
        words[4 * lane + 3] = np.uint32(w3)


@strict
def _unit(words, i, like):
    """Uniform number i in [0, 1): 24 bits of a word for float32, 53 bits of two words for float64."""
    if like.itemsize == 4:
        return like.dtype.type(np.int32(words[i] >> np.uint32(8))) * like.dtype.type(2.0**-24)
    high, low = np.uint64(words[2 * i]), np.uint64(words[2 * i + 1])
    return like.dtype.type(np.int64((high << np.uint64(21)) ^ (low >> np.uint64(11)))) * like.dtype.type(2.0**-53)


@inline
def _uniform_block(block, out, seed, counter):
    words = scratch(np.uint32(0), WORDS)
    _words(block, seed, counter, words)
    each = 4 * WORDS // out.itemsize
    target = out[block * each : min((block + 1) * each, out.size)]
    for i in range(target.size):
        target[i] = _unit(words, i, out)


@inline
def _normal_block(block, out, seed, counter):
    """Pairs (Box and Muller 1958): √(-2 log(1 - u)) times cos and sin of 2πv."""
    words = scratch(np.uint32(0), WORDS)
    _words(block, seed, counter, words)
    each = 4 * WORDS // out.itemsize
    target, one = out[block * each : min((block + 1) * each, out.size)], out.dtype.type(1)
    for i in range(target.size // 2):
        radius = np.sqrt(out.dtype.type(-2) * log(one - _unit(words, 2 * i, out)))
        cosine, sine = cos_sin(_unit(words, 2 * i + 1, out))
        target[2 * i] = radius * cosine
        target[2 * i + 1] = radius * sine
    if target.size % 2:
        i = target.size - 1
        radius = np.sqrt(out.dtype.type(-2) * log(one - _unit(words, i, out)))
        target[i] = radius * cos_sin(_unit(words, i + 1, out))[0]


@parallel_kernel
def random_uniform(out, state):
    each = 4 * WORDS // out.itemsize
    parallel_for(_uniform_block, (out.size + each - 1) // each, out.size >= PARALLEL_RANDOM, (out, state[0], state[1]))
    state[1] += np.uint64((out.size * (out.itemsize // 4) + 3) // 4)


@parallel_kernel
def random_normal(out, state):
    each = 4 * WORDS // out.itemsize
    parallel_for(_normal_block, (out.size + each - 1) // each, out.size >= PARALLEL_RANDOM, (out, state[0], state[1]))
    state[1] += np.uint64((out.size * (out.itemsize // 4) + 3) // 4)


@inline
def _dropout_block(block, x, mask, out, seed, counter, limit, scale):
    words = scratch(np.uint32(0), WORDS)
    _words(block, seed, counter, words)
    start, stop = block * WORDS, min((block + 1) * WORDS, x.size)
    source, kept, target, zero = x[start:stop], mask[start:stop], out[start:stop], x.dtype.type(0)
    for i in range(target.size):
        keep = np.uint64(words[i]) >= limit
        kept[i] = keep
        target[i] = source[i] * (scale if keep else zero)


@parallel_kernel
def dropout_forward(x, mask, out, state, p):
    scale = x.dtype.type(1.0 / (1.0 - p) if p < 1.0 else 0.0)
    limit = np.uint64(round(p * 4294967296.0))
    arguments = (x, mask, out, state[0], state[1], limit, scale)
    parallel_for(_dropout_block, (x.size + WORDS - 1) // WORDS, x.size >= PARALLEL_RANDOM, arguments)
    state[1] += np.uint64((x.size + 3) // 4)


@inline
def _dropout_backward_block(block, grad, mask, out, scale):
    start, stop = span(block, out.size)
    source, kept, target, zero = grad[start:stop], mask[start:stop], out[start:stop], grad.dtype.type(0)
    for i in range(target.size):
        target[i] = source[i] * (scale if kept[i] else zero)


@parallel_kernel
def dropout_backward(grad, mask, out, p):
    scale = grad.dtype.type(1.0 / (1.0 - p) if p < 1.0 else 0.0)
    parallel_for(_dropout_backward_block, blocks(out.size), out.size >= PARALLEL, (grad, mask, out, scale))
