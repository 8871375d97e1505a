"""Compile every kernel ahead of time, so that no later run waits for it."""

import time

from minigrad.cli import UsageError, warmup_cuda


def add_options(parser):
    """Which element types to compile for, and for which device."""
    parser.add_argument("--dtype", choices=("float32", "float64", "all"), default="float32",
                        help="the element type (default: float32, what training uses)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="whose kernels (default: cpu)")
    parser.add_argument("--architecture", type=warmup_cuda.compute_capability, metavar="X.Y",
                        help="with --device cuda: the compute capability to compile for, 9.0 say, which needs no GPU "
                        "(default: that of this machine's)")


def run(options):
    """Go through the table of the device, with progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if options.architecture and options.device == "cpu":
        raise UsageError("minigrad warmup: --architecture goes with --device cuda")
    console = Console(highlight=False)
    progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=console, transient=True, disable=not console.is_terminal)
    start = time.perf_counter()
    dtypes = ("float32", "float64") if options.dtype == "all" else (options.dtype,)
    task = progress.add_task("starting", total=None)
    with progress:
        if options.device == "cuda":
            count, folder = _cuda(dtypes, options.architecture, progress, task)
        else:
            count, folder = _cpu(dtypes, progress, task)
    seconds = time.perf_counter() - start
    done = f"compiled {count} kernels into" if count else "nothing to compile, all is in"
    console.print(f"{done} {folder} ({seconds:.1f} s)", soft_wrap=True)


def _cpu(dtypes, progress, task):
    """Go through `minigrad.cli.warmup_table`; returns how many kernels were compiled, and where they are kept."""
    from minigrad.cli.warmup_table import rows
    from minigrad.compiling import Compilations
    from minigrad.kernels.cpu.compile import cache_folder, compile_listeners

    def show(name, count):
        if name:
            progress.update(task, description=f"compiling {name} ({count})")

    table = rows(dtypes)
    progress.update(task, total=len(table))
    with Compilations(compile_listeners, show) as compilations:
        for name, work in table:
            progress.update(task, description=name)
            work()
            progress.advance(task)
    return len(compilations.names), cache_folder()


def _cuda(dtypes, architecture, progress, task):
    """Compile every CUDA kernel; returns as `_cpu`."""
    def show(name):
        progress.update(task, description=name, advance=1)

    target = warmup_cuda.capability(architecture)
    with warmup_cuda.compilers() as pool:
        table, folder = pool.submit(warmup_cuda.jobs, dtypes).result()
        before = len(list(folder.glob("*.cubin")))
        progress.update(task, total=len(table))
        warmup_cuda.compile_all(pool, table, target, show)
    return len(list(folder.glob("*.cubin"))) - before, folder
