"""Learning rates that change while training: call ``scheduler.step()`` after each epoch (or batch).

As in PyTorch, each step starts from the group's present rate wherever the formula allows, so several schedules may
work on one optimizer; and the first step is taken when the schedule is made.
"""

import math
from bisect import bisect_right

from minigrad import modes
from minigrad.optim.optimizer import Optimizer


class LRScheduler:
    """A rule for the learning rate of each parameter group.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        -1 to begin; another number to continue after that epoch with the rates that the groups have.

    Attributes
    ----------
    last_epoch : int
        How often `step` was called.
    base_lrs : list of float
        The rates at the beginning.
    """

    def __init__(self, optimizer, last_epoch=-1):
        name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{name}: expected an Optimizer, got {type(optimizer).__name__}")
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(f"{name}: expected groups with an initial_lr to continue after epoch {last_epoch}")
        self.optimizer = optimizer
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.begin()

    def begin(self):
        """Take the step that belongs to the constructor."""
        self.last_epoch += 1
        self._write([self.first(group["lr"], base) for group, base in self._groups()])

    def step(self):
        """Go on by one epoch; inside a step that `minigrad.capture` records, in every replay of it too."""
        modes.on_host(self.advance)

    def advance(self):
        """What `step` does."""
        self.last_epoch += 1
        self._write([self.following(group["lr"], base) for group, base in self._groups()])

    def jump(self, epoch):
        """Go to an epoch, whatever the present rates are."""
        self.last_epoch = epoch
        self._write([self.closed_form(base) for _, base in self._groups()])

    def _groups(self):
        return zip(self.optimizer.param_groups, self.base_lrs, strict=True)

    def _write(self, rates):
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates

    def closed_form(self, base):
        """The rate at `last_epoch`, from the one at the beginning."""
        raise TypeError(f"{type(self).__name__} defines no closed_form")

    def following(self, lr, base):
        """The rate at `last_epoch`, from the one before it."""
        return self.closed_form(base)

    def first(self, lr, base):
        """The rate that the constructor sets."""
        return lr

    def get_last_lr(self):
        """The rates set last, one per group."""
        return self._last_lr

    def state_dict(self):
        """Everything but the optimizer and functions, as plain numbers and lists."""
        return {key: value for key, value in vars(self).items() if key not in ("optimizer", "lr_lambdas")}

    def load_state_dict(self, state_dict):
        """Continue from what `state_dict` returned; the groups' rates are the optimizer's to restore."""
        unknown = set(state_dict) ^ set(self.state_dict())
        if unknown:
            raise ValueError(f"{type(self).__name__}: the state does not fit: {', '.join(sorted(unknown))}")
        vars(self).update(state_dict)


