"""What a recording takes for granted, and whether it still holds."""

from itertools import chain

from minigrad import modes


class Guards:
    """Facts that were true when a step was recorded and that its launches depend on.

    Modules: their members and settings (``training``, ``momentum``, ``p``, children, ...), and of each of their tensors
    the array and ``requires_grad``. Leaves: whether they have a gradient that the step adds to, and in which array.
    Hooks of modules and leaves: a replay does what they did.
    Optimizers: the settings of their groups, but for the numbers that kernels read from an array.

    Parameters
    ----------
    known : dict
        Leaves that an earlier recording of the same step set, to the gradient they have now. One whose gradient is
        seen to be None inside the step, and is not None now, was cleared by the step itself.
    """

    def __init__(self, known):
        self.known = known
        self._modules, self._tensors, self._versions, self._grads, self._facts = {}, {}, {}, {}, {}
        self._leaves = {}  # in order

    def module(self, module):
        """A module, and all below it."""
        if module in self._modules:
            return
        for part in module.modules():
            if part not in self._modules:
                self._modules[part] = ()
                for tensor in _tensors(part):
                    self.tensor(tensor)

    def finish(self):
        """The step is over: what it has set up for itself (a cached plan, say) belongs to the facts."""
        for module in self._modules:
            self._modules[module] = _settings(module)
            for tensor in _tensors(module):
                self._tensors[tensor] = tensor.data, tensor.requires_grad
        self._hookable = list({**self._tensors, **self._leaves})
        self._hooks, self._leaf_hooks = _hooks(self._modules, "_forward_hooks"), _hooks(self._hookable, "hooks")
        self._dicts = [module.__dict__ for module in self._modules]
        self._members, self._seen = self._identities(), (None, False)
        self._alive = [list(members.values()) for members in self._dicts]  # so that no identity is given away again

    def _identities(self):
        return list(map(id, chain.from_iterable(map(dict.values, self._dicts))))

    def _same_modules(self):
        """Whether every member of every module is the object that it was, or at least an equal setting.

        Identities are compared first: 3 us for the 15 modules of a small net, all settings take 24.
        """
        members = self._identities()
        if members != self._members:
            if any([_settings(module) != settings for module, settings in self._modules.items()]):
                return False
            self._members = members
            self._alive = [list(members.values()) for members in self._dicts]
        return _hooks(self._modules, "_forward_hooks") == self._hooks

    def tensor(self, tensor):
        """A tensor whose memory the launches use."""
        if tensor not in self._tensors:
            self._tensors[tensor] = tensor.data, tensor.requires_grad
            self._versions[tensor] = tensor.version[0]

    def grad(self, leaf):
        """The gradient of a leaf, read before the step has written it."""
        if leaf in self._grads or leaf.grad is None and self.known.get(leaf) is not None:
            return
        self._grads[leaf] = None if leaf.grad is None else leaf.grad.data

    def leaf(self, leaf):
        """A leaf whose gradient the step sets."""
        self._leaves[leaf] = True

    def fact(self, owner, argument):
        """``owner.fact(argument)`` is as it is now."""
        self._facts[owner, argument] = owner.fact(argument)

    def tensors(self):
        """The tensors of the modules."""
        return list(self._tensors)

    def changed_tensors(self):
        """The tensors whose values the step has changed in place."""
        return [tensor for tensor, version in self._versions.items() if tensor.version[0] != version]

    def arrays_hold(self):
        """Whether every tensor has the array that it had."""
        for tensor, (array, _) in self._tensors.items():
            if tensor.data is not array:
                return False
        return True

    def modules_hold(self):
        """Whether the modules are as they were, and their tensors."""
        now = modes.modules_changed[0]
        if self._seen[0] is not now:  # then every member is looked at, which takes 4 us of a small net
            self._seen = now, self._same_modules()
        if not self._seen[1]:
            return False
        for tensor, (array, requires_grad) in self._tensors.items():
            if tensor.data is not array or tensor.requires_grad is not requires_grad:
                return False
        return True

    def hold(self):
        """Whether everything is as it was."""
        if not self.modules_hold() or _hooks(self._hookable, "hooks") != self._leaf_hooks:
            return False
        for leaf, array in self._grads.items():
            if (None if leaf.grad is None else leaf.grad.data) is not array:
                return False
        for (owner, argument), fact in self._facts.items():
            if owner.fact(argument) != fact:
                return False
        return True


def _hooks(owners, attribute):
    """For each owner that has hooks the keys that they were registered under, which are never used again."""
    return [(id(hooks), *hooks) for owner in owners if (hooks := getattr(owner, attribute))]


def _tensors(module):
    return [m for m in module.__dict__.values() if hasattr(m, "requires_grad") and hasattr(m, "version")]


def _settings(module):
    """What a module computes with, beside the values of its tensors. Lists and the like are not looked into.

    `training` is an attribute of the class until it is first set.
    """
    return [module.training] + [
        value if isinstance(value, _COMPARED) else id(value) for name, value in module.__dict__.items()
        if name != "training" and (isinstance(value, _COMPARED) or name[0] != "_")
    ]


_COMPARED = (int, float, str, tuple, type(None))
