"""Memory that a step frees serves the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad as mg
from minigrad.kernels.cpu.memory import keep_freed_memory

COUNT = """
import resource
import minigrad as mg

def work():
    x = [mg.zeros(1_000_000) for _ in range(5)]  # 20 MB, freed when the function returns

for _ in range(20):  # often enough for everything that is made once
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(**environment):
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, timeout=300,
                          cwd=Path(mg.__file__).parent.parent, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc, or its settings are the user's")
def test_steps_cause_no_page_faults():
    assert page_faults() < 100 < page_faults(MALLOC_TRIM_THRESHOLD_="131072")  # 49,000 pages of 4 KiB are written


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    assert keep_freed_memory() is False
