"""The pictures: one function for each experiment's results, one colour for each net."""

import numpy as np

from batchnorm.experiments import HE, PERCENTILES, WITH, WITHOUT

# From the palette of Okabe and Ito, which colour-blind readers tell apart; line styles differ as well.
STYLE = {WITH: {"color": "#0072B2", "linestyle": "-"}, WITHOUT: {"color": "#D55E00", "linestyle": "--"},
         HE: {"color": "#000000", "linestyle": ":"}, "ghost": {"color": "#009E73", "linestyle": "-."}}
LABEL = {WITH: "with batch normalization", WITHOUT: "without", HE: HE, "ghost": "with, statistics of ghost batches"}
CHANCE = 10.0  # percent, of ten classes


def draw(name, result, path):
    """Write the PNG of an experiment."""
    figure = DRAWINGS[name](result)
    figure.savefig(path, dpi=110)


def figure1(result):
    """The paper's Figure 1: (a) accuracy, (b, c) percentiles of a sigmoid's input."""
    figure, (accuracy, *inputs) = _panels(3, 3.7)
    looks, thousand = result["looks"], 1000 if result["steps"] >= 5000 else 1
    steps = np.array(looks) / thousand
    for name in (WITH, WITHOUT):
        accuracy.plot(steps, _percent(result["nets"][name]["accuracy"]), label=LABEL[name], **STYLE[name])
    accuracy.set(title="(a) test accuracy", ylabel="test accuracy (%)", ylim=_from_above(result, 70))
    accuracy.legend(loc="lower right", fontsize=8)
    for axes, name, letter in zip(inputs, (WITHOUT, WITH), "bc", strict=True):
        low, middle, high = result["nets"][name]["percentiles"]
        colour = STYLE[name]["color"]
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        for percent, values in zip(PERCENTILES, (low, middle, high), strict=True):
            axes.plot(steps, values, color=colour, linewidth=2 if percent == 50 else 1)
            axes.annotate(f"{percent} %", (steps[-1], values[-1]), xytext=(3, 0), textcoords="offset points",
                          va="center", fontsize=7)
        axes.set(title=f"({letter}) {name} batch normalization", ylabel="input of a sigmoid",
                 xlim=(None, steps[-1] * 1.12))
    both = [value for net in result["nets"].values() for line in net["percentiles"] for value in line]
    for axes in inputs:
        axes.set_ylim(min(both) - 0.3, max(both) + 0.3)
    return _finish(figure, "training steps" + (" (thousands)" if thousand > 1 else ""))


def rates(result):
    """Accuracy over the learning rate: the middle seed, and the range of all."""
    figure, (axes,) = _panels(1, 4)
    for name in (WITH, WITHOUT):
        _range(axes, result["rates"], result["nets"][name], name)
    axes.axhline(CHANCE, color="grey", linewidth=1, linestyle=":", label="chance")
    axes.set(xscale="log", ylabel=f"test accuracy after {result['steps']:,} steps (%)", ylim=(0, 102))
    axes.legend(loc="lower center")
    return _finish(figure, "learning rate")


def curves(result):
    """Loss and accuracy over the training."""
    figure, (loss, accuracy) = _panels(2, 3.9)
    for name, net in result["nets"].items():
        label = f"{LABEL[name]}, learning rate {net['rate']:g}"
        loss.plot(result["looks"], _numbers(net["loss"]), label=label, **STYLE[name])
        accuracy.plot(result["looks"], _percent(net["accuracy"]), label=label, **STYLE[name])
    loss.set(ylabel="test loss (cross-entropy)", ylim=(0, None))
    accuracy.set(ylabel="test accuracy (%)", ylim=(0, 102))
    accuracy.axhline(CHANCE, color="grey", linewidth=1, linestyle=":")
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return _finish(figure, "training steps")


def speedup(result):
    """Accuracy over the first steps, a line for each seed."""
    figure, (axes,) = _panels(1, 4)
    for name in (WITH, WITHOUT):
        net = result["nets"][name]
        for number, seed in enumerate(net["seeds"]):
            label = None if number else f"{LABEL[name]}, learning rate {net['rate']:g}"
            axes.plot(result["looks"][:len(seed["accuracy"])], _percent(seed["accuracy"]), label=label, linewidth=1.2,
                      **STYLE[name])
    for goal in net["seeds"][0]["reached"]:
        axes.axhline(100 * float(goal), color="grey", linewidth=0.8, linestyle=":")
    axes.set(ylabel="test accuracy (%)", ylim=_from_above(result, 80))
    axes.legend(loc="lower right")
    return _finish(figure, "training steps, until the highest dotted line is reached")


def batch_size(result):
    """Accuracy on test and on training images over the batch size."""
    figure, both = _panels(2, 4)
    for axes, key, title in zip(both, ("accuracy", "training"), ("test images", "training images"), strict=True):
        for name in (WITHOUT, WITH, "ghost"):
            _range(axes, result["sizes"], [[seed[key] for seed in seeds] for seeds in result["nets"][name]], name)
        axes.set(title=title, ylabel="accuracy (%)")
        axes.set_xscale("log", base=2)
        axes.set_xticks(result["sizes"], result["sizes"])
    low = min(axes.get_ylim()[0] for axes in both)
    for axes in both:
        axes.set_ylim(low, None)
    both[0].legend(loc="lower right")
    return _finish(figure, "images per batch (ghost: per group that is normalised together)")


DRAWINGS = {"figure1": figure1, "rates": rates, "deep-mlp": curves, "deep-cnn": curves, "speedup": speedup,
            "batch-size": batch_size}


def _panels(count, height):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _range(axes, x, runs, name):
    """The middle of some seeds as a line, all of them as a band."""
    values = 100 * np.array(runs)
    axes.fill_between(x, values.min(1), values.max(1), color=STYLE[name]["color"], alpha=0.2, linewidth=0)
    axes.plot(x, np.median(values, 1), marker="o", markersize=4, label=LABEL[name], **STYLE[name])


def _from_above(result, least):
    """An axis for accuracies near 100 %, unless none of them comes near."""
    nets = result["nets"].values()
    best = max(max(net["accuracy"] if "accuracy" in net else net["seeds"][0]["accuracy"]) for net in nets)
    return (least, 100.5) if 100 * best > least + 10 else (0, 100.5)


def _percent(values):
    return 100 * np.array(values)


def _numbers(values):
    return [np.nan if value is None else value for value in values]


def _finish(figure, xlabel):
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.set_xlabel(xlabel, fontsize=9)
        axes.title.set_fontsize(9)
    return figure
