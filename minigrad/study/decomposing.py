"""Fused ops run as compositions of primitive ones, so that the graph shows the mathematics."""

import difflib
from dataclasses import replace

from minigrad.modes import ModeSwitch
from minigrad.study.decompositions import TABLE


class decompose(ModeSwitch):
    """Inside, fused ops run as the mathematics says, in primitive ops. A context manager and a decorator.

    The results are the same within rounding, gradients, running statistics and errors too; it is slower.
    `minigrad.study.graph` shows what ran. A step made by `minigrad.capture` is recorded anew inside.

    Parameters
    ----------
    *names : str
        Which ops: ``"linear"``, ``"batch_norm"`` (with the activation, pooling and linear layer that `Sequential` joins
        to it), ``"layer_norm"``, ``"softmax"``, ``"log_softmax"``, ``"logsumexp"``, ``"cross_entropy"``,
        ``"nll_loss"``, ``"var"``, ``"gelu_tanh"``, ``"softplus"``. All of them by default.

    Raises
    ------
    ValueError
        If there is no such name.

    Examples
    --------
    >>> with minigrad.study.decompose("softmax"):
    ...     y = x.softmax(1)
    >>> print(minigrad.study.graph(y))
    """

    def __init__(self, *names):
        super().__init__()
        for name in names:
            if name not in TABLE:
                if callable(name):
                    raise TypeError("decompose: write @decompose() with brackets, or with names in them")
                similar = difflib.get_close_matches(str(name), TABLE, n=1)
                hint = f"; did you mean {similar[0]!r}?" if similar else ""
                raise ValueError(f"decompose: expected names out of {', '.join(TABLE)}, got {name!r}{hint}")
        self.names = names

    def change(self, mode):
        formulas = dict(mode.decompositions or {})
        for name in self.names or TABLE:
            formulas.update(TABLE[name])
        return replace(mode, decompositions=formulas)

    def _recreate_cm(self):
        return type(self)(*self.names)
