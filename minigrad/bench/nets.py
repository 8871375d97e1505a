"""The nets of the benchmark, as data from which each library builds its own.

A layer is its kind and its sizes; initial parameters are drawn here, so that every library starts from the same.
"""

import math
from typing import NamedTuple

import numpy as np


class Net(NamedTuple):
    """One net: input (N, *shape), output (N, 10)."""

    batch: int
    shape: tuple
    layers: tuple


def _mlp():
    hidden = [(784, 100), (100, 100), (100, 100)]
    layers = [layer for i, o in hidden for layer in (("linear", i, o), ("batch_norm1d", o), ("sigmoid",))]
    return (*layers, ("linear", 100, 10))


def _small_cnn():
    return (
        ("conv2d", 1, 16), ("batch_norm2d", 16), ("relu",), ("max_pool2d",),
        ("conv2d", 16, 32), ("batch_norm2d", 32), ("relu",), ("max_pool2d",),
        ("flatten",), ("linear", 1568, 128), ("relu",), ("linear", 128, 10),
    )  # fmt: skip


def _vgg():
    layers, channels = [], 3
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [("conv2d", channels, width), ("batch_norm2d", width), ("relu",)]
            channels = width
        layers.append(("max_pool2d",))
    return (*layers, ("flatten",), ("linear", 2048, 10))


NETS = {
    "A": Net(60, (784,), _mlp()),
    "B": Net(64, (1, 28, 28), _small_cnn()),
    "C": Net(64, (3, 32, 32), _vgg()),
}
"""A: the MLP of the BatchNorm paper's MNIST experiment. B: a small CNN, MNIST shape. C: VGG-like, CIFAR shape."""

CLASSES = 10
LEARNING_RATE, MOMENTUM = 1e-3, 0.9  # small, so that the rounding of one step is not magnified by the next


def initial_parameters(net, rng):
    """Parameters in PyTorch's order and layouts: weight and bias of each layer, float32."""
    arrays = []
    for kind, *sizes in net.layers:
        if kind in ("linear", "conv2d"):
            shape = (sizes[1], sizes[0], 3, 3) if kind == "conv2d" else (sizes[1], sizes[0])
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            arrays += [rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[:1])]
        elif kind.startswith("batch_norm"):
            arrays += [rng.uniform(0.5, 1.5, sizes[0]), rng.uniform(-0.1, 0.1, sizes[0])]
    return [array.astype(np.float32) for array in arrays]


def batch(net, rng):
    """Random images or vectors (N, *shape) and labels (N,)."""
    x = rng.standard_normal((net.batch, *net.shape), dtype=np.float32)
    return x, rng.integers(0, CLASSES, net.batch)


def updates(parameters, initial):
    """By how much steps have changed the parameters, in units of the learning rate.

    These are results to compare: the parameters themselves are nearly the same whatever the optimizer did.
    """
    return [(now - before) / LEARNING_RATE for now, before in zip(parameters, initial, strict=True)]


def flop(net, training):
    """Floating-point operations of the matrix products and convolutions of one step.

    A training step does each product three times (forward and two gradients), but for the gradient of the input data.
    """
    total, first = 0, 0
    height = width = net.shape[-1]
    for kind, *sizes in net.layers:
        if kind == "max_pool2d":
            height, width = height // 2, width // 2
        elif kind in ("linear", "conv2d"):
            work = 2 * net.batch * sizes[0] * sizes[1] * (9 * height * width if kind == "conv2d" else 1)
            total, first = total + work, first or work
    return 3 * total - first if training else total


def modules(net, nn):
    """The net as a Sequential, from a package with PyTorch's layers (``torch.nn`` or ``minigrad.layers``)."""
    make = {
        "linear": nn.Linear,
        "conv2d": lambda i, o: nn.Conv2d(i, o, 3, padding=1),
        "batch_norm1d": nn.BatchNorm1d,
        "batch_norm2d": nn.BatchNorm2d,
        "sigmoid": nn.Sigmoid,
        "relu": nn.ReLU,
        "max_pool2d": lambda: nn.MaxPool2d(2),
        "flatten": nn.Flatten,
    }
    return nn.Sequential(*[make[kind](*sizes) for kind, *sizes in net.layers])
