"""Matrix products against NumPy's BLAS and convolutions against PyTorch, on this machine.

Each library runs in processes of its own, which take turns over several rounds: no two thread pools fight for the
cores, and a disturbance hits both alike. A figure is the median over the rounds of each process's median. Before
anything is timed, every result is checked against NumPy or PyTorch in float64.

    python benchmarks/gemm_conv.py out.json [--rounds 5] [--threads 2] [--cpu-time]

On a machine that others use as well, wall times of two threads measure the others; ``--cpu-time`` takes one thread's
processor time instead, which hardly depends on them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GEMMS = [  # m, n, k, transpose_a, transpose_b
    (16, 16, 16, 0, 0), (64, 64, 64, 0, 0), (128, 128, 128, 0, 0), (256, 256, 256, 0, 0), (512, 512, 512, 0, 0),
    (512, 512, 512, 1, 0), (512, 512, 512, 0, 1), (1024, 1024, 1024, 0, 0), (60, 100, 784, 0, 1),
    (60, 784, 100, 0, 0), (100, 784, 60, 1, 0), (64, 128, 1568, 0, 1), (64, 10, 128, 0, 1),
]
CONVS = [  # images, channels, width, output channels, kernel, padding, stride
    (64, 1, 28, 16, 3, 1, 1), (64, 16, 14, 32, 3, 1, 1), (64, 16, 28, 32, 3, 1, 1), (64, 3, 32, 32, 3, 1, 1),
    (64, 32, 32, 32, 3, 1, 1), (64, 32, 16, 64, 3, 1, 1), (64, 64, 16, 64, 3, 1, 1), (64, 64, 8, 128, 3, 1, 1),
    (64, 128, 8, 128, 3, 1, 1), (64, 64, 16, 128, 1, 0, 1), (64, 32, 32, 64, 3, 1, 2),
]
KERNELS = ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"]


def gemm_data(m, n, k, transpose_a, transpose_b):
    import numpy as np

    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(np.float32)
    b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(np.float32)
    return a, b


def conv_data(n, c, width, o, kernel, pad, stride):
    import numpy as np

    rng = np.random.default_rng(0)
    out = (width + 2 * pad - kernel) // stride + 1
    shapes = [(n, c, width, width), (o, c, kernel, kernel), (o,), (n, o, out, out)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def ours():
    """(name of the case, its floating-point operations, a function to time, its output)."""
    import numpy as np

    from minigrad.kernels import cpu

    for case in GEMMS:
        a, b = gemm_data(*case)
        m, n, k, *flags = case
        out, work = np.empty((1, m, n), np.float32), np.empty(cpu.matmul_workspace(a[None], b[None], *flags), "f4")
        yield f"gemm {case}", 2 * m * n * k, partial(cpu.matmul, a[None], b[None], out, work, *flags), out[0]
    for case in CONVS:
        x, weight, bias, grad = conv_data(*case)
        *_, pad, stride = case
        numbers = (stride, stride, pad, pad, 1, 1, 1)
        for name, inputs, like in zip(
            KERNELS, [(x, weight, bias), (grad, weight), (grad, x)], [grad, x, weight], strict=True
        ):
            size = getattr(cpu, f"{name}_workspace")(*inputs, *like.shape, *numbers)
            out, work = np.empty_like(like), np.empty(size, np.float32)
            call = partial(getattr(cpu, name), *inputs, out, work, *numbers)
            yield f"{name} {case}", 2 * grad.size * weight[0].size, call, out


def numpy_cases(double=False):
    import numpy as np

    for case in GEMMS:
        a, b = (v.astype(np.float64) if double else v for v in gemm_data(*case))
        m, n, k, *flags = case
        out = np.empty((m, n), a.dtype)
        a, b = a.T if flags[0] else a, b.T if flags[1] else b
        yield f"gemm {case}", 2 * m * n * k, partial(np.matmul, a, b, out=out), out


def torch_cases(double=False):
    import torch

    backward = torch.ops.aten.convolution_backward
    for case in CONVS:
        x, weight, bias, grad = (torch.from_numpy(v).to(torch.float64 if double else torch.float32)
                                 for v in conv_data(*case))
        *_, pad, stride = case
        operations = 2 * grad.numel() * weight[0].numel()

        sizes = [weight.shape[0]], [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1
        calls = [
            partial(torch.nn.functional.conv2d, x, weight, bias, stride, pad),
            partial(backward, grad, x, weight, *sizes, [True, False, False]),
            partial(backward, grad, x, weight, *sizes, [False, True, False]),
        ]
        for name, call in zip(KERNELS, calls, strict=True):
            yield f"{name} {case}", operations, call, None


def measure(function, seconds=0.15):
    """The median duration of a call, in seconds."""
    clock = time.process_time if os.environ.get("GEMM_CONV_CPU_TIME") else time.perf_counter
    function()
    start = clock()
    function()
    inner = max(1, int(1e-3 / max(clock() - start, 1e-7)))
    durations, end = [], clock() + seconds
    while clock() < end or len(durations) < 5:
        start = clock()
        for _ in range(inner):
            function()
        durations.append((clock() - start) / inner)
    return statistics.median(durations)


def worker(library):
    """Time every case of one library; prints a JSON object of seconds."""
    if library == "torch":
        import torch

        torch.set_num_threads(int(os.environ["NUMBA_NUM_THREADS"]))
    cases = {"minigrad": ours, "numpy": numpy_cases, "torch": torch_cases}[library]
    print(json.dumps({name: measure(function) for name, _, function, _ in cases()}))


def check():
    """Compare every result with NumPy's or PyTorch's in float64."""
    import numpy as np

    results = {name: (function, out) for name, _, function, out in ours()}
    for cases in (numpy_cases, torch_cases):
        for name, _, function, _ in cases(double=True):
            exact = function()  # convolution_backward returns all three gradients
            parts = exact if isinstance(exact, tuple) else [exact]
            exact = next(np.asarray(part) for part in parts if part is not None)
            run, out = results[name]
            run()
            error = np.abs(out - exact).max() / np.abs(exact).max()
            if not error < 1e-5:
                raise SystemExit(f"{name}: expected a relative error below 1e-5, got {error:.1e}")
    print(f"{len(results)} results agree with NumPy and PyTorch in float64")


def call(arguments, threads):
    variables = {name: str(threads) for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, __file__, *arguments], env=environment, check=True, text=True,
                          capture_output=True).stdout


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="where the figures go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread instead of wall time")
    options = parser.parse_args()
    if options.cpu_time:
        options.threads = 1
        os.environ["GEMM_CONV_CPU_TIME"] = "1"  # for the workers
    print(call(["--check"], options.threads).strip())
    rounds = [{library: json.loads(call(["--worker", library], options.threads).splitlines()[-1])
               for library in ("minigrad", "numpy", "torch")} for _ in range(options.rounds)]
    import llvmlite.binding as llvm
    import numba
    import numpy as np
    import torch

    sys.path.insert(0, str(ROOT))
    rows = []
    for name, operations, _, _ in ours():
        peer = "numpy" if name.startswith("gemm") else "torch"
        mine = [turn["minigrad"][name] for turn in rounds]
        theirs = [turn[peer][name] for turn in rounds]
        ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
        rows.append({"case": name, "peer": peer, "seconds": statistics.median(mine),
                     "peer_seconds": statistics.median(theirs), "speed_ratio": ratio,
                     "gflops": operations / statistics.median(mine) / 1e9})
        print(f"{name:50} {rows[-1]['seconds'] * 1e6:9.1f} us {rows[-1]['gflops']:6.0f} GFLOP/s   "
              f"{peer} {rows[-1]['peer_seconds'] * 1e6:9.1f} us   {100 * ratio:4.0f} %")
    setting = {
        "processor": processor(), "llvm_cpu": llvm.get_host_cpu_name(), "threads": options.threads,
        "clock": "cpu" if options.cpu_time else "wall", "rounds": options.rounds,
        "python": platform.python_version(), "numba": numba.__version__, "numpy": np.__version__,
        "torch": torch.__version__,
    }
    options.json.write_text(json.dumps({"setting": setting, "cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check()
    elif sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
    else:
        main()
