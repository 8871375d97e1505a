"""Hooks in a captured step."""

import numpy as np

import minigrad as mg
from minigrad import layers as nn


def test_hooks_that_come_and_go():
    """A replay repeats what the hooks did that there were, so with others the step is recorded anew."""
    layers = nn.Linear(3, 2), nn.Linear(2, 2)
    free = mg.ones(2, requires_grad=True)  # of no module
    calls = []

    def forward_and_backward(x):
        calls.append(1)
        for leaf in (*layers[0].parameters(), *layers[1].parameters(), free):
            leaf.zero_grad()
        y = (layers[1](layers[0](x)) * free).sum()
        y.backward()
        return y

    step = mg.capture(forward_and_backward, most_recordings=10)

    def same():
        x = mg.randn(4, 3)
        found = [step(x), layers[0].weight.grad, free.grad]
        wanted = [forward_and_backward(x), layers[0].weight.grad, free.grad]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.detach().numpy())

    same()
    handles = []
    for owner in (layers[0].weight, free):
        handles.append(owner.register_hook(lambda grad: grad * 2.0))
        same()
    for layer in (layers[0], layers[0], layers[1]):
        handles.append(layer.register_forward_hook(lambda module, args, output: output * 3.0))
        same()
    for handle in handles:
        same()
        handle.remove()
        same()
    same()
    assert len(step.recordings) == 10 and len(calls) == 17 + 10  # each comparison calls it once more
