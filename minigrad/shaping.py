"""The methods that change a tensor's shape; the mathematics stands in `minigrad.ops`."""

from minigrad import ops


class Shapeable:
    """The part of `minigrad.Tensor` that puts its elements into another shape."""

    __slots__ = ()

    def reshape(self, *shape):
        return ops.reshape(self, *shape)

    view = reshape

    def flatten(self, start_dim=0, end_dim=-1):
        return ops.flatten(self, start_dim, end_dim)

    def unflatten(self, dim, sizes):
        return ops.unflatten(self, dim, sizes)

    def transpose(self, dim0, dim1):
        return ops.transpose(self, dim0, dim1)

    def permute(self, *dims):
        return ops.permute(self, *dims)

    def squeeze(self, dim=None):
        return ops.squeeze(self, dim)

    def unsqueeze(self, dim):
        return ops.unsqueeze(self, dim)

    def expand(self, *shape):
        return ops.expand(self, *shape)

    def split(self, sizes, dim=0):
        return ops.split(self, sizes, dim)

    def chunk(self, chunks, dim=0):
        return ops.chunk(self, chunks, dim)

    def unbind(self, dim=0):
        return ops.unbind(self, dim)

    def flip(self, dims, *more):
        return ops.flip(self, (dims, *more) if more else dims)

    def tile(self, *dims):
        return ops.tile(self, dims[0] if len(dims) == 1 else dims)

    def repeat(self, *times):
        """The tensor side by side, ``times[d]`` times along dimension d; a number for each, unlike `tile`."""
        return ops.composed.repeat(self, *times)

    def t(self):
        """The transpose of a matrix; a tensor of fewer dimensions as it is."""
        if self.ndim > 2:
            raise ValueError(f"t: expected at most 2 dimensions, got shape {self.shape}; use transpose or permute")
        return self.T

    def reshape_as(self, other):
        """The same elements in the shape of another tensor."""
        return ops.reshape(self, other.shape)

    view_as = reshape_as

    def expand_as(self, other):
        """Expanded to the shape of another tensor."""
        return ops.expand(self, other.shape)
