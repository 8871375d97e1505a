"""Reverse-mode automatic differentiation: the tape and the walk back along it.

An op is a `Function`. Calling it on tensors runs its ``forward`` on their arrays and, if a gradient is
wanted, keeps the instance as the node of the graph. `backward` visits the nodes from the outputs towards
the leaves and hands each node the gradient of its output; the node answers with the gradients of its inputs.
"""

import re
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import NamedTuple


class Mode(NamedTuple):
    """What holds in the current context (thread or task)."""

    grad: bool = True
    anomaly: bool = False


_mode = ContextVar("minigrad_mode", default=Mode())


class _ModeSwitch(ContextDecorator):
    """Sets some fields of the mode inside a ``with`` block or a decorated function."""

    change: dict = {}

    def __init__(self):
        self._tokens = []

    def __enter__(self):
        self._tokens.append(_mode.set(_mode.get()._replace(**self.change)))
        return self

    def __exit__(self, *exception):
        _mode.reset(self._tokens.pop())

    def _recreate_cm(self):
        return type(self)()


class no_grad(_ModeSwitch):
    """Inside, ops are not recorded. A context manager and a decorator."""

    change = {"grad": False}


class enable_grad(_ModeSwitch):
    """Inside, ops are recorded again, whatever surrounds the block. A context manager and a decorator."""

    change = {"grad": True}


class detect_anomaly(_ModeSwitch):
    """Inside, the first NaN that an op's forward or backward produces raises an error that names the op.

    Every result is read back for it, so use it to look for a fault, not to train.
    """

    change = {"anomaly": True}


def is_grad_enabled():
    """Whether ops are being recorded in this context."""
    return _mode.get().grad


class Function:
    """One op: a forward computation on arrays beside the formula of its gradient.

    A subclass writes

    * ``forward(self, *arrays, **params)``: computes through ``self.device.kernels`` and returns an array;
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
        mode = _mode.get()
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
            _check_finite(fn, result, "forward")
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
    recorded = _mode.get().grad and any(needs)
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
    if _mode.get().anomaly:
        for result in results:
            _check_finite(fn, result, "forward")
    return results


def _check_finite(fn, tensor, where):
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
    found = iter(grad(outputs, wanted, gradients, create_graph=is_grad_enabled(), allow_unused=True, _stop=True))
    return tuple([next(found) if need else None for need in needs])


class Alias(Function):
    """y = x, as a node of its own."""

    saves_inputs = False
    is_view = True

    def forward(self, x):
        return x

    def backward(self, grad):
        return (grad,)


# -- the walk back -----------------------------------------------------------------------------------------------


def _count_uses(roots, stop):
    """How many gradients each node below the roots will be handed: iteratively, for graphs of any depth."""
    uses = dict.fromkeys(roots, 0)
    stack = list(uses)
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor) or node in stop:
            continue
        if node.parents is None:
            raise RuntimeError(
                f"backward: the graph behind {node.name} was freed by an earlier backward; "
                "pass retain_graph=True to that one to go through it again"
            )
        for parent in node.parents:
            if parent is None:
                continue
            if parent in uses:
                uses[parent] += 1
            else:
                uses[parent] = 1
                stack.append(parent)
    return uses


def _leads_to(uses, targets, stop):
    """The nodes from which some target can be reached."""
    children = {}
    for node in uses:
        if not isinstance(node, Tensor) and node not in stop:
            for parent in node.parents:
                if parent is not None:
                    children.setdefault(parent, []).append(node)
    reached, stack = set(targets), [t for t in targets if t in uses]
    while stack:
        for child in children.get(stack.pop(), ()):
            if child not in reached:
                reached.add(child)
                stack.append(child)
    return reached


class _Gradients:
    """Gradients on their way: per node, summed over its uses.

    A gradient that arrives first is only borrowed (an add hands both parents the same array), so it is
    never added into; the sum that replaces it is our own, and further ones are added to it in place.
    """

    def __init__(self, in_place):
        self.total = {}
        self.borrowed = set()
        self.in_place = in_place

    def add(self, node, grad, borrowed):
        if grad.data.shape != node.shape:  # the one place where broadcasting is undone
            grad, borrowed = ops.sum_to(grad, node.shape), False
        known = self.total.get(node)
        if known is None:
            self.total[node] = grad
            if borrowed:
                self.borrowed.add(node)
        elif node in self.borrowed or not self.in_place:
            self.total[node] = known + grad
            self.borrowed.discard(node)
        else:
            known.device.kernels.fused_add(known.data.ravel(), grad.data.ravel())

    def add_pick(self, pick, grad):
        """Hand the gradient of one output to the Function with several."""
        fn = pick.parents[0]
        self.total.setdefault(fn, [None] * fn.outputs)[pick.index] = grad

    def pop(self, node):
        own = node not in self.borrowed
        self.borrowed.discard(node)
        return self.total.pop(node, None), own


def _walk(roots, retain_graph, create_graph, targets=None, stop=()):
    """Carry the gradients of the roots down the graph.

    Parameters
    ----------
    roots : list of (Tensor, Tensor)
        Outputs with their gradients.
    targets : dict, optional
        Node to None; filled with the gradients found. Without it they go to ``.grad`` of the leaves.
    stop : set
        Nodes behind which nothing is wanted.
    """
    gradients = _Gradients(in_place=not create_graph)
    uses = _count_uses([out.fn or out for out, _ in roots], stop)
    wanted = uses if targets is None else _leads_to(uses, targets, stop)
    anomaly = _mode.get().anomaly
    token = _mode.set(_mode.get()._replace(grad=create_graph))
    try:
        for out, seed in roots:
            gradients.add(out.fn or out, seed, borrowed=True)
        ready = [node for node, count in uses.items() if count == 0]
        while ready:
            node = ready.pop()
            grad, own = gradients.pop(node)
            if grad is not None and node.hooks:
                grad, own = _run_hooks(node, grad), False
            if targets is not None and node in targets and grad is not None:
                targets[node] = grad
            if isinstance(node, Tensor):
                if targets is None and grad is not None:
                    _accumulate(node, grad, own, create_graph)
                continue
            if node in stop:
                continue
            parents = node.parents
            if grad is not None and node in wanted:
                if type(node) is Pick:
                    gradients.add_pick(node, grad)
                else:
                    _hand_down(node, grad, gradients, wanted, anomaly)
            for parent in parents:
                if parent is not None:
                    uses[parent] -= 1
                    if uses[parent] == 0:
                        ready.append(parent)
            if not retain_graph:
                node.free()
    finally:
        _mode.reset(token)


def _hand_down(node, grad, gradients, wanted, anomaly):
    """Run one node's backward and pass its answers on to its parents."""
    node.check_versions()
    answers = node.backward(*grad) if type(grad) is list else node.backward(grad)
    for position, (parent, answer) in enumerate(zip(node.parents, answers, strict=True)):
        if parent is None or answer is None or parent not in wanted:
            continue
        if anomaly:
            _check_finite(node, answer, "backward")
        shared = answer is grad or answer.data.base is not None
        if not shared:
            for i, other in enumerate(answers):
                if other is answer and i != position:
                    shared = True
        gradients.add(parent, answer, shared)


