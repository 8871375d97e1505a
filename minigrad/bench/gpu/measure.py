"""Checks and times the rows on one card, minigrad and PyTorch taking turns in one process."""

import contextlib
import datetime
import importlib.util
import time
import traceback

import numpy as np

import minigrad as mg
from minigrad.bench.harness import Mismatch, check
from minigrad.bench.numpy_library import NumpyLibrary
from minigrad.bench.torch_like import TorchLike

TURNS, SECONDS, WARM_CALLS = 7, 0.05, 3


class Clock:
    """Times calls on the device by events in its stream; in the emulator by the processor's clock."""

    def __init__(self, library):
        self.library = library
        if library == "torch":
            import torch

            self.torch = torch
        else:
            self.backend = importlib.import_module("minigrad.kernels.cuda.memory").backend

    def seconds(self, call, count):
        """The time of one of `count` calls."""
        if self.library == "torch":
            begin, end = [self.torch.cuda.Event(enable_timing=True) for _ in range(2)]
            begin.record()
            for _ in range(count):
                call()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3 / count

        def calls():
            for _ in range(count):
                call()

        return self.backend.timed(calls) / count


class TorchGraphs(TorchLike):
    """PyTorch with the training step as a CUDA graph."""

    def _captured(self, train_step):
        torch, graph, static = self.library, self.library.cuda.CUDAGraph(), {}

        def run(x, labels):
            if not static:
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(3):
                        train_step(x, labels)
                torch.cuda.current_stream().wait_stream(side)
                with torch.cuda.graph(graph):
                    static["loss"] = train_step(x, labels)
            graph.replay()
            return static["loss"]

        return run


def libraries():
    """Who takes part: a label, who prepares rows, who times them, and in which modes."""
    taking_part = {"minigrad": (TorchLike("minigrad", "cuda"), Clock("minigrad"), None)}
    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            taking_part["torch"] = TorchLike("torch", "cuda"), Clock("torch"), None
            taking_part["torch graphs"] = TorchGraphs("torch", "cuda"), Clock("torch"), ("captured",)
    return taking_part


def run(rows, turns=TURNS, seconds=SECONDS, progress=lambda text: None):
    """The report: environment, and per row the medians, the ratios and what share of the copy's bandwidth it had.

    A row whose result differs from NumPy's in float64 by more than its tolerance is not timed. PyTorch's graph is
    checked by being PyTorch: capturing one takes steps of its own, which the reference has not made.
    """
    taking_part = libraries()
    report = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "minigrad": mg.__version__,
              "card": _card(), "torch": _torch(taking_part), "rows": []}
    report["copy"] = _copy_bandwidth(turns)
    start = time.perf_counter()
    for row in rows:
        progress(row.name)
        entry = {"name": row.name, "group": row.group, "work": row.work, "unit": row.unit, "seconds": {}, "ratios": {}}
        report["rows"].append(entry)
        with _precision(getattr(row, "precision", None), taking_part):
            _measure(row, entry, taking_part, turns, seconds)
        if "error" not in entry and row.unit == "B":
            entry["share of copy"] = row.work / entry["seconds"]["minigrad"] / report["copy"]
    report["minutes"] = round((time.perf_counter() - start) / 60, 1)
    return report


@contextlib.contextmanager
def _precision(precision, taking_part):
    """A row's precision of matrix products, for both libraries; PyTorch computes in float32 beside 3xtf32.

    Beside bfloat16 it computes in tf32: its documentation says that "medium" is that on CUDA, too.
    """
    if precision is None:
        yield
        return
    settings = [(mg, precision)]
    if "torch" in taking_part:
        settings.append((taking_part["torch"][0].library, "high" if precision in ("high", "medium") else "highest"))
    before = [(library, library.get_float32_matmul_precision()) for library, _ in settings]
    try:
        for library, wanted in settings:
            library.set_float32_matmul_precision(wanted)
        yield
    finally:
        for library, wanted in before:
            library.set_float32_matmul_precision(wanted)


def _measure(row, entry, taking_part, turns, seconds):
    """Add to a row's entry its times, or what went wrong: the other rows, and minigrad's figures where another library
    fails, are to be had all the same."""
    calls, expected, label = {}, None, ""
    try:
        for label, (library, clock, modes) in taking_part.items():
            if modes and row.mode not in modes:
                continue
            try:
                call, results = library.prepare(row)
                for _ in range(row.checked_calls):
                    call()
            except Exception as error:
                if label == "minigrad":
                    raise
                entry.setdefault("failed", {})[label] = _sentence(error)
                continue
            if label != "torch graphs":
                expected = _reference(row) if expected is None else expected
                check(results(), expected, row)
            calls[label] = call, clock
        label = "timing"
        entry["seconds"] = _time(calls, turns, seconds)
    except Mismatch as error:
        entry["error"] = f"{label}: {error}"
    except Exception as error:  # of either library: out of memory, a launch that the card refuses
        entry["error"] = f"{label}: {_sentence(error)}"
    else:
        entry["ratios"] = {label: took / entry["seconds"]["minigrad"] for label, took in entry["seconds"].items()}


def _sentence(error):
    """An error in a line, for a table; the rest goes to the terminal."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _reference(row):
    call, results = NumpyLibrary(np.dtype("float64")).prepare(row)
    for _ in range(row.checked_calls):
        call()
    return results()


def _time(calls, turns, seconds):
    """The median time of a call, per label."""
    counts, samples = {}, {label: [] for label in calls}
    for label, (call, clock) in calls.items():
        for _ in range(WARM_CALLS):
            call()
        counts[label] = max(1, int(seconds / max(clock.seconds(call, 1), 1e-7)))
    for turn in range(turns):
        for label in list(calls)[turn % len(calls) :] + list(calls)[: turn % len(calls)]:
            call, clock = calls[label]
            samples[label].append(clock.seconds(call, counts[label]))
    return {label: float(np.median(times)) for label, times in samples.items()}


def _copy_bandwidth(turns):
    """Bytes per second, read and written, of the driver's copy from one array to another of 256 MiB."""
    clock, backend = Clock("minigrad"), importlib.import_module("minigrad.kernels.cuda.memory").backend
    size = 256 << 20 if backend.REAL else 1 << 16
    source, target = [mg.zeros(size // 4, device="cuda").data for _ in range(2)]
    times = [clock.seconds(lambda: backend.copy(source, target), 20) for _ in range(turns)]
    return 2 * size / float(np.median(times))


def _card():
    return importlib.import_module("minigrad.kernels.cuda.memory").backend.name()


def _torch(taking_part):
    if "torch" not in taking_part:
        return None
    torch = taking_part["torch"][0].library
    return {"version": torch.__version__, "matmul in tf32": torch.backends.cuda.matmul.allow_tf32,
            "cuDNN in tf32": torch.backends.cudnn.allow_tf32}
