"""What a trace has recorded, summed up: by kernel, op, module, phase; against what the machine can do."""

import json
from pathlib import Path
from typing import NamedTuple

from minigrad.study.machine import machine

SHOWN = 25  # rows of the table
KEYS = ("kernel", "op", "module", "phase", "device", "shapes")
LANES = ("module", "op")  # of a timeline, above those of the devices
NOTE = """\
MFLOP: a multiply-add is 2 operations; exp, log and the like are 1. MB: each array once, one changed in place twice.
Of best: the larger share, of the product's speed (compute) or of the copy's (memory): what bounds the kernel. What lies
in a cache, and a convolution by Winograd's algorithm, can exceed 100 %."""


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
        The Function; or "optimizer", "sum of gradients" (of a tensor that was used several times, or was broadcast),
        "first gradient" (with which a walk back starts), "into .grad"; "" where none of these launched it, as for the
        values of a new tensor.
    module : str
        The path of the module, "" outside of any.
    phase : str
        "forward", "backward", "optimizer" or "other".
    once : bool
        Whether the kernel was compiled, loaded or prepared in this time; a later launch takes less.
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
    once: bool = False


class Span(NamedTuple):
    """A stretch of time: of a module's forward, or of an op with the Python around it.

    Those of ops fill the trace: each ends when the op has run, or its gradient, and begins where the one before ended.

    Attributes
    ----------
    kind : str
        "module" or "op".
    name : str
        That of the module or op, see `Launch`.
    start, seconds : float
    module, phase : str
    """

    kind: str
    name: str
    start: float
    seconds: float
    module: str = ""
    phase: str = "other"

    @property
    def op(self):
        """The name."""
        return self.name


class Total(NamedTuple):
    """Launches that have something in common.

    Attributes
    ----------
    name : str, or tuple of str
        What they have in common: one thing, or several.
    calls : int
    seconds : float
        In kernels.
    bytes, flops : int
        Kernels of unknown cost add no operations.
    once : int
        How many of the calls compiled, loaded or prepared their kernel.
    wall : float or None
        Seconds with the Python around the kernels; None where it cannot be told apart, as by kernel.
    """

    name: str | tuple
    calls: int
    seconds: float
    bytes: int
    flops: int
    once: int = 0
    wall: float | None = None

    @property
    def gflops(self):
        """10^9 operations per second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self):
        """10^9 bytes per second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def time(self):
        """Seconds with the Python around the kernels, where that is known; those in kernels otherwise."""
        return self.seconds if self.wall is None else self.wall

    def against(self, best):
        """The larger of the two shares of what a `Machine` can do, and which: ``(0.8, "compute")``."""
        return max((self.gflops / best.gflops, "compute"), (self.gbytes / best.gbytes, "memory"))


class Totals(list):
    """What `Report.by` returns, a list of `Total`; its str is a table of the longest."""

    def __init__(self, keys, totals, best):
        super().__init__(totals)
        self.keys, self._best = keys, best

    def __str__(self):
        best, with_wall = self._best(), bool(self) and self[0].wall is not None
        whole = sum([total.time for total in self])
        times = ["in kernels", "in all"] if with_wall else ["time"]
        rows = [(*self.keys, "calls", *times, "share", "GFLOP/s", "GB/s", *(["of best"] if best else []))]
        for total in self[:SHOWN]:
            name = total.name if len(self.keys) > 1 else (total.name,)
            row = [*[str(part) or "-" for part in name], f"{total.calls:,}{'*' if total.once else ' '}"]
            row.append(_time(total.seconds))
            row += [_time(total.wall)] if with_wall else []
            row += [f"{total.time / whole:.1%}",
                    f"{total.gflops:.1f}" if total.flops else "", f"{total.gbytes:.1f}" if total.bytes else ""]
            if best:
                share, bound = total.against(best)
                row.append(f"{share:.0%} {bound}" if total.calls else "")
            rows.append(row)
        lines = _table(rows, left=len(self.keys))
        if len(self) > SHOWN:
            rest = sum([total.time for total in self[SHOWN:]])
            lines.append(f"and {len(self) - SHOWN} more, {_time(rest)} together")
        return "\n".join(lines)


