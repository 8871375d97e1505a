"""Shape changes: views and strided copies. The gradient of each is another of them."""

from minigrad.function import Function
from minigrad.ops.common import (
    as_shape,
    broadcast_shapes,
    check_tensor,
    contiguous_strides,
    expand_array,
    normalize_dim,
    normalize_dims,
    product,
    strided_copy,
    strided_scatter,
)


class Reshape(Function):
    """The same elements in another shape, sharing memory"""

    saves_inputs = False
    is_view = True

    def forward(self, x, shape):
        self.source = x.shape
        return x.reshape(shape)

    def backward(self, grad):
        return (Reshape.apply(grad, shape=self.source),)


class Permute(Function):
    """Dimensions in another order"""

    saves_inputs = False

    def forward(self, x, dims):
        self.dims = dims
        strides = contiguous_strides(x.shape)
        return strided_copy(self.device, x, tuple([x.shape[d] for d in dims]), [strides[d] for d in dims])

    def backward(self, grad):
        inverse = [0] * len(self.dims)
        for position, d in enumerate(self.dims):
            inverse[d] = position
        return (Permute.apply(grad, dims=tuple(inverse)),)


class Expand(Function):
    """Elements repeated along dimensions of extent 1; the gradient sums over the copies"""

    saves_inputs = False

    def forward(self, x, shape):
        return expand_array(self.device, x, shape)

    def backward(self, grad):
        return (grad,)  # the engine sums a gradient back to the shape of its input


class Slice(Function):
    """Elements on a regular grid: what an index of ints and slices takes"""

    saves_inputs = False

    def forward(self, x, offset, shape, strides):
        self.source, self.grid = x.shape, (offset, strides)
        return strided_copy(self.device, x, shape, strides, offset)

    def backward(self, grad):
        offset, strides = self.grid
        return (Unslice.apply(grad, offset=offset, shape=self.source, strides=strides, value=0.0),)


class Unslice(Function):
    """The adjoint of Slice: elements put onto a regular grid of an array filled with a value"""

    saves_inputs = False

    def forward(self, x, offset, shape, strides, value):
        self.source, self.grid = x.shape, (offset, strides)
        out = self.device.full(shape, value, x.dtype)
        strided_scatter(self.device, x, out, strides, offset)
        return out

    def backward(self, grad):
        offset, strides = self.grid
        return (Slice.apply(grad, offset=offset, shape=self.source, strides=strides),)


class Cat(Function):
    """Tensors one after the other along a dimension; each gets its slice of the gradient"""

    saves_inputs = False

    def forward(self, *arrays, dim):
        self.dim, self.extents = dim, [x.shape[dim] for x in arrays]
        first = arrays[0].shape
        shape = first[:dim] + (sum(self.extents),) + first[dim + 1 :]
        out = self.device.empty(shape, arrays[0].dtype)
        strides, start = contiguous_strides(shape), 0
        for x in arrays:
            strided_scatter(self.device, x, out, strides, start * strides[dim])
            start += x.shape[dim]
        return out

    def backward(self, grad):
        return tuple([
            part if needed else None
            for part, needed in zip(split(grad, self.extents, self.dim), self.needs_input_grad, strict=True)
        ])


