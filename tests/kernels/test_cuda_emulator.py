"""The emulator: it computes what CUDA would, and catches what CUDA would leave to chance."""

import numpy as np
import pytest

from minigrad.kernels.cuda import array, emulator, memory
from minigrad.kernels.cuda.language import (
    Float,
    Int,
    Pointer,
    T,
    Unsigned,
    cuda,
    device_function,
    div32,
    int32,
    int64,
    kernel,
    load4,
    math,
    rem32,
    store4,
    thread_index,
    uint32,
    uint64,
)


@device_function
def _half(x):
    return x * T(0.5)


@kernel
def _halve(x: Pointer, out: Pointer, n: Int, offset: Float):
    i = thread_index()
    if i < n:
        out[i] = _half(x[i]) + offset


@kernel
def _reverse(x: Pointer, out: Pointer, barrier: Int):
    shared = cuda.shared.array(64, T)
    t = cuda.threadIdx.x
    shared[t] = x[t]
    if barrier:
        cuda.syncthreads()
    out[t] = shared[63 - t]


@kernel
def _warp_sum(x: Pointer, out: Pointer):
    t = cuda.threadIdx.x
    value = x[t]
    for delta in (16, 8, 4, 2, 1):
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, delta)
    if t % 32 == 0:
        out[t // 32] = value


@kernel
def _divergent(out: Pointer):
    t = cuda.threadIdx.x
    if t < 32:
        cuda.syncthreads()
    out[t] = T(t)


@kernel
def _divergent_warp(out: Pointer):
    t = cuda.threadIdx.x
    if t != 5:
        out[t] = cuda.shfl_xor_sync(0xFFFFFFFF, T(t), 1)


@kernel
def _unwritten_shared(out: Pointer):
    shared = cuda.shared.array((2, 4), T)
    out[0] = shared[1, 3]


@kernel
def _unwritten_local(out: Pointer):
    local = cuda.local.array(3, T)
    local[0] = T(1)
    out[0] = local[0] + local[2]


@kernel
def _sum_into_one(x: Pointer, out: Pointer):
    out[0] += x[thread_index()]


@kernel
def _off_by_one(x: Pointer, out: Pointer, n: Int):
    i = thread_index()
    if i < n:
        out[i] = x[i + 1]


@kernel
def _four(x: Pointer, out: Pointer):
    a, b, c, d = load4(x, 4 * thread_index())
    store4(out, 4 * thread_index(), d, c, b, a)


@kernel
def _integers(out: Pointer[int64], a: Int, b: Unsigned):
    wide = uint64(b) * uint64(b)
    out[0], out[1], out[2] = div32(a, 7), rem32(a, 7), int32(a * a)
    out[3], out[4] = wide >> uint64(32), uint32(wide)


@kernel
def _functions(x: Pointer, out: Pointer):
    out[0], out[1], out[2] = math.exp(x[0]), math.log(x[1]), math.erf(x[2])
    out[3], out[4] = math.exp(x[3]), T(math.inf)


def sent(*values):
    return [array.from_host(np.asarray(v, np.float32)) for v in values]


def fresh(*shape):
    return array.empty(shape, np.float32)


def test_fresh_memory_is_nan():
    assert np.isnan(fresh(5).numpy()).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementwise(dtype):
    x = array.from_host(np.arange(10, dtype=dtype))
    out = array.empty((10,), dtype)
    _halve[2, 6](x, out, 10, 0.1)
    assert out.numpy().dtype == dtype
    np.testing.assert_array_equal(out.numpy(), np.arange(10, dtype=dtype) / 2 + dtype(0.1))


def test_shared_memory_and_barrier():
    (x,), out = sent(np.arange(64)), fresh(64)
    _reverse[1, 64](x, out, 1)
    np.testing.assert_array_equal(out.numpy(), np.arange(64)[::-1])


@pytest.mark.parametrize("seed", range(5))
def test_missing_barrier(seed):
    """Whatever the order: the element is read before it is written, or by a thread that nothing orders."""
    emulator.set_seed(seed)
    try:
        with pytest.raises((emulator.Race, emulator.Unwritten), match="shared array of line"):
            _reverse[1, 64](*sent(np.arange(64)), fresh(64), 0)
    finally:
        emulator.set_seed(0)


def test_shuffles():
    out = fresh(2)
    _warp_sum[1, 64](*sent(np.arange(64)), out)
    np.testing.assert_array_equal(out.numpy(), [sum(range(32)), sum(range(32, 64))])


def test_divergent_barrier():
    with pytest.raises(emulator.Divergence, match=r"_divergent: a barrier .*syncthreads.*at the end of the kernel"):
        _divergent[1, 64](fresh(64))


def test_divergent_warp():
    with pytest.raises(emulator.Divergence, match="a warp operation is not reached by all threads"):
        _divergent_warp[1, 32](fresh(32))


def test_unwritten():
    with pytest.raises(emulator.Unwritten, match=r"x\[\d+\] is read"):
        _halve[1, 8](fresh(8), fresh(8), 8, 0.0)
    with pytest.raises(emulator.Unwritten, match=r"shared array .*\[1, 3\] is read"):
        _unwritten_shared[1, 1](fresh(1))
    with pytest.raises(emulator.Unwritten, match=r"local array .*\[2\] is read"):
        _unwritten_local[1, 1](fresh(1))


def test_race_within_a_block_and_between_blocks():
    for grid, block in ((1, 2), (2, 1)):
        with pytest.raises(emulator.Race, match="out is (read|written) by thread . of block"):
            _sum_into_one[grid, block](*sent([1, 2], [0]))


def test_out_of_bounds():
    with pytest.raises(emulator.OutOfBounds, match=r"_off_by_one: x\[8\] is read, the array has 8 element"):
        _off_by_one[1, 8](*sent(np.arange(8)), fresh(8), 8)
    x = array.from_host(np.arange(8, dtype=np.float32))
    with pytest.raises(emulator.OutOfBounds):  # a view ends where it ends, not where its memory does
        _off_by_one[1, 4](x[:4], fresh(4), 4)


def test_four_at_once():
    out = fresh(8)
    _four[1, 2](*sent(np.arange(8)), out)
    np.testing.assert_array_equal(out.numpy(), [3, 2, 1, 0, 7, 6, 5, 4])


def test_integers():
    out = array.empty((5,), np.int64)
    b = 0xFFFFFFFF
    _integers[1, 1](out, 100_000, b)
    wrapped = 100_000**2 % 2**32
    expected = [100_000 // 7, 100_000 % 7, wrapped - 2**32 * (wrapped >= 2**31), b * b >> 32, b * b & 0xFFFFFFFF]
    np.testing.assert_array_equal(out.numpy(), expected)


def test_functions():
    out = fresh(5)
    _functions[1, 1](*sent([1, 2, 0.5, 1000]), out)
    np.testing.assert_allclose(out.numpy(), [np.e, np.log(2), 0.5204999, np.inf, np.inf], rtol=1e-6)


def test_arguments_are_checked():
    with pytest.raises(OverflowError, match="n: 2147483648 does not fit into 32 bits"):
        _halve[1, 1](*sent([1], [1]), 2**31, 0.0)
    with pytest.raises(TypeError, match="out: expected an array of int64, got float32"):
        _integers[1, 1](fresh(5), 1, 1)


def test_order_does_not_matter_to_a_right_kernel():
    (x,), results = sent(np.arange(64)), []
    for seed in range(3):
        emulator.set_seed(seed)
        out = fresh(64)
        _reverse[1, 64](x, out, 1)
        results.append(out.numpy())
    emulator.set_seed(0)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize(("grid", "block"), [(0, 32), ((1, 65536), 32), ((1, 1, 65536), 1), (1, 1025),
                                             (1, (2, 2, 128))])
def test_launches_that_no_gpu_makes(grid, block):
    with pytest.raises(emulator.KernelError, match=r"_halve: no GPU launches a grid of \("):
        _halve[grid, block](*sent([1], [1]), 1, 0.0)


def test_scratch_is_kept():
    first = memory.scratch(10, np.float32)
    assert memory.scratch(20, np.float64).memory is first.memory
    large = memory.scratch(100_000, np.float64)
    assert large.nbytes == 800_000 and memory.scratch(10, np.float32).memory is large.memory


def test_views():
    x = array.from_host(np.arange(12, dtype=np.float32))
    y = x.reshape(3, -1)
    assert y.shape == (3, 4) and y.base is x and x.base is None and y.address == x.address
    np.testing.assert_array_equal(x[4:8].numpy(), [4, 5, 6, 7])
    assert x[4:8].address - x.address == 16
    with pytest.raises(ValueError, match="12 elements"):
        x.reshape(5, 2)
