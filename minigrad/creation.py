"""Tensors from values, shapes and random numbers."""

import operator

import numpy as np

from minigrad import dtypes
from minigrad.device import cpu, get_device
from minigrad.dtypes import as_dtype, float32, float64, int64, is_float
from minigrad.modes import on_host
from minigrad.ops.common import as_shape, check_tensor
from minigrad.random import default_generator
from minigrad.tensor import Tensor


def _finish(array, device, requires_grad):
    out = Tensor(array, device)
    return out.requires_grad_() if requires_grad else out


def tensor(data, dtype=None, device=None, requires_grad=False):
    """A tensor with a copy of some values.

    Parameters
    ----------
    data : number, nested sequence, numpy.ndarray or Tensor
    dtype : dtype, optional
        float32, float64, int64 or bool. Left out: int64 or bool if the values are, float64 if they are a NumPy array
        or tensor of it, else float32.
    device : Device or str, optional
    requires_grad : bool

    Raises
    ------
    TypeError, ValueError
        If the values are not numbers, or rows have different lengths.
    """
    typed = isinstance(data, (np.ndarray, np.generic, Tensor))
    try:
        array = np.asarray(data.numpy() if isinstance(data, Tensor) else data)
    except ValueError:
        raise ValueError("tensor: expected rows of one length, got a ragged nested sequence") from None
    if dtype is None:
        dtype = dtypes.of_values(array)
        if dtype == dtypes.float64 and not typed:
            dtype = float32
    elif array.dtype.kind not in "biuf":
        raise TypeError(f"tensor: expected numbers or booleans, got an array of type {array.dtype}")
    device = get_device(device)
    return _finish(device.copy_of(array, as_dtype(dtype)), device, requires_grad)


