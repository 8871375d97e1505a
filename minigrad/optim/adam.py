"""Adam and AdamW."""

from minigrad.ops.common import flat
from minigrad.optim.optimizer import Optimizer, step_tensor


class Adam(Optimizer):
    """Adam, as PyTorch defines it.

    ::

        g = gradient + weight_decay * parameter      (-gradient with maximize; AdamW: no decay here)
        exp_avg = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
        parameter -= lr * (exp_avg / (1 - beta1**t)) / (sqrt(exp_avg_sq / (1 - beta2**t)) + eps)

    Parameters
    ----------
    params : iterable of Tensor, or of dict
    lr : float
    betas : pair of float
        How much of the averages of gradient and squared gradient is kept, each from 0 to below 1.
    eps : float
    weight_decay : float
        Added to the gradient; see `AdamW` for the decoupled kind.
    amsgrad : bool
        Divide by the largest average of squares so far (Reddi, Kale and Kumar, ICLR 2018).
    maximize : bool
        Climb instead of descend.

    References
    ----------
    Kingma and Ba, arXiv 1412.6980, algorithm 1.
    """

    decoupled = 0

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, *, maximize=False):
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize,
        })

    def check_group(self, group):
        super().check_group(group)
        self.check_range(group, "eps", 0.0)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{self.name}: expected betas as a pair of numbers, got {betas!r}")
        for name, beta in zip(("the first of betas", "the second of betas"), betas, strict=True):
            self.check_range({name: beta}, name, 0.0, 1.0)

    def _state(self, param, amsgrad):
        state = self.state.get(param)
        if state is None:
            state = self.state[param] = {
                "step": step_tensor(0.0, param.device),
                "exp_avg": self.zeros_like(param), "exp_avg_sq": self.zeros_like(param),
            }
        else:
            self.check_state(param, state["exp_avg"])
        if amsgrad and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = self.zeros_like(param)
        return state

    def hyper_parameters(self, group):
        return (float(group["lr"]), *map(float, group["betas"]), float(group["eps"]), float(group["weight_decay"]))

    def fixed_settings(self, group):
        return group["amsgrad"], group["maximize"]

    def update(self, index, group):
        amsgrad, maximize = group["amsgrad"], int(group["maximize"])
        for device, params in self.with_gradients(group):
            adam, settings = device.kernels.adam, self.settings(index, device)
            for param in params:
                state = self._state(param, amsgrad)
                largest = flat(state["max_exp_avg_sq"].data) if amsgrad else device.empty((0,), param.data.dtype)
                adam(
                    flat(param.data), flat(param.grad.data), flat(state["exp_avg"].data),
                    flat(state["exp_avg_sq"].data), largest, flat(state["step"].data), settings, self.decoupled,
                    maximize,
                )
                param.version[0] += 1


class AdamW(Adam):
    """Adam with decoupled weight decay: ``parameter *= 1 - lr * weight_decay`` before a step of `Adam` without decay.

    Parameters are those of `Adam`; `weight_decay` is 0.01 unless given.

    References
    ----------
    Loshchilov and Hutter, arXiv 1711.05101, algorithm 2.
    """

    decoupled = 1

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *,
                 maximize=False):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
