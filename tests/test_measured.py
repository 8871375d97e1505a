"""Tracing that rests while Numba compiles loses no line."""

import os
import subprocess
import sys
from pathlib import Path

import coverage

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
import coverage
import numba
import numpy as np
sys.path.insert(0, "tests")
import measured
if sys.argv[1] == "resting":
    measured.install()
measurement = coverage.Coverage(sys.argv[2])
measurement.start()
from minigrad.kernels import cpu
cpu.relu(np.ones(3, np.float32), np.empty(3, np.float32))
measurement.stop()
measurement.save()
"""


def lines(folder, how):
    """The lines of the CPU kernels that run when one of them is compiled, called by a program under coverage."""
    folder.mkdir()
    script, data = folder / "program.py", folder / "data"
    script.write_text(PROGRAM)
    subprocess.run([sys.executable, script, how, data], cwd=ROOT, check=True, timeout=300,
                   env={**os.environ, "PYTHONPATH": str(ROOT), "MINIGRAD_CACHE_DIR": str(folder)})
    found = coverage.CoverageData(data)
    found.read()
    kernels = [name for name in found.measured_files() if f"kernels{os.sep}cpu" in name]
    return {(name, line) for name in kernels for line in found.lines(name)}


def test_lines_are_those_of_a_tracer_that_never_rests(tmp_path):
    found, wanted = lines(tmp_path / "1", "resting"), lines(tmp_path / "2", "tracing")
    code = Path(ROOT, "kernels", "cpu", "parallel.py").read_text().splitlines()
    assert [line for name, line in wanted if name.endswith("parallel.py") and "builder.call(launch" in code[line - 1]]
    assert found == wanted