def from_numpy(array, device=None):
    """A tensor with the values of a NumPy array; on the CPU it shares the array's memory.

    A copy is made where memory cannot be shared: for another element type than float32, float64, int64 or bool
    (smaller integers become int64, other floats float32), for an array that is not in C order, and for a read-only
    one.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}")
    device = get_device(device)
    dtype = dtypes.of_values(array)
    return Tensor(device.from_numpy(array.astype(dtype) if array.dtype != dtype else array), device)


def from_dlpack(array):
    """A tensor that shares the memory of another library's array, on the CPU or on the GPU.

    Parameters
    ----------
    array : object with ``__dlpack__``
        A PyTorch or JAX tensor, a CuPy or NumPy array, of float32, float64, int64 or bool and in C order.

    Raises
    ------
    TypeError
        If it does not speak DLPack.
    ValueError
        If its memory cannot be shared; the sentence says why.
    """
    if not hasattr(array, "__dlpack__"):
        raise TypeError(f"from_dlpack: expected an array with __dlpack__, got {type(array).__name__}")
    if array.__dlpack_device__()[0] == cpu.dlpack_device[0]:
        values = np.from_dlpack(array)
        if values.dtype != dtypes.of_values(values) or not (values.flags.c_contiguous and values.flags.writeable):
            raise ValueError("from_dlpack: expected a writable array of float32, float64, int64 or bool in C order, "
                             f"got one of {values.dtype}; copy it with minigrad.tensor(...)")
        return Tensor(values, cpu)
    device = get_device("cuda")
    return Tensor(device.from_dlpack(array), device)


def _extents(op, shape):
    shape = as_shape(op, shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"{op}: expected extents of at least 0, got shape {shape}")
    return shape


def full(shape, value, dtype=None, device=None, requires_grad=False):
    """A tensor of a shape with one value everywhere; int64 or bool if the value is, else float32."""
    device = get_device(device)
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (int, float)):
        raise TypeError(f"full: expected the value as a number, got {type(value).__name__}")
    if dtype is None:
        dtype = dtypes.bool if isinstance(value, bool) else dtypes.int64 if isinstance(value, int) else float32
    shape = _extents("full", (shape,) if isinstance(shape, int) else tuple(shape))
    return _finish(device.full(shape, value, as_dtype(dtype)), device, requires_grad)


def zeros(*shape, dtype=float32, device=None, requires_grad=False):
    """A tensor of zeros."""
    return full(_extents("zeros", shape), 0, dtype, device, requires_grad)


def ones(*shape, dtype=float32, device=None, requires_grad=False):
    """A tensor of ones."""
    return full(_extents("ones", shape), 1, dtype, device, requires_grad)


def _like(op, x, dtype, device):
    """The shape of `x`, and its dtype and device where no others are given."""
    check_tensor(op, x)
    return x.shape, dtype or x.dtype, device or x.device


def full_like(x, value, dtype=None, *, device=None, requires_grad=False):
    """A tensor of one value with the shape and (unless others are given) the dtype and device of `x`."""
    shape, dtype, device = _like("full_like", x, dtype, device)
    return full(shape, value, dtype, device, requires_grad)


def zeros_like(x, dtype=None, *, device=None, requires_grad=False):
    """A tensor of zeros with the shape and (unless others are given) the dtype and device of `x`."""
    shape, dtype, device = _like("zeros_like", x, dtype, device)
    return full(shape, 0, dtype, device, requires_grad)


def ones_like(x, dtype=None, *, device=None, requires_grad=False):
    """A tensor of ones with the shape and (unless others are given) the dtype and device of `x`."""
    shape, dtype, device = _like("ones_like", x, dtype, device)
    return full(shape, 1, dtype, device, requires_grad)


def arange(start, stop=None, step=1, dtype=None, device=None, requires_grad=False):
    """The numbers ``start, start + step, ...`` below `stop`; int64 if all three are ints, else float32."""
    start, stop = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise ValueError("arange: expected a step other than 0")
    values = np.arange(start, stop, step)
    return tensor(values, as_dtype(dtype) if dtype else dtypes.int64 if values.dtype.kind == "i" else float32, device,
                  requires_grad)


def linspace(start, stop, steps, dtype=float32, device=None, requires_grad=False):
    """`steps` numbers from `start` to `stop`, both included."""
    return tensor(np.linspace(start, stop, steps), dtype, device, requires_grad)


def eye(n, dtype=float32, device=None):
    """The identity matrix of size n."""
    return tensor(np.eye(n), dtype, device)


def _random(op, kernel, shape, dtype, device, requires_grad, generator):
    device, dtype = get_device(device), as_dtype(dtype)
    if not is_float(dtype):
        raise TypeError(f"{op}: expected dtype float32 or float64, got {dtype}")
    out = device.empty(_extents(op, shape), dtype)
    state = (generator or default_generator).state(device)
    getattr(device.kernels, kernel)(out.ravel(), state)
    return _finish(out, device, requires_grad)


def randn(*shape, dtype=float32, device=None, requires_grad=False, generator=None):
    """Numbers drawn from the standard normal distribution."""
    return _random("randn", "random_normal", shape, dtype, device, requires_grad, generator)


def rand(*shape, dtype=float32, device=None, requires_grad=False, generator=None):
    """Numbers drawn uniformly from [0, 1)."""
    return _random("rand", "random_uniform", shape, dtype, device, requires_grad, generator)


def randn_like(x, dtype=None, *, device=None, requires_grad=False, generator=None):
    """Standard normal numbers with the shape and (unless others are given) the dtype and device of `x`."""
    return _random("randn_like", "random_normal", *_like("randn_like", x, dtype, device), requires_grad, generator)


def rand_like(x, dtype=None, *, device=None, requires_grad=False, generator=None):
    """Uniform numbers from [0, 1) with the shape and (unless others are given) the dtype and device of `x`."""
    return _random("rand_like", "random_uniform", *_like("rand_like", x, dtype, device), requires_grad, generator)


def randint(low=0, high=None, size=None, *, dtype=int64, device=None, generator=None):
    """Integers drawn uniformly from `low` to ``high - 1``.

    Parameters
    ----------
    low : int
        Left out, 0: ``randint(10, (3, 2))`` draws three times two digits.
    high : int
    size : int or sequence of int
        The shape.
    dtype : dtype
    device : Device or str, optional
    generator : Generator, optional

    Raises
    ------
    ValueError
        If no integer lies between them, or more than 2**53 do.
    """
    if size is None:  # randint(high, size), as PyTorch has it
        low, high, size = 0, low, high
    try:
        low, high = operator.index(low), operator.index(high)
    except TypeError:
        raise TypeError(f"randint: expected low, high and size: two ints and a shape, got {low!r}, {high!r} and "
                        f"{size!r}") from None
    if not 0 < high - low <= 2**53:  # as many numbers as a draw of float64 tells apart
        raise ValueError(f"randint: expected low < high, at most 2**53 apart, got {low} and {high}")
    drawn = _random("randint", "random_uniform", (size,), float64, device, False, generator)
    return ((drawn * float(high - low)).long() + low).to(as_dtype(dtype))


def randperm(n, *, dtype=int64, device=None, generator=None):
    """The integers from 0 to ``n - 1`` in random order, every order as likely as any other.

    Parameters
    ----------
    n : int
    dtype : dtype
    device : Device or str, optional
    generator : Generator, optional
    """
    device = get_device(device)
    keys = _random("randperm", "random_uniform", ((n,),), float64, device, False, generator)
    order = device.empty(keys.shape, int64)
    # There is no kernel that sorts: the host does, in every replay of a recorded step too.
    on_host(lambda: device.write(order, np.argsort(keys.numpy(), kind="stable")))
    return Tensor(order, device).to(as_dtype(dtype))
