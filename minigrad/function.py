"""Functions: the ops, and the nodes of the recorded graph."""

import re

from minigrad.modes import current, enable_grad, is_grad_enabled

_NONE = (False,) * 8  # more inputs than that are looked at only when recorded


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
    answers_are_new : bool
        A promise of the class, which subclasses do not inherit: but when it is to be differentiated itself, backward
        answers with new arrays (or views of such), each once, none that it was given or has saved. Then the engine
        does not compare them to find out what it may add to.
    """

    # The engine's attributes of a node; subclasses may set any others. Six slots are set in 0.06 us, six attributes
    # of the instance's dict in 0.3 us.
    __slots__ = ("device", "inputs", "parents", "shape", "needs_input_grad", "hooks", "saved_version", "saved_output")

    saves_inputs = True
    saves_output = False
    differentiable = True
    is_view = False  # the result shares memory with the first input
    answers_are_new = False
    folded = None  # of a node that stands for several: what they are, see `minigrad.recording.passes`
    name = "function"

    def __init_subclass__(cls):
        cls.answers_are_new = vars(cls).get("answers_are_new", False)  # a subclass may answer with anything
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def apply(cls, *inputs, **params):
        """Run the op on tensors (other inputs are passed on as they are) and record it if needed.

        Where `minigrad.study.decompose` knows a formula for it in primitive ops, that one runs instead.
        """
        mode = current.get()
        if mode.decompositions and cls in mode.decompositions:
            return mode.decompositions[cls](cls, *inputs, **params)
        fn = cls()
        fn.device, arrays, needs = _unpack(cls, inputs)
        recorded = True in needs and mode.grad and cls.differentiable
        fn.needs_input_grad = needs if recorded else _NONE
        result = Tensor(fn.forward(*arrays, **params), fn.device)
        if cls.is_view:
            result.version = inputs[0].version
        if recorded:
            fn._record(inputs, result)
        if mode.watchers:
            _tell(mode, fn, inputs, (result,))
        return result

    # Most small ops have one or two tensors as inputs and nothing else. Two short ways for them, which leave out what
    # `apply` does for other inputs, parameters and views: a recorded mul of 8 elements takes 2.4 us instead of 4.1.

    @classmethod
    def apply_one(cls, x):
        """`apply` to one tensor."""
        fn = cls()
        fn.device = x.device
        mode = current.get()
        recorded = x.requires_grad and mode.grad and cls.differentiable
        fn.needs_input_grad = (True,) if recorded else _NONE
        result = Tensor(fn.forward(x.data), fn.device)
        if recorded:
            fn.parents, fn.inputs, fn.saved_version = (x.fn or x,), (x,), x.version[0]
            fn._finish(result)
        if mode.watchers:
            _tell(mode, fn, (x,), (result,))
        return result

    @classmethod
    def apply_two(cls, a, b):
        """`apply` to two tensors."""
        if a.device is not b.device:
            return cls.apply(a, b)
        fn = cls()
        fn.device = a.device
        mode = current.get()
        recorded = (a.requires_grad or b.requires_grad) and mode.grad and cls.differentiable
        fn.needs_input_grad = (a.requires_grad, b.requires_grad) if recorded else _NONE
        result = Tensor(fn.forward(a.data, b.data), fn.device)
        if recorded:
            fn.parents = (a.fn or a) if a.requires_grad else None, (b.fn or b) if b.requires_grad else None
            fn.inputs, fn.saved_version = (a, b), a.version[0] + b.version[0]
            fn._finish(result)
        if mode.watchers:
            _tell(mode, fn, (a, b), (result,))
        return result

    def _record(self, inputs, result):
        """Become the node that made the result."""
        parents, version = [], 0
        for x in inputs:
            if isinstance(x, Tensor):
                version += x.version[0]
                parents.append((x.fn or x) if x.requires_grad else None)
            else:
                parents.append(None)
        self.parents, self.inputs, self.saved_version = parents, inputs, version
        self._finish(result)

    def _finish(self, result):
        """What is left of recording once parents and inputs are known."""
        if not self.saves_inputs:
            self.inputs = self.saved_version = None
        self.saved_output = (result.data, result.version, result.version[0]) if self.saves_output else None
        self.hooks, self.shape = None, result.data.shape
        result.requires_grad, result.fn = True, self

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
        output = self.saved_output
        changed = (
            self.saved_version is not None and self.saved_version != _version(self.inputs)
            or output is not None and output[1][0] != output[2]
        )
        if changed:
            raise RuntimeError(
                f"backward: a tensor that {self.name} saved for its gradient was changed in place after the forward; "
                "change it after backward, or work on a copy"
            )

    def free(self):
        """Drop everything saved: the memory goes back, a second backward is an error."""
        self.__dict__.clear()
        self.parents = self.inputs = self.saved_output = None

    def __repr__(self):
        return f"<{self.name}>"


def _unpack(cls, inputs):
    """The device of an op's inputs, their arrays, and of each whether it requires grad."""
    device, arrays, needs = None, [], []
    for x in inputs:
        if isinstance(x, Tensor):
            arrays.append(x.data)
            needs.append(x.requires_grad)
            if x.device is not device:
                if device is not None:
                    raise ValueError(f"{cls.name}: expected all tensors on one device, got {device} and {x.device}")
                device = x.device
        else:
            arrays.append(x)
            needs.append(False)
    return device, arrays, tuple(needs)


def _version(inputs):
    """The sum of the tensors' counters of changes: they only grow, so it tells whether any has changed."""
    version = 0
    for x in inputs:
        if isinstance(x, Tensor):
            version += x.version[0]
    return version


class Pick(Function):
    """Output number `index` of a Function with several outputs (see `apply_multiple`)."""

    saves_inputs = False


def apply_multiple(cls, *inputs, **params):
    """Like ``cls.apply`` for a Function whose forward returns several arrays; returns a tuple of tensors.

    Its ``backward`` takes one gradient per output, None where that output did not take part.
    """
    fn = cls()
    fn.device, arrays, needs = _unpack(cls, inputs)
    mode = current.get()
    recorded = True in needs and mode.grad
    fn.needs_input_grad = needs if recorded else _NONE
    results = tuple([Tensor(array, fn.device) for array in fn.forward(*arrays, **params)])
    if recorded:
        fn._record(inputs, results[0])
        fn.outputs = len(results)
        for index, result in enumerate(results):
            pick = Pick()
            pick.device, pick.parents, pick.inputs, pick.index = fn.device, (fn,), None, index
            pick._finish(result)
    if mode.watchers:
        _tell(mode, fn, inputs, results)
    return results


def _tell(mode, fn, inputs, results):
    """Tell the watchers that an op has run."""
    for watcher in mode.watchers:
        watcher.computed(fn, inputs, results)


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
