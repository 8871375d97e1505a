"""Compile every kernel ahead of time, so that no later run waits for it."""

import time


def add_options(parser):
    """Which element types to compile for."""
    parser.add_argument("--dtype", choices=("float32", "float64", "all"), default="float32",
                        help="the element type (default: float32, what training uses)")


def run(options):
    """Go through the table of `minigrad.cli.warmup_table`, with progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from minigrad.cli.warmup_table import rows
    from minigrad.compiling import Compilations
    from minigrad.kernels.cpu.compile import cache_folder, compile_listeners

    console = Console(highlight=False)
    progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                        console=console, transient=True, disable=not console.is_terminal)
    start = time.perf_counter()
    table = rows(("float32", "float64") if options.dtype == "all" else (options.dtype,))
    task = progress.add_task("starting", total=len(table))

    def show(name, count):
        if name:
            progress.update(task, description=f"compiling {name} ({count})")

    with progress, Compilations(compile_listeners, show) as compilations:
        for name, work in table:
            progress.update(task, description=name)
            work()
            progress.advance(task)
    seconds = time.perf_counter() - start
    done = f"compiled {len(compilations.names)} kernels into" if compilations.names else "nothing to compile, all is in"
    console.print(f"{done} {cache_folder()} ({seconds:.1f} s)", soft_wrap=True)
