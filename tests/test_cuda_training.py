"""Nets on the CUDA device (the emulator, see conftest) learn what they learn on the CPU; captured steps too."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad import layers as nn
from minigrad import optim
from minigrad.recording.recorder import CaptureError


def mlp():
    # No biases before batch normalization: their gradient is zero but for rounding, which Adam would magnify.
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Dropout(0.2), nn.Linear(8, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip


def plain():
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(),
                         nn.LayerNorm(2), nn.Linear(2, 3))


NETS = {"mlp": (mlp, (6,)), "cnn": (cnn, (1, 4, 4)), "plain": (plain, (1, 4, 4))}
OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


def train(device, net, optimizer, steps=4, captured=False):
    """The losses and everything that training changed, as arrays."""
    mg.manual_seed(1)
    make, shape = NETS[net]
    model = make().to(device)
    opt = OPTIMIZERS[optimizer](model.parameters())
    mg.manual_seed(2)  # the generators of the devices have drawn different numbers so far
    scheduler = optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=steps)
    rng = np.random.default_rng(2)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        scheduler.step()
        return loss

    step = mg.capture(step) if captured else step
    losses = []
    for _ in range(steps):
        x = mg.tensor(rng.standard_normal((5, *shape)), mg.float32, device)
        losses.append(step(x, mg.tensor(rng.integers(0, 3, 5), device=device)))
    assert all(str(loss.device) == device for loss in losses)
    assert all(str(value.device) == device for value in model.state_dict().values())
    return [loss.item() for loss in losses], [value.numpy() for value in model.state_dict().values()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_same_as_cpu(net, optimizer):
    losses, state = train("cuda", net, optimizer)
    expected, expected_state = train("cpu", net, optimizer)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    for found, wanted in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("net", NETS)
def test_captured(net):
    """The same bits as without capture, dropout, running statistics and the schedule among them."""
    for found, wanted in zip(train("cuda", net, "adam", captured=True), train("cuda", net, "adam"), strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_it_learns():
    """A line through four points, by a captured step."""
    mg.manual_seed(0)
    model = nn.Linear(2, 1).to("cuda")
    opt = optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    x = mg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], device="cuda")
    y = mg.tensor([[1.0], [3.0], [0.0], [2.0]], device="cuda")

    @mg.capture
    def step(x, y):
        loss = F.mse_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    first = step(x, y).item()
    for _ in range(30):
        last = step(x, y).item()
    assert last < 1e-3 < 1 < first
    np.testing.assert_allclose(model.weight.numpy(), [[-1, 2]], atol=0.1)


def test_bad_labels_are_found_at_the_next_read():
    """Nothing waits for the GPU before, and a recorded step stays one piece."""
    step = mg.capture(lambda x, y: F.cross_entropy(x * 2.0, y))
    x, good, bad = mg.zeros(2, 3, device="cuda"), *[mg.tensor(y, device="cuda") for y in ([0, 2], [0, 3])]
    assert abs(step(x, good).item() - np.log(3)) < 1e-6 and len(step.recordings[0]._steps) == 1
    for attempt in (step, F.cross_entropy):
        loss = attempt(x, bad)
        with pytest.raises(ValueError, match="cross_entropy: expected class indices from 0 to 2, got 3"):
            loss.item()
        loss.item(), attempt(x, good).item()
    rows = F.embedding(bad, mg.ones(3, 2, device="cuda"))
    with pytest.raises(IndexError, match="embedding: expected indices from 0 to 2, got 3"):
        rows.numpy()


def test_capture_does_not_move_tensors():
    model = nn.Linear(6, 3).to("cuda")
    step = mg.capture(lambda x: model(x.to("cuda")))
    with pytest.raises(CaptureError, match="moves a tensor from cpu to cuda"):
        step(mg.zeros(2, 6))


def test_state_dicts_travel():
    mg.manual_seed(0)
    here, there = cnn(), cnn().to("cuda")
    there.load_state_dict(here.state_dict())
    x = mg.randn(3, 1, 4, 4)
    np.testing.assert_allclose(there(x.to("cuda")).numpy(), here(x).numpy(), rtol=1e-4, atol=1e-5)
    here.load_state_dict(there.state_dict())
