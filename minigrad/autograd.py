"""Reverse-mode automatic differentiation: the walk back along the tape.

An op is a `Function`. Calling it on tensors runs its ``forward`` on their arrays and, if a gradient is
wanted, keeps the instance as the node of the graph. `backward` visits the nodes from the outputs towards
the leaves and hands each node the gradient of its output; the node answers with the gradients of its inputs.
"""

from minigrad import modes
from minigrad.function import Pick

_RECORDING, _NOT_RECORDING = modes.Mode(), modes.Mode(grad=False)


def _count_uses(roots, stop, unfold):
    """How many gradients each node below the roots will be handed: iteratively, for graphs of any depth.

    A node may stand for several. It becomes the last of them now if they would do something else, or with `unfold`;
    else the walk takes it for the one that it is, also if somebody looks at the graph meanwhile.

    Returns
    -------
    uses : dict
        Node to number.
    folded : dict
        Node to what it stands for, of those that stand for several.
    """
    uses, folded = dict.fromkeys(roots, 0), {}
    stack = list(uses)
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor) or node in stop:
            continue
        parents = node.parents
        whole = node.folded
        if whole is not None:
            if unfold or whole.is_stale():
                node.unfold()
                parents = node.parents
            else:
                folded[node], parents = whole, whole.parents
        if parents is None:
            raise RuntimeError(
                f"backward: the graph behind {node.name} was freed by an earlier backward; "
                "pass retain_graph=True to that one to go through it again"
            )
        for parent in parents:
            if parent is None:
                continue
            if parent in uses:
                uses[parent] += 1
            else:
                uses[parent] = 1
                if not isinstance(parent, Tensor):
                    stack.append(parent)
    return uses, folded


def _leads_to(uses, folded, targets, stop):
    """The nodes from which some target can be reached."""
    children = {}
    for node in uses:
        if not isinstance(node, Tensor) and node not in stop:
            for parent in folded.get(node, node).parents:
                if parent is not None:
                    children.setdefault(parent, []).append(node)
    reached, stack = set(targets), [t for t in targets if t in uses]
    while stack:
        for child in children.get(stack.pop(), ()):
            if child not in reached:
                reached.add(child)
                stack.append(child)
    return reached