class StepLR(LRScheduler):
    """Multiply the rate by `gamma` every `step_size` epochs."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        _check_positive("StepLR", step_size=step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def following(self, lr, base):
        return lr * self.gamma if self.last_epoch % self.step_size == 0 else lr

    def closed_form(self, base):
        return base * self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiply the rate by `gamma` at each of the `milestones` (epochs; twice if one is named twice)."""

    def __init__(self, optimizer, milestones, gamma=0.1, last_epoch=-1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def following(self, lr, base):
        return lr * self.gamma ** self.milestones.count(self.last_epoch)

    def closed_form(self, base):
        return base * self.gamma ** bisect_right(self.milestones, self.last_epoch)


class ExponentialLR(LRScheduler):
    """Multiply the rate by `gamma` every epoch."""

    def __init__(self, optimizer, gamma, last_epoch=-1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def following(self, lr, base):
        return lr * self.gamma

    def closed_form(self, base):
        return base * self.gamma**self.last_epoch


class LinearLR(LRScheduler):
    """Warm-up: the rate times a factor that goes from `start_factor` to `end_factor` in `total_iters` even steps."""

    def __init__(self, optimizer, start_factor=1.0 / 3, end_factor=1.0, total_iters=5, last_epoch=-1):
        _check_positive("LinearLR", total_iters=total_iters)
        if not 0.0 < start_factor <= 1.0 or not 0.0 <= end_factor <= 1.0:
            raise ValueError(
                f"LinearLR: expected factors from 0 to 1, the first above 0, got {start_factor} and {end_factor}"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch):
        part = min(epoch, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * part

    def first(self, lr, base):
        return lr * self.start_factor if self.last_epoch == 0 else lr

    def following(self, lr, base):
        return lr if self.last_epoch > self.total_iters else lr * (
            self._factor(self.last_epoch) / self._factor(self.last_epoch - 1)
        )

    def closed_form(self, base):
        return base * self._factor(self.last_epoch)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine wave from the rate down to `eta_min` in `T_max` epochs, and up again after them.

    References
    ----------
    Loshchilov and Hutter, arXiv 1608.03983, equation 5 (without restarts).
    """

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        _check_positive("CosineAnnealingLR", T_max=T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, epoch):
        return (1.0 + math.cos(math.pi * epoch / self.T_max)) / 2.0

    def following(self, lr, base):
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # from the bottom there is no ratio to go by
            return lr + (base - self.eta_min) * (1.0 - math.cos(math.pi / self.T_max)) / 2.0
        ratio = self._height(self.last_epoch) / self._height(self.last_epoch - 1)
        return self.eta_min + (lr - self.eta_min) * ratio

    def closed_form(self, base):
        return self.eta_min + (base - self.eta_min) * self._height(self.last_epoch)


class LambdaLR(LRScheduler):
    """The rate at the beginning times ``lr_lambda(epoch)``; one function, or a list of one per group."""

    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        groups = len(optimizer.param_groups) if isinstance(optimizer, Optimizer) else 1
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * groups
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: expected one function per group ({groups}), got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def _rates(self):
        return [base * fn(self.last_epoch) for base, fn in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def begin(self):
        self.advance()

    def advance(self):
        self.last_epoch += 1
        self._write(self._rates())

    def jump(self, epoch):
        self.last_epoch = epoch
        self._write(self._rates())


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down far below the start in one cycle, the momentum the other way round; step per batch.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float or list of float
        The highest rate (per group). The cycle starts at ``max_lr / div_factor`` and ends at that divided by
        `final_div_factor`.
    total_steps : int
        The length of the cycle; or give `epochs` and `steps_per_epoch`.
    pct_start : float
        The part of the cycle that the way up takes.
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool
        Move the momentum (of Adam: the first beta) from `max_momentum` to `base_momentum` and back.
    three_phase : bool
        Come back to the start rate as symmetrically as up, then go down.
    last_epoch : int

    References
    ----------
    Smith and Topin, arXiv 1708.07120.
    """

    def __init__(self, optimizer, max_lr, total_steps=None, epochs=None, steps_per_epoch=None, pct_start=0.3,
                 anneal_strategy="cos", cycle_momentum=True, base_momentum=0.85, max_momentum=0.95, div_factor=25.0,
                 final_div_factor=1e4, three_phase=False, last_epoch=-1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"OneCycleLR: expected an Optimizer, got {type(optimizer).__name__}")
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: expected total_steps, or epochs and steps_per_epoch, got neither")
            _check_positive("OneCycleLR", epochs=epochs, steps_per_epoch=steps_per_epoch)
            total_steps = epochs * steps_per_epoch
        _check_positive("OneCycleLR", total_steps=total_steps)
        if not 0.0 <= pct_start <= 1.0:
            raise ValueError(f"OneCycleLR: expected pct_start from 0 to 1, got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: expected anneal_strategy to be 'cos' or 'linear', got {anneal_strategy!r}")
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(f"OneCycleLR: {optimizer.name} has no momentum to cycle; pass cycle_momentum=False")
        self.total_steps, self.anneal_strategy, self.cycle_momentum = total_steps, anneal_strategy, cycle_momentum
        up = float(pct_start * total_steps) - 1
        # (last step, rate there, momentum there); each phase goes on from where the one before it ended
        self.phases = [[up, "max_lr", "base_momentum"], [total_steps - 1, "min_lr", "max_momentum"]]
        if three_phase:
            self.phases.insert(1, [float(2 * pct_start * total_steps) - 2, "initial_lr", "max_momentum"])
        if last_epoch == -1:
            self._prepare(optimizer.param_groups, max_lr, base_momentum, max_momentum, div_factor, final_div_factor)
        super().__init__(optimizer, last_epoch)

    def _prepare(self, groups, max_lr, base_momentum, max_momentum, div_factor, final_div_factor):
        """Write the corners of the cycle into the groups, so that they travel with the optimizer's state."""
        corners = {"max_lr": max_lr}
        if self.cycle_momentum:
            corners.update(base_momentum=base_momentum, max_momentum=max_momentum)
        for name, values in corners.items():
            values = list(values) if isinstance(values, (list, tuple)) else [values] * len(groups)
            if len(values) != len(groups):
                raise ValueError(f"OneCycleLR: expected one {name} or one per group ({len(groups)}), got {values}")
            for group, value in zip(groups, values, strict=True):
                group[name] = value
        for group in groups:
            group["initial_lr"] = group["max_lr"] / div_factor
            group["min_lr"] = group["initial_lr"] / final_div_factor

    def begin(self):
        self.advance()

    def advance(self):
        if self.last_epoch + 1 > self.total_steps:
            raise ValueError(f"OneCycleLR: expected at most {self.total_steps} steps, got {self.last_epoch + 1}")
        self.jump(self.last_epoch + 1)

    def jump(self, epoch):
        self.last_epoch = epoch
        self._write([self._at(group) for group in self.optimizer.param_groups])

    def _at(self, group):
        """The group's rate at `last_epoch`; its momentum is set on the way."""
        ends = [end for end, _, _ in self.phases]
        phase = next((i for i, end in enumerate(ends) if self.last_epoch <= end), len(ends) - 1)
        start, rate, momentum = self.phases[phase - 1] if phase else (0.0, "initial_lr", "max_momentum")
        end, next_rate, next_momentum = self.phases[phase]
        part = (self.last_epoch - start) / (end - start) if end != start else 1.0
        if self.cycle_momentum:
            value = self._between(group[momentum], group[next_momentum], part)
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            else:
                group["momentum"] = value
        return self._between(group[rate], group[next_rate], part)

    def _between(self, start, end, part):
        if self.anneal_strategy == "linear":
            return start + (end - start) * part
        return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * part))


class SequentialLR(LRScheduler):
    """Several schedules one after the other, such as a warm-up before a cosine.

    Parameters
    ----------
    optimizer : Optimizer
        The one that all the schedules were made for.
    schedulers : list of LRScheduler
    milestones : list of int
        The epochs at which the next schedule takes over, starting from its own epoch 0.
    """

    def __init__(self, optimizer, schedulers, milestones, last_epoch=-1):
        if not schedulers:
            raise ValueError("SequentialLR: expected at least one scheduler, got none")
        for scheduler in schedulers:
            if getattr(scheduler, "optimizer", None) is not optimizer:
                raise ValueError(f"SequentialLR: {type(scheduler).__name__} belongs to another optimizer")
            if isinstance(scheduler, SequentialLR):
                raise ValueError("SequentialLR: expected plain schedulers, got a SequentialLR; put all in one list")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: expected one milestone less than schedulers ({len(schedulers)}), got {len(milestones)}"
            )
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def begin(self):
        # Each schedule has taken its first step when it was made: take those back and begin with the first one alone.
        self.last_epoch += 1
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self.schedulers:
            scheduler.last_epoch -= 1
        active = self.schedulers[bisect_right(self.milestones, 0)]
        active.begin()
        self._last_lr = active.get_last_lr()

    def advance(self):
        self.last_epoch += 1
        index = bisect_right(self.milestones, self.last_epoch)
        active = self.schedulers[index]
        if index and self.milestones[index - 1] == self.last_epoch:
            active.jump(0)
        else:
            active.step()
        self._last_lr = active.get_last_lr()

    def state_dict(self):
        return {**super().state_dict(), "schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state_dict):
        states = state_dict.get("schedulers", ())
        if len(states) != len(self.schedulers):
            raise ValueError(f"SequentialLR: expected states of {len(self.schedulers)} schedulers, got {len(states)}")
        for scheduler, state in zip(self.schedulers, states, strict=True):
            scheduler.load_state_dict(state)
        super().load_state_dict({**state_dict, "schedulers": self.schedulers})


def _check_positive(name, **numbers):
    for argument, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected {argument} to be an int >= 1, got {value!r}")
