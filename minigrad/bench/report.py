"""Shows a report on the terminal and as a picture."""

import json
from pathlib import Path

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
    from minigrad.bench.harness import FORMAT

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


def spread(result):
    """The middle half of the times: ``1.20-1.31 ms``."""
    low, high = duration(result["p25"]), duration(result["p75"])
    return f"{low.split()[0]}-{high}" if low.split()[1] == high.split()[1] else f"{low}-{high}"


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
    return duration(result["median"]) + (f"  {ratio:.2f}x" if ratio is not None else f"  ({spread(result)})")


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
        ("threads", str(environment["threads"])),
        ("python", f"{environment['python']} on {environment['platform']}"),
    ]
    for name, about in environment["libraries"].items():
        lines.append((name, ", ".join([str(about.get("version", about.get("error")))] + [
            f"{key} {value}" for key, value in about.items() if key not in ("version", "error")])))
    milliseconds = 1000 * settings["turn seconds"]
    lines.append(("timing", f"{settings['rounds']} turns of about {milliseconds:.0f} ms per row and library"))
    return lines


NOTE = "Times are medians; in parentheses the middle half. 1.30x: takes 1.30 times as long as minigrad."


def show(report, file=None):
    """Print a report: with rich where it is installed, else as plain text."""
    for name, text in describe(report):
        print(f"{name:<14} {text}", file=file)
    for group, rows in groups(report).items():
        columns = labels(rows)
        header = [group, *columns, columns[0] if columns else ""]
        _print_table(header, [cells(row, columns) for row in rows], file)
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
    if text == "failed":
        return "bold red"
    if not text.endswith("x") or "  " not in text:
        return ""
    return "green" if float(text.split()[-1][:-1]) >= 1 else "red"


def plot(report, path):
    """Write a PNG: per row and library, how many times as long as minigrad it takes, on a logarithmic axis.

    Raises
    ------
    ValueError
        If the report holds no ratios.
    """
    from matplotlib.figure import Figure

    found = {group: [row for row in rows if row.get("ratios")] for group, rows in groups(report).items()}
    found = {group: rows for group, rows in found.items() if rows}
    if not found:
        raise ValueError("bench: nothing to draw, since minigrad was not compared with another library")
    everybody = labels([row for rows in found.values() for row in rows])
    heights = [sum(len(row["ratios"]) + 1 for row in rows) for rows in found.values()]
    figure = Figure(figsize=(10, 1 + 0.14 * sum(heights) + 0.5 * len(heights)), layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for axes, (group, rows) in zip(panels, found.items(), strict=True):
        _draw_group(axes, group, rows, everybody)
    panels[-1].set_xlabel("time / time of minigrad (right of the line minigrad is faster)")
    figure.savefig(path, dpi=120)


def _draw_group(axes, group, rows, everybody):
    position, ticks, seen = 0, [], set()
    for row in rows:
        first = position
        for label, ratio in row["ratios"].items():
            bar = axes.barh(position, ratio - 1, left=1, height=0.8, color=f"C{everybody.index(label) % 10}",
                            label=None if label in seen else label)
            axes.bar_label(bar, [f"{ratio:.2f}"], fontsize=6, padding=2)
            seen.add(label)
            position += 1
        ticks.append(((first + position - 1) / 2, row["name"]))
        position += 1
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks], fontsize=7)
    axes.invert_yaxis()
    axes.set_ylim(position - 1, -1)
    axes.set_title(group, loc="left", fontsize=9)
    axes.legend(fontsize=7)
    axes.grid(axis="x", alpha=0.3)
