"""The nets of the experiments, each with and without batch normalization."""

from minigrad import layers as nn
from minigrad.cli.models import cnn


def sigmoid_mlp(image_shape, batch_norm, hidden_layers=3, width=100, std=0.1, ghost_batch_size=None):
    """The paper's net (section 4.1): hidden layers of 100 sigmoid units, ten outputs, small Gaussian initial weights.

    Batch normalization stands before each nonlinearity; its beta does what the linear layer's bias would do, which is
    left out then (section 3.2). Biases start at 0.
    """
    inputs, hidden = _pixels(image_shape), []
    for _ in range(hidden_layers):
        hidden.append(nn.Linear(inputs, width, bias=not batch_norm))
        if batch_norm:
            hidden.append(nn.BatchNorm1d(width, ghost_batch_size=ghost_batch_size))
        hidden.append(nn.Sigmoid())
        inputs = width
    net = nn.Sequential(*hidden, nn.Linear(inputs, 10))
    for layer in _of_kind(net, nn.Linear):
        nn.init.normal_(layer.weight, 0.0, std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


def plain_cnn(image_shape, batch_norm, layers=20, channels=16, he=False):
    """Convolutions of 3x3 one after the other, without skip connections, then an average over the picture.

    The first two convolutions halve the picture where that leaves at least 4x4 pixels. Initial weights are the layers'
    defaults (PyTorch's, uniform), or He's normal ones, which keep the variance through ReLU (1502.01852).
    """
    inputs, height, _ = image_shape
    net = nn.Sequential()
    for number in range(layers):
        stride = 2 if number < 2 and height >= 8 else 1
        net.append(nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=not batch_norm))
        if batch_norm:
            net.append(nn.BatchNorm2d(channels))
        net.append(nn.ReLU())
        inputs, height = channels, -(-height // stride)
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)])
    if he:
        for layer in _of_kind(net, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


def small_cnn(image_shape, batch_norm):
    """The net of ``minigrad train --model cnn``; without batch normalization, all else is as it was."""
    net = cnn(image_shape, 10)
    if batch_norm:
        return net
    return nn.Sequential(*[layer for layer in net if not isinstance(layer, nn.BatchNorm2d)])


def _pixels(image_shape):
    channels, height, width = image_shape
    return channels * height * width


def _of_kind(net, kind):
    return [layer for layer in net if isinstance(layer, kind)]
