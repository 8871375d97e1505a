"""What every layer is made of: parameters, buffers and the module that holds them.

A module's members are found by walking its attributes in the order in which they were set: each `Parameter` is
trained, each `Buffer` is kept beside them, each `Module` is a child. Nothing has to be registered.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from minigrad import modes, ops
from minigrad.autograd import clear_gradients
from minigrad.creation import from_numpy
from minigrad.creation import tensor as make_tensor
from minigrad.device import Device, get_device
from minigrad.dtypes import as_dtype, float32, float64, is_float
from minigrad.modes import no_grad
from minigrad.tensor import RemovableHandle, Tensor
from minigrad.watching import entering


class Parameter(Tensor):
    """A tensor that a module learns: an optimizer gets it from ``module.parameters()``.

    Parameters
    ----------
    data : Tensor or array
        Its values. The memory of a Tensor is shared, not copied.
    requires_grad : bool
        False freezes it.
    """

    __slots__ = ()

    def __init__(self, data, requires_grad=True):
        _adopt(self, data)
        self.requires_grad_(requires_grad)

    def __repr__(self):
        return f"Parameter({super().__repr__()})"


class Buffer(Tensor):
    """A tensor that belongs to a module's state but is not learned, such as a running mean.

    Parameters
    ----------
    data : Tensor or array
        Its values. The memory of a Tensor is shared, not copied.
    persistent : bool
        Whether `Module.state_dict` contains it.
    """

    __slots__ = ("persistent",)

    def __init__(self, data, persistent=True):
        _adopt(self, data)
        self.persistent = persistent

    def __repr__(self):
        return f"Buffer({super().__repr__()})"


def _adopt(self, data):
    if not isinstance(data, Tensor):
        data = make_tensor(data)
    Tensor.__init__(self, data.data, data.device)
    self.version = data.version


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` passed over; both lists are empty after a strict load."""

    missing_keys: list
    unexpected_keys: list


