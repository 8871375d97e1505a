"""Draws a report: an overview, and one picture of bars for every group of rows."""

import re
from pathlib import Path

from minigrad.bench.report import groups, labels

COLOURS = {"numpy": "C0", "torch": "C1", "torch.compile": "C2", "jax": "C4", "minigrad": "C7"}
BARS = ("nets", "captured")  # what the overview shows row by row
AXIS = "time (or memory) in multiples of minigrad's, on a logarithmic scale; right of the line minigrad is ahead"


def plot(report, path):
    """Write PNGs: how many times as long as minigrad (or as much memory) a library takes, on a logarithmic axis.

    Parameters
    ----------
    report : dict
    path : str or path
        Of the overview; the others stand beside it, as ``NAME-GROUP.png``. A single group needs no overview.

    Returns
    -------
    dict of str to pathlib.Path
        What was drawn, by group; the overview by ``""``.

    Raises
    ------
    ValueError
        If the report holds no ratios.
    """
    path = Path(path)
    found = {group: [row for row in rows if row.get("ratios")] for group, rows in groups(report).items()}
    found = {group: rows for group, rows in found.items() if rows}
    if not found:
        raise ValueError("bench: nothing to draw, since minigrad was not compared with another library")
    title = f"{report['environment']['processor']}, {report['environment']['threads']} threads, {report['date'][:10]}"
    if len(found) == 1:
        group, rows = found.popitem()
        _bars(group, rows, title, path)
        return {group: path}
    drawn = {"": path}
    _overview(found, title, path)
    for group, rows in found.items():
        drawn[group] = path.with_name(f"{path.stem}-{re.sub(r'[^a-z0-9]+', '-', group.lower())}.png")
        _bars(group, rows, title, drawn[group])
    return drawn


def _figure(height, rows, heights, title):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure, figure.subplots(rows, 1, squeeze=False, height_ratios=heights)[:, 0]


def _height(rows):
    """Inches for the bars of some rows."""
    return 0.145 * sum(len(row["ratios"]) + 0.8 for row in rows)


def _bars(group, rows, title, path):
    figure, (axes,) = _figure(1.5 + _height(rows), 1, [1], f"{group.capitalize()}: {title}")
    _draw_bars(axes, rows)
    axes.set_xlabel(AXIS, fontsize=8)
    figure.savefig(path, dpi=110)


def _overview(found, title, path):
    """Nets as bars; of every other group a line of dots per library, one for each row."""
    nets = [row for group in BARS for row in found.get(group, [])]
    others = {group: rows for group, rows in found.items() if group not in BARS}
    heights = [height for height in (_height(nets), 0.45 * len(others)) if height]
    figure, panels = _figure(1.8 + sum(heights) + 0.6 * len(heights), len(heights), heights,
                             f"minigrad against the others: {title}")
    panels = list(panels)
    if nets:
        axes = panels.pop(0)
        _draw_bars(axes, nets)
        axes.set_title("nets", loc="left", fontsize=9)
    if others:
        axes = panels.pop(0)
        _draw_dots(axes, others)
        axes.set_title("everything else: a dot for every row, a bar for the median", loc="left", fontsize=9)
    axes.set_xlabel(AXIS, fontsize=8)
    figure.savefig(path, dpi=110)


def _colour(label):
    """A colour per library, lighter for its runs with one thread."""
    return COLOURS.get(label.split(",")[0], "C7"), 0.45 if label.endswith("1 thread") else 1.0


def _draw_bars(axes, rows):
    position, ticks, seen = 0.0, [], set()
    for row in rows:
        first = position
        for label, ratio in row["ratios"].items():
            colour, alpha = _colour(label)
            bar = axes.barh(position, ratio - 1, left=1, height=0.85, color=colour, alpha=alpha,
                            label=None if label in seen else label)
            texts = [f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"]
            axes.bar_label(bar, texts, fontsize=6.5, padding=2)
            seen.add(label)
            position += 1
        ticks.append(((first + position - 1) / 2, row["name"]))
        position += 0.8
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks], fontsize=7.5)
    axes.set_ylim(position - 0.6, -0.8)
    _finish(axes, [ratio for row in rows for ratio in row["ratios"].values()])


def _draw_dots(axes, found):
    rows = [row for group in found.values() for row in group]
    everybody = list(dict.fromkeys(label.split(",")[0] for label in labels(rows) if not label.startswith("minigrad")))
    step = 0.8 / max(len(everybody), 1)
    for number, group in enumerate(found.values()):
        for index, library in enumerate(everybody):
            ratios = [ratio for row in group for label, ratio in row["ratios"].items()
                      if label.split(",")[0] == library]
            if not ratios:
                continue
            y = number + (index - (len(everybody) - 1) / 2) * step
            colour, _ = _colour(library)
            axes.scatter(ratios, [y] * len(ratios), s=9, color=colour, alpha=0.6, linewidths=0)
            median = sorted(ratios)[len(ratios) // 2]
            axes.plot([median, median], [y - step / 2, y + step / 2], color=colour, linewidth=2)
    for library in everybody:
        axes.scatter([], [], s=16, color=_colour(library)[0], label=library)
    axes.set_yticks(range(len(found)), found, fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    _finish(axes, [ratio for row in rows for label, ratio in row["ratios"].items() if not label.startswith("minigrad")])


def _finish(axes, ratios):
    """A logarithmic axis with readable numbers, the line at 1 and the legend outside."""
    axes.set_xscale("log")
    low, high = min(*ratios, 1.0), max(*ratios, 1.0)
    margin = max(1.2, (high / low) ** 0.09)  # room for the numbers beside the longest bars
    axes.set_xlim(low / margin, high * margin)
    marks = [mark for mark in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
             if low / margin <= mark <= high * margin]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks], fontsize=8)
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
