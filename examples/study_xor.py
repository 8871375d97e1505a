"""A net of 17 weights learns XOR; look at one of its steps.

    python examples/study_xor.py            # trains it and prints what it has learned
    minigrad study examples/study_xor.py    # writes step.html: every value, every gradient, what each weight moves
"""

import minigrad as mg
from minigrad import layers as nn

x = mg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
y = mg.tensor([[0.0], [1.0], [1.0], [0.0]])


def net():
    """2-4-1: one straight line cannot part XOR's corners, four bent ones can."""
    mg.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))


def train(model, steps):
    """Gradient descent on all four corners at once; returns the last loss."""
    optimizer = mg.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(steps):
        loss = mg.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def study():
    """What ``minigrad study`` looks at: the net after a few steps, when its gradients are neither noise nor zero."""
    model = net()
    train(model, 20)
    return model, x, y


if __name__ == "__main__":
    model = net()
    print(f"loss {train(model, 1000):.6f}")
    for corner, output in zip(x.numpy(), model(x).numpy(), strict=True):
        print(f"{corner[0]:.0f} xor {corner[1]:.0f} = {output[0]:+.3f}")
