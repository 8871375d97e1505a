"""Compare minigrad with NumPy, PyTorch and JAX on this machine."""

import sys

from minigrad.cli.options import whole_number


def add_options(parser):
    """What to compare and where to write the figures."""
    parser.add_argument("--rows", metavar="PATTERN",
                        help="a regular expression that 'group: name' of a row has to match, such as '^nets' or 'gemm'")
    parser.add_argument("--libraries", metavar="NAMES", type=lambda text: text.split(","),
                        help="which to compare, with commas between (default: minigrad and all others installed)")
    parser.add_argument("--rounds", type=whole_number(at_least=1), default=7,
                        help="turns per library and row (default: 7)")
    parser.add_argument("--threads", type=whole_number(at_least=1), help="for every library (default: all processors)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--png", metavar="FILE", help="draw the ratios (needs matplotlib)")
    parser.add_argument("--markdown", metavar="FILE", help="write the figures as a document")
    parser.add_argument("--from", metavar="FILE", dest="source", help="report an earlier run, read from its JSON")


def run(options):
    """Run the rows, or read an earlier run, and report.

    Raises
    ------
    RuntimeError
        If a library's result was wrong.
    """
    from pathlib import Path

    from minigrad import bench
    from minigrad.bench import markdown, report

    if options.png:
        import matplotlib  # noqa: F401 - say so now if it is missing, not after minutes of work
    if options.source:
        figures = report.load(options.source)
    else:
        libraries = options.libraries and list(dict.fromkeys(["minigrad", *options.libraries]))
        rows, progress = bench.select(options.rows), _progress()
        figures = bench.run(rows, libraries, options.rounds, options.threads, progress=progress)
        progress("")
    if options.json:
        report.save(figures, options.json)
    report.show(figures)
    if options.png:
        report.plot(figures, options.png)
    if options.markdown:
        Path(options.markdown).write_text(markdown.render(figures), encoding="utf-8")
    wrong = [row["name"] for row in figures["rows"] if row.get("error")]
    if wrong:
        raise RuntimeError(f"bench: wrong results in {', '.join(wrong)}")


def _progress():
    """Shows a line on standard error: over and over the same one on a terminal."""
    if not sys.stderr.isatty():
        return lambda text: print(text, file=sys.stderr, flush=True) if "round 1 of" in text else None
    return lambda text: print(f"\r\x1b[2K{text[:110]}", end="", file=sys.stderr, flush=True)
