"""Compare minigrad with NumPy, PyTorch and JAX on this machine."""

import sys

from minigrad.cli.options import whole_number

ROUNDS, QUICK_ROUNDS, QUICK_TURN_SECONDS = 7, 2, 0.02
SLOW_LIBRARIES, SLOW_MODES = ("torch.compile", "jax"), ("cached", "cold")  # what --quick leaves out, unless it is named


def add_options(parser):
    """What to compare and where to write the figures."""
    parser.add_argument("--rows", metavar="PATTERN",
                        help="a regular expression that 'group: name' of a row has to match, such as '^nets' or 'gemm'")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and do nothing else")
    parser.add_argument("--libraries", metavar="NAMES", type=lambda text: text.split(","),
                        help="which to compare, with commas between: numpy, torch, torch.compile, jax "
                             "(default: minigrad and all others installed)")
    parser.add_argument("--quick", action="store_true",
                        help="a look in a few minutes: short turns, and without torch.compile, jax and first steps "
                             "unless --libraries or --rows name them")
    parser.add_argument("--rounds", type=whole_number(at_least=1),
                        help=f"turns per library and row (default: {ROUNDS}, with --quick {QUICK_ROUNDS})")
    parser.add_argument("--threads", type=whole_number(at_least=1), help="for every library (default: all processors)")
    parser.add_argument("--json", metavar="FILE", help="write the figures, after every row")
    parser.add_argument("--png", metavar="FILE",
                        help="draw the ratios, each group in a picture of its own beside FILE (needs matplotlib)")
    parser.add_argument("--markdown", metavar="FILE", help="write the figures as a document")
    parser.add_argument("--from", metavar="FILE", dest="sources", nargs="+",
                        help="report an earlier run, read from its JSON, or the rows of several together")


def run(options):
    """Run the rows, or read an earlier run, and report.

    Raises
    ------
    ValueError
        If there is nowhere to write the results.
    RuntimeError
        If a library's result was wrong.
    """
    from minigrad import bench
    from minigrad.bench import combine, report

    rows = bench.select(options.rows)
    if options.list:
        for row in rows:
            print(f"{row.group}: {row.name}")
        return
    _check_outputs(options)
    if options.sources:
        figures = combine.merge([report.load(source) for source in options.sources])
        if options.rows:
            names = {row.name for row in rows}
            figures = combine.complete({**figures, "rows": [r for r in figures["rows"] if r["name"] in names]})
    else:
        figures = _measure(options, rows)
    if options.json:
        report.save(figures, options.json)
    report.show(figures)
    _write_documents(figures, options)
    wrong = [row["name"] for row in figures["rows"] if row.get("error")]
    if wrong:
        raise RuntimeError(f"bench: wrong results in {', '.join(wrong)}")


def _check_outputs(options):
    """Say now what would go wrong after an hour of work."""
    from pathlib import Path

    if options.png:
        import matplotlib  # noqa: F401
    for name in ("json", "png", "markdown"):
        path = getattr(options, name)
        if path and not Path(path).parent.is_dir():
            raise ValueError(f"bench: there is no folder {str(Path(path).parent)!r} for --{name}")
        if path and Path(path).is_dir():
            raise ValueError(f"bench: expected a file for --{name}, got the folder {path!r}")


def _measure(options, rows):
    from minigrad import bench
    from minigrad.bench import report
    from minigrad.bench.timing import TURN_SECONDS

    libraries = options.libraries and list(dict.fromkeys(["minigrad", *options.libraries]))
    if options.quick and not libraries:
        libraries = [name for name in bench.installed_libraries() if name not in SLOW_LIBRARIES]
    if options.quick and not options.rows:
        rows = [row for row in rows if row.mode not in SLOW_MODES]
    progress = _progress()
    figures = bench.run(
        rows, libraries, options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS), options.threads,
        QUICK_TURN_SECONDS if options.quick else TURN_SECONDS, progress,
        (lambda figures: report.save(figures, options.json)) if options.json else lambda figures: None,
    )  # fmt: skip
    progress("")
    return figures


def _write_documents(figures, options):
    import os
    from pathlib import Path

    from minigrad.bench import markdown, pictures

    drawn = pictures.plot(figures, options.png) if options.png else {}
    if options.markdown:
        folder = Path(options.markdown).resolve().parent
        links = {group: Path(os.path.relpath(path.resolve(), folder)).as_posix() for group, path in drawn.items()}
        Path(options.markdown).write_text(markdown.render(figures, links), encoding="utf-8")


def _progress():
    """Shows a line on standard error: over and over the same one on a terminal."""
    if not sys.stderr.isatty():
        return lambda text: print(text, file=sys.stderr, flush=True) if "round 1 of" in text else None
    return lambda text: print(f"\r\x1b[2K{text[:110]}", end="", file=sys.stderr, flush=True)
