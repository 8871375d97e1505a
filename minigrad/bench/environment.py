"""What a benchmark ran on."""

import os
import platform
import sys
from pathlib import Path

THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                    "VECLIB_MAXIMUM_THREADS")

ROOT = Path(__file__).parent.parent.parent


def machine():
    """Processor, system and Python, as a dict."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "usable processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
    }


def _processor():
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()


def of_process(threads):
    """The environment variables of a process that is to use so many threads."""
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    if (ROOT / "pyproject.toml").exists():  # a checkout, which need not be installed
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return variables
