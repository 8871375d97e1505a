"""Compile every kernel ahead of time, so that no later run waits for it."""

import time

from minigrad.cli import UsageError, warmup_cuda


def add_options(parser):
    """Which element types to compile for, and for which device."""
    parser.add_argument("--dtype", choices=("float32", "float64", "all"),
                        help="with --device cpu: the element type (default: float32, what training uses)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="whose kernels (default: cpu); of cuda those that training with float32 uses")
    parser.add_argument("--architecture", type=warmup_cuda.compute_capability, metavar="X.Y",
                        help="with --device cuda: the compute capability to compile for, for example 9.0; needs no GPU "
                        "(default: that of this machine's)")


def run(options):
    """Go through the table of the device, with progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if options.architecture and options.device == "cpu":
        raise UsageError("minigrad warmup: --architecture goes with --device cuda")
    if options.dtype and options.device == "cuda":
        raise UsageError("minigrad warmup: --dtype goes with --device cpu")
    console = Console(highlight=False)
    progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=console, transient=True, disable=not console.is_terminal)
    start = time.perf_counter()
    task = progress.add_task("starting", total=None)
    with progress:
        if options.device == "cuda":
            count, folder = _cuda(options.architecture, progress, task)
        else:
            count, folder = _cpu(options.dtype or "float32", progress, task)
    seconds = time.perf_counter() - start
    done = f"compiled {count} kernels into" if count else "nothing to compile, all is in"
    console.print(f"{done} {folder} ({seconds:.1f} s)", soft_wrap=True)


def _cpu(dtype, progress, task):
    """Go through `minigrad.cli.warmup_table`; returns how many kernels were compiled, and where they are kept."""
    from minigrad.cli.warmup_table import rows
    from minigrad.compiling import Compilations
    from minigrad.kernels.cpu.compile import cache_folder, compile_listeners

    def show(name, count):
        if name:
            progress.update(task, description=f"compiling {name} ({count})")

    table = rows(("float32", "float64") if dtype == "all" else (dtype,))
    progress.update(task, total=len(table))
    with Compilations(compile_listeners, show) as compilations:
        for name, work in table:
            progress.update(task, description=name)
            work()
            progress.advance(task)
    return len(compilations.names), cache_folder()


def _cuda(architecture, progress, task):
    """Compile the CUDA kernels; returns as `_cpu`."""
    def show(name):
        progress.update(task, description=name, advance=1)

    target = warmup_cuda.capability(architecture)
    with warmup_cuda.compilers() as pool:
        table = pool.submit(warmup_cuda.jobs).result()
        progress.update(task, total=len(table))
        results = warmup_cuda.compile_all(pool, table, target, show)
    return sum([made for _, made in results]), results[0][0].parent