def reshape(x, *shape):
    """The same elements in another shape; one extent may be -1, to be worked out.

    The result shares memory with `x`.

    Raises
    ------
    ValueError
        If the shape holds another number of elements.
    """
    shape = as_shape("reshape", shape)
    size = check_tensor("reshape", x).numel()
    if -1 in shape:
        known = product([e for e in shape if e != -1])
        if shape.count(-1) > 1 or known == 0 or size % known:
            raise ValueError(f"reshape: cannot reshape {size} elements of shape {x.shape} to {shape}")
        shape = tuple([size // known if e == -1 else e for e in shape])
    if product(shape) != size or any(e < 0 for e in shape):
        raise ValueError(f"reshape: cannot reshape {size} elements of shape {x.shape} to {shape}")
    return Reshape.apply(x, shape=shape)


def flatten(x, start_dim=0, end_dim=-1):
    """The dimensions from `start_dim` to `end_dim` as one."""
    check_tensor("flatten", x)
    start, end = normalize_dim("flatten", start_dim, x.ndim), normalize_dim("flatten", end_dim, x.ndim)
    if x.ndim == 0:
        return reshape(x, (1,))
    if start > end:
        raise ValueError(f"flatten: expected start_dim <= end_dim, got {start_dim} and {end_dim}")
    merged = product(x.shape[start : end + 1])
    return reshape(x, x.shape[:start] + (merged,) + x.shape[end + 1 :])


def permute(x, *dims):
    """The dimensions in another order."""
    check_tensor("permute", x)
    dims = tuple([normalize_dim("permute", d, x.ndim) for d in as_shape("permute", dims)])
    if sorted(dims) != list(range(x.ndim)):
        raise ValueError(f"permute: expected each of the {x.ndim} dimensions once, got {dims}")
    return x if dims == tuple(range(x.ndim)) else Permute.apply(x, dims=dims)


def transpose(x, dim0, dim1):
    """Two dimensions exchanged."""
    check_tensor("transpose", x)
    dim0, dim1 = normalize_dim("transpose", dim0, x.ndim), normalize_dim("transpose", dim1, x.ndim)
    dims = list(range(x.ndim))
    if dims:
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(x, tuple(dims))


def squeeze(x, dim=None):
    """The tensor without its dimensions of extent 1: all of them, or only those named that have it."""
    check_tensor("squeeze", x)
    dims = normalize_dims("squeeze", dim, x.ndim)
    return reshape(x, tuple([e for i, e in enumerate(x.shape) if e != 1 or i not in dims]))


def unsqueeze(x, dim):
    """The tensor with a new dimension of extent 1 at `dim`."""
    check_tensor("unsqueeze", x)
    dim = normalize_dim("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x.shape[:dim], 1, *x.shape[dim:]))


def expand(x, *shape):
    """Dimensions of extent 1 repeated, new ones added in front; -1 keeps an extent."""
    shape = as_shape("expand", shape)
    check_tensor("expand", x)
    lead = len(shape) - x.ndim
    shape = tuple([x.shape[i - lead] if e == -1 and i >= lead else e for i, e in enumerate(shape)])
    if lead < 0 or broadcast_shapes("expand", x.shape, shape) != shape:
        raise ValueError(f"expand: cannot expand shape {x.shape} to {shape}")
    return x if shape == x.shape else Expand.apply(x, shape=shape)


def broadcast_to(x, shape):
    """NumPy's name for `expand`."""
    return expand(x, shape)


def cat(tensors, dim=0):
    """Tensors joined along an existing dimension; the other extents must agree."""
    tensors = _same_dtype("cat", tensors)
    dim = normalize_dim("cat", dim, tensors[0].ndim)
    first = tensors[0].shape
    if not first:
        raise ValueError("cat: expected tensors with at least one dimension, got 0-d ones; use stack")
    for x in tensors[1:]:
        if x.shape[:dim] != first[:dim] or x.shape[dim + 1 :] != first[dim + 1 :] or x.ndim != len(first):
            raise ValueError(f"cat: expected shapes that differ only in dimension {dim}, got {first} and {x.shape}")
    return Cat.apply(*tensors, dim=dim)


def stack(tensors, dim=0):
    """Tensors of one shape joined along a new dimension."""
    tensors = _same_dtype("stack", tensors)
    for x in tensors[1:]:
        if x.shape != tensors[0].shape:
            raise ValueError(f"stack: expected tensors of one shape, got {tensors[0].shape} and {x.shape}")
    return cat([unsqueeze(x, dim) for x in tensors], normalize_dim("stack", dim, tensors[0].ndim + 1))


def _same_dtype(op, tensors):
    tensors = list(tensors)
    if not tensors:
        raise ValueError(f"{op}: expected at least one tensor, got none")
    for x in tensors:
        check_tensor(op, x, "each element")
        if x.dtype != tensors[0].dtype:
            raise TypeError(f"{op}: expected tensors of one dtype, got {tensors[0].dtype} and {x.dtype}")
    return tensors


def split(x, sizes, dim=0):
    """The tensor cut along a dimension.

    Parameters
    ----------
    sizes : int or sequence of int
        The extent of every part (the last may be smaller), or of each.

    Returns
    -------
    tuple of Tensor
    """
    check_tensor("split", x)
    dim = normalize_dim("split", dim, x.ndim)
    extent = x.shape[dim] if x.shape else 0
    if not x.shape:
        raise ValueError("split: expected a tensor with at least one dimension, got a 0-d one")
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError(f"split: expected a positive size, got {sizes}")
        sizes = [min(sizes, extent - start) for start in range(0, extent, sizes)] or [0]
    if sum(sizes) != extent or min(sizes, default=0) < 0:
        raise ValueError(f"split: expected sizes that add up to {extent} along dimension {dim}, got {list(sizes)}")
    parts, start, strides = [], 0, contiguous_strides(x.shape)
    for size in sizes:
        shape = x.shape[:dim] + (size,) + x.shape[dim + 1 :]
        parts.append(Slice.apply(x, offset=start * strides[dim], shape=shape, strides=strides))
        start += size
    return tuple(parts)
