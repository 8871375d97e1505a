"""Layers that map features to features."""

from minigrad import functional as F
from minigrad import ops
from minigrad.creation import ones, randn, zeros
from minigrad.dtypes import float32
from minigrad.layers.init import weight_and_bias_
from minigrad.layers.module import Module, Parameter, check_input, check_sizes
from minigrad.modes import enable_grad, no_grad
from minigrad.tensor import Tensor


def empty_parameter(shape, device, dtype):
    """A parameter of zeros, to be initialised."""
    return Parameter(zeros(shape, dtype=dtype or float32, device=device))


class Linear(Module):
    """``y = x @ weight.T + bias`` over the last dimension, (..., in_features) to (..., out_features).

    Attributes
    ----------
    weight : Parameter of shape (out_features, in_features)
    bias : Parameter of shape (out_features,), or None
        Both start from U(-1/sqrt(in_features), 1/sqrt(in_features)).
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        check_sizes(self, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = empty_parameter((out_features, in_features), device, dtype)
        self.bias = empty_parameter((out_features,), device, dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the initial values anew."""
        weight_and_bias_(self.weight, self.bias)

    def forward(self, x):
        check_input(self, self._fits, lambda: f"(..., {self.in_features})", x)
        return F.linear(x, self.weight, self.bias)

    def _fits(self, shape):
        return len(shape) > 0 and shape[-1] == self.in_features

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table with a row of `embedding_dim` numbers for each index, (...) to (..., embedding_dim).

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        The shape of the table; it starts from N(0, 1).
    padding_idx : int, optional
        The row of this index starts as zeros and gets no gradient. Negative numbers count from the end.
    max_norm, norm_type : float
        With `max_norm`, rows that are looked up and whose p-norm is larger are first scaled down to it, in place.
    scale_grad_by_freq : bool
        Divide each row's gradient by the number of times that its index was looked up.
    sparse : bool
        There are no sparse gradients: only False is accepted.
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0,
                 scale_grad_by_freq=False, sparse=False, _weight=None, _freeze=False, device=None, dtype=None):
        check_sizes(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if sparse:
            raise ValueError("Embedding: expected sparse=False, since gradients are dense arrays, got True")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: expected padding_idx within {num_embeddings} embeddings, got {padding_idx}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        shape = (num_embeddings, embedding_dim)
        if _weight is None:
            self.weight = Parameter(zeros(shape, dtype=dtype or float32, device=device), not _freeze)
            self.reset_parameters()
        elif _weight.shape != shape:
            raise ValueError(f"Embedding: expected weights of shape {shape}, got {_weight.shape}")
        else:
            self.weight = Parameter(_weight, not _freeze)

    @classmethod
    def from_pretrained(cls, embeddings, freeze=True, padding_idx=None, max_norm=None, norm_type=2.0,
                        scale_grad_by_freq=False, sparse=False):
        """A layer around a given table (shared, not copied), frozen unless ``freeze=False``."""
        if not isinstance(embeddings, Tensor) or embeddings.ndim != 2:
            raise ValueError("Embedding: expected a Tensor of shape (num_embeddings, embedding_dim), got "
                             f"{getattr(embeddings, 'shape', type(embeddings).__name__)}")
        return cls(*embeddings.shape, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)

    def reset_parameters(self):
        """Draw the initial values anew."""
        with no_grad():
            self.weight.copy_(randn(*self.weight.shape, dtype=self.weight.dtype, device=self.weight.device))
            if self.padding_idx is not None:
                self.weight[self.padding_idx] = 0.0

    def forward(self, indices):
        if self.max_norm is not None:
            self._renormalise(indices)
        rows = F.embedding(indices, self.weight)
        if rows.requires_grad and (self.padding_idx is not None or self.scale_grad_by_freq):
            rows.register_hook(lambda grad: self._adjust(grad, indices))
        return rows

    def _counts(self, indices):
        """How often each index occurs, of shape (num_embeddings, 1): the gradient of a sum over rows of ones."""
        with enable_grad():
            table = ones(self.num_embeddings, 1, dtype=self.weight.dtype, device=self.weight.device, requires_grad=True)
            F.embedding(indices, table).sum().backward()
        return table.grad

    def _adjust(self, grad, indices):
        """The gradient of the rows without that of the padding, divided by frequency if asked for."""
        if self.scale_grad_by_freq:
            grad = grad / F.embedding(indices, self._counts(indices))
        if self.padding_idx is not None:
            grad = ops.where(ops.unsqueeze(indices == self.padding_idx, -1), 0.0, grad)
        return grad

    def _renormalise(self, indices):
        used = self._counts(indices) > 0
        with no_grad():
            size = self.weight.abs() ** self.norm_type
            size = size.sum(1, keepdim=True) ** (1.0 / self.norm_type)
            too_long = ops.logical_and(used, size > self.max_norm)
            self.weight.copy_(ops.where(too_long, self.weight * (self.max_norm / (size + 1e-7)), self.weight))

    def extra_repr(self):
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"


class Flatten(Module):
    """Merge the dimensions from `start_dim` to `end_dim` into one."""

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Make several dimensions, of the extents `unflattened_size`, of the dimension `dim`."""

    def __init__(self, dim, unflattened_size):
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x):
        return ops.unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self):
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """The input itself, whatever the constructor was given: a placeholder."""

    def __init__(self, *args, **kwargs):
        pass

    def forward(self, x):
        return x
