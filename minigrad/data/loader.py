"""Arrays to shuffled mini-batches of tensors, the same ones for the same seed."""

import operator

import numpy as np

from minigrad.creation import from_numpy
from minigrad.tensor import Tensor


class TensorDataset:
    """Arrays (or tensors) of the same length, seen as a sequence of samples.

    Parameters
    ----------
    *arrays : numpy.ndarray or Tensor
        The first axis counts the samples.
    """

    def __init__(self, *arrays):
        self.arrays = tuple(_to_array(array) for array in arrays)
        if not self.arrays or any(array.ndim == 0 for array in self.arrays):
            raise ValueError("TensorDataset: expected at least one array, each with a first axis of samples")
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            raise ValueError(f"TensorDataset: expected arrays of the same length, got lengths {lengths}")

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, index):
        return tuple(array[index] for array in self.arrays)

    def batch(self, indices):
        """The samples of the given indices, as one C-contiguous array per field."""
        return tuple(array.take(indices, axis=0) for array in self.arrays)


class DataLoader:
    """Iterate over a data set in mini-batches of tensors.

    Each pass over the loader is an epoch. A shuffled loader draws a new order for every epoch from its seed and
    the epoch's number alone: the same seed gives the same batches, and setting ``loader.epoch`` continues an
    interrupted training exactly where it would have been.

    Parameters
    ----------
    dataset : TensorDataset, tuple of arrays, or any object with ``len`` and ``dataset[i]``
        For another object the samples ``dataset[i]`` (a tuple of arrays or numbers) are stacked.
    batch_size : int
    shuffle : bool
    drop_last : bool
        Leave out the last batch of an epoch if it is smaller than the others.
    transform : callable, optional
        ``transform(arrays, rng)`` gets the batch as a tuple of NumPy arrays and a ``numpy.random.Generator``,
        and returns the arrays to use; see `minigrad.data.transforms`.
    seed : int
        Of the order and of the transform's generator.
    device : Device or str, optional
        Where the tensors go; the default device if left out.

    Yields
    ------
    tuple of Tensor
        One per array of the data set, each of shape (batch_size, ...).
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, *, drop_last=False, transform=None, seed=0, device=None):
        if isinstance(dataset, (Tensor, np.ndarray)):
            raise TypeError(
                f"DataLoader: expected a data set, got a {type(dataset).__name__}; put it into a tuple: (x,)"
            )
        self.dataset = TensorDataset(*dataset) if isinstance(dataset, tuple) else dataset
        self.batch_size = operator.index(batch_size)
        self.shuffle, self.drop_last, self.transform = shuffle, drop_last, transform
        self.seed, self.device = operator.index(seed), device
        self.epoch = 0
        if self.batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be at least 1, got {batch_size}")
        if self.seed < 0:
            raise ValueError(f"DataLoader: seed must not be negative, got {seed}")

    def __len__(self):
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        n = len(self.dataset)
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        return self._batches(order, rng)

    def _batches(self, order, rng):
        for i in range(len(self)):
            arrays = self._collect(order[i * self.batch_size:(i + 1) * self.batch_size])
            if self.transform is not None:
                arrays = self.transform(arrays, rng)
            yield tuple(from_numpy(np.ascontiguousarray(array), self.device) for array in arrays)

    def _collect(self, indices):
        if isinstance(self.dataset, TensorDataset):
            return self.dataset.batch(indices)
        samples = [self.dataset[int(i)] for i in indices]
        return tuple(np.stack([_to_array(value) for value in field]) for field in zip(*samples, strict=True))


def batches(*arrays, batch_size, shuffle=True, **options):
    """A `DataLoader` over arrays of the same length: ``for x, y in batches(images, labels, batch_size=64)``.

    The options are those of `DataLoader`.
    """
    return DataLoader(TensorDataset(*arrays), batch_size, shuffle, **options)


def _to_array(value):
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)
