"""Batch normalization against PyTorch over drawn configurations: outputs, gradients and running statistics.

On the CPU, and the same configurations on the emulated GPU.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the parity tests compare with PyTorch")

from torch_compare import TOLERANCE, agree, agree_module, close, to_torch  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad import layers as nn  # noqa: E402
from minigrad.ops.norm import sub_batches  # noqa: E402

KINDS = {
    "1d, (N, C)": (nn.BatchNorm1d, torch.nn.BatchNorm1d, 0),
    "1d, (N, C, L)": (nn.BatchNorm1d, torch.nn.BatchNorm1d, 1),
    "2d": (nn.BatchNorm2d, torch.nn.BatchNorm2d, 2),
}


DEVICES = ["cpu", "cuda"]


def draw(seed, device="cpu", **fixed):
    """One configuration, some settings of which may be fixed: the layer here, the one there, what to feed them."""
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % 3]
    ours, theirs, spatial = KINDS[kind]
    dtype = "float64" if rng.random() < 0.7 else "float32"
    channels = int(rng.integers(1, 9))
    settings = {
        "eps": float(rng.choice([1e-5, 1e-3, 0.1])),
        "momentum": [0.1, 0.0, 0.9, 1.0, None][rng.integers(5)],
        "affine": bool(rng.random() < 0.7),
        "track_running_stats": bool(rng.random() < 0.7),
    }
    if settings["affine"] and rng.random() < 0.3:
        settings["bias"] = False
    settings |= fixed
    shapes = []
    for _ in range(3):
        shape = [int(rng.integers(1, 7)), channels, *[int(n) for n in rng.integers(1, 6, spatial)]]
        if shape[0] * int(np.prod(shape[2:])) == 1:
            shape[0] = 2
        shapes.append(tuple(shape))
    a = ours(channels, **settings, dtype=dtype, device=device)
    b = theirs(channels, **settings, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for parameter in b.parameters():
            parameter.copy_(torch.tensor(rng.standard_normal(channels)))
    mean, deviation = rng.choice([0.0, 3.0, -50.0]), rng.choice([1.0, 0.1, 20.0])
    batches = [(mean + deviation * rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    return f"{kind}, {dtype}, {settings}, {shapes}, {device}", a, b, batches


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(240))
def test_batch_norm(seed, device):
    """Two batches in training, one in evaluation, then one in training again."""
    what, ours, theirs, batches = draw(seed, device)
    for step, (batch, training) in enumerate(zip([*batches, batches[0]], [True, True, False, True], strict=True)):
        agree_module(ours, theirs, batch, what=f"step {step} of {what}", training=training, device=device)
    ours.reset_running_stats(), theirs.reset_running_stats()
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        close(a, b, f"{name} after reset_running_stats, {what}", 1e-4)
    theirs.load_state_dict(to_torch(ours.state_dict()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(24))
def test_frozen_in_training_is_evaluation_there(seed, device):
    """A frozen layer in training against PyTorch's in evaluation, with weight and bias that go on training."""
    what, ours, theirs, batches = draw(seed, device, track_running_stats=True)
    agree_module(ours, theirs, batches[0], what=what, device=device)
    ours.freeze(affine=False)
    for batch in batches[1:]:
        ours.train(), theirs.eval(), ours.zero_grad(), theirs.zero_grad()
        agree(ours, theirs, batch, what=f"frozen, {what}", device=device)
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            close(a.grad, b.grad, f"gradient of {name}, frozen, {what}", TOLERANCE[batch.dtype.name])
        for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            close(a, b, f"{name}, frozen, {what}", TOLERANCE[batch.dtype.name])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(48))
def test_ghost_batch_norm(seed, device):
    """Sub-batches against PyTorch's layer called once for each, with its running statistics."""
    what, ours, theirs, batches = draw(seed, device)
    size = 2 + seed % 3
    ours.ghost_batch_size = size

    def one_by_one(x):
        sizes = sub_batches("batch_norm", tuple(x.shape), size)
        return torch.cat([theirs(part) for part in x.split(sizes)])

    for batch in batches:
        ours.load_state_dict(theirs.state_dict())
        ours.zero_grad(), theirs.zero_grad()
        agree(ours, one_by_one, batch, what=f"ghost {size}, {what}", device=device)
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            close(a.grad, b.grad, f"gradient of {name}, ghost {size}, {what}", TOLERANCE[batch.dtype.name])
        for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            close(a, b, f"{name}, ghost {size}, {what}", TOLERANCE[batch.dtype.name])


@pytest.mark.parametrize("seed", range(12))
def test_frozen_batch_norm_keeps_its_statistics(seed):
    """Evaluation inside a network in training, with gradients of the affine parameters only."""
    what, ours, theirs, batches = draw(seed)
    agree_module(ours, theirs, batches[0], what=what)
    for module in (ours, theirs):
        module.eval()
        module.requires_grad_(False)
    agree_module(ours, theirs, batches[1], what=f"frozen, {what}", training=False)


SHAPES = [(4,), (0, 3), (1, 3), (2, 3), (4, 5), (1, 3, 1), (2, 3, 4), (2, 3, 4, 5), (1, 3, 1, 1), (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_bad_shapes_raise_in_both(kind, shape):
    """What PyTorch refuses is refused here, in a sentence that names the layer and the shape."""
    ours, theirs, _ = KINDS[kind]
    try:
        theirs(3)(torch.zeros(shape))
        refused = False
    except (ValueError, RuntimeError):
        refused = True
    if shape == (0, 3) and "1d" in kind:
        refused = True  # PyTorch goes on with an empty batch and leaves NaN in the running statistics
    layer = ours(3)
    before = layer.state_dict()["running_var"].numpy().copy()
    if refused:
        with pytest.raises(ValueError, match=rf"{type(layer).__name__}: expected .*, got .*\("):
            layer(mg.zeros(shape))
        assert (layer.running_var.numpy() == before).all() and layer.num_batches_tracked.item() == 0
    else:
        layer(mg.zeros(shape))
