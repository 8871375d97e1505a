"""Exercises of chapter 1. Replace each `raise` by your answer; test_ch01.py says whether it is one."""


class Value:
    """A number that remembers how it was computed, as in the chapter; the operators are left out."""

    def __init__(self, data, parents=(), share=None):
        self.data, self.parents, self.share = data, parents, share


def sigmoid(x):
    """The Value 1 / (1 + exp(-x)), as one step: its `share` needs no more than the result. No overflow at -1000."""
    raise NotImplementedError


def relu(x):
    """The Value max(x, 0). At 0 the gradient is 0."""
    raise NotImplementedError


def numerical(f, x):
    """The derivative of f, a function of one float, at x: eight correct digits for a function as smooth as exp."""
    raise NotImplementedError