class Report:
    """The launches of a trace, and sums of them; its str is a table.

    Attributes
    ----------
    launches : list of Launch
    spans : list of Span
    wall : float
        Seconds from the start of the trace to its end.
    """

    def __init__(self):
        self.launches, self.spans, self.wall = [], [], 0.0

    def by(self, *keys):
        """Sums over launches, the longest first; by op, module and phase also with the Python around them.

        Parameters
        ----------
        *keys : {"kernel", "op", "module", "phase", "device", "shapes"}

        Returns
        -------
        Totals
            A list of `Total`; print it for a table.
        """
        if not keys:
            raise ValueError(f"by: expected one or more of {', '.join(KEYS)}, got none")
        for key in keys:
            if key not in KEYS:
                raise ValueError(f"by: expected {', '.join(KEYS)}, got {key!r}")
        groups, walls = {}, {}
        for launch in self.launches:
            groups.setdefault(tuple([getattr(launch, key) for key in keys]), []).append(launch)
        if with_wall := not {*keys} & {"kernel", "device", "shapes"}:
            for span in self.spans:
                if span.kind == "op":
                    name = tuple([getattr(span, key) for key in keys])
                    walls[name] = walls.get(name, 0.0) + span.seconds
        totals = []
        for name in dict.fromkeys([*groups, *walls]):
            group = groups.get(name, [])
            totals.append(Total(
                name[0] if len(name) == 1 else name, len(group), sum([g.seconds for g in group]),
                sum([g.bytes for g in group]), sum([g.flops or 0 for g in group]), sum([g.once for g in group]),
                walls.get(name, 0.0) if with_wall else None,
            ))  # fmt: skip
        return Totals(keys, sorted(totals, key=lambda total: -total.time), self._best)

    @property
    def seconds(self):
        """Time inside kernels, in seconds."""
        return sum([launch.seconds for launch in self.launches])

    def to_chrome(self, path):
        """Write a timeline in the format of Chrome's tracing, for https://ui.perfetto.dev and chrome://tracing.

        One lane for the modules, one for the ops, and one for each device's kernels.
        """
        lanes = dict.fromkeys([*LANES, *[launch.device for launch in self.launches]])
        lanes = {name: number for number, name in enumerate(lanes)}
        events = [{"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": name}}
                  for name, number in lanes.items()]
        events += [_event(span.name, span.kind, lanes[span.kind], span, {}) for span in self.spans if span.name]
        events += [
            _event(launch.kernel, launch.phase, lanes[launch.device], launch, {
                "op": launch.op, "module": launch.module, "shapes": [list(s) for s in launch.shapes],
                "dtypes": list(launch.dtypes), "bytes": launch.bytes, "flops": launch.flops, "once": launch.once,
            }) for launch in self.launches
        ]  # fmt: skip
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8")

    def __repr__(self):
        return (f"<trace of {len(self.launches):,} launches, {_time(self.seconds)} in kernels, {_time(self.wall)} in "
                "all>")

    def __str__(self):
        if not self.launches:
            return "no kernel was launched"
        best = self._best()
        lines = [f"{len(self.launches):,} launches, {_time(self.seconds)} in kernels of {_time(self.wall)} in all: "
                 f"{1 - self.seconds / self.wall:.0%} is Python (autograd, layers, this trace)"]
        lines.append(str(best) if best else self._why_no_best())
        once = [launch.seconds for launch in self.launches if launch.once]
        if once:
            lines.append(f"* {len(once)} of them ({_time(sum(once))}) compiled, loaded or prepared their kernel, which "
                         "later ones need not: trace a later step")
        rows = [("phase", "calls", "in kernels", "in all", "share", "MFLOP", "MB")]
        for total in self.by("phase"):
            rows.append((total.name, f"{total.calls:,}", _time(total.seconds), _time(total.wall),
                         f"{total.wall / self.wall:.1%}",
                         f"{total.flops / 1e6:,.2f}", f"{total.bytes / 1e6:,.2f}"))
        lines += ["", *_table(rows, left=1), ""]
        lines += [str(self.by("phase", "module", "op", "kernel"))]
        return "\n".join([*lines, "", NOTE if best else NOTE.splitlines()[0]])

    def _best(self):
        """What the device that was used can do, in the type that was used; None if there is no such figure."""
        used = {launch.device for launch in self.launches}
        if not used or len(used) > 1 or _emulated(used) or _interpreted():
            return None
        work = {name: 0 for name in ("float32", "float64")}
        for launch in self.launches:
            for dtype in {*launch.dtypes} & {*work}:
                work[dtype] += launch.flops or 0
        return machine(used.pop(), "float64" if work["float64"] > work["float32"] else "float32")

    def _why_no_best(self):
        if _emulated({launch.device for launch in self.launches}):
            return "cuda is emulated here: its times say nothing about a GPU"
        if _interpreted():
            return "kernels run as plain Python here (NUMBA_DISABLE_JIT): their times say nothing"
        return "several devices were used: no one machine to compare with"


def _event(name, kind, lane, timed, details):
    return {"name": name, "cat": kind, "ph": "X", "pid": 0, "tid": lane, "ts": timed.start * 1e6,
            "dur": timed.seconds * 1e6, "args": details}


def _interpreted():
    import numba

    return bool(numba.config.DISABLE_JIT)


def _emulated(devices):
    if "cuda" not in devices:
        return False
    from minigrad.kernels.cuda.toolkit import EMULATED

    return EMULATED


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