def _run_hooks(node, grad):
    for hook in tuple(node.hooks.values()):
        replaced = hook(grad)
        if replaced is not None:
            if replaced.shape != grad.shape:
                raise ValueError(f"hook: expected a gradient of shape {grad.shape}, got {replaced.shape}")
            grad = replaced
    return grad


def _accumulate(leaf, grad, own, create_graph):
    """Add to ``leaf.grad``. A first gradient becomes it, copied unless nobody else holds its array."""
    if leaf.grad is not None:
        leaf.grad = leaf.grad + grad
    else:
        leaf.grad = grad if own or create_graph else ops.clone(grad)


def backward(tensor, gradient=None, retain_graph=None, create_graph=False):
    """Accumulate the gradients of `tensor` into ``.grad`` of the leaves. See `Tensor.backward`."""
    if not tensor.requires_grad:
        raise RuntimeError("backward: the tensor does not require grad and no op that made it was recorded")
    retain_graph = create_graph if retain_graph is None else retain_graph
    _walk([(tensor, _seed(tensor, gradient, "backward"))], retain_graph, create_graph)


def grad(outputs, inputs, gradients=None, retain_graph=None, create_graph=False, allow_unused=False, *, _stop=False):
    """Gradients of outputs with respect to inputs, leaving every ``.grad`` as it is.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
    gradients : Tensor or sequence of Tensor, optional
        The gradient of each output, of its shape; 1 for scalars.
    retain_graph : bool, optional
        Keep the graph for another pass. Defaults to `create_graph`.
    create_graph : bool
        Record the computation of the gradients, so that they can be differentiated again.
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.

    Returns
    -------
    tuple of Tensor
        One per input, of its shape and dtype.

    Raises
    ------
    RuntimeError
        If an output or input does not require grad, if an input is not used, if the graph was freed.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if gradients is None or isinstance(gradients, Tensor):
        gradients = [gradients] * len(outputs) if gradients is None else [gradients]
    if len(gradients) != len(outputs):
        raise ValueError(f"grad: expected one gradient per output ({len(outputs)}), got {len(gradients)}")
    for x in inputs:
        if not x.requires_grad:
            raise RuntimeError(f"grad: an input of shape {x.shape} does not require grad")
    for x in outputs:
        if not x.requires_grad:
            raise RuntimeError(f"grad: an output of shape {x.shape} does not require grad")
    targets = dict.fromkeys([x.fn or x for x in inputs])
    roots = [(out, _seed(out, g, "grad")) for out, g in zip(outputs, gradients, strict=True)]
    retain_graph = create_graph if retain_graph is None else retain_graph
    _walk(roots, retain_graph, create_graph, targets, set(targets) if _stop else ())
    found = tuple([targets[x.fn or x] for x in inputs])
    if not allow_unused and any(g is None for g in found):
        position = [g is None for g in found].index(True)
        raise RuntimeError(
            f"grad: input {position} of shape {inputs[position].shape} was not used to compute the outputs; "
            "pass allow_unused=True to get None for it"
        )
    return found


def _seed(tensor, gradient, caller):
    """The gradient to start from: the given one, checked, or 1 for a scalar."""
    if gradient is None:
        if tensor.data.size != 1:
            raise RuntimeError(
                f"{caller}: expected a scalar or an explicit gradient, got a tensor of shape {tensor.shape}"
            )
        return Tensor(tensor.device.full(tensor.data.shape, 1.0, tensor.data.dtype), tensor.device)
    if not isinstance(gradient, Tensor):
        raise TypeError(f"{caller}: expected the gradient as a Tensor, got {type(gradient).__name__}")
    if gradient.shape != tensor.shape or gradient.dtype != tensor.dtype:
        raise ValueError(
            f"{caller}: expected a gradient of shape {tensor.shape} and dtype {tensor.dtype}, "
            f"got {gradient.shape} and {gradient.dtype}"
        )
    return gradient


from minigrad.tensor import Tensor  # noqa: E402 - a node's inputs are tensors, a tensor's maker is a node
from minigrad import ops  # noqa: E402
