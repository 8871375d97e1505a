"""The table that `Module.summary` prints."""

from typing import NamedTuple

from minigrad.creation import zeros
from minigrad.modes import no_grad
from minigrad.tensor import Tensor


class Row(NamedTuple):
    """One layer of the table; `shape` is None for a module that the forward did not call."""

    name: str
    layer: str
    depth: int
    shape: tuple | None
    parameters: int


class Summary:
    """What a module is made of and how much memory it takes.

    Attributes
    ----------
    rows : list of Row
        The module and all below it; `parameters` counts those of a row's children as well.
    parameters, trainable : int
        Numbers of elements; a shared parameter counts once.
    parameter_bytes, buffer_bytes, activation_bytes : int
        Memory in bytes; activations are the outputs of the innermost modules in one forward.
    """

    def __init__(self, rows, parameters, trainable, parameter_bytes, buffer_bytes, activation_bytes):
        self.rows = rows
        self.parameters = parameters
        self.trainable = trainable
        self.parameter_bytes = parameter_bytes
        self.buffer_bytes = buffer_bytes
        self.activation_bytes = activation_bytes

    def __str__(self):
        table = [("Layer", "Output shape", "Parameters")]
        for row in self.rows:
            name = f"{row.name}: {row.layer}" if row.name else row.layer
            shape = "not used" if row.shape is None else str(row.shape)
            table.append(("  " * row.depth + name, shape, f"{row.parameters:,}" if row.parameters else "-"))
        first, second, third = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"{a:<{first}}  {b:<{second}}  {c:>{third}}" for a, b, c in table]
        rule = "-" * len(lines[0])
        total = self.parameter_bytes + self.buffer_bytes + self.activation_bytes
        return "\n".join([
            lines[0], rule, *lines[1:], rule,
            f"Parameters: {self.parameters:,} ({self.trainable:,} trainable)",
            f"Memory: {size_text(total)} (parameters {size_text(self.parameter_bytes)}, "
            f"buffers {size_text(self.buffer_bytes)}, activations {size_text(self.activation_bytes)})",
        ])

    __repr__ = __str__


def size_text(n):
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"


def _inputs(input_shape, dtype, device):
    several = len(input_shape) > 0 and isinstance(input_shape[0], (tuple, list))
    shapes = input_shape if several else [input_shape]
    dtypes = dtype if isinstance(dtype, (tuple, list)) else [dtype] * len(shapes)
    if len(dtypes) != len(shapes):
        raise ValueError(f"summary: expected one dtype or one per input ({len(shapes)}), got {len(dtypes)}")
    return [zeros(*shape, dtype=kind, device=device) for shape, kind in zip(shapes, dtypes, strict=True)]


def summarize(module, input_shape, dtype):
    """Run a module once on zeros and write down what came out of each part; see `Module.summary`."""
    outputs = {}  # id of a module -> the first output it gave
    parts = list(module._walk("", set()))

    def keep(part, _, output):
        outputs.setdefault(id(part), output)

    handles = [part.register_forward_hook(keep) for _, part in parts]
    modes = [(part, part.training) for _, part in parts]
    everything = [*module.parameters(), *module.buffers()]
    try:
        module.eval()
        with no_grad():
            module(*_inputs(input_shape, dtype, everything[0].device if everything else None))
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes:
            part.training = mode
    rows, activations = [], 0
    for name, part in parts:
        out = outputs.get(id(part))
        shape = out.shape if isinstance(out, Tensor) else None
        count = sum([p.numel() for p in part.parameters()])
        depth = name.count(".") + 1 if name else 0
        rows.append(Row(name.rpartition(".")[2], type(part).__name__, depth, shape, count))
        if shape is not None and next(part.children(), None) is None:
            activations += out.data.nbytes
    parameters = list(module.parameters())
    return Summary(
        rows,
        sum([p.numel() for p in parameters]),
        sum([p.numel() for p in parameters if p.requires_grad]),
        sum([p.data.nbytes for p in parameters]),
        sum([b.data.nbytes for b in module.buffers()]),
        activations,
    )
