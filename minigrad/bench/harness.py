"""Runs the table: one process per library, taking turns; results are checked before anything is timed."""

import contextlib
import datetime
import importlib.util
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import minigrad
from minigrad.bench import processes
from minigrad.bench.combine import FORMAT, complete, with_ratios
from minigrad.bench.environment import ENDS_WITH_PARENT, machine, of_process
from minigrad.bench.timing import LONG, TURN_SECONDS, WARM_SECONDS, summary, turn

LIBRARIES = {"minigrad": "numba", "numpy": "numpy", "torch": "torch", "torch.compile": "torch", "jax": "jax"}
"""The names of the libraries, and the package that has to be installed for each."""


class WorkerError(Exception):
    """What went wrong in a worker, as a sentence."""


class Mismatch(Exception):
    """A library's result differs from the reference."""


class Worker:
    """A library's process (see `minigrad.bench.worker`), on Linux stopped while it is not asked for anything.

    Its threads may go on waiting for work after an answer, and slow the next library's (docs/decisions.md, 91).

    Parameters
    ----------
    library : str
    threads : int
    """

    def __init__(self, library, threads):
        self.library, self.threads = library, threads
        self.process = None

    def ask(self, command, **arguments):
        """Send a command and wait for the answer.

        Raises
        ------
        WorkerError
            If the command failed or the process died. A new process serves the next command.
        """
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "minigrad.bench.worker", self.library, str(self.threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=of_process(self.threads),
            )  # fmt: skip
        self._signal("SIGCONT")
        try:
            print(json.dumps({"command": command, **arguments}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.process.wait()
            self.close()
            raise WorkerError(f"the process of {self.library} ended with status {status} during {command!r}")
        self._signal("SIGSTOP")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _signal(self, name):
        """Stop or continue the process, where it ends with this one: a stopped process does not see its input end."""
        if ENDS_WITH_PARENT:
            self.process.send_signal(getattr(signal, name))

    def close(self):
        """End the process."""
        if self.process is not None:
            self._signal("SIGCONT")
            with contextlib.suppress(BrokenPipeError):  # a command that a dead process will never read
                self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None


def installed_libraries():
    """The libraries that this Python can import."""
    return [name for name, package in LIBRARIES.items() if importlib.util.find_spec(package)]


def check(results, reference, row):
    """Compare a library's results with the reference.

    Parameters
    ----------
    results, reference : list of numpy.ndarray
    row : Row
        Its tolerances count.

    Raises
    ------
    Mismatch
        If shapes differ or an element is too far off or not finite.
    """
    if len(results) != len(reference):
        raise Mismatch(f"expected {len(reference)} results, got {len(results)}")
    for index, (got, want) in enumerate(zip(results, reference, strict=True)):
        if got.shape != want.shape:
            raise Mismatch(f"result {index} has shape {got.shape}, the reference {want.shape}")
        scale = np.abs(want).max(initial=0) + row.floor
        error = np.abs(got - want).max(initial=0)
        if not error <= row.tolerance * scale:
            raise Mismatch(f"result {index} of shape {got.shape} differs from the float64 reference by {error:.3g}, "
                           f"allowed are {row.tolerance * scale:.3g}")
        if row.rms_tolerance < math.inf and want.size:
            error, scale = _rms(got - want), _rms(want) + row.floor
            if not error <= row.rms_tolerance * scale:
                raise Mismatch(f"result {index} of shape {got.shape} differs from the float64 reference by {error:.3g} "
                               f"in the root mean square, allowed are {row.rms_tolerance * scale:.3g}")


def _rms(x):
    return np.sqrt(np.square(x, dtype=np.float64).mean())


def measure(row, workers, reference, rounds, turn_seconds=TURN_SECONDS, progress=lambda text: None):
    """Check and time one row.

    Parameters
    ----------
    row : Row
    workers : dict of str to Worker
        By the label under which the result is reported.
    reference : Worker
        Of the library ``reference``.
    rounds : int
        How many turns each worker gets.
    turn_seconds : float
    progress : callable
        Called with a few words about what happens now.

    Returns
    -------
    dict
        ``results``: per label a `summary`, or ``{"error": sentence}`` if the library could not run the row; and
        ``error``: a sentence if a result was wrong, in which case nothing has been timed.
    """
    results, turns, samples, slow = {}, {}, {}, set()
    with tempfile.TemporaryDirectory() as folder:
        progress("reference")
        try:
            expected = _prepare(reference, row, Path(folder) / "reference.npz")
        except WorkerError as error:
            return {"results": {}, "error": f"the reference failed: {error}"}
        for number, (label, worker) in enumerate(workers.items()):
            progress(f"preparing {label}")
            try:
                check(_prepare(worker, row, Path(folder) / f"{number}.npz"), expected, row)
                seconds = worker.ask("calibrate")["seconds"]
                turns[label] = turn(seconds, turn_seconds)
                slow |= {label} if seconds > LONG else set()
            except Mismatch as error:
                return {"results": {}, "error": f"{label}: {error}"}
            except WorkerError as error:
                results[label] = {"error": str(error)}
    for index in range(rounds):
        progress(f"round {index + 1} of {rounds}")
        for label in _rotated(list(turns), index):
            calls, batches = turns[label]
            try:
                warm = 0 if label in slow else WARM_SECONDS
                answer = workers[label].ask("time", calls=calls, batches=batches, warm=warm)
                samples.setdefault(label, []).extend(answer["seconds"])
            except WorkerError as error:
                results[label] = {"error": str(error)}
                del turns[label]
    for label, (calls, _) in turns.items():
        results[label] = {**summary(samples[label]), "calls": calls}
    return {"results": {label: results[label] for label in workers}}


def _prepare(worker, row, file):
    worker.ask("prepare", row=row.name, file=str(file))
    with np.load(file) as arrays:
        return [arrays[name] for name in arrays.files]


def _rotated(labels, index):
    """Everybody is first in turn, so that no library always follows the same neighbour's heat."""
    start = index % len(labels) if labels else 0
    return labels[start:] + labels[:start]


def run(rows, libraries=None, rounds=7, threads=None, turn_seconds=TURN_SECONDS, progress=lambda text: None,
        keep=lambda report: None):
    """Run rows of the table.

    Parameters
    ----------
    rows : list of Row
    libraries : list of str, optional
        Which to compare; those installed if left out.
    rounds : int
        How many turns each library gets per row.
    threads : int, optional
        For every library; the processors this process may use if left out.
    turn_seconds : float
        How long a turn is to take.
    progress : callable
        Called with a line about what happens now.
    keep : callable
        Called with the report so far after every row.

    Returns
    -------
    dict
        What `report` and `markdown` show: ``environment``, ``settings`` and ``rows``. Plain JSON.

    Raises
    ------
    ValueError
        If a library is unknown or not installed.
    """
    libraries = _known(libraries)
    environment = machine()
    threads = threads or environment["usable processors"]
    workers: dict = {}

    def worker_of(library, count):
        return workers.setdefault((library, count), Worker(library, count))

    report: dict = {
        "format": FORMAT,
        "date": _now(),
        "minigrad": minigrad.__version__,
        "environment": {**environment, "threads": threads, "libraries": {}},
        "settings": {"rounds": rounds, "turn seconds": turn_seconds, "others stopped": ENDS_WITH_PARENT,
                     "libraries": libraries},
        "rows": [],
    }
    start = time.perf_counter()
    try:
        for name in libraries:
            try:
                report["environment"]["libraries"][name] = worker_of(name, threads).ask("about")
            except WorkerError as error:
                report["environment"]["libraries"][name] = {"error": str(error)}
        for number, row in enumerate(rows):
            def tell(text, number=number, row=row):
                progress(f"{number + 1}/{len(rows)} {row.name}: {text}")

            taking_part = [name for name in libraries if name in row.libraries]
            if row.mode in processes.MODES:
                outcome = processes.measure(row, taking_part, rounds, threads, tell)
            else:
                some = {_label(name, count, row): worker_of(name, count)
                        for name in taking_part for count in row.threads or (threads,)}
                outcome = measure(row, some, worker_of("reference", threads), rounds, turn_seconds, tell)
            report["rows"].append(_entry(row, outcome))
            report["seconds"] = round(time.perf_counter() - start, 1)
            keep(complete(report))
    finally:
        for worker in workers.values():
            worker.close()
    return complete(report)


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _known(libraries):
    installed = installed_libraries()
    for name in libraries or ():
        if name not in LIBRARIES:
            raise ValueError(f"bench: expected libraries out of {', '.join(LIBRARIES)}, got {name!r}")
        if name not in installed:
            raise ValueError(f"bench: {name} is not installed (its package is {LIBRARIES[name]})")
    return [name for name in installed if not libraries or name in libraries]


def _label(library, threads, row):
    if not row.threads:
        return library
    return f"{library}, {threads} thread{'s' * (threads > 1)}"


def _entry(row, outcome):
    """What the report says of a row; ratios above 1 mean that minigrad is faster."""
    entry = {"name": row.name, "group": row.group, "mode": row.mode, "work": row.work, "unit": row.unit, **outcome}
    own = _label("minigrad", max(row.threads), row) if row.threads else "minigrad"
    return with_ratios(entry, own)
