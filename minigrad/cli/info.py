"""Print versions, processor, threads, cache and GPU: what a bug report needs."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

VECTOR_FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "neon", "sve", "sve2")
PACKAGES = ("numba", "llvmlite", "numpy", "scipy", "rich", "matplotlib", "scikit-learn", "pooch")


def add_options(parser):
    """This command has none of its own."""


def run(options):
    """Print the table: plain text, to be pasted into a bug report."""
    for name, value in collect().items():
        print(f"{name:<16} {value}")


def collect():
    """The rows of the table, as a dict of str."""
    import llvmlite.binding
    import numba

    import minigrad
    from minigrad.kernels.cpu import compile as compiler
    from minigrad.kernels.cpu.ahead import usable_processors

    features = llvmlite.binding.get_host_cpu_features()
    folder = compiler.cache_folder()
    return {
        "minigrad": f"{minigrad.__version__} in {Path(minigrad.__file__).parent}",
        "python": f"{platform.python_version()} ({platform.python_implementation()}) {sys.executable}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "platform": platform.platform(),
        "processor": f"{_processor()}, LLVM calls it {llvmlite.binding.get_host_cpu_name()}",
        "vector features": ", ".join(name for name in VECTOR_FEATURES if features.get(name)) or "none",
        "lane width": _lanes(),
        "cores": f"{os.cpu_count()} in the machine, {usable_processors()} for this process",
        "threads": f"{numba.get_num_threads()} of at most {numba.config.NUMBA_NUM_THREADS}",
        "threading layer": _threading_layer(),
        "cache folder": _cache(folder),
        "settings": ", ".join(f"{name}={value}" for name, value in sorted(os.environ.items())
                              if name.startswith(("MINIGRAD_", "NUMBA_", "OMP_"))) or "none in the environment",
        "gpu": _gpu(),
    }


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _processor():
    if sys.platform == "linux":
        for line in _read("/proc/cpuinfo").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _output(*command):
    """What a program prints, or nothing if there is no such program or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _lanes():
    from minigrad.kernels.cpu import simd

    return f"{simd.VECTOR_BYTES} bytes: {simd.VECTOR_BYTES // 4} float32 or {simd.VECTOR_BYTES // 8} float64 at a time"


def _threading_layer():
    from minigrad.kernels.cpu import thread_pool

    return thread_pool.layer()


def _cache(folder):
    if not folder.is_dir():
        return f"{folder} (empty)"
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    writable = "" if os.access(folder, os.W_OK) else ", not writable"
    return f"{folder} ({len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB{writable})"


def _gpu():
    found = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    if not found:
        return "no NVIDIA GPU found"
    from minigrad.kernels.cuda.toolkit import EXTRA, HAS_COMPILER

    return "; ".join(found.splitlines()) + ("" if HAS_COMPILER else f" (device=\"cuda\" needs {EXTRA})")
