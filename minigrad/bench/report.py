"""A report as JSON and as a table on the terminal; `markdown` and `pictures` build on the texts it makes."""

import json
import re
from pathlib import Path

from minigrad.bench.combine import FORMAT
from minigrad.bench.targets import evaluate
from minigrad.bench.timing import WARM_SECONDS

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def save(report, path):
    """Write a report as JSON."""
    Path(path).write_text(json.dumps(report, indent=1) + "\n")


def load(path):
    """Read what `save` wrote.

    Raises
    ------
    ValueError
        If the file is no report of this version.
    """
    try:
        report = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"bench: {path} is no JSON ({error})") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ValueError(f"bench: {path} is no benchmark report of format {FORMAT}")
    return report


def duration(seconds):
    """A time with three digits and a unit: ``1.23 ms``."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def quantity(row, value):
    """What was measured, with its unit: a time, or memory in MiB."""
    return f"{_three_digits(value / 2**20)} MiB" if row["mode"] == "memory" else duration(value)


def _three_digits(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def rate(row, result):
    """Work per time: ``98.7 GFLOP/s``, ``12.0 GB/s``, or the time of one op; empty where the row counts no work."""
    if not row["work"] or "median" not in result:
        return ""
    if row["unit"] == "op":
        return f"{duration(result['median'] / row['work'])}/op"
    value = row["work"] / result["median"]
    scale, prefix = next(((s, p) for s, p in PREFIXES if value >= s), PREFIXES[-1])
    return f"{_three_digits(value / scale)} {prefix}{row['unit']}/s"


def spread(row, result):
    """The middle half of the figures, in parentheses: ``(1.20-1.31 ms)``; empty for a difference of medians."""
    if "p25" not in result:
        return ""
    low, high = quantity(row, result["p25"]), quantity(row, result["p75"])
    return f"({low.split()[0]}-{high})" if low.split()[1] == high.split()[1] else f"({low}-{high})"


def groups(report):
    """The rows by group, in order."""
    found: dict = {}
    for row in report["rows"]:
        found.setdefault(row["group"], []).append(row)
    return found


def labels(rows):
    """The columns that rows need."""
    return list(dict.fromkeys(label for row in rows for label in row["results"]))


def cells(row, columns):
    """One line of a table: name, a text per column, rate of the first column."""
    texts = [_cell(row, label) for label in columns]
    return [row["name"], *texts, rate(row, row["results"].get(columns[0], {})) if columns else ""]


def _cell(row, label):
    result = row["results"].get(label)
    if result is None:
        return ""
    if "error" in result:
        return "failed"
    ratio = row.get("ratios", {}).get(label)
    more = f"{ratio:.2f}x" if ratio is not None else spread(row, result)
    return f"{quantity(row, result['median'])}  {more}".rstrip()


def errors(report):
    """Everything that went wrong, as sentences."""
    found = []
    for row in report["rows"]:
        if row.get("error"):
            found.append(f"{row['name']}: not timed, a result is wrong: {row['error']}")
        found += [f"{row['name']}: {label} failed: {result['error']}"
                  for label, result in row["results"].items() if "error" in result]
    return found


def describe(report):
    """What the figures were measured on, as (name, text) pairs."""
    environment, settings = report["environment"], report["settings"]
    lines = [
        ("date", report["date"]),
        ("processor", f"{environment['processor']}, {environment['usable processors']} of "
                      f"{environment['processors']} usable"),
        ("instructions", environment["vector instructions"]),
        ("caches", environment["caches"]),
        ("threads", str(environment["threads"])),
        ("python", f"{environment['python']} on {environment['platform']}"),
    ]
    for kind in ("removed", "set"):
        variables = environment[f"variables {kind}"]
        if variables:
            lines.append((f"{kind}", "environment variables " + " ".join(f"{k}={v}" for k, v in variables.items())))
    for name, about in environment["libraries"].items():
        lines.append((name, ", ".join([str(about.get("version", about.get("error")))] + [
            f"{key} {value}" for key, value in about.items() if key not in ("version", "error")])))
    least, most = settings["rounds"], settings.get("most rounds", settings["rounds"])
    turns = f"{least} turn" + "s" * (least > 1) if least == most else f"{least} to {most} turns"
    milliseconds = 1000 * settings["turn seconds"]
    lines.append(("timing", f"{turns} of about {milliseconds:.0f} ms per row and library, each after "
                            f"{1000 * WARM_SECONDS:.0f} ms that do not count, "
                            f"{'the other processes stopped, ' if settings.get('others stopped') else ''}"
                            f"{len(report['rows'])} rows in {report.get('seconds', 0) / 60:.1f} minutes"))
    return lines


NOTE = ("Figures are medians; in parentheses the middle half. 1.30x: takes 1.30 times as long as minigrad, or 1.30 "
        "times the memory.")
MET = {True: "met", False: "missed", None: ""}


def show(report, file=None):
    """Print a report: with rich where it is installed, else as plain text."""
    for name, text in describe(report):
        print(f"{name:<14} {text}", file=file)
    for group, rows in groups(report).items():
        columns = labels(rows)
        header = [group, *columns, columns[0] if columns else ""]
        _print_table(header, [cells(row, columns) for row in rows], file)
    measured = [outcome for outcome in evaluate(report) if outcome.met is not None]
    if measured:
        _print_table(["target", "wanted", "measured", ""],
                     [[o.claim, o.wanted, o.measured, MET[o.met]] for o in measured], file)
    print(f"\n{NOTE}", file=file)
    for text in errors(report):
        print(text, file=file)


def _print_table(header, lines, file):
    print(file=file)
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
        for line in [header, *lines]:
            padded = [text.rjust(width) for text, width in zip(line, widths, strict=True)]
            print("  ".join([line[0].ljust(widths[0]), *padded[1:]]).rstrip(), file=file)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, title in enumerate(header):
        table.add_column(title, justify="right" if index else "left", no_wrap=True)
    for line in lines:
        table.add_row(*[Text(text, style=_style(text)) for text in line])
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=250)
    console.print(table)


def _style(text):
    """Green where minigrad is faster, red where it is slower or something failed."""
    if text in ("failed", "missed"):
        return "bold red"
    if text == "met":
        return "green"
    ratio = re.search(r"  ([\d.]+)x$", text)
    return "" if not ratio else "green" if float(ratio[1]) >= 1 else "red"
