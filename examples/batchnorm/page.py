"""The generated blocks of docs/batchnorm.md: a picture, a table and how it was made for each experiment."""

import numpy as np

from batchnorm.experiments import HE, WITH, WITHOUT
from minigrad.bench.blocks import replace

SURVIVES = 0.9  # a learning rate is survived where all seeds get at least this accuracy
NAME = {WITHOUT: "without", WITH: "with", HE: HE, "ghost": "ghost"}


def rewrite(text, results):
    """The page with the block of each experiment that has results replaced.

    Raises
    ------
    ValueError
        If the page has no such block.
    """
    for name, result in results.items():
        text = replace(text, f"batchnorm-{name}", block(name, result))
    return text


def block(name, result):
    """The Markdown of one experiment."""
    alternative, describe, table = BLOCKS[name]
    header, *lines = table(result)
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join([f"![{alternative}](images/batchnorm-{name}.png)", "",
                      *["| " + " | ".join(map(str, line)) + " |" for line in (header, rule, *lines)], "",
                      f"{describe(result)} Data: {result['data']}; {result['device']}, {result['seconds']:.0f} s."])


def figure1_table(result):
    """Steps to each accuracy, the final one, and how far the sigmoid's input wandered."""
    goals = list(result["nets"][WITH]["reached"])
    yield ["", *(f"steps to {float(goal):.0%}" for goal in goals), "final accuracy", "range of the input's median"]
    for name, net in result["nets"].items():
        median = net["percentiles"][1]
        yield [NAME[name], *(_steps(net["reached"][goal]) for goal in goals), _percent(net["final"]),
               f"{min(median):.1f} to {max(median):.1f}"]
    both = [(result["nets"][WITHOUT]["reached"][goal], result["nets"][WITH]["reached"][goal]) for goal in goals]
    yield ["without / with", *(_ratio(*pair) for pair in both), "", ""]


def rates_table(result):
    """The middle seed's accuracy at each learning rate."""
    yield ["learning rate", *(f"{rate:g}" for rate in result["rates"])]
    for name, runs in result["nets"].items():
        yield [NAME[name], *(_percent(np.median(seeds)) for seeds in runs)]


def survivors(result):
    """The learning rates at which only the normalised net learns, in words."""
    alive = {name: {rate for rate, seeds in zip(result["rates"], runs, strict=True) if min(seeds) >= SURVIVES}
             for name, runs in result["nets"].items()}
    only = [f"{rate:g}" for rate in result["rates"] if rate in alive[WITH] - alive[WITHOUT]]
    return ", ".join(only) or "none"


def best_of_grid(result):
    """Each net's highest accuracy (of the middle seeds) and its learning rate, in words."""
    found = {name: max((float(np.median(seeds)), rate) for seeds, rate in zip(runs, result["rates"], strict=True))
             for name, runs in result["nets"].items()}
    return ", ".join(f"{NAME[name]} {_percent(accuracy)} at {rate:g}" for name, (accuracy, rate) in found.items())


def curves_table(result):
    """The final accuracy at each learning rate."""
    yield ["learning rate", *(f"{rate:g}" for rate in result["rates"])]
    for name, net in result["nets"].items():
        yield [NAME[name], *map(_percent, net["final"])]


def speedup_table(result):
    """Steps to each accuracy: the middle seed and the range, and their ratio."""
    goals = list(result["nets"][WITH]["seeds"][0]["reached"])
    yield ["", "learning rate", *(f"steps to {float(goal):.0%}" for goal in goals)]
    middle = {}
    for name, net in result["nets"].items():
        found = [[seed["reached"][goal] for seed in net["seeds"]] for goal in goals]
        middle[name] = [None if None in steps else int(np.median(steps)) for steps in found]
        yield [NAME[name], f"{net['rate']:g}", *(
            _steps(None) if value is None else f"{value:,} ({min(steps):,} to {max(steps):,})"
            for value, steps in zip(middle[name], found, strict=True))]
    yield ["without / with", "", *(_ratio(*pair) for pair in zip(middle[WITHOUT], middle[WITH], strict=True))]


def batch_size_table(result):
    """The middle seed's accuracy on test images for each batch size."""
    yield ["images", *map(str, result["sizes"])]
    for name, runs in result["nets"].items():
        for key, images in (("accuracy", "test"), ("training", "training")):
            yield [f"{NAME[name]}, {images}",
                   *(_percent(np.median([seed[key] for seed in seeds])) for seeds in runs)]


BLOCKS = {
    "figure1": ("Test accuracy, and percentiles of a sigmoid's input, with and without batch normalization",
                lambda r: f"{r['steps']:,} steps of {r['batch_size']} images, SGD with learning rate {r['rate']:g}, "
                f"initial weights of deviation {r['std']:g}.", figure1_table),
    "rates": ("Test accuracy over the learning rate",
              lambda r: f"{r['steps']:,} steps; the middle of {len(r['nets'][WITH][0])} seeds, the band shows all of "
              f"them. Rates at which all seeds of the normalised net, and not all of the other, get {SURVIVES:.0%}: "
              f"{survivors(r)}. At the best rate: {best_of_grid(r)}.", rates_table),
    "deep-mlp": ("Loss and accuracy of a deep sigmoid net",
                 lambda r: f"{r['layers']} hidden layers, final accuracy after {r['steps']:,} steps; the curves are "
                 f"those of each net's best rate.", curves_table),
    "deep-cnn": ("Loss and accuracy of a deep plain convolutional net",
                 lambda r: f"{r['layers']} convolutions, final accuracy after {r['steps']:,} steps; the curves are "
                 f"those of each net's best rate.", curves_table),
    "speedup": ("Accuracy of the small CNN over the first steps",
                lambda r: f"The middle of {len(r['nets'][WITH]['seeds'])} seeds and the range, looked at every "
                f"{r['every']} steps on {r['tests']:,} test images; each net at the best rate of "
                f"{', '.join(f'{rate:g}' for rate in r['rates'])}.", speedup_table),
    "batch-size": ("Accuracy over the batch size",
                   lambda r: f"{r['examples']:,} training images seen, learning rate {r['rate_per_60']:g} times the "
                   f"batch size over 60; the middle of {len(r['nets'][WITH][0])} seeds.", batch_size_table),
}


def _percent(value):
    return f"{100 * value:.1f} %"


def _steps(count):
    return "not reached" if count is None else f"{count:,}"


def _ratio(slow, fast):
    return "" if slow is None or fast is None else f"**{slow / fast:.1f}**"
