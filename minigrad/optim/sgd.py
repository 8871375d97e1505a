"""Stochastic gradient descent."""

from minigrad.ops.common import flat
from minigrad.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch defines it.

    ::

        g = gradient + weight_decay * parameter      (-gradient with maximize)
        buffer = momentum * buffer + (1 - dampening) * g      (g itself in the first step)
        parameter -= lr * buffer      (nesterov: lr * (g + momentum * buffer))

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
    momentum, dampening, weight_decay : float
    nesterov : bool
        Needs a momentum and no dampening.
    maximize : bool
        Climb instead of descend.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, ICML 2013.
    """

    def __init__(self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, maximize=False):
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize,
        })

    def check_group(self, group):
        super().check_group(group)
        self.check_range(group, "momentum", 0.0)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: expected momentum > 0 and dampening 0 for nesterov, got momentum "
                f"{group['momentum']} and dampening {group['dampening']}"
            )

    def hyper_parameters(self, group):
        return (float(group["lr"]), float(group["momentum"]), float(group["dampening"]), float(group["weight_decay"]))

    def fixed_settings(self, group):
        return bool(group["momentum"]), group["nesterov"], group["maximize"]

    def update(self, index, group):
        momentum, dampening = group["momentum"], group["dampening"]
        nesterov, maximize = int(group["nesterov"]), int(group["maximize"])
        for device, params in self.with_gradients(group):
            sgd, settings = device.kernels.sgd, self.settings(index, device)
            for param in params:
                first = 0
                if momentum:
                    buffer = self.state.get(param, {}).get("momentum_buffer")
                    if buffer is None:
                        buffer = self.zeros_like(param)
                        self.state[param] = {"momentum_buffer": buffer}
                        if dampening:  # which spares the first gradient; without it, zeros need no special case
                            first = 1
                            self.unrepeatable()
                    else:
                        self.check_state(param, buffer)
                    buffer = flat(buffer.data)
                else:
                    buffer = device.empty((0,), param.data.dtype)
                sgd(flat(param.data), flat(param.grad.data), buffer, settings, nesterov, maximize, first)
                param.version[0] += 1
