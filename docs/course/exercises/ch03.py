"""Exercises of chapter 3. Replace each `raise` by your answer; test_ch03.py says whether it is one."""


def leaves_below(tensor):
    """The set of leaves that tensor.backward() will give a gradient; `tensor.fn` is its node, None for a leaf.

    A node's `parents` holds nodes, leaves (tensors) and None. No recursion: graphs may be deeper than Python's stack.
    """
    raise NotImplementedError


def paths(tensor, leaf):
    """In how many ways the leaf reaches the tensor, as an int: for (x * x) + x it is 3."""
    raise NotImplementedError
