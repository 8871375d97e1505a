"""Which runs of a Sequential's children one op computes: a linear layer, batch normalization, an activation, pooling.

The children stay what they are; a run of them is only called differently. Whatever could make a difference that
somebody would see (a hook on a child, a forward of its own, another window, the search for anomalies) is asked at every
call, and then the children are called one by one.
"""

from minigrad import modes
from minigrad.layers.activation import LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from minigrad.layers.linear import Linear
from minigrad.layers.norm import BatchNorm1d, BatchNorm2d, Folded
from minigrad.layers.pooling import MaxPool2d
from minigrad.ops.fused import (
    BatchNormAct,
    BatchNormActEval,
    LinearBatchNormAct,
    LinearBatchNormActEval,
    fit_together,
)
from minigrad.watching import entering

# By exact type: a subclass may do anything.
NORMS = (BatchNorm1d, BatchNorm2d, Folded)
ACTIVATIONS = {ReLU: "relu", LeakyReLU: "leaky_relu", Sigmoid: "sigmoid", Tanh: "tanh", SiLU: "silu"}
TWO = (2, (2, 2))  # the kernel_size and stride of the windows that a kernel knows


class Run:
    """Neighbouring children: batch normalization, what follows it, and perhaps the linear layer in front.

    Parameters
    ----------
    norm : BatchNorm1d, BatchNorm2d, or Folded
    linear : Linear or None
    activation : Module or None
    pool : MaxPool2d or None
    """

    def __init__(self, norm, linear, activation, pool):
        self.norm, self.linear, self.activation, self.pool = norm, linear, activation, pool
        self.modules = [module for module in (linear, norm, activation, pool) if module is not None]
        self.kind = "none" if activation is None else ACTIVATIONS[type(activation)]

    def __call__(self, x):
        if not self._can_be_fused(x):
            for module in self.modules:
                x = module(x)
            return x
        watchers = modes.current.get().watchers
        if watchers:
            with entering(watchers, *self.modules):
                return self._fused(x)
        return self._fused(x)

    def _fused(self, x):
        norm, linear = self.norm, self.linear
        slope = float(self.activation.negative_slope) if self.kind == "leaky_relu" else 0.0
        if linear is not None:
            if self._linear_fits(x):
                parameters = linear.weight, linear.bias, norm.weight, norm.bias
                if not norm.own_statistics and norm.running_mean is not None and norm.running_var is not None:
                    return LinearBatchNormActEval.apply(x, *parameters, norm.running_mean, norm.running_var,
                                                        eps=norm.eps, activation=self.kind, slope=slope)
                if norm.learning and norm.ghost_batch_size is None and x.data.shape[0] > 1:
                    return LinearBatchNormAct.apply(x, *parameters, running=norm.followed(), eps=norm.eps,
                                                    activation=self.kind, slope=slope)
            x = linear(x)
        return norm.run(x, "batch_norm", (BatchNormAct, BatchNormActEval), activation=self.kind, slope=slope,
                        pool=self.pool is not None)

    def _linear_fits(self, x):
        """Whether x, the linear layer and the norm go together; if not, the layers know what to say."""
        norm, linear = self.norm, self.linear
        return self.pool is None and fit_together(
            x, linear.weight, linear.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)

    def _can_be_fused(self, x):
        for module in self.modules:
            if module._forward_hooks or "forward" in module.__dict__:
                return False
        mode, norm, pool = modes.current.get(), self.norm, self.pool
        if mode.anomaly or mode.grad and not norm.own_statistics:
            return False  # an anomaly is named by its op; fixed statistics have no fused backward
        return pool is None or (
            pool.kernel_size in TWO and pool.stride in TWO and pool.padding in (0, (0, 0))
            and pool.dilation in (1, (1, 1)) and not pool.ceil_mode
            and len(getattr(x, "shape", ())) == 4 and min(x.shape[2:]) >= 2
        )  # fmt: skip


def plan(modules):
    """The modules as a list of callables: themselves, and a `Run` for neighbours that go together."""
    steps, position = [], 0
    while position < len(modules):
        module = modules[position]
        position += 1
        if type(module) not in NORMS:
            steps.append(module)
            continue
        linear = activation = pool = None
        if steps and type(steps[-1]) is Linear and type(module) is BatchNorm1d:
            linear = steps.pop()
        if position < len(modules) and type(modules[position]) in ACTIVATIONS:
            activation = modules[position]
            position += 1
        if position < len(modules) and type(modules[position]) is MaxPool2d:
            pool = modules[position]
            position += 1
        if type(module) is Folded and pool is None:  # an activation by itself is faster as an op of its own
            steps += [module] if activation is None else [module, activation]
            continue
        steps.append(module if linear is activation is pool is None else Run(module, linear, activation, pool))
    return steps
