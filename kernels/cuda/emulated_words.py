"""What the words of a kernel mean in the emulator: ``cuda``, ``math``, types, intrinsics."""

import math
import sys
from fractions import Fraction

import numpy as np
from numba import types

from minigrad.kernels.cuda import parts
from minigrad.kernels.cuda.intrinsics import (
    BELOW_TF32,
    TWINS,
    load4,
    mma_bf16_sync,
    mma_tf32_sync,
    store4,
    thread_index,
)
from minigrad.kernels.cuda.specialise import names_of, specialise
from minigrad.kernels.cuda.watched import BlockArray, Divergence, KernelError, LocalArray, Misaligned, Pointer, state
from minigrad.kernels.cuda.words import cuda as compiled_cuda

WARP = 32


def _wait(kind, value=None):
    """Stop the running thread at a barrier; returns what the barrier hands out."""
    frame = sys._getframe(2)
    thread = state.thread
    thread.request = kind, (frame.f_code, frame.f_lasti), value
    answer = thread.parent.switch()
    state.thread = thread
    return answer


def _lane(lanes, number):
    if number not in lanes:
        raise Divergence(f"a warp operation reads lane {number}, which does not take part")
    return lanes[number]


class _Shared:
    """``cuda.shared``."""

    @staticmethod
    def array(shape, dtype, alignment=None):
        """The block's array that belongs to this line of the kernel."""
        frame = sys._getframe(1)
        key = frame.f_code, frame.f_lasti
        if key not in state.shared:
            state.shared[key] = BlockArray(shape, _numpy_type(dtype), f"shared array of line {frame.f_lineno}")
        return state.shared[key]


class _Local:
    """``cuda.local``."""

    @staticmethod
    def array(shape, dtype, alignment=None):
        """A new array."""
        return LocalArray(shape, _numpy_type(dtype), f"local array of line {sys._getframe(1).f_lineno}")


def _numpy_type(dtype):
    return np.dtype(getattr(dtype, "name", dtype))


class Cuda:
    """`numba.cuda` as kernels see it."""

    shared, local, warpsize = _Shared, _Local, WARP

    @property
    def threadIdx(self):
        return state.thread.index

    @property
    def blockIdx(self):
        return state.block

    @property
    def blockDim(self):
        return state.extent

    @property
    def gridDim(self):
        return state.grid

    @property
    def laneid(self):
        return state.thread.number % WARP

    def syncthreads(self):
        _wait("syncthreads")

    def syncwarp(self, mask=0xFFFFFFFF):
        _wait("syncwarp")

    def shfl_sync(self, mask, value, lane):
        return _wait("shuffle", (value, lambda me, lanes: _lane(lanes, lane)))

    def shfl_xor_sync(self, mask, value, other):
        return _wait("shuffle", (value, lambda me, lanes: _lane(lanes, me ^ other)))

    def shfl_down_sync(self, mask, value, delta):
        return _wait("shuffle", (value, lambda me, lanes: lanes[me + delta if me + delta in lanes else me]))

    def shfl_up_sync(self, mask, value, delta):
        return _wait("shuffle", (value, lambda me, lanes: lanes[me - delta if me - delta in lanes else me]))

    def ballot_sync(self, mask, predicate):
        return _wait("shuffle", (predicate, lambda me, lanes: sum([1 << i for i, value in lanes.items() if value])))

    def match_any_sync(self, mask, value):
        def equal(me, lanes):
            return _int32(sum([1 << i for i, other in lanes.items() if other == lanes[me]]))

        return _wait("shuffle", (value, equal))

    def fma(self, a, b, c):
        if not math.isfinite(a * b + c):
            return a * b + c
        return type(c)(float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))))

    def popc(self, value):
        return bin(int(value) & 0xFFFFFFFF).count("1")

    def any_sync(self, mask, predicate):
        return self.ballot_sync(mask, predicate) != 0


cuda = Cuda()


def _rounded(function):
    """A function of a number that keeps its type, as CUDA's do."""

    def apply(x, *more):
        return type(x)(function(x, *more)) if isinstance(x, np.floating) else function(x, *more)

    return apply


def _quiet(function):
    """Of Python's math module: NaN and infinity instead of exceptions."""

    def apply(x):
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return apply


class Math:
    """`math` as kernels see it: of the argument's type, without exceptions."""

    inf, nan, pi, e = math.inf, math.nan, math.pi, math.e
    exp, log, log1p, expm1 = _rounded(np.exp), _rounded(np.log), _rounded(np.log1p), _rounded(np.expm1)
    exp2, log2, sqrt, tanh = _rounded(np.exp2), _rounded(np.log2), _rounded(np.sqrt), _rounded(np.tanh)
    sin, cos, floor, ceil, trunc = [_rounded(f) for f in (np.sin, np.cos, np.floor, np.ceil, np.trunc)]
    pow, fmod, fabs, copysign = _rounded(np.power), _rounded(np.fmod), _rounded(np.fabs), _rounded(np.copysign)
    erf, erfc = _rounded(_quiet(math.erf)), _rounded(_quiet(math.erfc))
    fmax, fmin = _rounded(np.fmax), _rounded(np.fmin)
    isnan, isinf, isfinite = np.isnan, np.isinf, np.isfinite


