"""Rows that time whole processes: importing a library, and the first training step with and without cached code."""

import os
import subprocess
import sys
import tempfile
import time

from minigrad.bench.environment import of_process
from minigrad.bench.timing import summary

MODES = ("import", "cached", "cold")
COLD_ROUNDS = 2  # compiling takes so long that noise hardly matters
CACHES = ("MINIGRAD_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")


def measure(row, libraries, rounds, threads, progress):
    """Time a row of one of the `MODES`; the answer is that of `minigrad.bench.harness.measure`."""
    rounds = min(rounds, COLD_ROUNDS) if row.mode == "cold" else rounds
    samples, results = {name: [] for name in libraries}, {}
    with tempfile.TemporaryDirectory() as folder:
        if row.mode == "cached":
            for name in libraries:
                progress(f"filling the cache of {name}")
                _run(row, name, threads, folder)
        for index in range(rounds):
            progress(f"round {index + 1} of {rounds}")
            for name in libraries:
                if name in results:
                    continue
                with tempfile.TemporaryDirectory() as empty:
                    seconds, error = _run(row, name, threads, empty if row.mode == "cold" else folder)
                if error:
                    results[name] = {"error": error}
                else:
                    samples[name].append(seconds)
    return {"results": {name: results.get(name) or summary(samples[name]) for name in libraries}}


def _run(row, library, threads, cache):
    """Seconds from start to end of a process, and its last word if it failed."""
    if row.mode == "import":
        code = ["-c", f"import {library}"]
    else:
        code = ["-m", "minigrad.bench.first_step", library, row.name, str(threads)]
    environment = {**of_process(threads), **{name: os.path.join(cache, name) for name in CACHES},
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, errors="replace")
    seconds = time.perf_counter() - start
    return seconds, (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1] if done.returncode else ""