def _walk(roots, retain_graph, create_graph, targets=None, stop=()):
    """Carry the gradients of the roots down the graph.

    A gradient that arrives first may belong to others too (an add hands both parents the same array): unless it is
    known to be our own it is never added into. The sum that replaces it is our own, and further ones are added to it
    in place.

    A leaf whose only gradient has arrived gets it at once, unless it has hooks, or somebody watches.

    Parameters
    ----------
    roots : list of (Tensor, Tensor)
        Outputs with their gradients.
    targets : dict, optional
        Node to None; filled with the gradients found. Without it they go to ``.grad`` of the leaves.
    stop : set
        Nodes behind which nothing is wanted.
    """
    watchers = modes.current.get().watchers
    uses, folded = _count_uses([out.fn or out for out, _ in roots], stop, unfold=bool(create_graph or watchers))
    wanted = uses if targets is None else _leads_to(uses, folded, targets, stop)
    total, own = {}, set()  # gradients on their way: per node, summed over its uses; nodes whose sum is our own
    for out, seed in roots:
        node = out.fn or out
        total[node] = total[node] + seed if node in total else seed
    direct = targets is None and not watchers  # a leaf's gradient goes to its .grad, and nobody is told of it
    # Watchers are told what a backward answers, not of the ops inside it.
    token = modes.current.set(_RECORDING if create_graph else _NOT_RECORDING)
    try:
        ready = [node for node, count in uses.items() if count == 0]
        while ready:
            node = ready.pop()
            grad = total.pop(node, None)
            if grad is not None and node.hooks:
                grad = _run_hooks(node, grad)
                own.discard(node)
            if targets is not None and node in targets and grad is not None:
                targets[node] = grad
            if isinstance(node, Tensor):
                if targets is None and grad is not None:
                    _accumulate(node, grad, node in own)
                for watcher in watchers:
                    watcher.answered(node, grad, None)
                continue
            if node in stop:
                continue
            whole = folded.get(node, node) if folded else node
            parents, passed = whole.parents, targets is None or node in wanted
            answers = _answers(whole, grad) if passed and grad is not None else None
            if watchers:  # now: what was answered may be added to in place below
                used = answers and tuple([a if p in wanted else None for a, p in zip(answers, parents, strict=True)])
                for watcher in watchers:
                    watcher.answered(node, grad, used)
            if direct and whole is not node and answers and modes.recorder.get() is None:
                parents = _hand_to_leaves(parents, answers, uses, total)
            around = None
            for position, parent in enumerate(parents):  # zip takes 0.25 us more
                if parent is None:
                    continue
                uses[parent] = still = uses[parent] - 1
                leaf, known, new = isinstance(parent, Tensor), total.get(parent), False
                # A leaf whose only gradient this is need not wait for its turn.
                complete = direct and leaf and still == 0 and known is None and not parent.hooks
                if still == 0 and not complete:
                    ready.append(parent)
                answer = answers and answers[position]
                if answer is None or not complete and parent not in wanted:
                    continue
                if type(node) is Pick:
                    total[parent] = known = known or [None] * parent.outputs
                    known[node.index] = answer
                    continue
                if leaf:
                    shape, dtype = parent.data.shape, parent.data.dtype
                    if answer.data.dtype is not dtype and answer.data.dtype != dtype:
                        raise TypeError(f"{_expected(node)}, of dtype {dtype} like that input, got {answer.dtype}")
                else:
                    shape = parent.shape
                if answer.data.shape != shape:
                    answer, new = _summed_to(node, answer, shape), True
                if known is None:
                    if leaf or still:  # only there it matters whose array it is
                        new = new or whole.answers_are_new and not create_graph
                        if not new:
                            around = around or _arrays_around(node, grad, answers)
                            new = answer.data.base is None and around.count(id(answer.data)) == 1
                        if complete:
                            _accumulate(parent, answer, new)
                            continue
                        if new:
                            own.add(parent)
                    total[parent] = answer
                elif create_graph or parent not in own:
                    total[parent] = known + answer
                    own.add(parent)
                else:
                    _add_into(known.data, answer.data, node.device)
            for watcher in watchers:
                watcher.passed(node)
            if passed and not retain_graph:
                node.free()
    finally:
        modes.current.reset(token)


def _hand_to_leaves(parents, answers, uses, total):
    """What `_walk` does with the answers of a repeated pass for parameters that get no other gradient; returns the
    parents that are left, None for the others. Such answers are new and of the parameters' shapes and dtypes, so that
    14 take half as long. (The input, the first, may be another array by now.)"""
    left = list(parents)
    for position, leaf in enumerate(parents):
        if (position and leaf is not None and uses[leaf] == 1 and isinstance(leaf, Tensor) and leaf.grad is None
                and not leaf.hooks and leaf not in total and answers[position] is not None):
            leaf.grad, left[position] = answers[position], None
    return left


def _summed_to(node, grad, shape):
    """Undo broadcasting: this is the one place."""
    if ops.common.broadcast_shapes("backward", grad.data.shape, shape) != grad.data.shape:
        raise RuntimeError(f"backward: expected {node.name}.backward to return a gradient of shape {shape}, or of one "
                           f"broadcast from it, got {grad.data.shape}")
    return ops.sum_to(grad, shape)


def _arrays_around(node, grad, answers):
    """The identities of the arrays that a backward saw and answered with: one found once is its answer's alone."""
    tensors = [*answers, *(grad if type(grad) is list else (grad,)), *(node.inputs or ())]
    around = [id(x.data) for x in tensors if isinstance(x, Tensor)]
    if node.saved_output is not None:
        around.append(id(node.saved_output[0]))
    return around


def _add_into(total, array, device):
    """Add to a sum that is our own, in place."""
    if total.ndim == 1:  # flat already: 0.13 us less
        device.kernels.fused_add(total, array)
    else:
        device.kernels.fused_add(total.ravel(), array.ravel())


