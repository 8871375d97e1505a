"""Small nets whose graphs the tests of `minigrad.study` look at."""

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn
from minigrad import study


class Results(mg.Watcher):
    """The tensors that ops returned."""

    def __init__(self):
        self.of = {}

    def computed(self, fn, inputs, results):
        self.of[fn] = results[0]


class Residual(nn.Module):
    def __init__(self, channels):
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(x)))


def cnn():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Residual(4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3))


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


CASES = {"mlp": (mlp, (5, 4)), "cnn": (cnn, (5, 1, 8, 8))}


def recorded(name, fuse=True):
    """A model, its loss under `names`, and the results of all ops."""
    make, shape = CASES[name]
    model, results = make(), Results()
    model.fuse = fuse
    with study.names(model), mg.watch(results):
        loss = F.cross_entropy(model(mg.randn(*shape)), mg.tensor([0, 1, 2, 0, 1]))
    return model, loss, results.of


class Cell(nn.Module):
    def __init__(self):
        self.inside, self.back = nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, x, h):
        return F.tanh(self.inside(x) + self.back(h))


class Recurrent(nn.Module):
    def __init__(self):
        self.cell, self.head = Cell(), nn.Linear(3, 2)

    def forward(self, xs):
        h = mg.zeros(4, 3)
        for x in xs:
            h = self.cell(x, h)
        return self.head(h)


def recurrent(steps=5):
    model = Recurrent()
    with study.names(model):
        return study.graph(model([mg.randn(4, 2) for _ in range(steps)]), model)
