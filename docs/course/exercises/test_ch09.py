"""Tests of the exercises of chapter 9."""

import pytest

TAPE = [
    ("linear_forward", ("x", "weight", "h")),
    ("tanh", ("h", "a")),
    ("sum", ("a", "loss")),
    ("tanh_grad", ("a", "da", "dh")),
    ("matmul", ("dh", "x", "dw")),
]


def test_1_lives(chapter):
    assert chapter.lives(TAPE, set()) == {
        "x": (0, 4), "weight": (0, 0), "h": (0, 1), "a": (1, 3), "loss": (2, 2), "da": (3, 3), "dh": (3, 4),
        "dw": (4, 4),
    }  # fmt: skip


def test_1_what_is_returned_lives_to_the_end(chapter):
    found = chapter.lives(TAPE, {"loss", "dw"})
    assert found["loss"] == (2, 4) and found["dw"] == (4, 4) and found["h"] == (0, 1)


def test_1_an_empty_tape(chapter):
    assert chapter.lives([], set()) == {}


def check(sizes, lives, offsets, total):
    """Whether a plan holds."""
    assert set(offsets) == set(sizes)
    assert all(0 <= offsets[b] and offsets[b] + sizes[b] <= total for b in sizes)
    for a in sizes:
        for b in sizes:
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            apart = offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]
            assert a == b or not together or apart, f"{a} and {b} are in use together and overlap"


def busiest(sizes, lives):
    """Bytes in use at the busiest launch."""
    return max(sum(size for b, size in sizes.items() if lives[b][0] <= now <= lives[b][1])
               for now in range(1 + max(last for _, last in lives.values())))


@pytest.mark.parametrize("sizes, lives, total", [
    ({"a": 64, "b": 64}, {"a": (0, 1), "b": (2, 3)}, 64),  # one after the other
    ({"a": 64, "b": 64}, {"a": (0, 2), "b": (2, 3)}, 128),  # both at launch 2
    ({"a": 64, "b": 128, "c": 64}, {"a": (0, 0), "b": (1, 2), "c": (3, 3)}, 128),
    ({"a": 128, "b": 64, "c": 64}, {"a": (0, 1), "b": (2, 4), "c": (2, 4)}, 128),  # two in the place of one
    ({"a": 64, "b": 64, "c": 64}, {"a": (0, 1), "b": (0, 4), "c": (2, 4)}, 128),  # into a gap
])  # fmt: skip
def test_2_small_plans_are_the_best_possible(chapter, sizes, lives, total):
    offsets, found = chapter.place(sizes, lives)
    check(sizes, lives, offsets, found)
    assert found == total


@pytest.mark.parametrize("seed", range(5))
def test_2_random_plans_hold_and_are_not_wasteful(chapter, seed):
    import random

    draw = random.Random(seed)
    sizes = {f"b{i}": 64 * draw.randint(1, 20) for i in range(40)}
    lives = {}
    for b in sizes:
        first = draw.randint(0, 50)
        lives[b] = first, first + draw.randint(0, 8)
    offsets, total = chapter.place(sizes, lives)
    check(sizes, lives, offsets, total)
    assert total <= 1.3 * busiest(sizes, lives)
