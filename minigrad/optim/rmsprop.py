"""RMSprop."""

from minigrad import ops
from minigrad.modes import no_grad
from minigrad.optim.optimizer import Optimizer, step_tensor
from minigrad.tensor import Tensor


class RMSprop(Optimizer):
    """RMSprop, as PyTorch defines it.

    ::

        g = gradient + weight_decay * parameter      (-gradient with maximize)
        square_avg = alpha * square_avg + (1 - alpha) * g * g
        grad_avg = alpha * grad_avg + (1 - alpha) * g      (with centered)
        scaled = g / (sqrt(square_avg) + eps)      (centered: sqrt(square_avg - grad_avg * grad_avg))
        buffer = momentum * buffer + scaled      (scaled itself without momentum)
        parameter -= lr * buffer

    It has no kernel of its own: a parameter costs some fifteen launches of the ops it is written in, where `Adam` has
    one.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
    alpha : float
        How much of the average of squared gradients is kept, from 0 to 1.
    eps : float
    weight_decay, momentum : float
    centered : bool
        Divide by the standard deviation of the gradients instead of the root of their mean square.
    maximize : bool
        Climb instead of descend.

    References
    ----------
    Hinton, Neural Networks for Machine Learning, lecture 6e (2012); centered: Graves, arXiv 1308.0850, section 4.2.
    """

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, *,
                 maximize=False):
        super().__init__(params, {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum,
            "centered": centered, "maximize": maximize,
        })

    def check_group(self, group):
        super().check_group(group)
        for setting in ("alpha", "eps", "momentum"):
            self.check_range(group, setting, 0.0)

    def _state(self, param, group):
        state = self.state.get(param)
        if state is None:
            state = self.state[param] = {
                "step": step_tensor(0.0, param.device), "square_avg": self.zeros_like(param),
            }
        else:
            self.check_state(param, state["square_avg"])
        for name, wanted in (("momentum_buffer", group["momentum"]), ("grad_avg", group["centered"])):
            if wanted and name not in state:
                state[name] = self.zeros_like(param)
        return state

    def hyper_parameters(self, group):
        alpha = float(group["alpha"])
        return (float(group["lr"]), alpha, 1.0 - alpha, float(group["eps"]), float(group["weight_decay"]),
                float(group["momentum"]))

    def fixed_settings(self, group):
        return bool(group["weight_decay"]), bool(group["momentum"]), group["centered"], group["maximize"]

    @no_grad()
    def update(self, index, group):
        for device, params in self.with_gradients(group):
            settings, numbers = Tensor(self.settings(index, device), device), {}
            for param in params:
                if param.dtype not in numbers:  # tensors of shape (): what changes from step to step is no constant
                    numbers[param.dtype] = ops.unbind(settings.to(param.dtype))
                self._step(param, self._state(param, group), group, *numbers[param.dtype])

    def _step(self, param, state, group, lr, alpha, rest, eps, weight_decay, momentum):
        p, g, square_avg = param.detach(), param.grad.detach(), state["square_avg"]
        state["step"].add_(1.0)
        if group["maximize"]:
            g = -g
        if group["weight_decay"]:
            g = g + weight_decay * p
        variance = square_avg.copy_(alpha * square_avg + rest * (g * g))
        if group["centered"]:
            grad_avg = state["grad_avg"]
            grad_avg.copy_(alpha * grad_avg + rest * g)
            variance = square_avg - grad_avg * grad_avg
        scaled = g / (variance.sqrt() + eps)
        if group["momentum"]:
            scaled = state["momentum_buffer"].copy_(momentum * state["momentum_buffer"] + scaled)
        p.copy_(p - lr * scaled)
