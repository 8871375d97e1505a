"""Memory shared with PyTorch, in both directions."""

import numpy as np
import pytest
import torch

import minigrad as mg

DTYPES = [torch.float32, torch.float64, torch.int64, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_torch(dtype):
    theirs = torch.arange(6).reshape(2, 3).to(dtype)
    ours = mg.from_dlpack(theirs)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    theirs.zero_()
    assert not ours.numpy().any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_to_torch(dtype):
    ours = mg.from_numpy(np.arange(6).reshape(2, 3).astype(dtype))
    theirs = torch.from_dlpack(ours)
    theirs.zero_()
    assert not ours.numpy().any()


def test_from_the_device():
    """The emulated device's memory is the host's, so PyTorch takes it as a tensor of its CPU."""
    ours = mg.tensor([[1.0, 2.0]], device="cuda")
    theirs = torch.from_dlpack(ours)
    ours.fill_(3.0)
    assert theirs.tolist() == [[3.0, 3.0]]


def test_what_cannot_be_shared():
    with pytest.raises(ValueError, match="C order"):
        mg.from_dlpack(torch.ones(2, 3).T)
    with pytest.raises(ValueError, match="float16"):
        mg.from_dlpack(torch.ones(2, dtype=torch.float16))
    with pytest.raises(RuntimeError, match="detach it first"):
        torch.from_dlpack(mg.ones(2, requires_grad=True))
