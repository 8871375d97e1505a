"""What the figures are to show, as data, and how far a report is from it."""

import re
from typing import NamedTuple


class Target(NamedTuple):
    """One promise.

    Attributes
    ----------
    claim : str
    rows : str
        A regular expression that ``group: name`` of a row has to match as a whole.
    bound : float
        The ratio against `against` that every row has to reach; for ``figure="per op"``: microseconds, at most.
    against : tuple of str
        Labels; the fastest of those measured counts.
    figure : str
        ``ratio`` or ``per op``.
    """

    claim: str
    rows: str
    bound: float
    against: tuple = ("torch",)
    figure: str = "ratio"


class Outcome(NamedTuple):
    """A target beside what was measured; `met` is None where nothing was."""

    claim: str
    wanted: str
    measured: str
    met: bool | None


TORCH, COMPILERS, NUMPY = ("torch",), ("torch.compile", "jax"), ("numpy",)
NAMES = {TORCH: "torch eager", COMPILERS: "the best of torch.compile and JAX", NUMPY: "NumPy"}


def _nets():
    for name, batch, bounds in (("A", 60, (3, 2, 3)), ("B", 64, (4, 2.5, 12)), ("C", 64, (1.5, 1.25, 5))):
        for against, bound in zip((TORCH, COMPILERS, NUMPY), bounds, strict=True):
            yield Target(f"training step {name} against {NAMES[against]}",
                         f"nets: training step {name}, batch {batch}", bound, against)
    for name, batch, bound in (("A", 60, 2), ("B", 64, 3), ("C", 64, 1.5)):
        yield Target(f"inference {name} against torch eager", f"nets: inference {name}, batch {batch}", bound)
    yield Target("training step A, captured, against torch eager", "captured: training step A, batch 60, captured", 5)


CUBE = r"(?:256|512|1024|2048) x \d+ x \d+"  # no thin shape begins with one of these numbers

TARGETS = (
    *_nets(),
    Target("every single op against torch eager",
           r"(gemm|convolution|elementwise|reductions|layers|optimizers): .*", 1),
    Target("GEMM from 256³ up against NumPy", rf"gemm: gemm {CUBE}, forward", 0.95, NUMPY),
    Target("GEMM below 256³ and of thin shapes against NumPy", rf"gemm: gemm (?!{CUBE}).*, forward", 1, NUMPY),
    Target("3x3 convolution at 32 channels and more, forward, against torch eager",
           r"convolution: conv 3x3 \(\d+, (?!1,|3,|16,).*\) -> \d+, forward", 1.1),
    Target("3x3 convolution at 32 channels and more, forward and both gradients, against torch eager",
           r"convolution: conv 3x3 \(\d+, (?!1,|3,|16,).*\) -> \d+, forward \+ backward", 1.1),
    Target("engine, forward, per op", "engine: .*, forward", 2, figure="per op"),
    Target("engine, backward alone, per op of chain and fan-out", "engine: (chain|fan-out).*, backward alone", 3,
           figure="per op"),
    Target("second thread on training step C", "threads: training step C, .*", 1.8, ("minigrad, 1 thread",)),
    Target("peak memory of a training step C against torch eager", "memory: peak memory of a training step C, batch 64",
           1),
)


def evaluate(report, targets=TARGETS):
    """An `Outcome` for every target."""
    return [_evaluate(report, target) for target in targets]


def _evaluate(report, target):
    wanted = f"≤ {target.bound:g} µs" if target.figure == "per op" else f"≥ {target.bound:g}x"
    found = [(figure, row["name"]) for row in report["rows"]
             if re.fullmatch(target.rows, f"{row['group']}: {row['name']}") and (figure := _figure(row, target))]
    if not found:
        return Outcome(target.claim, wanted, "not measured", None)
    # A figure is a goodness, its text, and how it compares with the bound.
    (goodness, text), name = min(found)
    measured = text
    if len(found) > 1:
        met = sum(good >= 0 for (good, _), _ in found)
        measured = f"{met} of {len(found)} rows, the worst {text} ({name})"
    return Outcome(target.claim, wanted, measured, goodness >= 0)


def _figure(row, target):
    """(how much better than the bound, the figure as text), or None where the row tells nothing."""
    if target.figure == "per op":
        result = row["results"].get("minigrad", {})
        if "median" not in result:
            return None
        microseconds = 1e6 * result["median"] / row["work"]
        return target.bound - microseconds, f"{microseconds:.2f} µs"
    ratios = [(row["ratios"][label], label) for label in target.against if label in row.get("ratios", {})]
    if not ratios:
        return None
    ratio, label = min(ratios)
    which = f" ({label})" if len(target.against) > 1 else ""
    return ratio - target.bound, f"{ratio:.2f}x{which}"


def below_torch(report):
    """(row's name, ratio) of all rows in which PyTorch is ahead, the furthest first."""
    found = []
    for row in report["rows"]:
        ratios = row.get("ratios", {})
        # With several numbers of threads in one row, minigrad's largest is compared with PyTorch's largest.
        label = max((label for label in ratios if label.split(",")[0] == "torch"), default=None)
        if label is not None and ratios[label] < 1:
            found.append((row["name"], ratios[label]))
    return sorted(found, key=lambda entry: entry[1])
