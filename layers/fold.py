"""Folding batch normalization into the layer before it, for inference."""

import copy
import warnings

import numpy as np

from minigrad.creation import from_numpy
from minigrad.layers.container import Sequential
from minigrad.layers.conv import Conv2d
from minigrad.layers.linear import Linear
from minigrad.layers.module import Module, Parameter
from minigrad.layers.norm import BatchNorm1d, BatchNorm2d, Folded
from minigrad.modes import no_grad

PAIRS = (Linear, BatchNorm1d), (Conv2d, BatchNorm2d)  # by exact type: a subclass may do anything


def fold_batchnorm(model):
    """A copy of a model for inference, in which batch normalizations are folded into the layers before them.

    With fixed statistics, batch normalization is a scale and a shift per channel, and so is part of what a linear
    layer can do: ``weight * s`` and ``(bias - running_mean) * s + beta`` with ``s = gamma / sqrt(running_var + eps)``.
    Where a BatchNorm1d stands directly behind a Linear, or a BatchNorm2d behind a Conv2d, in a Sequential or across the
    borders of nested ones, that layer takes it over, and nothing is left to compute in its place. Child names stay.

    Parameters
    ----------
    model : Module
        In evaluation mode. It is left as it is.

    Returns
    -------
    Module
        The copy. Its outputs differ by rounding only.

    Raises
    ------
    TypeError
        If it is no Module.
    ValueError
        If the model is in training mode, or a batch normalization has no running statistics.

    Warns
    -----
    UserWarning
        With the names of the batch normalizations that stay, and why: another layer in front, hooks, parameters or
        layers that are used twice, other numbers of channels.

    Examples
    --------
    >>> fast = fold_batchnorm(model.eval())
    """
    _check(model)
    model = copy.deepcopy(model)
    uses = _uses(model)
    stay = {name: "it is not directly behind a Linear or Conv2d in a Sequential" for name, _ in _norms(model)}
    for chain in _chains(model):
        for (_, _, layer), (parent, name, norm) in zip(chain, chain[1:], strict=False):
            if (type(layer), type(norm)) not in PAIRS:
                continue
            reason = _obstacle(layer, norm, uses)
            path = next(path for path, module in _norms(model) if module is norm)
            if reason is None:
                _fold(layer, norm)
                setattr(parent, name, Folded(norm))
                del stay[path]
            else:
                stay[path] = reason
    if stay:
        reasons = "; ".join([f"{name}: {reason}" for name, reason in stay.items()])
        warnings.warn(f"fold_batchnorm: {len(stay)} of the batch normalizations stay ({reasons})", stacklevel=2)
    return model


def _fold(layer, norm):
    """Give a layer the weight and bias that do the work of the norm behind it, computed in float64."""
    mean, variance = _wide(norm.running_mean), _wide(norm.running_var)
    scale = (1.0 if norm.weight is None else _wide(norm.weight)) / np.sqrt(variance + norm.eps)
    shift = 0.0 if norm.bias is None else _wide(norm.bias)
    weight, bias = _wide(layer.weight), 0.0 if layer.bias is None else _wide(layer.bias)
    weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = (bias - mean) * scale + shift
    dtype, device = np.dtype(layer.weight.data.dtype), layer.weight.device
    with no_grad():
        layer.weight.copy_(from_numpy(weight.astype(dtype), device))
        layer.bias = Parameter(from_numpy(bias.astype(dtype), device))
    layer.bias.requires_grad_(layer.weight.requires_grad)


def _wide(tensor):
    return tensor.numpy().astype(np.float64)


def _norms(model):
    """Pairs of dotted name and batch normalization."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, (BatchNorm1d, BatchNorm2d))]


def _check(model):
    """Raise unless it is a model all of whose statistics are fixed."""
    if not isinstance(model, Module):
        raise TypeError(f"fold_batchnorm: expected a Module, got {type(model).__name__}")
    for name, norm in _norms(model):
        where = f"{name or 'the model'} ({type(norm).__name__})"
        if not norm.track_running_stats:
            raise ValueError(f"fold_batchnorm: expected running statistics, got {where} with track_running_stats=False")
        if norm.own_statistics:
            raise ValueError(f"fold_batchnorm: expected a model in evaluation mode, got {where} in training; "
                             "call eval() first")
    if model.training:
        raise ValueError("fold_batchnorm: expected a model in evaluation mode, got one in training; call eval() first")


def _chains(model):
    """Lists of (parent, name, module) that are called one after the other, as far as Sequentials show it."""
    for module in list(model.modules()):
        if _plain(module):
            yield list(_leaves(module))


def _plain(module):
    """Whether it calls its children in order and does nothing else."""
    return isinstance(module, Sequential) and type(module).forward is Sequential.forward and not _watched(module)


def _watched(module):
    """Whether somebody looks on, or has given it another forward."""
    return bool(module._forward_hooks) or "forward" in module.__dict__


def _leaves(module):
    for name, child in module._items():
        if _plain(child):
            yield from _leaves(child)
        else:
            yield module, name, child


def _uses(model):
    """How often every module and every parameter occurs, by identity."""
    count = {}
    for _, module in model._walk("", None):
        for part in [module, *[m for m in module.__dict__.values() if isinstance(m, Parameter)]]:
            count[id(part)] = count.get(id(part), 0) + 1
    return count


def _obstacle(layer, norm, uses):
    """Why a norm cannot be folded into the layer before it, or None."""
    channels = layer.weight.shape[0]
    if channels != norm.num_features:
        return f"the {type(layer).__name__} before it has {channels} features, it has {norm.num_features} channels"
    if _watched(layer) or _watched(norm):
        return f"it or the {type(layer).__name__} before it has a hook or a forward of its own"
    if any([uses[id(part)] > 1 for part in (layer, norm, *layer.parameters(), *norm.parameters())]):
        return f"it or the {type(layer).__name__} before it is used in two places"
    return None
