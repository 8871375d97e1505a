"""What a row of the benchmark is."""

import math
import zlib
from dataclasses import dataclass, field

import numpy as np

from minigrad.bench import nets

OP_LIBRARIES = ("minigrad", "numpy", "torch")
ALL_LIBRARIES = ("minigrad", "numpy", "torch", "torch.compile", "jax")
ENGINES = ("minigrad", "torch")

NET_MODES = ("train", "captured", "infer", "memory", "import", "cached", "cold")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    name, group : str
        The name is unique.
    mode : str
        ``forward`` (nothing recorded), ``recorded`` (forward, with a graph), ``backward`` (forward and backward),
        ``train``, ``captured`` (a training step that minigrad records once and replays), ``infer`` (nets),
        ``optimizer`` (one step), ``memory`` (of a training step), or ``import``, ``cached``, ``cold`` (processes).
    what : str
        The op, net or optimizer.
    inputs : tuple
        How to draw each input of an op: a shape (standard normal), ``("uniform", shape, low, high)`` or
        ``("labels", shape, classes)``. For an optimizer: the shapes of its parameters.
    params : dict
        Keyword arguments of the op; for a net ``batch``, if it is not the net's own, for ``memory`` ``captured``, for
        ``infer`` ``folded`` (by minigrad: see `fold_batchnorm`; the others compute the net as it is).
    work : float
        What one call does, in `unit`: ``FLOP``, ``B`` (memory that has to be read or written at least) or ``op``.
    tolerance, floor : float
        No element of a result may differ from the float64 reference by more than
        ``tolerance * (largest magnitude + floor)``.
    rms_tolerance : float
        Nor may the root mean square of the differences be more than ``rms_tolerance * (that of the values + floor)``.
    libraries : tuple of str
        Who takes part, where installed.
    threads : tuple of int
        Compare these numbers of threads with each other; empty: just the number asked for.
    """

    name: str
    group: str
    mode: str
    what: str = ""
    inputs: tuple = ()
    params: dict = field(default_factory=dict)
    work: float = 0
    unit: str = ""
    tolerance: float = 1e-4
    floor: float = 0.0
    rms_tolerance: float = math.inf
    libraries: tuple = OP_LIBRARIES
    threads: tuple = ()

    @property
    def checked_calls(self):
        """How many calls to make before the results are checked: a captured step has to be replayed, and again."""
        return 3 if self.mode == "captured" else 1

    def net(self):
        """The net, with this row's batch size."""
        net = nets.NETS[self.what]
        return net._replace(batch=self.params.get("batch", net.batch))

    def arrays(self):
        """The inputs, the same in every process: float32 and int64."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        if self.mode in NET_MODES:
            net = self.net()
            return [*nets.initial_parameters(net, rng), *nets.batch(net, rng)]
        if self.mode == "optimizer":
            return [rng.standard_normal(shape, dtype=np.float32) for shape in self.inputs * 2]
        return [_draw(rng, spec) for spec in self.inputs]

    def output_gradient(self, shape):
        """What flows back into the output of an op with ``mode="backward"``."""
        return np.asarray(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))


def _draw(rng, spec):
    if spec and spec[0] == "labels":
        return rng.integers(0, spec[2], spec[1])
    if spec and spec[0] == "uniform":
        return rng.uniform(spec[2], spec[3], spec[1]).astype(np.float32)
    return rng.standard_normal(spec, dtype=np.float32)


def size(*shapes):
    """How many elements the shapes have together."""
    return sum(math.prod(shape) for shape in shapes)


def shape_text(shape):
    """A shape as the names of rows show it."""
    return "(" + ", ".join(map(str, shape)) + ")"
