"""Limits on gradients, in place."""

import math

from minigrad import modes, ops
from minigrad.creation import zeros
from minigrad.dtypes import float32
from minigrad.modes import no_grad, on_host
from minigrad.tensor import Tensor


def _gradients(op, parameters):
    recorder = modes.recorder.get()
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for parameter in parameters:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"{op}: expected parameters to be Tensors, got {type(parameter).__name__}")
        if recorder:
            recorder.grad_read(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(grad, norm_type):
    """The p-norm of one gradient as a tensor of shape (1,)."""
    if norm_type == 2.0:
        out = Tensor(grad.device.empty((1,), grad.dtype), grad.device)
        grad.device.kernels.sum_of_squares(grad.data.ravel(), out.data)
        return ops.sqrt(out)
    size = ops.reshape(ops.abs(grad.detach()), (-1,))
    if norm_type == math.inf:
        return ops.max(size, 0, keepdim=True)
    return ops.sum(size**norm_type, 0, keepdim=True) ** (1.0 / norm_type)


def _check_finite(norm):
    if not math.isfinite(norm.item()):
        raise RuntimeError(f"clip_grad_norm_: expected a finite norm of the gradients, got {norm.item()}")


@no_grad()
def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scale all gradients down together so that their norm is at most `max_norm` (Pascanu et al., arXiv 1211.5063).

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are passed over.
    max_norm : float
    norm_type : float
        The p of the norm; ``math.inf`` for the largest element.
    error_if_nonfinite : bool
        Raise if the norm is NaN or infinite, instead of scaling by it.

    Returns
    -------
    Tensor of shape ()
        The norm of all gradients as one vector, before scaling.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: expected max_norm >= 0, got {max_norm}")
    norm_type = float(norm_type)
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: expected norm_type > 0, got {norm_type}")
    grads = _gradients("clip_grad_norm_", parameters)
    norms = [_norm(grad, norm_type) for grad in grads if grad.numel()]
    if not norms:
        return zeros((), dtype=grads[0].dtype if grads else float32)
    dtype = max([n.dtype for n in norms], key=lambda d: d.itemsize)
    total = _norm(ops.cat([n.to(dtype) for n in norms]), norm_type)
    if error_if_nonfinite:
        on_host(lambda: _check_finite(total))
    scale = ops.clip(float(max_norm) / (total + 1e-6), None, 1.0)
    for grad in grads:
        grad.device.kernels.scale_inplace(grad.data.ravel(), scale.to(grad.dtype).data)
        grad.version[0] += 1
    return ops.reshape(total, ())


@no_grad()
def clip_grad_value_(parameters, clip_value):
    """Clip every element of the gradients to ``[-clip_value, clip_value]``."""
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: expected clip_value >= 0, got {clip_value}")
    for grad in _gradients("clip_grad_value_", parameters):
        flat = grad.data.ravel()
        grad.device.kernels.clip(flat, flat, -float(clip_value), float(clip_value))
        grad.version[0] += 1
