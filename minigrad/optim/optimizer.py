"""What all optimizers share: parameter groups, state, and numbers that kernels read from the device."""

import numpy as np

from minigrad import modes
from minigrad.autograd import clear_gradients
from minigrad.creation import tensor as make_tensor
from minigrad.dtypes import float64, is_float
from minigrad.modes import enable_grad
from minigrad.tensor import Tensor


class Optimizer:
    """Changes parameters in place from their gradients; a subclass writes `update`.

    Parameters
    ----------
    params : iterable of Tensor, of (str, Tensor) or of dict
        Leaves, with or without their names (`named_parameters`); or groups ``{"params": [...], "lr": ...}`` with
        settings of their own.
    defaults : dict
        The settings of a group that does not name them.

    Attributes
    ----------
    param_groups : list of dict
        Settings may be changed between steps; schedulers do.
    state : dict
        Per parameter, what the optimizer remembers of it.

    Raises
    ------
    ValueError, TypeError
        If there are no parameters, one is given twice, one is not a leaf of floats, or a setting is out of range.
    """

    def __init__(self, params, defaults):
        self.name = type(self).__name__
        self.defaults = defaults
        self.param_groups = []
        self.state = {}
        self._changes = 0  # of the parameters or the state from outside
        self._settings = {}  # (group, device) -> [values, the array that holds them]
        if isinstance(params, Tensor):
            raise TypeError(f"{self.name}: expected an iterable of parameters, got a Tensor; put it in a list")
        params = list(params)
        if not params:
            raise ValueError(f"{self.name}: expected at least one parameter, got an empty list")
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        for group in groups:
            self.add_param_group(group)

    def __repr__(self):
        groups = []
        for group in self.param_groups:
            settings = [f"{key}={value!r}" for key, value in group.items() if key != "params"]
            groups.append(f"  {len(group['params'])} parameter(s): {', '.join(settings)}\n")
        return f"{self.name}(\n{''.join(groups)})"

    def add_param_group(self, group):
        """Add parameters with settings of their own; those not named are the defaults."""
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f"{self.name}: expected a group as a dict with 'params', got {type(group).__name__}")
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        params = [p[1] if isinstance(p, tuple) and len(p) == 2 else p for p in params]  # with its name
        if not params:
            raise ValueError(f"{self.name}: expected at least one parameter in a group, got an empty list")
        unknown = [key for key in group if key != "params" and key not in self.defaults and key != "initial_lr"]
        if unknown:
            known = ", ".join(self.defaults)
            raise ValueError(f"{self.name}: expected settings out of {known} in a group, got {', '.join(unknown)}")
        seen = {id(p) for g in self.param_groups for p in g["params"]}
        for position, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(f"{self.name}: expected parameters to be Tensors, got {type(param).__name__}")
            where = f"parameter {position} of shape {param.shape}"
            if param.fn is not None:
                raise ValueError(f"{self.name}: expected leaves, but {where} was computed by {param.fn.name}")
            if not is_float(param.dtype):
                raise TypeError(f"{self.name}: expected float parameters, but {where} is {param.dtype}")
            if id(param) in seen:
                raise ValueError(f"{self.name}: {where} is given twice")
            seen.add(id(param))
        group = {**self.defaults, **group, "params": params}
        self.check_group(group)
        self.param_groups.append(group)
        self._changes += 1

    def check_group(self, group):
        """Raise if a setting is out of range; subclasses add theirs."""
        self.check_range(group, "lr", 0.0)
        self.check_range(group, "weight_decay", 0.0)

    def check_range(self, group, setting, low, below=None):
        """Raise unless a setting is a number of at least `low` (and less than `below`)."""
        value = group[setting]
        if not isinstance(value, (int, float, np.number)) or not (value >= low and (below is None or value < below)):
            limit = f">= {low:g}" if below is None else f"from {low:g} to below {below:g}"
            raise ValueError(f"{self.name}: expected {setting} {limit}, got {value!r}")

    # -- the step ----------------------------------------------------------------------------------------------

    def zero_grad(self, set_to_none=True):
        """Forget all gradients, or set them to zero in place."""
        for group in self.param_groups:
            clear_gradients(group["params"], set_to_none)

    def step(self, closure=None):
        """Change every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients anew; called first.

        Returns
        -------
        The closure's result, or None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        recorder = modes.recorder.get()
        for index, group in enumerate(self.param_groups):
            self._check_gradients(group["params"])
            if recorder:
                self._record(recorder, index, group["params"])
            self.update(index, group)
        return loss

    def _record(self, recorder, index, params):
        """Tell the recorder what a step depends on beside the arrays, and have it bring settings up to date."""
        for param in params:
            recorder.grad_read(param)
            recorder.guards.tensor(param)
        recorder.guards.fact(self, index)
        devices = {param.device for param in params}
        recorder.host(lambda: [self.settings(index, device) for device in devices])

    def fact(self, index):
        """What a recorded step takes for granted: all of a group but the numbers that `settings` holds."""
        return (self._changes, *self.fixed_settings(self.param_groups[index]))

    def fixed_settings(self, group):
        """The settings of a group that kernels get as arguments."""
        return ()

    def unrepeatable(self):
        """Tell a recorder that this step is not like later ones."""
        recorder = modes.recorder.get()
        if recorder:
            recorder.unrepeatable()

    def _check_gradients(self, params):
        """Raise if somebody has put a gradient of another shape or dtype in place: kernels would read past its end."""
        for param in params:
            grad = param.grad
            if grad is None:
                continue
            known = isinstance(grad, Tensor)
            if not known or grad.data.shape != param.data.shape or grad.data.dtype != param.data.dtype:
                got = f"{grad.shape} and {grad.dtype}" if known else type(grad).__name__
                wanted = f"{param.shape} and dtype {param.dtype}"
                raise ValueError(f"{self.name}: expected a gradient of shape {wanted}, got {got}")
            if grad.device is not param.device:
                raise ValueError(f"{self.name}: expected the gradient of a parameter on {param.device} there too, got "
                                 f"one on {grad.device}")

    def update(self, index, group):
        """Step the parameters of one group: one kernel launch for each that has a gradient."""
        raise TypeError(f"{self.name} defines no update")

    def with_gradients(self, group):
        """The parameters of a group that have a gradient, as pairs of a device and a list of neighbours there."""
        found = []
        for param in group["params"]:
            if param.grad is not None:
                if not found or found[-1][0] is not param.device:
                    found.append((param.device, []))
                found[-1][1].append(param)
        return found

    def hyper_parameters(self, group):
        """The numbers that the kernel reads from `settings`, in its order."""
        raise TypeError(f"{self.name} defines no hyper_parameters")

    def settings(self, index, device):
        """A group's hyper-parameters as a float64 array on a device, rewritten only when one has changed.

        Kernels read what may vary from step to step from such arrays, so that a recorded launch can be repeated.
        """
        values = self.hyper_parameters(self.param_groups[index])
        known = self._settings.get((index, device))
        if known is None:
            known = self._settings[index, device] = [None, device.empty((len(values),), float64)]
        if known[0] != values:
            known[0] = values
            device.write(known[1], values)
        return known[1]

    def zeros_like(self, param):
        """A state tensor of zeros for a parameter."""
        with modes.off_record():
            return Tensor(param.device.full(param.shape, 0.0, param.dtype), param.device)

    def check_state(self, param, state):
        """Raise if a parameter was converted after its state was made."""
        if state.data.dtype != param.data.dtype or state.device is not param.device:
            raise ValueError(
                f"{self.name}: a parameter of shape {param.shape} became {param.dtype} on {param.device} after its "
                f"state was made as {state.dtype} on {state.device}; convert the model before the first step"
            )

    # -- state -------------------------------------------------------------------------------------------------

    def state_dict(self):
        """The state and settings, structured as PyTorch's: parameters are named by their number.

        Returns
        -------
        dict
            ``{"state": {0: {"momentum_buffer": Tensor}, ...}, "param_groups": [{"lr": ..., "params": [0, ...]}]}``.
            Tensors share the optimizer's memory.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = {id(p): i for i, p in enumerate(params)}
        groups = [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in self.param_groups]
        state = {i: {name: value.detach() if isinstance(value, Tensor) else value
                     for name, value in self.state[p].items()}
                 for i, p in enumerate(params) if p in self.state}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict):
        """Continue from what `state_dict` (or PyTorch's) returned; nothing is changed if anything does not fit.

        Tensors, NumPy arrays and PyTorch tensors are written into the optimizer's own arrays where it has them.

        Raises
        ------
        ValueError
            If groups, parameters or shapes differ.
        """
        if not hasattr(state_dict, "keys") or not {"state", "param_groups"} <= set(state_dict.keys()):
            raise ValueError(f"{self.name}: expected a state with the keys 'state' and 'param_groups'")
        saved = state_dict["param_groups"]
        sizes, own = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise ValueError(f"{self.name}: expected a state of groups with {own} parameters, got {sizes}")
        groups = []
        for theirs, ours in zip(saved, self.param_groups, strict=True):
            groups.append({**ours, **_plain(theirs), "params": ours["params"]})
            self.check_group(groups[-1])
        numbers = [number for group in saved for number in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        owners = dict(zip(numbers, params, strict=True))
        loaded = {}
        for number, entries in state_dict["state"].items():
            if number not in owners:
                raise ValueError(f"{self.name}: the state names parameter {number}, which no group has")
            loaded[number] = {name: self._checked(number, owners[number], name, v) for name, v in entries.items()}
        for ours, group in zip(self.param_groups, groups, strict=True):
            ours.update(group)
        self._changes += 1
        old, self.state = self.state, {}
        for number, entries in loaded.items():
            self.state[owners[number]] = self._restored(owners[number], entries, old.get(owners[number], {}))

    def _checked(self, number, param, name, value):
        """A state entry as a number, None, or an array of the parameter's shape."""
        if value is None or isinstance(value, (int, float)):
            return value
        values = np.asarray(value.detach().cpu() if hasattr(value, "cpu") else value)
        if values.shape == () and name == "step":
            return float(values)
        if values.dtype.kind not in "fiu" or values.shape != param.shape:
            raise ValueError(
                f"{self.name}: expected {name} of parameter {number} of shape {param.shape}, got {values.shape}"
            )
        return values

    def _restored(self, param, entries, old):
        state = {}
        for name, value in entries.items():
            if isinstance(value, np.ndarray):
                source = make_tensor(value, dtype=param.dtype, device=param.device)
                target = old.get(name)
                fits = isinstance(target, Tensor) and target.dtype == param.dtype and target.device is param.device
                value = target.copy_(source) if fits else source
            elif name == "step":
                target = old.get(name)
                value = target.fill_(value) if isinstance(target, Tensor) else step_tensor(value, param.device)
            state[name] = value
        return state


def _plain(group):
    """A saved group's settings as Python numbers."""
    return {
        key: tuple([float(v) for v in value]) if key == "betas"
        else float(value) if hasattr(value, "numpy") else value
        for key, value in group.items() if key != "params"
    }


def step_tensor(count, device):
    """A step count as PyTorch keeps it: a float64 tensor of shape ()."""
    with modes.off_record():  # on a GPU a kernel writes the number
        return make_tensor(np.array(float(count)), dtype=float64, device=device)
