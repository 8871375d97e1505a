"""Indexing with ints, slices, None, ..., integer arrays and masks; embedding; padding."""

import operator

import numpy as np

from minigrad.dtypes import bool as bool_
from minigrad.dtypes import int64, is_float
from minigrad.function import Function
from minigrad.ops.common import broadcast_shapes, check_tensor, contiguous_strides, product
from minigrad.ops.shape import Slice, Unslice, permute, reshape
from minigrad.tensor import Tensor

NO_INDEX = -(2**63)  # what no tensor of indices holds for itself


class Take(Function):
    """Rows of a matrix by index"""

    saves_inputs = False

    def forward(self, x, indices):
        self.rows, self.indices = x.shape, indices
        out = self.device.empty((indices.size, x.shape[1]), x.dtype)
        self.device.kernels.take(x, indices, out)
        return out

    def backward(self, grad):
        return TakeGrad.apply(grad, Tensor(self.indices, self.device), shape=self.rows), None


class TakeGrad(Function):
    """The adjoint of Take: rows added up at their index"""

    saves_inputs = False

    def forward(self, grad, indices, shape):
        self.indices = indices
        out = self.device.empty(shape, grad.dtype)
        self.device.kernels.take_backward(grad, indices, out)
        return out

    def backward(self, grad):
        return Take.apply(grad, Tensor(self.indices, self.device)), None


def parse_index(op, index, shape):
    """Split an index into its regular part and its arrays.

    Returns
    -------
    offset, grid_shape, strides : the grid that ints and slices select, arrays' dimensions kept whole
    arrays : list of (position in grid_shape, NumPy array or int64 Tensor)
    """
    index = list(index) if isinstance(index, tuple) else [index]
    index = [_entry(op, entry) for entry in index]
    used = sum([_consumes(entry) for entry in index])
    ndim = len(shape)
    if used > ndim:
        raise IndexError(f"{op}: too many indices: {used} for a tensor with {ndim} dimension(s)")
    if sum(entry is Ellipsis for entry in index) > 1:
        raise IndexError(f"{op}: expected at most one ellipsis (...)")
    if Ellipsis not in [entry for entry in index if not isinstance(entry, (np.ndarray, Tensor))]:
        index.append(Ellipsis)
    own = contiguous_strides(shape)
    offset, extents, strides, arrays, dim = 0, [], [], [], 0
    for entry in index:
        if entry is Ellipsis:
            for _ in range(ndim - used):
                extents.append(shape[dim])
                strides.append(own[dim])
                dim += 1
        elif entry is None:
            extents.append(1)
            strides.append(0)
        elif isinstance(entry, slice):
            start, stop, step = entry.indices(shape[dim])
            extents.append(len(range(start, stop, step)))
            strides.append(own[dim] * step)
            offset += own[dim] * start if extents[-1] else 0
            dim += 1
        elif isinstance(entry, int):
            if not -shape[dim] <= entry < shape[dim]:
                raise IndexError(f"{op}: index {entry} is out of range for dimension {dim} of extent {shape[dim]}")
            offset += own[dim] * (entry % shape[dim])
            dim += 1
        else:
            for array in _index_arrays(op, entry, shape, dim):
                arrays.append((len(extents), array))
                extents.append(shape[dim])
                strides.append(own[dim])
                dim += 1
    return offset, tuple(extents), tuple(strides), arrays


_SINGLE_BOOL = "{}: cannot index with a single bool; use None, or an empty slice"


def _entry(op, entry):
    """One part of an index in a known form: None, Ellipsis, slice, int, or an integer or bool array."""
    if entry is None or entry is Ellipsis or isinstance(entry, slice):
        return entry
    if isinstance(entry, Tensor):
        if entry.dtype == bool_ and not entry.ndim:
            raise IndexError(_SINGLE_BOOL.format(op))
        return entry
    if isinstance(entry, (list, np.ndarray, bool, np.bool_)):
        try:
            array = np.asarray(entry)
        except ValueError:
            raise IndexError(f"{op}: expected rows of one length in a list of indices, got a ragged one") from None
        if array.dtype == bool and not array.ndim:
            raise IndexError(_SINGLE_BOOL.format(op))
        return array.astype(np.int64) if array.size == 0 and array.dtype != bool else array
    try:
        return operator.index(entry)
    except TypeError:
        raise TypeError(f"{op}: cannot index with {type(entry).__name__}") from None


def _consumes(entry):
    if entry is None or entry is Ellipsis:
        return 0
    if isinstance(entry, (np.ndarray, Tensor)) and entry.dtype == bool_:
        return entry.ndim
    return 1


def _index_arrays(op, entry, shape, dim):
    """The integer arrays that an index array stands for: itself, or the places where a mask is true."""
    if entry.dtype == bool_:
        mask = entry.numpy() if isinstance(entry, Tensor) else entry
        expected = shape[dim : dim + mask.ndim]
        if mask.shape != tuple(expected):
            raise IndexError(f"{op}: expected a mask of shape {tuple(expected)}, got {mask.shape}")
        return list(np.nonzero(mask))
    if entry.dtype.kind not in "iu":
        raise TypeError(f"{op}: expected indices of dtype int64 or bool, got {entry.dtype}")
    values = entry.numpy() if isinstance(entry, Tensor) else entry
    extent = shape[dim]
    if values.size and not (values.min() >= -extent and values.max() < extent):
        wrong = values[(values < -extent) | (values >= extent)].flat[0]
        raise IndexError(f"{op}: index {wrong} is out of range for dimension {dim} of extent {extent}")
    return [np.where(values < 0, values + extent, values)]