def _answers(node, grad):
    """Run one node's backward; returns a tuple with a Tensor or None per input."""
    if type(node) is Pick:
        return (grad,)
    node.check_versions()
    answers = node.backward(*grad) if type(grad) is list else node.backward(grad)
    if type(answers) is not tuple:
        if not isinstance(answers, (Tensor, list)):
            raise TypeError(f"{_expected(node)}, got {type(answers).__name__}")
        answers = (answers,) if isinstance(answers, Tensor) else tuple(answers)
    if len(answers) != len(node.parents):
        raise ValueError(f"{_expected(node)}, got {len(answers)}")
    for answer in answers:
        if answer is not None and not isinstance(answer, Tensor):
            raise TypeError(f"{_expected(node)}: a Tensor or None, got {type(answer).__name__}")
    return answers


def _expected(node):
    return f"backward: expected {node.name}.backward to return {len(node.parents)} gradient(s), one per input"


def _run_hooks(node, grad):
    for hook in tuple(node.hooks.values()):
        replaced = hook(grad)
        if replaced is not None:
            if not isinstance(replaced, Tensor):
                raise TypeError(f"hook: expected a Tensor or None to be returned, got {type(replaced).__name__}")
            if replaced.shape != grad.shape or replaced.dtype != grad.dtype:
                raise ValueError(
                    f"hook: expected a gradient of shape {grad.shape} and dtype {grad.dtype}, "
                    f"got {replaced.shape} and {replaced.dtype}"
                )
            if replaced.device is not grad.device:
                raise ValueError(f"hook: expected a gradient on {grad.device}, got one on {replaced.device}")
            grad = replaced
    return grad


def _accumulate(leaf, grad, own):
    """Add to ``leaf.grad``. A first gradient becomes it, copied unless nobody else holds its array."""
    recorder = modes.recorder.get()
    if recorder:
        recorder.grad_read(leaf)
    if leaf.grad is None:
        leaf.grad = grad if own else ops.clone(grad)
    elif recorder and not (grad.requires_grad or leaf.grad.requires_grad):  # the sum must be where later steps find it
        leaf.grad.device.kernels.fused_add(leaf.grad.data.ravel(), grad.data.ravel())
        leaf.grad.version[0] += 1
    else:
        leaf.grad = leaf.grad + grad
    if recorder:
        recorder.grad_written(leaf)


def clear_gradients(leaves, set_to_none=True):
    """Set ``.grad`` to None, or to zeros in place."""
    recorder = modes.recorder.get()
    for leaf in leaves:
        if set_to_none or leaf.grad is None:
            leaf.grad = None
            if recorder:
                recorder.grad_written(leaf)
        else:
            if recorder:
                recorder.grad_read(leaf)
            leaf.grad.detach().zero_()


def backward(tensor, gradient=None, retain_graph=None, create_graph=False):
    """Accumulate the gradients of `tensor` into ``.grad`` of the leaves. See `Tensor.backward`."""
    if not tensor.requires_grad:
        raise RuntimeError("backward: the tensor does not require grad and no op that made it was recorded")
    retain_graph = create_graph if retain_graph is None else retain_graph
    _walk([(tensor, _seed(tensor, gradient, "backward"))], retain_graph, create_graph)


def grad(
    outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, allow_unused=False, *, _stop=False
):
    """Gradients of outputs with respect to inputs, leaving every ``.grad`` as it is.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
    grad_outputs : Tensor or sequence of Tensor, optional
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
    if grad_outputs is None or isinstance(grad_outputs, Tensor):
        grad_outputs = [grad_outputs] * len(outputs) if grad_outputs is None else [grad_outputs]
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: expected one gradient per output ({len(outputs)}), got {len(grad_outputs)}")
    for x in inputs:
        if not x.requires_grad:
            raise RuntimeError(f"grad: an input of shape {x.shape} does not require grad")
    for x in outputs:
        if not x.requires_grad:
            raise RuntimeError(f"grad: an output of shape {x.shape} does not require grad")
    targets = dict.fromkeys([x.fn or x for x in inputs])
    roots = [(out, _seed(out, g, "grad")) for out, g in zip(outputs, grad_outputs, strict=True)]
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
    if gradient.device is not tensor.device:
        raise ValueError(f"{caller}: expected a gradient on {tensor.device}, got one on {gradient.device}")
    return gradient


from minigrad import ops  # noqa: E402
from minigrad.tensor import Tensor  # noqa: E402 - gradients are tensors, and a tensor's backward starts the walk
