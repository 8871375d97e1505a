"""What a benchmark ran on, and the environment of its processes."""

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path

THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                    "VECLIB_MAXIMUM_THREADS")

# Each makes a library use less than the processor has (or, set wrongly, slower code): no process is to see them.
HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "ATEN_CPU_CAPABILITY",
             "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

# What somebody may well want to compare with; it is passed on, and the report shows it.
SHOWN = ("MINIGRAD_LANES", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT", "NUMBA_DISABLE_JIT",
         "NUMBA_BOUNDSCHECK", "NUMBA_THREADING_LAYER", "MINIGRAD_THREAD_POOL", "GOMP_SPINCOUNT",
         "OMP_WAIT_POLICY", "OMP_PROC_BIND", "XLA_FLAGS", "MALLOC_TRIM_THRESHOLD_",
         "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

ROOT = Path(__file__).parent.parent.parent
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine():
    """Processor, system, Python and the environment variables that change figures, as a dict."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "usable processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vector instructions": _vector_instructions(),
        "caches": _caches(),
        "platform": platform.platform(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "variables removed": {name: os.environ[name] for name in HANDICAPS if name in os.environ},
        "variables set": {name: os.environ[name] for name in SHOWN if name in os.environ},
    }


def _cpuinfo(field):
    """The value of a field of the first processor, or an empty string where Linux does not tell."""
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.split(":")[0].strip() == field:
                    return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return ""


def _processor():
    """The name, with family and model where they tell more: a virtual machine may give no more than the maker."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def _vector_instructions():
    flags = _cpuinfo("flags").split() or _cpuinfo("Features").split()
    known = [name for name in ("asimd", "sve", "avx", "avx2", "fma", "avx512f") if name in flags]
    return ", ".join(known) or "unknown"


def _caches():
    """The caches of the first processor: ``L1 32K, L2 512K, L3 32768K``, without those of instructions."""
    try:
        found = [{name: (folder / name).read_text().strip() for name in ("type", "level", "size")}
                 for folder in sorted(CACHES.glob("index*"))]
    except OSError:
        found = []
    return ", ".join(f"L{c['level']} {c['size']}" for c in found if c["type"] != "Instruction") or "unknown"


def of_process(threads):
    """The environment variables of a process that is to use so many threads."""
    variables = {name: value for name, value in os.environ.items() if name not in HANDICAPS}
    variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    if (ROOT / "pyproject.toml").exists():  # a checkout, which need not be installed
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return variables


ENDS_WITH_PARENT = sys.platform == "linux"
"""Whether `end_with_parent` can keep what it says."""


def end_with_parent():
    """Have the system kill this process when the one that started it ends in whatever way, also while it is stopped."""
    if ENDS_WITH_PARENT:
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
