"""What a trace has recorded, summed up: by kernel, op, module, phase; against what the machine can do."""

import json
from pathlib import Path
from typing import NamedTuple

from minigrad.study.machine import machine

SHOWN = 25  # rows of the table
KEYS = ("kernel", "op", "module", "phase", "device")


class Launch(NamedTuple):
    """One call of a kernel.

    Attributes
    ----------
    kernel, device : str
    shapes, dtypes : tuple
        Of its array arguments, in order.
    start, seconds : float
        When it began, from the start of the trace, and how long it took.
    bytes : int
    flops : int or None
        None if the cost of the kernel is not known.
    op : str
        The Function; or "optimizer", "sum of gradients" (of a tensor that was used several times), "into .grad", "".
    module : str
        The path or class of the module, "" outside of any.
    phase : str
        "forward", "backward", "optimizer" or "other".
    """

    kernel: str
    device: str
    shapes: tuple
    dtypes: tuple
    start: float
    seconds: float
    bytes: int
    flops: int | None
    op: str = ""
    module: str = ""
    phase: str = "other"


class Total(NamedTuple):
    """Launches that have something in common.

    Attributes
    ----------
    name : tuple of str
    calls : int
    seconds : float
    bytes, flops : int
        Kernels of unknown cost add no operations.
    """

    name: tuple
    calls: int
    seconds: float
    bytes: int
    flops: int

    @property
    def gflops(self):
        """10^9 operations per second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self):
        """10^9 bytes per second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    def against(self, best):
        """The larger of the two shares of what a `Machine` can do, and which: ``(0.8, "compute")``."""
        return max((self.gflops / best.gflops, "compute"), (self.gbytes / best.gbytes, "memory"))


class Report:
    """The launches of a trace, and sums of them; its str is a table."""

    def __init__(self):
        self.launches, self.wall = [], 0.0

    def by(self, *keys):
        """Sums over launches, the longest first.

        Parameters
        ----------
        *keys : {"kernel", "op", "module", "phase", "device"}

        Returns
        -------
        list of Total
        """
        for key in keys:
            if key not in KEYS:
                raise ValueError(f"by: expected {', '.join(KEYS)}, got {key!r}")
        groups = {}
        for launch in self.launches:
            groups.setdefault(tuple(getattr(launch, key) for key in keys), []).append(launch)
        totals = [
            Total(name, len(group), sum(g.seconds for g in group), sum(g.bytes for g in group),
                  sum(g.flops or 0 for g in group))
            for name, group in groups.items()
        ]
        return sorted(totals, key=lambda total: -total.seconds)

    @property
    def seconds(self):
        """Time inside kernels, in seconds."""
        return sum(launch.seconds for launch in self.launches)

    def to_chrome(self, path):
        """Write the launches in the format of Chrome's tracing, for https://ui.perfetto.dev and chrome://tracing."""
        lanes = {name: number for number, name in enumerate(dict.fromkeys(launch.device for launch in self.launches))}
        events = [{"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": name}}
                  for name, number in lanes.items()]
        events += [{
            "name": launch.kernel, "cat": launch.phase, "ph": "X", "pid": 0, "tid": lanes[launch.device],
            "ts": launch.start * 1e6, "dur": launch.seconds * 1e6,
            "args": {"op": launch.op, "module": launch.module, "shapes": [list(s) for s in launch.shapes],
                     "dtypes": list(launch.dtypes), "bytes": launch.bytes, "flops": launch.flops},
        } for launch in self.launches]  # fmt: skip
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8")

    def __repr__(self):
        times = f"{_time(self.seconds)} in kernels, {_time(self.wall)} in all"
        return f"<trace of {len(self.launches):,} launches, {times}>"

    def __str__(self):
        if not self.launches:
            return "no kernel was launched"
        emulated, on_gpu = self._elsewhere()
        best = None if on_gpu else machine()
        lines = [f"{len(self.launches):,} launches, {_time(self.seconds)} in kernels of {_time(self.wall)} in all: "
                 f"{1 - self.seconds / self.wall:.0%} is Python (autograd, layers, this trace)"]
        if emulated:
            lines.append("cuda is emulated here: its times say nothing about a GPU")
        if best:
            lines.append(f"this machine, {best.threads} thread(s): {best.gflops:.0f} GFLOP/s in a matrix product, "
                         f"{best.gbytes:.1f} GB/s in a copy of 64 MiB")
        rows = [("phase", "calls", "time", "share", "MFLOP", "MB")]
        for total in self.by("phase"):
            rows.append((total.name[0], f"{total.calls:,}", _time(total.seconds), self._share(total),
                         f"{total.flops / 1e6:.2f}", f"{total.bytes / 1e6:.2f}"))
        lines += ["", *_table(rows, left=1), ""]
        rows = [("phase", "module", "op", "kernel", "calls", "time", "share", "GFLOP/s", "GB/s",
                 *(["of best"] if best else []))]
        totals = self.by("phase", "module", "op", "kernel")
        for total in totals[:SHOWN]:
            row = (*total.name, f"{total.calls:,}", _time(total.seconds), self._share(total),
                   f"{total.gflops:.1f}" if total.flops else "", f"{total.gbytes:.1f}")
            if best:
                share, bound = total.against(best)
                row += (f"{share:.0%} {bound}",)
            rows.append(row)
        lines += _table(rows, left=4)
        if len(totals) > SHOWN:
            rest = sum(total.seconds for total in totals[SHOWN:])
            lines.append(f"and {len(totals) - SHOWN} more, {_time(rest)} together")
        return "\n".join(lines)

    def _elsewhere(self):
        """Whether a launch was emulated, and whether there was one on a GPU at all."""
        if all(launch.device == "cpu" for launch in self.launches):
            return False, False
        from minigrad.kernels.cuda.toolkit import EMULATED

        return EMULATED, True

    def _share(self, total):
        return f"{total.seconds / self.seconds:.0%}"


def _time(seconds):
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e6:.1f} us"


def _table(rows, left):
    """Lines of cells, the first `left` columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" if i < left else f"{cell:>{w}}" for i, (cell, w) in
                      enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
