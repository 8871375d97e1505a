"""Augmentation: functions of a batch (a tuple of NumPy arrays, the images first) and a NumPy random generator.

A transform returns the tuple that takes the batch's place. Any function ``transform(arrays, rng)`` will do.
"""

import numpy as np


def compose(*transforms):
    """One transform that applies the given ones in order."""
    def apply(arrays, rng):
        for transform in transforms:
            arrays = transform(arrays, rng)
        return arrays

    return apply


def normalize(mean, std):
    """Subtract `mean` from the images and divide by `std`.

    Parameters
    ----------
    mean, std : float or sequence of float
        One value for all, or one per channel of images (N, C, H, W).
    """
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not np.all(std > 0):
        raise ValueError(f"normalize: std must be positive, got {std.tolist()}")

    def apply(arrays, rng):
        images, *others = arrays
        tail = (1,) * (images.ndim - 2) if mean.ndim or std.ndim else ()
        centre, scale = (value.reshape(*value.shape, *tail) if value.ndim else value for value in (mean, std))
        return ((images - centre) / scale).astype(np.float32, copy=False), *others

    return apply


def random_horizontal_flip(p=0.5):
    """Mirror each image (N, C, H, W) left to right with probability `p`."""
    if not 0 <= p <= 1:
        raise ValueError(f"random_horizontal_flip: p must be between 0 and 1, got {p}")

    def apply(arrays, rng):
        images, *others = arrays
        flipped = rng.random(len(images)) < p
        images = images.copy()
        images[flipped] = images[flipped][..., ::-1]
        return images, *others

    return apply


def random_crop(padding):
    """Shift each image (N, C, H, W) by up to `padding` pixels in each direction; what comes in is zero.

    The same as padding every image with `padding` zeros on each side and cropping the old size at random.
    """
    if padding < 0:
        raise ValueError(f"random_crop: padding must not be negative, got {padding}")

    def apply(arrays, rng):
        images, *others = arrays
        n, _, height, width = images.shape
        edges = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, edges), (height, width), axis=(2, 3))
        top, left = rng.integers(0, 2 * padding + 1, (2, n))
        return np.ascontiguousarray(windows[np.arange(n), :, top, left]), *others

    return apply
