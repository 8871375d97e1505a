"""What follows from the rows of reports: ratios, differences of rows, one report out of several."""

FORMAT = 2

BOTH, FORWARD = ", forward + backward", ", forward"


def with_ratios(entry, own="minigrad"):
    """The entry of a row with its ratios: above 1 minigrad (the label `own`) is faster, or needs less memory."""
    medians = {label: result["median"] for label, result in entry["results"].items() if "median" in result}
    if medians.get(own, 0) > 0:
        entry["ratios"] = {label: median / medians[own] for label, median in medians.items() if label != own}
    return entry


def complete(report):
    """The report with the rows that follow from others: the engine's backward pass alone, as a difference."""
    rows = [row for row in report["rows"] if row["mode"] != "difference"]
    forward = {row["name"]: row for row in rows if row["mode"] == "recorded"}
    completed = []
    for row in rows:
        completed.append(row)
        name = row["name"].removesuffix(BOTH)
        if row["mode"] == "backward" and name + FORWARD in forward:
            completed += _difference(f"{name}, backward alone", row, forward[name + FORWARD])
    return {**report, "rows": completed}


def _difference(name, both, forward):
    results = {}
    for label, result in both["results"].items():
        before = forward["results"].get(label, {})
        if "median" in result and "median" in before and result["median"] > before["median"]:
            results[label] = {"median": result["median"] - before["median"]}
    entry = {key: both[key] for key in ("group", "work", "unit")}
    return [with_ratios({"name": name, **entry, "mode": "difference", "results": results})] if results else []


def merge(reports):
    """One report out of several, of runs on the same machine with turns of the same length.

    They may differ in the number of turns and in the libraries that took part.

    Parameters
    ----------
    reports : list of dict
        Of a row that several have, the last counts.

    Raises
    ------
    ValueError
        If they were not measured alike.
    """
    from minigrad.bench.rows import ROWS

    first = reports[0]
    rows: dict = {}
    libraries: dict = {}
    for report in reports:
        libraries = report["environment"]["libraries"] | libraries
        for name, alike in _COMPARED.items():
            if alike(report, libraries) != alike(first, libraries):
                raise ValueError(f"bench: expected runs with the same {name}, got {alike(first, libraries)!r} and "
                                 f"{alike(report, libraries)!r}")
        rows |= {row["name"]: row for row in report["rows"]}
    order = {name: number for number, name in enumerate(ROWS)}
    rounds = [report["settings"].get(name) for report in reports for name in ("rounds", "most rounds")]
    rounds = [number for number in rounds if number is not None]  # a report may itself be one of several
    merged = {
        **first,
        "date": min(report["date"] for report in reports),
        "seconds": round(sum(report.get("seconds", 0) for report in reports), 1),
        "environment": {**first["environment"], "libraries": libraries},
        "settings": {**first["settings"], "rounds": min(rounds),
                     **({"most rounds": max(rounds)} if max(rounds) > min(rounds) else {}),
                     "libraries": list(dict.fromkeys(n for r in reports for n in r["settings"]["libraries"]))},
        "rows": sorted(rows.values(), key=lambda row: order.get(row["name"], len(order))),
    }
    return complete(merged)


# What has to be the same in all runs: a report, with the libraries of all added to its own, gives what is compared.
_COMPARED = {
    "minigrad": lambda report, libraries: report["minigrad"],
    "others stopped": lambda report, libraries: report["settings"].get("others stopped", False),
    "turn seconds": lambda report, libraries: report["settings"]["turn seconds"],
    "environment": lambda report, libraries: {
        **report["environment"], "libraries": libraries | report["environment"]["libraries"]},
}
