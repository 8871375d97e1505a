"""The paths of the modules in which ops ran."""

from itertools import count

from minigrad.watching import Watcher, watch


def joined(paths):
    """One path for several modules that ran as one: ``0`` and ``2`` become ``0-2``, inside of ``net`` ``net.0-2``."""
    first, last = paths[0], paths[-1]
    if first == last:
        return first
    inside, _, name = first.rpartition(".")
    around, _, other = last.rpartition(".")
    return f"{first}-{other}" if inside == around else f"{first}-{last}"


_numbers = count(1)  # of all that begins or ends a call, whichever `names` saw it


class _Names(Watcher):
    def __init__(self, model):
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.calls, self.around, self.turn = (), [], next(_numbers)

    def entered(self, modules):
        known = [self.paths[id(module)] for module in modules if id(module) in self.paths]
        self.turn = next(_numbers)
        self.around.append(self.calls)
        if known:
            self.calls = (*self.calls, (joined(known), self.turn))

    def left(self, modules):
        self.turn = next(_numbers)
        self.calls = self.around.pop()

    def computed(self, fn, inputs, results):
        fn.module_path = self.calls[-1][0] if self.calls else ""
        fn.module_calls = self.calls, self.turn


class names(watch):
    """Inside, every op that is recorded notes the path of the module of `model` that ran it.

    `minigrad.study.graph` reads it. Children that ran as one op (see `Sequential.fuse`) have the path ``0-2``. Without
    this block `graph` finds the modules of those ops that use parameters, and of no others.

    Parameters
    ----------
    model : Module

    Examples
    --------
    >>> with minigrad.study.names(model):
    ...     loss = loss_of(model(x), y)
    >>> minigrad.study.graph(loss, model)
    """

    def __init__(self, model):
        if not hasattr(model, "named_modules"):
            raise TypeError(f"names: expected a Module, got {type(model).__name__}")
        super().__init__(_Names(model))
        self.model = model

    def _recreate_cm(self):
        return type(self)(self.model)
