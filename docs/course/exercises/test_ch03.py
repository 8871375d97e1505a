"""Tests of the exercises of chapter 3."""

import minigrad as mg


def leaf(value):
    return mg.tensor([value], requires_grad=True)


def test_leaves_are_found_once(chapter):
    x, w, unused, constant = leaf(1.0), leaf(2.0), leaf(3.0), mg.tensor([4.0])
    y = (x * w + constant * x).exp() * w
    assert chapter.leaves_below(y) == {x, w}
    assert unused not in chapter.leaves_below(y)


def test_a_leaf_is_its_own(chapter):
    x = leaf(1.0)
    assert chapter.leaves_below(x) == {x}


def test_deep_graph(chapter):
    x = y = leaf(1.0)
    for _ in range(3000):
        y = y + 1.0
    assert chapter.leaves_below(y) == {x}
    assert chapter.paths(y, x) == 1


def test_paths_of_a_formula(chapter):
    x, w = leaf(1.0), leaf(2.0)
    y = x * x + x
    assert chapter.paths(y, x) == 3 and chapter.paths(y, w) == 0
    assert chapter.paths(y * w + y, x) == 6 and chapter.paths(y * w + y, w) == 1


def test_paths_are_not_walked_one_by_one(chapter):
    x = y = leaf(1.0)
    for _ in range(100):
        y = y + y
    assert chapter.paths(y, x) == 2**100
