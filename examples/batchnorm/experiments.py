"""One function for each experiment: a problem and a scale of its budgets in, plain numbers for JSON out."""

import functools
import math

import numpy as np

from batchnorm.nets import plain_cnn, sigmoid_mlp, small_cnn
from batchnorm.training import Run, train

WITHOUT, WITH, HE = "without", "with", "without, He's initial weights"
NETS = {WITHOUT: False, WITH: True}
STEPS = 50_000  # the paper's; all other budgets are for this one and shrink with it
BATCH = 60

# The paper names neither: one learning rate for both nets, and a deviation at which the net without batch
# normalization learns at all with it (at 0.03 it stays at 11 % for more than 6,000 steps).
RATE, STD = 0.1, 0.1

MILESTONES = (0.90, 0.95, 0.97)
PERCENTILES = (15, 50, 85)
WATCHED = 2000  # test images over which the percentiles are taken

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RATES_STEPS, RATES_SEEDS = 5000, 3

DEEP_LAYERS, DEEP_RATES, DEEP_STEPS = 12, (0.03, 0.1, 0.3, 1.0, 3.0), 3000
CNN_LAYERS, CNN_RATES, CNN_STEPS = 20, (0.03, 0.1, 0.3), 400
CNN_TESTS = 2000  # test images: a look at all of them would take longer than the steps between

SPEEDUP_RATES, SPEEDUP_STEPS, SPEEDUP_EVERY, SPEEDUP_SEEDS = (0.003, 0.01, 0.03, 0.1, 0.3), 800, 20, 3
SPEEDUP_TARGETS = (0.90, 0.95, 0.97)

SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
SIZES_EXAMPLES, SIZES_RATE, SIZES_SEEDS = 120_000, 0.3, 3


