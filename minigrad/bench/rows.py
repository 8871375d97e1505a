"""The table of what is compared. A new line here is a new row of the benchmark."""

import math
import re
import zlib
from dataclasses import dataclass, field

import numpy as np

from minigrad.bench import nets

OP_LIBRARIES = ("minigrad", "numpy", "torch")
ALL_LIBRARIES = ("minigrad", "numpy", "torch", "torch.compile", "jax")
ENGINES = ("minigrad", "torch")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    name, group : str
        The name is unique.
    mode : str
        ``forward`` (nothing recorded), ``recorded`` (forward, with a graph), ``backward`` (forward and backward),
        ``train``, ``infer`` (nets), ``optimizer`` (one step), or ``import``, ``cached``, ``cold`` (whole processes).
    what : str
        The op, net or optimizer.
    inputs : tuple
        How to draw each input of an op: a shape (standard normal), ``("uniform", shape, low, high)`` or
        ``("labels", shape, classes)``. For an optimizer: the shapes of its parameters.
    params : dict
        Keyword arguments of the op.
    work : float
        What one call does, in `unit`: ``FLOP``, ``B`` (memory that has to be read or written at least) or ``op``.
    tolerance, floor : float
        A result may differ from the float64 reference by ``tolerance * (largest magnitude + floor)``.
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
    libraries: tuple = OP_LIBRARIES
    threads: tuple = ()

    def arrays(self):
        """The inputs, the same in every process: float32 and int64."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        if self.mode in ("train", "infer", "import", "cached", "cold"):
            net = nets.NETS[self.what]
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


def _size(*shapes):
    return sum(math.prod(shape) for shape in shapes)


def _shape(shape):
    return "(" + ", ".join(map(str, shape)) + ")"


def _net_rows():
    # float32 against float64 through a whole net: rounding turns a few decisions of ReLU and max pooling, seen up to
    # 3e-3. The floor is for gradients that are exactly zero, as that of a bias in front of batch normalization.
    check = {"tolerance": 1e-2, "floor": 1e-2, "libraries": ALL_LIBRARIES, "unit": "FLOP"}
    for mode, title in (("train", "training step"), ("infer", "inference")):
        for name, net in nets.NETS.items():
            work = nets.flop(net, training=mode == "train")
            yield Row(f"{title} {name}, batch {net.batch}", "nets", mode, name, work=work, **check)
    net = nets.NETS["C"]
    yield Row(f"training step C, batch {net.batch}, 1 and 2 threads", "threads", "train", "C", threads=(1, 2),
              work=nets.flop(net, training=True), **check)


def _gemm_rows():
    cubes = [(n, n, n) for n in (16, 64, 128, 256, 512, 1024)]
    thin = [(60, 784, 100), (60, 100, 100), (60, 100, 10), (64, 1568, 128), (64, 2048, 10), (1, 784, 100)]
    for m, k, n in cubes + thin:
        yield Row(f"gemm {m} x {k} x {n}", "gemm", "forward", "matmul", ((m, k), (k, n)), {}, 2 * m * k * n, "FLOP")


def _conv_rows():
    shapes = [((64, 3, 32, 32), 32), ((64, 32, 32, 32), 32), ((64, 32, 16, 16), 64), ((64, 64, 16, 16), 64),
              ((64, 1, 28, 28), 16), ((64, 16, 14, 14), 32)]
    for shape, out in shapes:
        flop = 2 * 9 * math.prod(shape) * out
        for mode, title, work in (("forward", "forward", flop), ("backward", "forward + backward", 3 * flop)):
            yield Row(f"conv 3x3 {_shape(shape)} -> {out}, {title}", "convolution", mode, "conv2d",
                      (shape, (out, shape[1], 3, 3), (out,)), {"padding": 1}, work, "FLOP")


def _both(name, group, what, inputs, forward_bytes, backward_bytes, params=None, **more):
    """A row for the forward pass and one for forward and backward."""
    params = params or {}
    yield Row(f"{name}, forward", group, "forward", what, inputs, params, forward_bytes, "B", **more)
    yield Row(f"{name}, forward + backward", group, "backward", what, inputs, params, forward_bytes + backward_bytes,
              "B", **more)


def _elementwise_rows():
    for n in (1_000, 1_000_000):
        yield Row(f"add {n:,}", "elementwise", "forward", "add", ((n,), (n,)), work=12 * n, unit="B")
    for a, b in (((64, 1000), (1000,)), ((64, 32, 32, 32), (1, 32, 1, 1))):
        yield from _both(f"broadcast add {_shape(a)} + {_shape(b)}", "elementwise", "add", (a, b),
                         4 * _size(a, a, b), 4 * _size(a, b))
    for what in ("exp", "log", "tanh", "sigmoid", "relu"):
        for n in (1_000, 1_000_000):
            spec = ("uniform", (n,), 0.1, 10.0) if what == "log" else (n,)
            yield from _both(f"{what} {n:,}", "elementwise", what, (spec,), 8 * n, 12 * n)


def _reduction_rows():
    shape = (100, 100, 100)
    for dim in (0, 1, 2, None):
        title = "all axes" if dim is None else f"axis {dim}"
        yield Row(f"sum {_shape(shape)}, {title}", "reductions", "forward", "sum", (shape,), {"dim": dim},
                  4 * math.prod(shape), "B")
    for shape, dims in (((1000, 1000), (0, 1)), ((64, 10), (1,))):
        for dim in dims:
            size = math.prod(shape)
            yield from _both(f"softmax {_shape(shape)}, axis {dim}", "reductions", "softmax", (shape,), 8 * size,
                             12 * size, {"dim": dim})


def _layer_rows():
    for shape in ((60, 100), (64, 1024), (64, 32, 32, 32), (64, 16, 28, 28)):
        size, channels = math.prod(shape), shape[1]
        yield from _both(f"batch norm {len(shape) // 2}d {_shape(shape)}", "layers", "batch_norm",
                         (shape, ("uniform", (channels,), 0.5, 1.5), (channels,)), 8 * size, 12 * size, tolerance=1e-3)
    for shape in ((64, 32, 32, 32), (64, 16, 28, 28)):
        size = math.prod(shape)
        yield from _both(f"max pool 2x2 {_shape(shape)}", "layers", "max_pool2d", (shape,), 5 * size, 5 * size)
    for n, classes in ((60, 10), (64, 1000)):
        yield from _both(f"cross-entropy ({n}, {classes})", "layers", "cross_entropy",
                         ((n, classes), ("labels", (n,), classes)), 4 * n * classes, 8 * n * classes)


def _optimizer_rows():
    for what, traffic in (("sgd", 20), ("adam", 28)):  # bytes per element: SGD has one buffer, Adam two
        for count, shape in ((1, (1000, 1000)), (100, (1000,))):
            yield Row(f"{what} on {count} x {_shape(shape)}", "optimizers", "optimizer", what, (shape,) * count, {},
                      traffic * count * math.prod(shape), "B")


def _engine_rows():
    pair = ((8,), ("uniform", (8,), 0.99, 1.01))
    ops = (("one mul", "mul", pair, {}, 1), ("chain of 100 mul", "chain", pair, {"length": 100}, 100),
           ("fan-out of 100 mul, added up", "fan_out", pair, {"width": 100}, 199))
    for title, what, inputs, params, count in ops:
        for mode, suffix in (("recorded", "forward"), ("backward", "forward + backward")):
            yield Row(f"{title}, 8 elements, {suffix}", "engine", mode, what, inputs, params, count, "op",
                      libraries=ENGINES)


def _process_rows():
    yield Row("import", "processes", "import", "B", libraries=("minigrad", "numpy", "torch", "jax"))
    yield Row("first training step B, compiled code cached", "processes", "cached", "B", libraries=ALL_LIBRARIES)
    yield Row("first training step B, nothing cached", "processes", "cold", "B", libraries=ALL_LIBRARIES)


ROWS = {
    row.name: row
    for rows in (_net_rows, _gemm_rows, _conv_rows, _elementwise_rows, _reduction_rows, _layer_rows, _optimizer_rows,
                 _engine_rows, _process_rows)
    for row in rows()
}


def select(pattern=None):
    """The rows whose ``group: name`` matches a regular expression, ignoring case; all of them without one.

    Raises
    ------
    ValueError
        If there is none, or the expression is wrong.
    """
    try:
        found = [row for row in ROWS.values() if re.search(pattern or "", f"{row.group}: {row.name}", re.IGNORECASE)]
    except re.error as error:
        raise ValueError(f"bench: expected a regular expression, got {pattern!r} ({error})") from None
    if not found:
        groups = ", ".join(dict.fromkeys(row.group for row in ROWS.values()))
        raise ValueError(f"bench: no row matches {pattern!r}; the groups are {groups}")
    return found