def getitem(x, index):
    """``x[index]``: NumPy's rules for ints, slices, None, ..., integer arrays (lists, tensors) and masks.

    Returns
    -------
    Tensor
        In memory of its own.
    """
    offset, shape, strides, arrays = parse_index("getitem", index, x.shape)
    sliced = not arrays or offset != 0 or product(shape) != x.numel() or strides != contiguous_strides(shape)
    grid = Slice.apply(x, offset=offset, shape=shape, strides=strides) if sliced else reshape(x, shape)
    return _take_arrays(grid, arrays, index) if arrays else grid


def _take_arrays(grid, arrays, index):
    """Index the grid's dimensions that have arrays: bring them to the front, and take rows."""
    dims = [position for position, _ in arrays]
    rest = [d for d in range(grid.ndim) if d not in dims]
    shape = broadcast_shapes("getitem", *[a.shape for _, a in arrays])
    flat = np.zeros(shape, np.int64)
    for position, array in arrays:
        flat = flat * grid.shape[position] + array
    rows = reshape(permute(grid, (*dims, *rest)), (product([grid.shape[d] for d in dims]), -1)
                   if product([grid.shape[d] for d in rest]) and product([grid.shape[d] for d in dims])
                   else (product([grid.shape[d] for d in dims]), product([grid.shape[d] for d in rest])))
    indices = Tensor(grid.device.from_numpy(np.ascontiguousarray(flat.ravel())), grid.device)
    taken = reshape(Take.apply(rows, indices), (*shape, *[grid.shape[d] for d in rest]))
    if dims != list(range(dims[0], dims[-1] + 1)) or _separated(index):
        return taken  # arrays apart from each other: their dimensions come first
    lead, n = dims[0], len(shape)
    return permute(taken, (*range(n, n + lead), *range(n), *range(n + lead, taken.ndim)))


def _separated(index):
    """Whether a slice, None or ... stands between two arrays (ints count as arrays here, as in NumPy)."""
    index = index if isinstance(index, tuple) else (index,)
    advanced = [not (e is None or e is Ellipsis or isinstance(e, slice)) for e in index]
    if True not in advanced:
        return False
    first = advanced.index(True)
    last = len(advanced) - 1 - advanced[::-1].index(True)
    return not all(advanced[first : last + 1])


def embedding(indices, weight):
    """Rows of `weight` by index.

    Parameters
    ----------
    indices : Tensor of int64, any shape
    weight : Tensor of shape (num_embeddings, embedding_dim)

    Returns
    -------
    Tensor of shape ``(*indices.shape, embedding_dim)``

    Raises
    ------
    IndexError
        If an index is negative or not below num_embeddings; on a GPU when a value is read next.
    """
    check_tensor("embedding", indices, "indices")
    check_tensor("embedding", weight, "weight")
    if indices.dtype != int64:
        raise TypeError(f"embedding: expected indices of dtype int64, got {indices.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"embedding: expected weight of shape (num_embeddings, embedding_dim), got {weight.shape}")
    device, bounds = indices.device, indices.device.empty((2,), int64)
    device.kernels.target_range(indices.data.reshape((-1, 1)), bounds, NO_INDEX)
    device.check_range(bounds, IndexError, "embedding: expected indices", weight.shape[0])
    rows = Take.apply(weight, reshape(indices, (indices.numel(),)))
    return reshape(rows, (*indices.shape, weight.shape[1]))


def pad(x, padding, mode="constant", value=0.0):
    """Extend a tensor at the ends of its last dimensions.

    Parameters
    ----------
    padding : sequence of int
        ``(left, right)`` of the last dimension, then of the one before it, and so on. Negative numbers crop.
    mode : {"constant", "reflect", "replicate", "circular"}
        What fills the new places: `value`, or the tensor's elements mirrored at the edge, the edge itself, or
        those of the other end.

    Raises
    ------
    ValueError
        If the padding does not come in pairs, names more dimensions than there are, or is longer than a mirrored
        or circular extent allows.
    """
    check_tensor("pad", x)
    padding = [operator.index(p) for p in padding]
    if len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ValueError(f"pad: expected up to {x.ndim} pairs for shape {x.shape}, got {len(padding)} numbers")
    pairs = [(0, 0)] * (x.ndim - len(padding) // 2) + list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    if mode == "constant":
        return _pad_constant(x, pairs, value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f"pad: expected mode constant, reflect, replicate or circular, got {mode!r}")
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            x = getitem(x, (slice(None),) * dim + (_mirror(mode, x.shape[dim], before, after),))
    return x


def _pad_constant(x, pairs, value):
    crop = tuple([slice(max(-b, 0), e - max(-a, 0)) for e, (b, a) in zip(x.shape, pairs, strict=True)])
    if any(b < 0 or a < 0 for b, a in pairs):
        x = getitem(x, crop)
    pairs = [(max(b, 0), max(a, 0)) for b, a in pairs]
    if not any(b or a for b, a in pairs):
        return x
    shape = tuple([b + e + a for e, (b, a) in zip(x.shape, pairs, strict=True)])
    strides = contiguous_strides(shape)
    offset = sum([b * s for (b, _), s in zip(pairs, strides, strict=True)])
    number = float(value) if is_float(x.dtype) else value
    return Unslice.apply(x, offset=offset, shape=shape, strides=strides, value=number)


def _mirror(mode, extent, before, after):
    """Which element stands at each place of a padded dimension."""
    longest = {"reflect": extent - 1, "circular": extent, "replicate": max(before, after) if extent else 0}[mode]
    if max(before, after) > longest:
        raise ValueError(f"pad: {mode} padding of {max(before, after)} is too long for an extent of {extent}")
    places = np.arange(-before, extent + after)
    if mode == "replicate":
        return np.clip(places, 0, extent - 1)
    if mode == "circular":
        return places % extent
    places = np.abs(places)
    return np.where(places >= extent, 2 * (extent - 1) - places, places)
