"""Draws one channel's activations going through the five steps: docs/images/batchnorm-steps.gif and .png.

    python docs/batchnorm_figure.py

All numbers in it are computed by the layer itself.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

import minigrad as mg
from minigrad import layers as nn

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"
GAMMA, BETA, BATCH, BATCHES = 1.5, 3.0, 40, 30
INK, GREY, PALE, BLUE, ORANGE = "#1f2430", "#6b7280", "#d8dce3", "#3b6fb6", "#d9661f"
MARKED = "#c2185b", "#1b8a5a", "#7b3fb5"  # three examples to follow with the eye
RANGE = -2.8, 12.2
HOLD, MOVE, FRAMES = 2600, 60, 14  # milliseconds of a step and of a frame between two, number of these

STEPS = (
    ("activations", r"$x_i$", f"one channel, {BATCH} examples"),
    ("mean and variance", r"$\mu=\frac{1}{m}\sum_i x_i\quad\sigma^2=\frac{1}{m}\sum_i(x_i-\mu)^2$",
     "of this channel, over the batch"),
    ("normalise", r"$\hat x_i=(x_i-\mu)\,/\,\sqrt{\sigma^2+\varepsilon}$", "mean 0, deviation 1"),
    ("scale and shift", r"$y_i=\gamma\,\hat x_i+\beta$", "mean $\\beta$, deviation $\\gamma$, both learned"),
    ("moving average", r"$\mu_{run}\leftarrow(1-p)\,\mu_{run}+p\,\mu$", "batch after batch, for inference"),
)


class Channel:
    """The batches of a channel, and what the layer makes of the first and keeps of all."""

    def __init__(self):
        draw = np.random.default_rng(4)
        self.batches = 2.0 + draw.gamma(4.0, 1.0, (BATCHES, BATCH))
        layer = nn.BatchNorm1d(1, dtype=mg.float64)
        plain = nn.BatchNorm1d(1, affine=False, dtype=mg.float64)
        layer.load_state_dict({"weight": [GAMMA], "bias": [BETA]}, strict=False)
        self.means, self.deviations = [0.0], [1.0]  # the running ones, before any batch
        for batch in self.batches:
            y = layer(mg.from_numpy(batch[:, None])).numpy()[:, 0]
            if len(self.means) == 1:
                self.x, self.y = batch, y
                self.normalised = plain(mg.from_numpy(batch[:, None])).numpy()[:, 0]
            self.means.append(layer.running_mean.item())
            self.deviations.append(layer.running_var.item() ** 0.5)
        x = mg.from_numpy(self.x)
        self.mean, self.deviation = x.mean().item(), mg.std(x, correction=0).item()
        self.height = draw.uniform(0.12, 0.88, BATCH)  # of the dots: so that they do not hide each other
        order = np.argsort(self.x)
        self.marked = order[[2, BATCH // 2, -2]]


def dots(ax, channel, values, spread=None, label="", marked=True):
    """The values as dots over an axis; with `spread` (mean, deviation) a line and a band."""
    ax.set(xlim=RANGE, ylim=(0, 1), yticks=[])
    ax.set_xticks(range(-2, 12, 2))
    ax.axvline(0, color=PALE, lw=1, zorder=0)
    if spread is not None:
        mean, deviation = spread
        ax.axvspan(mean - deviation, mean + deviation, color=ORANGE, alpha=0.13, lw=0, zorder=0)
        ax.axvline(mean, color=ORANGE, lw=2.2, zorder=1)
        ax.text(mean, 1.03, label, color=ORANGE, ha="center", va="bottom", fontsize=12)
    ax.scatter(values, channel.height, s=34, color=BLUE, alpha=0.55, lw=0, zorder=2)
    for index, colour in zip(channel.marked, MARKED, strict=True) if marked else ():
        ax.scatter(values[index], channel.height[index], s=95, color=colour, edgecolor="white", lw=1.2, zorder=3)
    plain(ax, "left")


def plain(ax, *hidden):
    """An axis without a box."""
    for side in ("top", "right", *hidden):
        ax.spines[side].set_visible(False)
    for side in ax.spines.values():
        side.set_color(GREY)
    ax.tick_params(colors=GREY, labelsize=10)


def curves(ax, channel, known):
    """Running mean and deviation after the first `known` batches."""
    ax.set(xlim=(0, BATCHES + 0.4), ylim=(0, 7.4))
    ax.set_yticks([0, 2, 4, 6])
    steps, batch_means = np.arange(known + 1), channel.batches[:known].mean(1)
    ax.plot(steps[1:], batch_means, ".", color=PALE, ms=9, zorder=1)
    for values, colour in ((channel.means, ORANGE), (channel.deviations, BLUE)):
        ax.plot(steps, values[: known + 1], color=colour, lw=2.4, zorder=2)
        ax.plot(known, values[known], "o", color=colour, ms=6, zorder=3)
    ax.text(13, 3.3, r"$\mu_{run}$", color=ORANGE, fontsize=14)
    ax.text(13, 0.75, r"$\sigma_{run}$", color=BLUE, fontsize=14)
    ax.set_xlabel("batches seen (grey: mean of each)", color=GREY, fontsize=10)
    plain(ax)


def numbers(ax, channel, step):
    """What the layer knows at a step."""
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    rows = [
        (1, r"$\mu$", f"{channel.mean:.2f}", ORANGE), (1, r"$\sigma$", f"{channel.deviation:.2f}", ORANGE),
        (3, r"$\gamma$", f"{GAMMA:.2f}", INK), (3, r"$\beta$", f"{BETA:.2f}", INK),
    ]  # fmt: skip
    for place, (since, name, value, colour) in enumerate(rows):
        if step >= since:
            ax.text(0.36, 0.86 - 0.24 * place, f"{name} =", fontsize=17, color=colour, ha="right", va="center")
            ax.text(0.42, 0.86 - 0.24 * place, value, fontsize=17, color=colour, ha="left", va="center")


def frame(channel, step, share=1.0, known=0):
    """A picture of the moment at which `share` of the way from the step before to this one has been gone."""
    figure = plt.figure(figsize=(8.8, 4.4), dpi=100, facecolor="white")
    name, formula, note = STEPS[step]
    figure.text(0.035, 0.905, f"{step + 1}", fontsize=24, color="white", ha="left", va="center", weight="bold",
                bbox={"boxstyle": "circle,pad=0.22", "facecolor": INK, "edgecolor": "none"})
    figure.text(0.095, 0.93, name, fontsize=19, color=INK, va="center", weight="bold")
    figure.text(0.095, 0.862, note, fontsize=12, color=GREY, va="center")
    figure.text(0.97, 0.905, formula, fontsize=18, color=INK, ha="right", va="center")
    left = figure.add_axes([0.035, 0.235, 0.6, 0.5])
    right = figure.add_axes([0.70, 0.235, 0.265, 0.5])
    mean, deviation = channel.mean, channel.deviation
    if step == 4:
        batch = channel.batches[max(known - 1, 0)]
        dots(left, channel, batch, (batch.mean(), batch.std()), r"$\mu\pm\sigma$", marked=known <= 1)
        curves(right, channel, known)
    else:
        states = [channel.x, channel.x, channel.normalised, channel.y]
        spreads = [None, (mean, deviation), (0.0, 1.0), (BETA, GAMMA)]
        labels = ["", r"$\mu\pm\sigma$", r"$0\pm 1$", r"$\beta\pm\gamma$"]
        values, spread = states[step], spreads[step]
        if share < 1:
            values = states[step - 1] + share * (values - states[step - 1])
            spread = None if step < 2 else (values.mean(), values.std())
        dots(left, channel, values, spread, labels[step] if share == 1 else "")
        numbers(right, channel, step)
    for place, (x, (other, _, _)) in enumerate(zip((0.035, 0.205, 0.445, 0.60, 0.80), STEPS, strict=True)):
        figure.text(x, 0.05, f"{place + 1}  {other}", fontsize=10.5, va="center", color=INK if place == step else GREY,
                    weight="bold" if place == step else "normal")
    return figure


def picture(figure):
    """The figure as an image."""
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    plt.close(figure)
    return image


def animation(channel):
    """Pairs of an image and its milliseconds."""
    ease = (1 - np.cos(np.pi * np.arange(1, FRAMES) / FRAMES)) / 2
    for step in range(4):
        if step >= 2:
            for share in ease:
                yield picture(frame(channel, step, share)), MOVE
        yield picture(frame(channel, step)), HOLD
    for known in range(1, BATCHES + 1):
        yield picture(frame(channel, 4, known=known)), HOLD if known == 1 else 170
    yield picture(frame(channel, 4, known=BATCHES)), HOLD


def palette_of(*colours):
    """An image with the palette of these colours, each mixed with white in eight steps: as text and dots need them."""
    white = np.full(3, 255.0)
    mixes = [white + share * (np.array(matplotlib.colors.to_rgb(colour)) * 255 - white)
             for colour in colours for share in np.linspace(0, 1, 9)[1:]]
    image = Image.new("P", (1, 1))
    mixes = [white] + [mix for mix in mixes if mix.min() < 243]  # the background stays white
    image.putpalette([round(value) for mix in mixes for value in mix])
    return image


def strip(channel):
    """All five steps in one picture, one below the other."""
    figure = plt.figure(figsize=(9.6, 11.2), dpi=100, facecolor="white")
    mean, deviation = channel.mean, channel.deviation
    rows = [
        (channel.x, None, ""), (channel.x, (mean, deviation), rf"$\mu\pm\sigma$ = {mean:.2f} $\pm$ {deviation:.2f}"),
        (channel.normalised, (0.0, 1.0), r"$0\pm 1$"),
        (channel.y, (BETA, GAMMA), rf"$\beta\pm\gamma$ = {BETA:.1f} $\pm$ {GAMMA:.1f}"),
    ]  # fmt: skip
    for step, (name, formula, note) in enumerate(STEPS):
        bottom = 0.825 - 0.192 * step
        figure.text(0.03, bottom + 0.105, f"{step + 1}", fontsize=17, color="white", va="center", weight="bold",
                    bbox={"boxstyle": "circle,pad=0.22", "facecolor": INK, "edgecolor": "none"})
        figure.text(0.075, bottom + 0.113, name, fontsize=15, color=INK, va="center", weight="bold")
        figure.text(0.075, bottom + 0.091, note, fontsize=10.5, color=GREY, va="center")
        lines = formula.split(r"\quad")
        for place, line in enumerate(lines):
            line = "$" + line.strip("$") + "$"
            figure.text(0.075, bottom + 0.05 - 0.036 * place, line, fontsize=14, color=INK, va="center")
        ax = figure.add_axes([0.43, bottom, 0.54, 0.115])
        if step < 4:
            dots(ax, channel, *rows[step])
        else:
            curves(ax, channel, BATCHES)
    return figure


def main():
    """Draw both."""
    channel = Channel()
    images, durations = zip(*animation(channel), strict=True)
    palette = palette_of(INK, GREY, PALE, BLUE, ORANGE, *MARKED)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    images[0].save(IMAGES / "batchnorm-steps.gif", save_all=True, append_images=images[1:], duration=durations, loop=0,
                   optimize=True)
    picture(strip(channel)).quantize(128).save(IMAGES / "batchnorm-steps.png", optimize=True)


if __name__ == "__main__":
    main()
