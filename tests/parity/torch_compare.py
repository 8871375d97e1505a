"""How a computation in minigrad is held against the same one in PyTorch."""

import numpy as np
import torch

import minigrad as mg

# Relative to the largest element of the result: float64 differs by rounding only, float32 by its own.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
DTYPES = ("float64", "float32")


def close(ours, theirs, what, tolerance=1e-10):
    """Assert that two arrays have one shape, one dtype and, up to a tolerance, the same numbers."""
    ours = ours.numpy() if isinstance(ours, mg.Tensor) else np.asarray(ours)
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, PyTorch has {theirs.shape}"
    assert ours.dtype == theirs.dtype, f"{what}: dtype {ours.dtype}, PyTorch has {theirs.dtype}"
    finite = theirs[np.isfinite(theirs)] if theirs.dtype.kind == "f" else theirs
    scale = max(1.0, float(np.abs(finite).max())) if finite.size and theirs.dtype != bool else 1.0
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=what)


def pair(array, requires_grad=None, device=None):
    """One array as a leaf here and as a leaf there; floats require grad unless told otherwise."""
    wanted = array.dtype.kind == "f" if requires_grad is None else requires_grad
    return mg.tensor(array, requires_grad=wanted, device=device), torch.tensor(array, requires_grad=wanted)


def agree(ours, theirs, *arrays, what="", tolerance=None, device=None):
    """Run two functions on the same arrays; compare the results and, for floats, the gradients of all inputs.

    The outputs are weighed by random numbers before backward, so that every element of the Jacobian counts.
    """
    dtypes = [a.dtype.name for a in arrays if a.dtype.kind == "f"]
    tolerance = tolerance or TOLERANCE[dtypes[0] if dtypes else "float64"]
    pairs = [pair(a, device=device) for a in arrays]
    y, z = ours(*[p[0] for p in pairs]), theirs(*[p[1] for p in pairs])
    close(y, z, f"{what}: forward", tolerance)
    if z.requires_grad:
        backward(y, z)
        for i, (a, b) in enumerate(pairs):
            if b.grad is not None:
                close(a.grad, b.grad, f"{what}: gradient of input {i}", tolerance)
            else:
                assert a.grad is None, f"{what}: input {i} should get no gradient"
    return y, z


def backward(y, z, seed=0):
    """Backward through both from the same random gradient."""
    seeds = np.random.default_rng(seed).standard_normal(tuple(z.shape)).astype(y.dtype)
    y.backward(mg.tensor(seeds, device=y.device))
    z.backward(torch.tensor(seeds))


def to_torch(state):
    """A state dict of minigrad as PyTorch loads it."""
    return {key: torch.from_numpy(value.numpy().copy()) for key, value in state.items()}


def agree_module(ours, theirs, *arrays, what="", tolerance=None, training=True, device=None):
    """Compare two modules: weights travel over, then outputs, gradients of inputs and parameters, and buffers.

    With `device`, that is where the module of minigrad is.
    """
    tolerance = tolerance or TOLERANCE[next(a.dtype.name for a in arrays if a.dtype.kind == "f")]
    assert list(ours.state_dict()) == list(theirs.state_dict()), f"{what}: the keys of the state dicts differ"
    ours.load_state_dict(theirs.state_dict())
    ours.train(training), theirs.train(training)
    ours.zero_grad(), theirs.zero_grad()
    agree(ours, theirs, *arrays, what=what, tolerance=tolerance, device=device)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if gradients[name].grad is None:
            assert parameter.grad is None, f"{what}: {name} should get no gradient"
        else:
            close(parameter.grad, gradients[name].grad, f"{what}: gradient of {name}", tolerance)
    buffers = dict(theirs.named_buffers())
    assert list(buffers) == [name for name, _ in ours.named_buffers()]
    for name, buffer in ours.named_buffers():
        close(buffer, buffers[name], f"{what}: buffer {name}", tolerance)
