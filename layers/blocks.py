"""Blocks: a layer with batch normalization, an activation, pooling and dropout, as people write them all the time."""

from minigrad.layers.activation import ReLU
from minigrad.layers.container import Sequential
from minigrad.layers.conv import Conv2d
from minigrad.layers.dropout import Dropout
from minigrad.layers.linear import Linear
from minigrad.layers.module import Module
from minigrad.layers.norm import BatchNorm1d, BatchNorm2d
from minigrad.layers.pooling import MaxPool2d
from minigrad.ops.conv import pair

NEEDED, OPTIONAL = ("layer", "norm", "activation"), ("pool", "dropout")


class _Block(Sequential):
    """What the blocks share: the parts in order. Slices are Sequentials."""

    def _assemble(self, order, sizes, make, norm_layer, activation_layer, pool, dropout, bias, device, dtype):
        """Become the parts that there are.

        `sizes` are the features before and behind the layer, ``make(bias)`` is the layer.
        """
        words = self._words(order)
        for option, maker in (("norm_layer", norm_layer), ("activation_layer", activation_layer)):
            if maker is not None and (isinstance(maker, Module) or not callable(maker)):
                raise TypeError(f"{type(self).__name__}: expected {option} to be a class, or a function that makes a "
                                f"layer, got {maker!r}")
        there = {"layer": True, "norm": norm_layer, "activation": activation_layer, "pool": pool, "dropout": dropout}
        words = [word for word in words if there[word] is not None and there[word] != 0]
        place = words.index("layer")
        if bias is None:
            bias = words[place + 1 : place + 2] != ["norm"]
        features = sizes["norm" not in words[:place]]
        parts = {
            "layer": lambda: make(bool(bias)),
            "norm": lambda: norm_layer(features),
            "activation": lambda: activation_layer(),
            "pool": lambda: pool if isinstance(pool, Module) else MaxPool2d(pool),
            "dropout": lambda: Dropout(dropout),
        }
        super().__init__(*[parts[word]() for word in words])
        self.to(device=device, dtype=dtype)

    def _words(self, order):
        """The parts by name, all five of them."""
        words = order.split() if isinstance(order, str) else list(order)
        if len(set(words)) < len(words) or not set(NEEDED) <= set(words) <= {*NEEDED, *OPTIONAL}:
            raise ValueError(f"{type(self).__name__}: expected order to name layer, norm and activation once each, and "
                             f"perhaps pool and dropout, got {order!r}")
        return words + [word for word in OPTIONAL if word not in words]

    @classmethod
    def _of(cls, items):
        return Sequential._of(items)


class LinearBlock(_Block):
    """A `Sequential` of Linear, BatchNorm1d, an activation and dropout, (N, in_features) to (N, out_features).

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, optional
        Of the linear layer. If left out there is none where a norm comes next, which would take it away again.
    norm_layer : callable, optional
        Makes the norm from the number of features, such as ``lambda n: BatchNorm1d(n, ghost_batch_size=32)``; None for
        none.
    activation_layer : callable, optional
        Makes the activation; None for none.
    dropout : float
        The probability; 0 for none.
    order : str
        ``"layer norm activation"`` (the paper's), ``"layer activation norm"``, ``"norm activation layer"`` or any
        other. Dropout comes last unless it is named too.

    Examples
    --------
    >>> model = Sequential(LinearBlock(784, 100, activation_layer=Sigmoid), LinearBlock(100, 100, dropout=0.2),
    ...                    Linear(100, 10))
    """

    def __init__(self, in_features, out_features, bias=None, *, norm_layer=BatchNorm1d, activation_layer=ReLU,
                 dropout=0.0, order="layer norm activation", device=None, dtype=None):
        self._assemble(order, (in_features, out_features), lambda bias: Linear(in_features, out_features, bias),
                       norm_layer, activation_layer, None, dropout, bias, device, dtype)


class ConvBlock(_Block):
    """A `Sequential` of Conv2d, BatchNorm2d, an activation, pooling and dropout.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation, groups, padding_mode
        As of `Conv2d`.
    padding : int, pair of int, "same" or "valid", optional
        If left out, half the window, which keeps the size of the image (stride 1, windows of odd size).
    bias : bool, optional
        Of the convolution. If left out there is none where a norm comes next, which would take it away again.
    norm_layer : callable, optional
        Makes the norm from the number of channels; None for none.
    activation_layer : callable, optional
        Makes the activation; None for none.
    pool : int, pair of int or Module, optional
        The window of a `MaxPool2d`, or a layer of another kind.
    dropout : float
        The probability; 0 for none.
    order : str
        ``"layer norm activation"`` (the paper's), ``"layer activation norm"``, ``"norm activation layer"`` or any
        other. Pooling and then dropout come last unless they are named too.

    Examples
    --------
    >>> model = Sequential(ConvBlock(1, 32), ConvBlock(32, 64, pool=2, dropout=0.2), Flatten(),
    ...                    Linear(64 * 14 * 14, 10))
    """

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, padding=None, dilation=1, groups=1,
                 bias=None, *, padding_mode="zeros", norm_layer=BatchNorm2d, activation_layer=ReLU, pool=None,
                 dropout=0.0, order="layer norm activation", device=None, dtype=None):
        if padding is None:
            windows = zip(pair("ConvBlock", "kernel_size", kernel_size, 1), pair("ConvBlock", "dilation", dilation, 1),
                          strict=True)
            padding = tuple([(size - 1) // 2 * step for size, step in windows])

        def make(bias):
            return Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)

        self._assemble(order, (in_channels, out_channels), make, norm_layer, activation_layer, pool, dropout, bias,
                       device, dtype)
