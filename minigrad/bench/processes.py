"""Rows that take whole processes: import, the first training step with and without cached code, peak memory."""

import os
import subprocess
import sys
import tempfile
import time

from minigrad.bench.environment import of_process
from minigrad.bench.timing import summary

MODES = ("import", "cached", "cold", "memory")
FEW_ROUNDS = 2  # compiling takes so long that noise hardly matters, and memory varies by little
CACHES = ("MINIGRAD_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")


def measure(row, libraries, rounds, threads, progress):
    """Measure a row of one of the `MODES`; the answer is that of `minigrad.bench.harness.measure`."""
    rounds = min(rounds, FEW_ROUNDS) if row.mode in ("cold", "memory") else rounds
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
                    cache = {"cold": empty, "memory": None}.get(row.mode, folder)
                    figure, error = _run(row, name, threads, cache)
                if error:
                    results[name] = {"error": error}
                else:
                    samples[name].append(figure)
    return {"results": {name: results.get(name) or summary(samples[name]) for name in libraries}}


def _run(row, library, threads, cache):
    """Seconds from start to end of a process, or the bytes it prints, and its last word if it failed."""
    module = "step_memory" if row.mode == "memory" else "first_step"
    code = ["-m", f"minigrad.bench.{module}", library, row.name, str(threads)]
    if row.mode == "import":
        code = ["-c", f"import {library}"]
    environment = {**of_process(threads), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if cache is not None:
        environment |= {name: os.path.join(cache, name) for name in CACHES}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *code], env=environment, capture_output=True, text=True, errors="replace")
    seconds = time.perf_counter() - start
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return float(done.stdout.split()[-1]) if row.mode == "memory" else seconds, ""
