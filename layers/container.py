"""Modules that hold others in order."""

import operator
from collections.abc import Mapping

from minigrad.layers.fusion import plan
from minigrad.layers.module import Module
from minigrad.layers.repeating import Passes


class _Ordered(Module):
    """Children under the names "0", "1", ... (or given ones), with the manners of a list."""

    def _put(self, modules):
        """Replace all children by these; numbered names follow the position."""
        for name in [name for name, member in self.__dict__.items() if isinstance(member, Module)]:
            delattr(self, name)
        for name, module in modules:
            self.add_module(name, module)

    def _items(self):
        return [(name, member) for name, member in self.__dict__.items() if isinstance(member, Module)]

    def _position(self, index):
        """An index counted from the front, checked."""
        count, index = len(self), operator.index(index)
        if not -count <= index < count:
            raise IndexError(f"{type(self).__name__}: index {index} is out of range for {count} module(s)")
        return index % count

    def __len__(self):
        return len(self._items())

    def __iter__(self):
        return iter([module for _, module in self._items()])

    def __contains__(self, module):
        return any(module is member for member in self)

    def __getitem__(self, index):
        items = self._items()
        if isinstance(index, slice):
            return self._of(items[index])
        return items[self._position(index)][1]

    def __setitem__(self, index, module):
        self.add_module(self._items()[self._position(index)][0], module)

    def __delitem__(self, index):
        items = self._items()
        gone = range(len(items))[index] if isinstance(index, slice) else [self._position(index)]
        self._put(_renumbered([item for i, item in enumerate(items) if i not in gone]))

    def append(self, module):
        """Add a module at the end; returns the container."""
        return self.extend([module])

    def extend(self, modules):
        """Add modules at the end; returns the container."""
        for module in list(modules):
            self.add_module(_free_name(self.__dict__, len(self)), module)
        return self

    def insert(self, index, module):
        """Put a module before the one at `index`; numbered names move up."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected a Module, got {type(module).__name__}")
        items = self._items()
        items.insert(index, ("0", module))
        self._put(_renumbered(items))
        return self


def _free_name(taken, number):
    while str(number) in taken:
        number += 1
    return str(number)


def _renumbered(items):
    """Names that are numbers become the position; others stay."""
    return [(str(i) if name.isdigit() else name, module) for i, (name, module) in enumerate(items)]


class Sequential(_Ordered):
    """Modules applied one after the other.

    On the CPU a Sequential of layers of this package that has often been called with inputs of one shape records
    its kernel launches and from then on makes them by one native function, those of its gradient by another: the same
    results without the Python between the kernels. What was recorded holds while settings, parameters' arrays, hooks
    and mode are what they were. With a module of your own among the children each of them is called as ever.

    Parameters
    ----------
    *modules : Module, or one mapping of str to Module
        With a mapping (an ``OrderedDict``) its names are those of the children, as attributes and in state dicts.

    Attributes
    ----------
    fuse : bool
        Whether one op may compute a run of children (a linear layer, batch normalization, an activation, max pooling;
        see `minigrad.layers.fusion`), and whether passes are repeated. The results do not change. ``model.fuse =
        False`` calls the children one by one, every time, so that every intermediate can be looked at;
        ``Sequential.fuse = False`` does so everywhere.
    """

    fuse = True
    _plan = None  # (the children, how to call them)
    _passes = None  # those that were recorded, see `minigrad.layers.repeating`

    def __init__(self, *modules):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            self._put(modules[0].items())
        else:
            self._put([(str(i), module) for i, module in enumerate(modules)])

    @classmethod
    def _of(cls, items):
        return cls(dict(_renumbered(items)))

    def forward(self, x):
        if not self.fuse:
            return self._run(x)
        if self._passes is None:
            self._passes = Passes()
        return self._passes.run(self, x)

    def __getstate__(self):
        return {name: member for name, member in self.__dict__.items() if name != "_passes"}  # for copies and pickles

    def _run(self, x):
        """Apply the children, by runs that one op computes if `fuse` is set."""
        steps = [module for module in self.__dict__.values() if isinstance(module, Module)]
        if self.fuse:
            if self._plan is None or self._plan[0] != steps:
                self._plan = steps, plan(steps)
            steps = self._plan[1]
        for step in steps:
            x = step(x)
        return x


class ModuleList(_Ordered):
    """A list of modules whose parameters are found; it has no forward of its own.

    Parameters
    ----------
    modules : iterable of Module
    """

    def __init__(self, modules=()):
        self._put([(str(i), module) for i, module in enumerate(modules)])

    @classmethod
    def _of(cls, items):
        return cls([module for _, module in items])


class ModuleDict(Module):
    """Modules by name, whose parameters are found; it has no forward of its own.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of (str, Module)
    """

    def __init__(self, modules=None):
        self.update({} if modules is None else modules)

    def update(self, modules):
        """Add the modules of a mapping or of pairs, in order; a name that there is already gets the new one."""
        for name, module in dict(modules).items():
            self[name] = module

    def __setitem__(self, name, module):
        self.add_module(name, module)

    def __getitem__(self, name):
        return self._modules_by_name()[name]

    def __delitem__(self, name):
        if name not in self:
            raise KeyError(name)
        delattr(self, name)

    def __len__(self):
        return len(self._modules_by_name())

    def __iter__(self):
        return iter(self._modules_by_name())

    def __contains__(self, name):
        return name in self._modules_by_name()

    def _modules_by_name(self):
        return {name: member for name, member in self.__dict__.items() if isinstance(member, Module)}

    def keys(self):
        """The names."""
        return self._modules_by_name().keys()

    def values(self):
        """The modules."""
        return self._modules_by_name().values()

    def items(self):
        """Pairs of name and module."""
        return self._modules_by_name().items()
