"""The table of what is compared: nets and processes here, single ops in `op_rows`. A new line is a new row."""

import re
from dataclasses import replace

from minigrad.bench import nets
from minigrad.bench.op_rows import op_rows
from minigrad.bench.row import ALL_LIBRARIES, OP_LIBRARIES, Row

__all__ = ["ROWS", "Row", "select"]

BATCHES = (1, 16, 64, 256)
MEMORY_BATCH = 64


def _net_row(title, group, mode, name, batch, **more):
    """A row of a net, whose results are compared with more patience than those of one op.

    A net computed in float64 by PyTorch agrees with the reference to 5e-5 in all rows. In float32 rounding turns a few
    of up to 30 million decisions of ReLU and max pooling, which moves single gradients: for C at batch 256 NumPy itself
    is off by 2e-2 of the largest element, and by 3e-3 in the root mean square. Three steps, of a captured row, multiply
    that by five. The floor is for gradients that are exactly zero, as that of a bias before batch normalization.
    """
    more |= {"tolerance": 0.2, "rms_tolerance": 0.05} if mode == "captured" else {
        "tolerance": 0.05, "rms_tolerance": 0.01}
    net = nets.NETS[name]._replace(batch=batch)
    return Row(title, group, mode, name, params={"batch": batch}, work=nets.flop(net, training=mode != "infer"),
               unit="FLOP", floor=1e-2, **more)


def _net_rows():
    everybody = {"libraries": ALL_LIBRARIES}
    for mode, title in (("train", "training step"), ("infer", "inference")):
        for name, net in nets.NETS.items():
            yield _net_row(f"{title} {name}, batch {net.batch}", "nets", mode, name, net.batch, **everybody)
    for name, net in nets.NETS.items():
        yield _net_row(f"training step {name}, batch {net.batch}, captured", "captured", "captured", name, net.batch,
                       **everybody)
    for name, net in nets.NETS.items():
        row = _net_row(f"inference {name}, batch {net.batch}, batch norm folded", "folded", "infer", name, net.batch)
        yield replace(row, params={**row.params, "folded": True})
    for mode, title in (("train", "training step"), ("infer", "inference")):
        for name, net in nets.NETS.items():
            for batch in BATCHES:
                # BatchNorm1d has one value per channel then, whose variance nobody can normalize by.
                impossible = mode == "train" and name == "A" and batch == 1
                if batch != net.batch and not impossible:
                    yield _net_row(f"{title} {name}, batch {batch}", "batch sizes", mode, name, batch, **everybody)
    for name, net in nets.NETS.items():
        yield _net_row(f"training step {name}, batch {net.batch}, 1 and 2 threads", "threads", "train", name, net.batch,
                       threads=(1, 2))


def _memory_rows():
    """Without the compilers: what they leave behind of a compilation can't be told from what a step needs."""
    for name in nets.NETS:
        for captured in (False, True):
            title = f"peak memory of a training step {name}, batch {MEMORY_BATCH}" + ", captured" * captured
            yield Row(title, "memory", "memory", name, params={"batch": MEMORY_BATCH, "captured": captured},
                      libraries=OP_LIBRARIES)


def _process_rows():
    yield Row("import", "processes", "import", "B", libraries=("minigrad", "numpy", "torch", "jax"))
    yield Row("first training step B, compiled code cached", "processes", "cached", "B", libraries=ALL_LIBRARIES)
    yield Row("first training step B, nothing cached", "processes", "cold", "B", libraries=ALL_LIBRARIES)


ROWS = {row.name: row for rows in (_net_rows, op_rows, _memory_rows, _process_rows) for row in rows()}


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
