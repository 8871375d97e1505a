"""Tensors made after another one, and random integers: shapes, dtypes, distribution, seeds, devices, replay."""

import itertools

import numpy as np
import pytest

import minigrad as mg

LIKE = {
    "zeros_like": np.zeros_like, "ones_like": np.ones_like, "full_like": lambda x, **kw: np.full_like(x, 7, **kw),
    "rand_like": None, "randn_like": None,
}


def like(name, x, **options):
    return getattr(mg, name)(x, *([7] if name == "full_like" else []), **options)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LIKE)
def test_like(name, dtype, device):
    """Shape, dtype and device are those of the other tensor unless told otherwise; values are NumPy's, or a draw."""
    x = mg.ones(3, 2, dtype=dtype, device=device)
    y = like(name, x)
    assert (y.shape, y.dtype, y.device, y.requires_grad) == ((3, 2), dtype, x.device, False)
    other = like(name, x, dtype="float32", device="cpu", requires_grad=True)
    assert other.dtype == mg.float32 and other.device == "cpu" and other.requires_grad
    if LIKE[name]:
        np.testing.assert_array_equal(y.numpy(), LIKE[name](x.numpy()))
    else:
        mg.manual_seed(5)
        drawn = like(name, x)
        mg.manual_seed(5)
        same = getattr(mg, name.removesuffix("_like"))(3, 2, dtype=dtype, device=device)
        np.testing.assert_array_equal(drawn.numpy(), same.numpy())


def test_like_integers_and_truths():
    x = mg.arange(3)
    assert mg.full_like(x, 2.9).tolist() == [2, 2, 2] and mg.full_like(x > 0, 2).tolist() == [True] * 3
    assert mg.rand_like(x, "float64").dtype == mg.float64


def test_integers_are_the_uniform_numbers_cut():
    generator = mg.Generator(3)
    drawn = mg.randint(-5, 12, (40, 3), generator=generator)
    u = mg.rand(40, 3, dtype="float64", generator=mg.Generator(3)).numpy()
    assert drawn.dtype == mg.int64
    np.testing.assert_array_equal(drawn.numpy(), np.floor(u * 17).astype(np.int64) - 5)
    wide = mg.randint(-(2**52), 2**52, 1000).numpy()
    assert wide.min() < -(2**51) and wide.max() > 2**51 and len(set(wide % 64)) == 64  # the low bits are random too


def test_integers_are_uniform():
    counts = np.bincount(mg.randint(6, (60_000,)).numpy(), minlength=6)
    assert counts.shape == (6,) and np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000 * 5 / 6)


def test_ways_to_call_randint():
    assert mg.randint(3, ()).shape == () and mg.randint(3, 4, 2).tolist() == [3, 3]
    assert mg.randint(high=1, size=[2, 1]).tolist() == [[0], [0]] and mg.randint(5, (0, 2)).shape == (0, 2)
    assert mg.randint(1, 2, (2,), dtype="float32").dtype == mg.float32


def test_orders_are_permutations_and_equally_likely():
    for n in (0, 1, 17):
        np.testing.assert_array_equal(np.sort(mg.randperm(n).numpy()), np.arange(n))
    orders = [tuple(mg.randperm(3).tolist()) for _ in range(3000)]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert np.abs(np.array(counts) - 500).max() < 5 * np.sqrt(500 * 5 / 6)
    assert mg.randperm(2, dtype="float64").dtype == mg.float64


@pytest.mark.parametrize("draw", [lambda **kw: mg.randint(100, (20,), **kw), lambda **kw: mg.randperm(20, **kw)])
def test_seeds_devices_and_replays(draw):
    """One seed, one sequence: from the default generator, on both devices, and in a recorded step."""
    def draws(of):
        mg.manual_seed(9)
        return [of().tolist() for _ in range(4)]

    wanted = draws(draw)
    assert len({tuple(w) for w in wanted}) == 4
    assert draws(lambda: draw(device="cuda")) == wanted
    generator = mg.Generator(9)
    assert [draw(generator=generator).tolist() for _ in range(4)] == wanted
    for device in ("cpu", "cuda"):
        x, step = mg.ones(1, device=device), mg.capture(lambda x, device=device: draw(device=device) + 0)
        assert draws(lambda x=x, step=step: step(x)) == wanted


SENTENCES = {
    "randint: expected low < high, at most 2\\*\\*53 apart, got 3 and 3": lambda: mg.randint(3, 3, (2,)),
    "randint: expected low < high, at most 2\\*\\*53 apart, got 0 and 9007199254740993":
        lambda: mg.randint(2**53 + 1, (2,)),
    "randint: expected low, high and size: two ints and a shape, got 0, 1.5": lambda: mg.randint(1.5, (2,)),
    "randint: expected the shape as ints": lambda: mg.randint(3),
    "randint: expected extents of at least 0": lambda: mg.randint(3, (-1,)),
    "randperm: expected extents of at least 0": lambda: mg.randperm(-1),
    "randperm: expected the shape as ints": lambda: mg.randperm([2, 3]),
    "zeros_like: expected input to be a Tensor, got int": lambda: mg.zeros_like(3),
    "full_like: expected input to be a Tensor": lambda: mg.full_like(np.ones(2), 1.0),
    "rand_like: expected dtype float32 or float64, got int64": lambda: mg.rand_like(mg.arange(3)),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences(sentence):
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}"):
        SENTENCES[sentence]()