def figure1(problem, scale, bar):
    """Figure 1: test accuracy and the input of a typical sigmoid of the last hidden layer, over the training."""
    problem, steps, nets = problem.binary(), _budget(STEPS, scale), {}
    looks = sorted({*_every(steps / 1000, steps // 10), *_every(steps / 200, steps)})
    for name, batch_norm in NETS.items():
        run = Run(functools.partial(sigmoid_mlp, problem.image_shape, batch_norm, std=STD), problem, RATE, BATCH)
        accuracy, inputs = [], []
        for _ in train(run, looks, bar, f"figure 1, {name} batch normalization"):
            accuracy.append(run.test()[1])
            inputs.append(np.percentile(run.sigmoid_inputs(problem.x_test[:WATCHED]), PERCENTILES, axis=0))
        unit = typical(np.array(inputs))
        nets[name] = {"accuracy": _rounded(accuracy), "unit": unit, "final": round(accuracy[-1], 4),
                      "percentiles": [_rounded(column) for column in np.array(inputs)[:, :, unit].T],
                      "reached": {str(goal): reached(looks, accuracy, goal) for goal in MILESTONES}}
    return {"steps": steps, "rate": RATE, "std": STD, "batch_size": BATCH, "looks": looks, "nets": nets}


def rates(problem, scale, bar):
    """Accuracy after a fixed number of steps, over a grid of learning rates, a list of seeds for each."""
    problem, steps = problem.binary(), _budget(RATES_STEPS, scale)
    nets = {name: [[_final(functools.partial(sigmoid_mlp, problem.image_shape, batch_norm, std=STD), problem, rate,
                           BATCH, steps, seed, bar, f"learning rate {rate:g}, {name}")["accuracy"]
                    for seed in range(RATES_SEEDS)] for rate in RATES] for name, batch_norm in NETS.items()}
    return {"steps": steps, "std": STD, "batch_size": BATCH, "rates": list(RATES), "nets": nets}


def deep_mlp(problem, scale, bar):
    """A deep net of sigmoid layers, each variant at the best learning rate of a grid."""
    make = {name: functools.partial(sigmoid_mlp, problem.image_shape, batch_norm, DEEP_LAYERS, std=STD)
            for name, batch_norm in NETS.items()}
    return {"layers": DEEP_LAYERS, "std": STD,
            **_curves(make, problem.binary(), DEEP_RATES, _budget(DEEP_STEPS, scale), bar, "deep sigmoid net")}


def deep_cnn(problem, scale, bar):
    """A deep convolutional net without skip connections; also with initial weights made for such depth."""
    make = {name: functools.partial(plain_cnn, problem.image_shape, batch_norm, CNN_LAYERS, he=he)
            for name, batch_norm, he in ((WITHOUT, False, False), (WITH, True, False), (HE, False, True))}
    problem, steps = problem.first_tests(CNN_TESTS), _budget(CNN_STEPS, scale)
    return {"layers": CNN_LAYERS, **_curves(make, problem, CNN_RATES, steps, bar, "deep plain CNN")}


def speedup(problem, scale, bar):
    """Steps to an accuracy with the net of ``minigrad train``, each variant at the learning rate that gets there first.

    The rate is chosen with seed 0, by the highest accuracy (where it is not reached, by the next); the other seeds run
    at this one.
    """
    problem, steps = problem.first_tests(CNN_TESTS), _budget(SPEEDUP_STEPS, scale)
    looks = _every(SPEEDUP_EVERY, steps)

    def attempt(name, rate, seed):
        run = Run(functools.partial(small_cnn, problem.image_shape, NETS[name]), problem, rate, BATCH, seed)
        accuracy = []
        for _ in train(run, looks, bar, f"speed-up, {name}, learning rate {rate:g}, seed {seed}"):
            accuracy.append(run.test()[1])
            if accuracy[-1] >= max(SPEEDUP_TARGETS):
                break
        return {"reached": {str(goal): reached(looks, accuracy, goal) for goal in SPEEDUP_TARGETS},
                "accuracy": _rounded(accuracy)}

    nets = {}
    for name in NETS:
        grid = [attempt(name, rate, 0) for rate in SPEEDUP_RATES]
        best = min(range(len(grid)), key=lambda i: _slowness(grid[i]))
        seeds = [grid[best], *(attempt(name, SPEEDUP_RATES[best], seed) for seed in range(1, SPEEDUP_SEEDS))]
        nets[name] = {"rate": SPEEDUP_RATES[best], "grid": [entry["reached"] for entry in grid], "seeds": seeds}
    return {"steps": steps, "every": looks[0], "tests": len(problem.y_test), "batch_size": BATCH,
            "rates": list(SPEEDUP_RATES), "looks": looks, "nets": nets}


def batch_size(problem, scale, bar):
    """Accuracy after a fixed number of examples over the batch size, and with ghost statistics over a large batch.

    The learning rate is proportional to the batch size, so that without batch normalization all sizes do about the
    same. ``ghost`` keeps the largest batch (and its rate) and takes statistics over sub-batches of each size.
    """
    problem, largest = problem.binary(), SIZES[-1]

    def final(label, size, **options):
        steps = max(1, _budget(SIZES_EXAMPLES, scale) // size)
        make = functools.partial(sigmoid_mlp, problem.image_shape, std=STD, **options)
        return [_final(make, problem, SIZES_RATE * size / BATCH, size, steps, seed, bar, label, train_too=True)
                for seed in range(SIZES_SEEDS)]

    return {
        "examples": _budget(SIZES_EXAMPLES, scale), "rate_per_60": SIZES_RATE, "std": STD, "sizes": list(SIZES),
        "nets": {
            WITHOUT: [final(f"batches of {size}, without", size, batch_norm=False) for size in SIZES],
            WITH: [final(f"batches of {size}, with", size, batch_norm=True) for size in SIZES],
            "ghost": [final(f"ghost statistics over {size}", largest, batch_norm=True,
                            ghost_batch_size=size if size < largest else None) for size in SIZES],
        },
    }


EXPERIMENTS = {"figure1": figure1, "rates": rates, "deep-mlp": deep_mlp, "deep-cnn": deep_cnn, "speedup": speedup,
               "batch-size": batch_size}


def typical(inputs):
    """The unit whose median wanders neither more nor less than most: the middle one by the median's range.

    Parameters
    ----------
    inputs : numpy.ndarray
        Percentiles, (looks, percentiles, units), the median in the middle.

    Returns
    -------
    int
    """
    medians = inputs[:, inputs.shape[1] // 2]
    wandering = medians.max(0) - medians.min(0)
    return int(np.argsort(wandering, kind="stable")[len(wandering) // 2])


def reached(looks, accuracy, goal):
    """The first look (a number of steps) at which the accuracy was at least the goal, None if there was none."""
    return next((step for step, value in zip(looks, accuracy, strict=False) if value >= goal), None)


def _slowness(attempt):
    """Steps to each accuracy, the highest first."""
    steps = [attempt["reached"][str(goal)] for goal in sorted(SPEEDUP_TARGETS, reverse=True)]
    return [math.inf if count is None else count for count in steps]


def _curves(make, problem, grid, steps, bar, label):
    """For each net the curve at its best learning rate, and the final accuracy at each."""
    looks, nets = _every(steps / 40, steps), {}
    for name, build in make.items():
        found = []
        for rate in grid:
            run = Run(build, problem, rate, BATCH)
            found.append(list(zip(*(run.test() for _ in train(run, looks, bar, f"{label}, {name}, rate {rate:g}")),
                                  strict=True)))
        final = [accuracy[-1] for _, accuracy in found]
        best = int(np.argmax(final))
        loss, accuracy = found[best]
        nets[name] = {"rate": grid[best], "final": _rounded(final), "loss": _rounded(loss),
                      "accuracy": _rounded(accuracy)}
    return {"steps": steps, "batch_size": BATCH, "tests": len(problem.y_test), "rates": list(grid), "looks": looks,
            "nets": nets}


def _final(make, problem, rate, size, steps, seed, bar, label, train_too=False):
    """Test accuracy at the end of a training; with `train_too` also that of as many training images."""
    run = Run(make, problem, rate, size, seed)
    for _ in train(run, [steps], bar, label):
        result = {"accuracy": round(run.test()[1], 4)}
        if train_too:
            count = len(problem.y_test)
            result["training"] = round(run.test(problem.x_train[:count], problem.y_train[:count])[1], 4)
    return result


def _budget(count, scale):
    return max(1, round(count * scale))


def _every(stride, last):
    """Step numbers at about equal distances, up to and with the last one."""
    count = max(1, round(last / max(1, stride)))
    return sorted({max(1, round(last * i / count)) for i in range(1, count + 1)})


def _rounded(values):
    """For JSON: four digits after the point, None for what is no finite number."""
    return [round(float(value), 4) if math.isfinite(value) else None for value in values]
