"""The tensor: an array on a device, its gradient, and the op that made it.

Methods are one line each: the mathematics stands in `minigrad.ops`, beside its gradient.
"""

from collections import OrderedDict

import numpy as np

from minigrad import modes
from minigrad.device import get_device
from minigrad.dtypes import as_dtype, float32, float64, int64, is_float
from minigrad.dtypes import bool as bool_
from minigrad.reading import Readable
from minigrad.shaping import Shapeable


class Tensor(Readable, Shapeable):
    """An n-dimensional array that remembers how it was computed.

    Made by `minigrad.tensor`, `zeros`, `randn`, `from_numpy` and the like, or by an op. Elements are
    float32, float64, int64 or bool, in row-major (C) order.

    Attributes
    ----------
    data : array
        The device's array (a `numpy.ndarray` on the CPU).
    device : Device
    requires_grad : bool
        Whether backward should reach this tensor. Ops on such tensors are recorded.
    grad : Tensor or None
        What backward has accumulated, of the same shape and dtype. Only leaves get one.
    fn : Function or None
        The op that made the tensor, None for a leaf.
    """

    __slots__ = ("data", "device", "requires_grad", "grad", "fn", "version", "hooks", "__weakref__")
    __array_ufunc__ = None  # ndarray + Tensor asks the Tensor instead of making an array of objects

    def __init__(self, data, device=None):
        self.data = data
        self.device = device or get_device("cpu")
        self.requires_grad = False
        self.grad = None
        self.fn = None
        self.version = [0]  # counts changes in place; shared by all views of the array
        self.hooks = None

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def shape(self):
        """The extents, a tuple of ints."""
        return self.data.shape

    @property
    def dtype(self):
        """The type of the elements."""
        return self.data.dtype

    @property
    def ndim(self):
        """The number of dimensions."""
        return len(self.data.shape)

    @property
    def is_leaf(self):
        """Whether no recorded op made this tensor."""
        return self.fn is None

    @property
    def T(self):
        """The transpose of a matrix."""
        return ops.transpose(self, -2, -1) if self.ndim >= 2 else self

    def size(self, dim=None):
        """The shape, or the extent of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self):
        """The number of elements."""
        return self.data.size

    def dim(self):
        """The number of dimensions."""
        return self.ndim

    def __len__(self):
        if not self.shape:
            raise TypeError("len: a 0-d tensor has no length")
        return self.shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iter: a 0-d tensor cannot be iterated over")
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        values = np.array2string(self.numpy(), separator=", ", precision=4, prefix="tensor(")
        notes = "" if self.dtype in (float32, int64, bool_) else f", dtype={self.dtype}"
        if self.device != "cpu":
            notes += f", device={str(self.device)!r}"
        if self.fn is not None:
            notes += f", fn=<{self.fn.name}>"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({values}{notes})"

    __hash__ = object.__hash__

    # -- gradients ---------------------------------------------------------------------------------------------

    def backward(self, gradient=None, retain_graph=None, create_graph=False):
        """Compute the gradient of this tensor with respect to the leaves and add it to their ``.grad``.

        Parameters
        ----------
        gradient : Tensor, optional
            The gradient of whatever follows with respect to this tensor, of its shape; 1 for a scalar.
        retain_graph : bool, optional
            Keep the graph for another pass. Defaults to `create_graph`.
        create_graph : bool
            Record the computation of the gradients, so that they can be differentiated again.

        Raises
        ------
        RuntimeError
            If the tensor does not require grad, if it is not a scalar and no gradient is given, if the graph
            was freed by an earlier backward, if a tensor saved for it was changed in place.
        """
        autograd.backward(self, gradient, retain_graph, create_graph)

    def requires_grad_(self, requires_grad=True):
        """Set `requires_grad` of a leaf in place."""
        if self.fn is not None:
            raise RuntimeError("requires_grad_: only a leaf can be changed; use detach() to get one")
        if requires_grad and not is_float(self.dtype):
            raise TypeError(f"requires_grad_: only float tensors have gradients, this one is {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def detach(self):
        """The same values as a leaf that requires no grad, sharing memory."""
        out = Tensor(self.data, self.device)
        out.version = self.version
        return out

    def register_hook(self, hook):
        """Call ``hook(grad)`` when the gradient of this tensor is complete; its result, if any, replaces it.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off again.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: the tensor does not require grad")
        owner = self.fn or self
        if owner.hooks is None:
            owner.hooks = OrderedDict()
        handle = RemovableHandle(owner.hooks)
        owner.hooks[handle.key] = hook
        return handle

    def zero_grad(self):
        """Forget the accumulated gradient."""
        autograd.clear_gradients([self])

    # -- to another type or place ------------------------------------------------------------------------------

    def to(self, target=None, dtype=None, *, device=None):
        """The tensor with another dtype, on another device, or both; itself if it is so already.

        Parameters
        ----------
        target : Device, dtype or str, optional
            A device or a dtype, whichever it is.
        dtype : dtype, optional
        device : Device or str, optional
        """
        if isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda") or hasattr(target, "kernels"):
            if device is not None:
                raise TypeError(f"to: expected one device, got {target} and {device}")
            device, target = target, None
        if target is not None and dtype is not None:
            raise TypeError(f"to: expected one dtype, got {target} and {dtype}")
        dtype = target if dtype is None else dtype
        moved = self if device is None else ops.to_device(self, get_device(device))
        return moved if dtype is None else ops.cast(moved, as_dtype(dtype))

    def cpu(self):
        """The tensor on the CPU; itself if it is there already."""
        return self.to("cpu")

    def float(self):
        """The tensor as float32."""
        return ops.cast(self, float32)

    def double(self):
        """The tensor as float64."""
        return ops.cast(self, float64)

    def long(self):
        """The tensor as int64, fractions cut off."""
        return ops.cast(self, int64)

    def bool(self):
        """True where the tensor is not 0."""
        return ops.cast(self, bool_)

    def clone(self):
        """A copy in memory of its own; the gradient passes through."""
        return ops.clone(self)

    # -- in place (never recorded) -----------------------------------------------------------------------------

    def copy_(self, other):
        """Overwrite the elements with those of `other` (broadcast to this shape)."""
        return inplace.copy_(self, other)

    def fill_(self, value):
        """Set every element to a number."""
        return inplace.copy_(self, value)

    def zero_(self):
        """Set every element to 0."""
        return inplace.copy_(self, 0)

    def add_(self, other, *, alpha=1):
        """Add ``alpha * other`` in place."""
        return inplace.copy_(self, ops.add(self.detach(), other if alpha == 1 else other * alpha))

    def sub_(self, other, *, alpha=1):
        """Subtract ``alpha * other`` in place."""
        return inplace.copy_(self, ops.sub(self.detach(), other if alpha == 1 else other * alpha))

    def mul_(self, other):
        """Multiply by `other` in place."""
        return inplace.copy_(self, ops.mul(self.detach(), other))

    def div_(self, other):
        """Divide by `other` in place."""
        return inplace.copy_(self, ops.div(self.detach(), other))

    def lerp_(self, end, weight):
        """Go from here to `end` by the fraction `weight`, in place: ``self + weight * (end - self)``."""
        start = self.detach()
        return inplace.copy_(self, ops.add(start, ops.mul(ops.sub(end, start), weight)))

    def clip_(self, min=None, max=None):
        """Limit the elements to ``[min, max]`` in place."""
        return inplace.copy_(self, ops.clip(self.detach(), min, max))

    clamp_ = clip_

    def __iadd__(self, other):
        return inplace.augmented("add_", ops.add, self, other)

    def __isub__(self, other):
        return inplace.augmented("sub_", ops.sub, self, other)

    def __imul__(self, other):
        return inplace.augmented("mul_", ops.mul, self, other)

    def __itruediv__(self, other):
        return inplace.augmented("div_", ops.div, self, other)

    def __setitem__(self, index, value):
        inplace.setitem(self, index, value)

    # -- arithmetic --------------------------------------------------------------------------------------------

    def __add__(self, other):
        return ops.add(self, other)

    def __radd__(self, other):
        return ops.add(other, self)

    def __sub__(self, other):
        return ops.sub(self, other)

    def __rsub__(self, other):
        return ops.sub(other, self)

    def __mul__(self, other):
        return ops.mul(self, other)

    def __rmul__(self, other):
        return ops.mul(other, self)

    def __truediv__(self, other):
        return ops.div(self, other)

    def __rtruediv__(self, other):
        return ops.div(other, self)

    def __pow__(self, other):
        return ops.pow(self, other)

    def __rpow__(self, other):
        return ops.pow(other, self)

    def __matmul__(self, other):
        return ops.matmul(self, other)

    def __neg__(self):
        return ops.neg(self)

    def __abs__(self):
        return ops.abs(self)

    def __eq__(self, other):
        return ops.eq(self, other)

    def __ne__(self, other):
        return ops.ne(self, other)

    def __lt__(self, other):
        return ops.lt(self, other)

    def __le__(self, other):
        return ops.le(self, other)

    def __gt__(self, other):
        return ops.gt(self, other)

    def __ge__(self, other):
        return ops.ge(self, other)

    def __and__(self, other):
        return ops.logical_and(self, other)

    def __or__(self, other):
        return ops.logical_or(self, other)

    def __invert__(self):
        return ops.logical_not(self)

    def __getitem__(self, index):
        return ops.getitem(self, index)

    def add(self, other):
        return ops.add(self, other)

    def sub(self, other):
        return ops.sub(self, other)

    def mul(self, other):
        return ops.mul(self, other)

    def div(self, other):
        return ops.div(self, other)

    def pow(self, exponent):
        return ops.pow(self, exponent)

    def matmul(self, other):
        return ops.matmul(self, other)

    def neg(self):
        return ops.neg(self)

    def abs(self):
        return ops.abs(self)

    def sign(self):
        return ops.sign(self)

    def exp(self):
        return ops.exp(self)

    def log(self):
        return ops.log(self)

    def sin(self):
        return ops.sin(self)

    def cos(self):
        return ops.cos(self)

    def sqrt(self):
        return ops.sqrt(self)

    def maximum(self, other):
        return ops.maximum(self, other)

    def minimum(self, other):
        return ops.minimum(self, other)

    def clip(self, min=None, max=None):
        return ops.clip(self, min, max)

    clamp = clip

    def relu(self):
        return ops.relu(self)

    def sigmoid(self):
        return ops.sigmoid(self)

    def tanh(self):
        return ops.tanh(self)

    def square(self):
        return ops.square(self)

    def masked_fill(self, mask, value):
        return ops.masked_fill(self, mask, value)

    def isnan(self):
        return ops.isnan(self)

    def isinf(self):
        return ops.isinf(self)

    def isfinite(self):
        return ops.isfinite(self)

    # -- reductions --------------------------------------------------------------------------------------------

    def sum(self, dim=None, keepdim=False):
        return ops.sum(self, dim, keepdim)

    def mean(self, dim=None, keepdim=False):
        return ops.mean(self, dim, keepdim)

    def var(self, dim=None, correction=1, keepdim=False):
        return ops.var(self, dim, correction, keepdim)

    def std(self, dim=None, correction=1, keepdim=False):
        return ops.std(self, dim, correction, keepdim)

    def max(self, dim=None, keepdim=False):
        return ops.max(self, dim, keepdim)

    def min(self, dim=None, keepdim=False):
        return ops.min(self, dim, keepdim)

    def norm(self, p=2, dim=None, keepdim=False):
        return ops.vector_norm(self, p, dim, keepdim)

    def argmax(self, dim=None, keepdim=False):
        return ops.argmax(self, dim, keepdim)

    def argmin(self, dim=None, keepdim=False):
        return ops.argmin(self, dim, keepdim)

    def any(self, dim=None, keepdim=False):
        return ops.any(self, dim, keepdim)

    def all(self, dim=None, keepdim=False):
        return ops.all(self, dim, keepdim)

    def logsumexp(self, dim=None, keepdim=False):
        return ops.logsumexp(self, dim, keepdim)

    def softmax(self, dim):
        return ops.softmax(self, dim)

    def log_softmax(self, dim):
        return ops.log_softmax(self, dim)


class RemovableHandle:
    """Takes a hook off again: call `remove`, or use it in a ``with`` block."""

    def __init__(self, hooks):
        self.hooks = hooks
        self.key = object()

    def remove(self):
        """Take the hook off. Doing it twice is harmless."""
        self.hooks.pop(self.key, None)
        modes.modules_changed[0] = object()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()


from minigrad import autograd, inplace, ops  # noqa: E402 - ops are written in tensors, a tensor's methods call ops