class Module:
    """A part of a network. A subclass sets its members in ``__init__`` and writes ``forward``.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         self.hidden, self.out = nn.Linear(4, 8), nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())

    Attributes
    ----------
    training : bool
        Whether dropout drops and batch norm uses the batch's statistics; see `train` and `eval`.
    """

    training = True
    _forward_hooks: OrderedDict | None = None

    def __call__(self, *args, **kwargs):
        recorder = modes.recorder.get()
        if recorder:
            recorder.module(self)
        watchers = modes.current.get().watchers
        if watchers:
            with entering(watchers, self):
                output = self.forward(*args, **kwargs)
        else:
            output = self.forward(*args, **kwargs)
        if self._forward_hooks:
            for hook in tuple(self._forward_hooks.values()):
                replaced = hook(self, args, output)
                if replaced is not None:
                    output = replaced
        return output

    def forward(self, *args, **kwargs):
        """Compute the output; every subclass writes its own."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def register_forward_hook(self, hook):
        """Call ``hook(module, args, output)`` after each forward; its result, if any, replaces the output.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off again.
        """
        if self._forward_hooks is None:
            self._forward_hooks = OrderedDict()
        handle = RemovableHandle(self._forward_hooks)
        self._forward_hooks[handle.key] = hook
        modes.modules_changed[0] = object()
        return handle

    # -- members -----------------------------------------------------------------------------------------------

    def __setattr__(self, name, value):
        # A plain tensor in a member's place would silently drop out of parameters() and state_dict().
        old = self.__dict__.get(name)
        if isinstance(value, Tensor) and not isinstance(value, (Parameter, Buffer)):
            if isinstance(old, Parameter):
                raise TypeError(
                    f"{type(self).__name__}: expected a Parameter or None for {name!r}, got a Tensor; wrap it in "
                    "Parameter(...), or write into the old one with copy_"
                )
            if isinstance(old, Buffer):
                value = Buffer(value, old.persistent)
        object.__setattr__(self, name, value)
        modes.modules_changed[0] = object()  # afterwards: who sees it sees the new member

    def __delattr__(self, name):
        object.__delattr__(self, name)
        modes.modules_changed[0] = object()

    def register_buffer(self, name, tensor, persistent=True):
        """Set the attribute `name` to a `Buffer` with the values of a tensor, or to None."""
        self._check_name(name)
        if not isinstance(self.__dict__.get(name), (Buffer, type(None))):
            raise ValueError(f"{type(self).__name__}: the name {name!r} is taken by another attribute")
        setattr(self, name, None if tensor is None else Buffer(tensor, persistent))

    def register_parameter(self, name, parameter):
        """Set the attribute `name` to a `Parameter`, or to None."""
        self._check_name(name)
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"register_parameter: expected a Parameter or None, got {type(parameter).__name__}")
        setattr(self, name, parameter)

    def add_module(self, name, module):
        """Set the attribute `name`, which may be a number such as ``"0"``, to a child module."""
        self._check_name(name)
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected {name!r} to be a Module, got {type(module).__name__}")
        setattr(self, name, module)

    def _check_name(self, name):
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{type(self).__name__}: expected a name without dots for a member, got {name!r}")
        if hasattr(type(self), name):
            raise ValueError(f"{type(self).__name__}: the name {name!r} is taken by an attribute of the class")

    def named_children(self):
        """Pairs of name and direct child, in the order of definition, each child once."""
        seen = set()
        for name, member in self.__dict__.items():
            if isinstance(member, Module) and id(member) not in seen:
                seen.add(id(member))
                yield name, member

    def children(self):
        """The direct children."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix=""):
        """Pairs of dotted name and module: this one (its name is the prefix), then all below it, each once."""
        return self._walk(prefix, set())

    def _walk(self, prefix, seen):
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, member in self.__dict__.items():
            if isinstance(member, Module):
                yield from member._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self):
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def _named(self, kind, prefix="", recurse=True, once=True):
        """Pairs of dotted name and member of one kind. `once`: skip a member met before under another name."""
        seen = set()
        for path, module in self._walk(prefix, set() if once else None) if recurse else [(prefix, self)]:
            for name, member in module.__dict__.items():
                if isinstance(member, kind) and id(member) not in seen:
                    if once:
                        seen.add(id(member))
                    yield f"{path}.{name}" if path else name, member

    def named_parameters(self, prefix="", recurse=True):
        """Pairs of dotted name and `Parameter`; a shared one comes once, under its first name."""
        return self._named(Parameter, prefix, recurse)

    def parameters(self, recurse=True):
        """All parameters: what an optimizer is given."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix="", recurse=True):
        """Pairs of dotted name and `Buffer`; a shared one comes once, under its first name."""
        return self._named(Buffer, prefix, recurse)

    def buffers(self, recurse=True):
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    # -- state -------------------------------------------------------------------------------------------------

    def _state(self):
        """Pairs of key and member, in PyTorch's order: parameters, then buffers, then children."""
        for path, module in self._walk("", None):
            for kind in (Parameter, Buffer):
                for name, member in module._named(kind, path, recurse=False, once=False):
                    if kind is Parameter or member.persistent:
                        yield name, member

    def state_dict(self, prefix=""):
        """The module's parameters and persistent buffers under PyTorch's keys, shapes and layouts.

        Returns
        -------
        OrderedDict of str to Tensor
            Detached tensors that share the module's memory, as PyTorch's do: ``.clone()`` what must outlive the
            next step. ``{k: torch.from_numpy(v.numpy()) for k, v in ...}`` is what a PyTorch module loads.
        """
        return OrderedDict([(prefix + key, member.detach()) for key, member in self._state()])

    def load_state_dict(self, state_dict, strict=True):
        """Write values into the module's own arrays; nothing is changed if anything is wrong.

        Parameters
        ----------
        state_dict : mapping of str to Tensor, numpy.ndarray or PyTorch tensor
            Converted to the dtype of the member that takes them.
        strict : bool
            Whether missing and unexpected keys are errors. A wrong shape always is.

        Returns
        -------
        LoadResult
            The keys that were passed over.

        Raises
        ------
        ValueError
            One message with every missing, unexpected and misshapen key.
        """
        if not hasattr(state_dict, "keys"):
            raise TypeError(f"load_state_dict: expected a mapping of names to arrays, got {type(state_dict).__name__}")
        members = dict(self._state())
        missing = [key for key in members if key not in state_dict]
        unexpected = [key for key in state_dict.keys() if key not in members]
        found, wrong = [], []
        for key, member in members.items():
            if key not in missing:
                values = as_array(state_dict[key])
                if values is None:
                    wrong.append(f"{key} (expected numbers, got {type(state_dict[key]).__name__})")
                elif values.shape != member.shape:
                    wrong.append(f"{key} (expected shape {member.shape}, got {values.shape})")
                else:
                    found.append((member, values))
        faults = [("missing", missing), ("unexpected", unexpected)] if strict else []
        faults = [f"{what} {', '.join(keys)}" for what, keys in [*faults, ("misshapen", wrong)] if keys]
        if faults:
            raise ValueError(f"load_state_dict: the state does not fit {type(self).__name__}: {'; '.join(faults)}")
        with no_grad():
            for member, values in found:
                member.copy_(from_numpy(values, member.device))
        return LoadResult(missing, unexpected)

    # -- switches ----------------------------------------------------------------------------------------------

    def train(self, mode=True):
        """Put this module and all below it into training mode (or out of it)."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """Put this module and all below it into evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Freeze (False) or thaw all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none=True):
        """Forget all gradients, or set them to zero in place."""
        clear_gradients(self.parameters(), set_to_none)

    def apply(self, fn):
        """Call ``fn(module)`` on every module, children first; for initialisation."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self, *targets, device=None, dtype=None):
        """Move to a device, or convert floating parameters and buffers to a dtype, or both.

        The parameters stay the same objects, so an optimizer keeps them; the state that an optimizer has already
        built does not follow, so convert first.
        """
        for target in targets:
            if isinstance(target, Device) or isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda"):
                device = target
            elif target is not None:
                dtype = target
        device = None if device is None else get_device(device)
        dtype = None if dtype is None else as_dtype(dtype)
        if dtype is not None and not is_float(dtype):
            raise TypeError(f"to: expected float32 or float64 for the parameters, got {dtype}")
        for member in [*self.parameters(), *self.buffers()]:
            _convert(member, device, dtype)
        return self

    def float(self):
        """Convert to float32."""
        return self.to(float32)

    def double(self):
        """Convert to float64."""
        return self.to(float64)

    # -- for people --------------------------------------------------------------------------------------------

    def extra_repr(self):
        """What a layer shows between its parentheses."""
        return ""

    def __repr__(self):
        count = sum([p.numel() for p in self.parameters()])
        note = f"  # {count:,} parameter{'s' * (count != 1)}" if count else ""
        children = [(name, member) for name, member in self.__dict__.items() if isinstance(member, Module)]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()}){note}"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children]
        return f"{type(self).__name__}({self.extra_repr()}{note}\n  " + "\n  ".join(lines) + "\n)"

    def summary(self, input_shape, dtype=float32):
        """A table of layers, output shapes and parameters, with totals and memory.

        Parameters
        ----------
        input_shape : sequence of int, or a list of such
            The shape of the input, batch included; a list of shapes for a module of several inputs.
        dtype : dtype or list of dtype
            That of the inputs: int64 for an `Embedding`.

        Returns
        -------
        Summary
            Print it, or read its ``rows`` and totals. The module runs once on zeros, in evaluation mode.
        """
        from minigrad.layers.summary import summarize

        return summarize(self, input_shape, dtype)


def check_input(layer, fits, expected, x):
    """Raise unless `x` is a Tensor and ``fits(x.shape)``; the sentence names the layer and both shapes.

    `expected` is a text, or a function that returns it.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{type(layer).__name__}: expected a Tensor, got {type(x).__name__}")
    if not fits(x.data.shape):
        expected = expected() if callable(expected) else expected
        raise ValueError(f"{type(layer).__name__}: expected an input of shape {expected}, got {x.shape}")


def check_sizes(layer, **sizes):
    """Raise unless every one of these constructor arguments is an int of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{type(layer).__name__}: expected {name} to be an int >= 1, got {size!r}")


def as_array(values):
    """The numbers in a Tensor, array or PyTorch tensor as an array that minigrad can hold; None if there are none."""
    if hasattr(values, "detach"):
        values = values.detach()
        values = values.cpu() if hasattr(values, "cpu") else values
    if hasattr(values, "numpy"):
        values = values.numpy()
    try:
        values = np.asarray(values)
    except ValueError:  # rows of different lengths
        return None
    return values if values.dtype.kind in "fiub" else None


def _convert(member, device, dtype):
    """Give a tensor other memory on a device, of a dtype, and take its gradient along."""
    def moved(tensor):
        tensor = tensor.detach() if device is None else ops.to_device(tensor.detach(), device)
        return tensor if dtype is None or not is_float(tensor.dtype) else ops.cast(tensor, dtype)

    new = moved(member)
    if new.data is not member.data:
        member.data, member.device = new.data, new.device
        member.version[0] += 1
        member.version = [0]  # tensors that shared the old memory do not share the new one
        if member.grad is not None:
            member.grad = moved(member.grad)
