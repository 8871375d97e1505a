"""The nets in plain NumPy: what minigrad is compared with, and a second opinion on its results."""

import numpy as np

from minigrad.bench import numpy_ops as ops


class NumpyNet:
    """A net of `nets.NETS` with gradients and running statistics.

    Parameters
    ----------
    net : Net
    parameters : list of numpy.ndarray
        In PyTorch's order; changed in place by training.
    """

    def __init__(self, net, parameters):
        self.layers = []
        self.parameters = parameters
        self.gradients = [None] * len(parameters)
        self.running = []  # mean and variance of each batch normalization
        position = 0
        for kind, *_ in net.layers:
            count = 0 if kind in ("sigmoid", "relu", "max_pool2d", "flatten") else 2
            statistics = None
            if kind.startswith("batch_norm"):
                like = parameters[position]
                statistics = np.zeros_like(like), np.ones_like(like)
                self.running += statistics
            self.layers.append((kind, slice(position, position + count), statistics))
            position += count

    def predict(self, x):
        """The output (N, 10) with running statistics."""
        for kind, own, running in self.layers:
            parameters = self.parameters[own]
            if running is not None:
                weight, bias = parameters
                column = (-1, *[1] * (x.ndim - 2))
                scale = weight / np.sqrt(running[1] + 1e-5)
                x = x * scale.reshape(column)
                x += (bias - running[0] * scale).reshape(column)
            else:
                x = _forward(kind, x, parameters)[0]
        return x

    def loss(self, x, labels):
        """The loss of a batch; leaves its gradients in `gradients` and updates the running statistics."""
        steps = []
        for kind, own, running in self.layers:
            if running is None:
                x, backward = _forward(kind, x, self.parameters[own])
            else:
                found: list = []
                x, backward = ops.batch_norm(x, *self.parameters[own], statistics=found)
                _update_running(running, found, x.size // x.shape[1])
            steps.append((own, backward))
        loss, backward = ops.cross_entropy(x, labels)
        grad = backward(1)[0]
        for index in range(len(steps) - 1, -1, -1):
            own, backward = steps[index]
            grads = backward(grad) if index else backward(grad, needs_x=False)
            grad, self.gradients[own] = grads[0], grads[1:]
        return loss


def _forward(kind, x, parameters):
    if kind == "flatten":
        return x.reshape(len(x), -1), lambda grad: (grad.reshape(x.shape),)
    if kind == "conv2d":
        return ops.conv2d(x, *parameters, padding=1)
    return ops.OPS[kind](x, *parameters)


def _update_running(running, found, count, momentum=0.1):
    """PyTorch's rule: the new batch weighs `momentum`, and the variance kept is the unbiased one."""
    mean, variance = found
    running[0][:] += momentum * (mean - running[0])
    running[1][:] += momentum * (variance * (count / (count - 1)) - running[1])
