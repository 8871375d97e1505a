"""Functions: the ops, and the nodes of the recorded graph."""

import re

from minigrad import modes
from minigrad.modes import enable_grad, is_grad_enabled


class Function:
    """One op: a forward computation on arrays beside the formula of its gradient.

    A subclass writes

    * ``forward(self, *arrays, **params)``: computes through ``self.device.kernels`` and returns a new C-contiguous
      array;
    * ``backward(self, grad)``: in Tensor ops, so that it can be differentiated itself; returns one gradient
      (or None) per input, in order. Gradients of broadcast inputs may keep the broadcast shape: the engine
      sums them back.

    A fused gradient that is an op of its own may give ``compose(self, *inputs)`` instead of ``backward``:
    the same mathematics in primitive ops, which the engine differentiates when a higher order is asked for.

    Attributes
    ----------
    device : Device
        Where the inputs live and the result goes.
    inputs : tuple
        What `apply` was given, if `saves_inputs`.
    output : Tensor
        The result, if `saves_output`. Only its array is kept, so no node refers to its own tensor.
    needs_input_grad : tuple of bool
        Per input, whether its gradient is wanted. All False while nothing is recorded.
    """

    saves_inputs = True
    saves_output = False
    differentiable = True
    is_view = False  # the result shares memory with the first input
    name = "function"
    needs_input_grad = (False,) * 8  # more inputs than that are looked at only when recorded
    hooks = None

    def __init_subclass__(cls):
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def apply(cls, *inputs, **params):
        """Run the op on tensors (other inputs are passed on as they are) and record it if needed."""
        fn = cls()
        device, recorded, arrays = None, False, []
        for x in inputs:
            if isinstance(x, Tensor):
                arrays.append(x.data)
                if x.device is not device:
                    if device is not None:
                        raise ValueError(f"{cls.name}: expected all tensors on one device, got {device} and {x.device}")
                    device = x.device
                if x.requires_grad:
                    recorded = True
            else:
                arrays.append(x)
        mode = modes.current.get()
        recorded = recorded and mode.grad and cls.differentiable
        if recorded:
            fn.needs_input_grad = tuple([isinstance(x, Tensor) and x.requires_grad for x in inputs])
        fn.device = device
        result = Tensor(fn.forward(*arrays, **params), device)
        if cls.is_view:
            result.version = inputs[0].version
        if recorded:
            fn._record(inputs, result)
        if mode.anomaly:
            check_finite(fn, result, "forward")
        return result

    def _record(self, inputs, result):
        parents, version = [], 0
        for x in inputs:
            if isinstance(x, Tensor):
                version += x.version[0]
                parents.append((x.fn or x) if x.requires_grad else None)
            else:
                parents.append(None)
        self.parents = parents
        self.shape = result.data.shape
        if self.saves_inputs:
            self.inputs = inputs
            self.saved_version = version  # counters only grow, so their sum tells whether any has
        if self.saves_output:
            self.saved_output = result.data, result.version, result.version[0]
        result.requires_grad = True
        result.fn = self

    def forward(self, *arrays, **params):
        raise TypeError(f"{type(self).__name__} defines no forward")

    def backward(self, *grads):
        """The gradients of the inputs; by default those of `compose`."""
        return _differentiate(self.compose, self.inputs, self.needs_input_grad, grads)

    def compose(self, *inputs):
        raise TypeError(f"{type(self).__name__} defines neither backward nor compose")

    @property
    def output(self):
        array, version, number = self.saved_output
        tensor = Tensor(array, self.device)
        tensor.version = version
        tensor.requires_grad, tensor.fn = True, self
        return tensor

    def check_versions(self):
        """Raise if something that was saved for backward has been changed in place since."""
        changed = self.saves_inputs and self.saved_version != sum(
            [x.version[0] for x in self.inputs if isinstance(x, Tensor)]
        )
        if self.saves_output:
            changed = changed or self.saved_output[1][0] != self.saved_output[2]
        if changed:
            raise RuntimeError(
                f"backward: a tensor that {self.name} saved for its gradient was changed in place after the forward; "
                "change it after backward, or work on a copy"
            )

    def free(self):
        """Drop everything saved: the memory goes back, a second backward is an error."""
        self.__dict__.clear()
        self.parents = None

    def __repr__(self):
        return f"<{self.name}>"


class Pick(Function):
    """Output number `index` of a Function with several outputs (see `apply_multiple`)."""

    saves_inputs = False


def apply_multiple(cls, *inputs, **params):
    """Like ``cls.apply`` for a Function whose forward returns several arrays; returns a tuple of tensors.

    Its ``backward`` takes one gradient per output, None where that output did not take part.
    """
    fn = cls()
    device = next(x.device for x in inputs if isinstance(x, Tensor))
    for x in inputs:
        if isinstance(x, Tensor) and x.device is not device:
            raise ValueError(f"{cls.name}: expected all tensors on one device, got {device} and {x.device}")
    fn.device = device
    needs = tuple([isinstance(x, Tensor) and x.requires_grad for x in inputs])
    recorded = modes.current.get().grad and any(needs)
    if recorded:
        fn.needs_input_grad = needs
    arrays = fn.forward(*[x.data if isinstance(x, Tensor) else x for x in inputs], **params)
    results = tuple([Tensor(array, device) for array in arrays])
    if recorded:
        fn._record(inputs, results[0])
        fn.outputs = len(results)
        for index, result in enumerate(results):
            pick = Pick()
            pick.device, pick.parents, pick.index = device, (fn,), index
            pick.shape = result.data.shape
            result.requires_grad, result.fn = True, pick
    if modes.current.get().anomaly:
        for result in results:
            check_finite(fn, result, "forward")
    return results


def check_finite(fn, tensor, where):
    """Raise if there is a NaN in what the forward or backward of an op produced."""
    if tensor.data.dtype.kind == "f" and bool((tensor.numpy() != tensor.numpy()).any()):
        raise FloatingPointError(f"anomaly: the {where} of {fn.name} produced NaN (result of shape {tensor.shape})")


def _differentiate(formula, inputs, needs, gradients):
    """Gradients of ``formula(*inputs)`` with respect to the inputs that need one, at any order.

    `formula` returns a tensor or several, `gradients` has one entry for each, None where nothing came back.
    """
    with enable_grad():
        aliases = [Alias.apply(x) if need else x for x, need in zip(inputs, needs, strict=True)]
        outputs = formula(*aliases)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if g is not None and y.requires_grad]
    wanted = [alias for alias, need in zip(aliases, needs, strict=True) if need]
    if not pairs:
        return (None,) * len(needs)
    outputs, gradients = zip(*pairs, strict=True)
    higher = is_grad_enabled()
    found = iter(autograd.grad(outputs, wanted, gradients, create_graph=higher, allow_unused=True, _stop=True))
    return tuple([next(found) if need else None for need in needs])


class Alias(Function):
    """y = x, as a node of its own."""

    saves_inputs = False
    is_view = True

    def forward(self, x):
        return x

    def backward(self, grad):
        return (grad,)


from minigrad import autograd  # noqa: E402
from minigrad.tensor import Tensor  # noqa: E402 - a node's inputs are tensors, a tensor's maker is a node