def _unsigned(bits):
    # In Numba uint32 plus uint32 is uint64, so both are 64-bit here, and cut where they are made.
    return lambda value: np.uint64(int(value) & ((1 << bits) - 1))


def _int32(value):
    return (int(value) + 2**31) % 2**32 - 2**31


_int32.name = "int32"  # as the type of a shared or local array


def _thread_index():
    return state.block.x * state.extent.x + state.thread.index.x


def _check_alignment(x, i):
    start, step = (x.offset, x.step) if isinstance(x, Pointer) else (0, x.values.itemsize)
    if (start + i * step) % min(16, 4 * step):
        raise Misaligned(f"{x.name}[{i}] is not at the start of four elements that one instruction can move")


def _load4(x, i):
    _check_alignment(x, i)
    return TWINS[load4](x, i)


def _store4(x, i, a, b, c, d):
    _check_alignment(x, i)
    TWINS[store4](x, i, a, b, c, d)


def _toward_zero(exact):
    """float32 numbers not larger than float64 ones: an assumption, the least exact that a card might do with sums."""
    rounded = exact.astype(np.float32)
    return np.where(np.abs(rounded) > np.abs(exact), np.nextafter(rounded, np.float32(0)), rounded)


def _tf32_elements(words):
    """The elements in words of tf32, one in each."""
    elements = words.view(np.float32)
    if ((words & BELOW_TF32) != 0)[np.isfinite(elements)].any():
        raise KernelError("mma_tf32_sync: an operand is not rounded to tf32")
    return [elements]


def _bf16_elements(words):
    """The elements in words of bfloat16: those in the lower halves, those in the upper ones."""
    return [(words << np.uint32(16)).view(np.float32), (words & np.uint32(0xFFFF0000)).view(np.float32)]


def _warp_product(lanes, elements):
    """The 16 x 8 elements of c + a @ b, from the fragments of all lanes; `elements` are those of words of a or b."""
    held = np.array([lanes[lane] for lane in range(WARP)], np.float32).reshape(8, 4, 10)
    a, b, c = np.empty((16, 8), np.float32), np.empty((8, 8), np.float32), np.empty((16, 8), np.float32)
    a[:8, :4], a[8:, :4], a[:8, 4:], a[8:, 4:] = [held[:, :, i] for i in range(4)]
    b[:4], b[4:] = held[:, :, 4].T, held[:, :, 5].T
    c[:8, 0::2], c[:8, 1::2], c[8:, 0::2], c[8:, 1::2] = [held[:, :, 6 + i] for i in range(4)]
    pairs = zip(elements(a.view(np.uint32)), elements(b.view(np.uint32)), strict=True)
    return _toward_zero(sum([x.astype(np.float64) @ y.astype(np.float64) for x, y in pairs], c))


def _mma_sync(elements):
    """A warp operation: who comes first makes the product for all."""

    def multiply(*fragments):
        def share(me, lanes):
            if "product" not in lanes:
                lanes["product"] = _warp_product(lanes, elements)
            product, g, t = lanes["product"], me >> 2, me & 3
            return product[g, 2 * t], product[g, 2 * t + 1], product[g + 8, 2 * t], product[g + 8, 2 * t + 1]

        return _wait("mma", (fragments, share))

    return multiply


WORDS = {
    **TWINS, thread_index: _thread_index, load4: _load4, store4: _store4, compiled_cuda: cuda, math: Math,
    mma_tf32_sync: _mma_sync(_tf32_elements), mma_bf16_sync: _mma_sync(_bf16_elements),
    types.int32: _int32, types.int64: int, types.uint32: _unsigned(32), types.uint64: _unsigned(64),
    types.float32: np.float32, types.float64: np.float64,
}  # fmt: skip
"""What the words of a kernel mean here."""


def waits(function):
    """Whether a kernel's function, or one that it calls, has a barrier or a warp operation."""
    names = names_of(function.__code__)
    if any(name.startswith("sync") or name.endswith("_sync") for name in names):
        return True
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    used = [function.__globals__[name] for name in names if name in function.__globals__] + cells
    return any(waits(thing.function) for thing in used if isinstance(thing, parts.DeviceFunction))


def translate(function, dtype):
    """A kernel's function with this module's meanings of its words, T being a NumPy type."""

    def substitute(thing):
        if thing is parts.T:
            return dtype.type
        if isinstance(thing, parts.DeviceFunction):
            return translate(thing.function, dtype)
        try:
            return WORDS.get(thing, thing)
        except TypeError:  # not hashable, so not a word of the language
            return thing

    return specialise(function, substitute)
