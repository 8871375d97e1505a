"""The two nets of ``minigrad train``, for images of any size and number of channels."""

from minigrad import layers as nn


def mlp(image_shape, classes):
    """Two hidden layers of 256 with batch normalization.

    Parameters
    ----------
    image_shape : tuple of int
        (C, H, W).
    classes : int
    """
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 256), nn.BatchNorm1d(256), nn.ReLU(),
        nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(),
        nn.Linear(256, classes),
    )


def cnn(image_shape, classes):
    """Two convolutions with batch normalization, then a hidden layer of 128 with dropout.

    Each convolution is followed by pooling; images below 16x16 are pooled only once, so that a feature map is left.

    Parameters
    ----------
    image_shape : tuple of int
        (C, H, W).
    classes : int
    """
    channels, height, width = image_shape
    small = min(height, width) < 16
    shrink = 2 if small else 4
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Identity() if small else nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // shrink) * (width // shrink), 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, classes),
    )


MODELS = {"mlp": mlp, "cnn": cnn}
