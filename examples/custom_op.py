"""An op of your own, outside the package: swish with a learned slope, from the formula to kernels to a trained net.

    python examples/custom_op.py
    MINIGRAD_CUDA=emulate python examples/custom_op.py --device cuda --quick

The kernels are in custom_op_kernels.py; docs/course/07-custom-op.md builds such an op step by step.
"""

import argparse
import timeit

import custom_op_kernels  # noqa: F401 - the import registers the kernels
import numpy as np

import minigrad as mg
from minigrad import layers as nn
from minigrad.testing import gradcheck, gradgradcheck, kernelcheck


class Swish(mg.Function):
    """y = x sigmoid(beta x) (Ramachandran, Zoph, Le 2017, arXiv:1710.05941)"""

    def forward(self, x, beta):
        out = self.device.empty(x.shape, x.dtype)
        self.device.kernels.swish_forward(x.ravel(), beta, out.ravel())
        return out

    def backward(self, grad):  # beta's gradient may have the shape of x: the engine sums it
        return mg.apply_multiple(SwishGrad, *self.inputs, grad)


class SwishGrad(mg.Function):
    """grad (s + beta x s (1 - s)) and grad x^2 s (1 - s), in one pass"""

    def forward(self, x, beta, grad):
        grad_x, terms = self.device.empty(x.shape, x.dtype), self.device.empty(x.shape, x.dtype)
        self.device.kernels.swish_grad(x.ravel(), beta, grad.ravel(), grad_x.ravel(), terms.ravel())
        return grad_x, terms

    def compose(self, x, beta, grad):  # the same in tensor ops, for the gradient of the gradient
        s = mg.sigmoid(beta * x)
        bend = x * s * (1 - s)
        return grad * (s + beta * bend), grad * x * bend


class SwishLayer(nn.Module):
    """``swish(x, beta)`` with a beta that is learned."""

    def __init__(self, swish=Swish.apply):
        self.beta, self.swish = nn.Parameter(mg.ones(1)), swish

    def forward(self, x):
        return self.swish(x, self.beta)


def check(device):
    """Kernels against the definition, gradients of both orders against differences."""
    x, grad = np.random.default_rng(0).standard_normal((2, 500), dtype=np.float32)
    kernelcheck("swish_forward", [x, x[:1]], [x.shape], device=device)
    kernelcheck("swish_grad", [x, x[:1], grad], [x.shape, x.shape], device=device)
    inputs = [mg.tensor(np.linspace(-3, 3, n), device=device, requires_grad=True) for n in (8, 1)]
    assert gradcheck(Swish.apply, inputs) and gradgradcheck(Swish.apply, inputs)
    print("kernels and gradients of both orders are right")


def train(data, swish, device, epochs, images):
    """Train a small net on some images, its step recorded once, then replayed; returns accuracy and model."""
    mg.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), SwishLayer(swish), nn.Linear(32, 10)).to(device)
    optimizer = mg.optim.Adam(model.parameters(), lr=0.01)

    @mg.capture
    def step(images, labels):
        loss = mg.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    x, y = data.x_train[:images], data.y_train[:images]
    for epoch in range(epochs):
        for batch in mg.data.batches(x, y, batch_size=64, seed=epoch, device=device):
            step(*batch)
    with mg.no_grad():
        found = model(mg.from_numpy(data.x_test[:images], device)).argmax(1).numpy()
    return (found == data.y_test[:images]).mean(), model


def microseconds(swish, x, beta, repeats):
    """The fastest forward and backward of some."""

    def once():
        swish(x, beta).sum().backward()
        return float(beta.grad)  # waits, on a GPU

    once()  # compiles
    return min(timeit.repeat(once, number=1, repeat=repeats)) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="few images and small arrays: for the emulator")
    options = parser.parse_args()
    device, (epochs, images, rows, repeats) = options.device, (1, 8, 1, 3) if options.quick else (5, None, 64, 100)
    check(device)
    x = mg.randn(rows, 256, device=device)
    beta = mg.tensor([1.5], device=device, requires_grad=True)
    difference = abs(Swish.apply(x, beta) - x * mg.sigmoid(beta * x)).max()
    print(f"largest difference to the composition of primitives: {float(difference):.1e}")
    x.requires_grad = True
    for name, swish in (("kernels of its own", Swish.apply), ("composition", lambda x, beta: x * mg.sigmoid(beta * x))):
        accuracy, model = train(mg.data.digits(), swish, device, epochs, images)
        print(f"{name:18} {microseconds(swish, x, beta, repeats):5.0f} us for {rows} x 256, forward and backward; "
              f"test accuracy {accuracy:.1%}, beta {float(model[2].beta):.3f}")


if __name__ == "__main__":
    main()
