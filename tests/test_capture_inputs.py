"""A captured step takes its inputs where the caller has them, unless that memory has to stay as it is."""

import contextlib

import numba
import numpy as np
import pytest

import minigrad as mg
from minigrad.device import get_device
from minigrad.kernels.cpu.launch import possible

in_machine_code = pytest.mark.skipif(not possible(), reason="a replay is no function of its inputs here")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def in_place(step):
    """Of each input whether replays take it where it is."""
    return [own is None for own in step.recordings[0]._inputs]


@in_machine_code
def test_inputs_are_not_copied():
    weight = mg.tensor(numbers(3, 4), requires_grad=True)

    def step(x, factors):
        weight.grad = None
        (mg.relu(x @ weight) * factors["of rows"]).sum().backward()
        return weight.grad

    captured, copies = mg.capture(step), []
    for seed in range(4):  # apart from each other, neighbours in memory, and not at the start of a vector
        x = mg.from_numpy(numbers(5, 6, 3, seed=seed))[seed]
        shifted = np.empty(6 * 4 + seed, np.float32)[seed:].reshape(6, 4)
        shifted[:] = numbers(6, 4, seed=seed + 9)
        factors = {"of rows": mg.from_numpy(shifted)}
        copies.append((captured(x, factors).numpy(), step(x, factors).numpy()))
    for found, expected in copies:
        np.testing.assert_array_equal(found, expected)
    assert in_place(captured) == [True, True]


def test_a_result_that_is_an_input():
    step = mg.capture(lambda x, y: (x, y.reshape(2, 2), x + y))
    for seed in range(3):
        x, y = mg.tensor(numbers(4, seed=seed)), mg.tensor(numbers(4, seed=seed + 5))
        first, part, total = step(x, y)
        for found, expected in ((first, x), (part, y.reshape(2, 2)), (total, x + y)):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())
        assert not np.shares_memory(first.numpy(), x.numpy()) and not np.shares_memory(part.numpy(), y.numpy())
    assert not any(in_place(step))


def test_what_the_step_has_kept_may_come_as_its_input():
    """Truncated backpropagation through time: a replay rewrites the state that it is given."""
    kept = {}

    def step(x, state):
        state = mg.tanh(x + state)
        kept["state"], kept["x"] = state.detach(), x
        again = mg.tanh(x * 2.0 + state)
        return again, state + again

    def run(step):
        kept.update(state=mg.zeros(8), x=mg.zeros(8))
        found = []
        for seed in range(4):
            found += step(mg.tensor(numbers(8, seed=seed)), kept["state"])
            found += step(kept["x"], mg.tensor(numbers(8, seed=seed + 20)))
        return [tensor.numpy() for tensor in found]

    captured = mg.capture(step)
    for found, expected in zip(run(captured), run(step), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(captured.recordings) == 1 and in_place(captured)[0] is False


@pytest.mark.parametrize("factor", (10.0, None))
def test_two_inputs_one_of_which_another_rewrites(factor):
    """The input of the call before as the second one, whose own memory the first one comes to, whether used or not."""
    kept = {}

    def step(x, before):
        kept["x"] = x
        return before * 2.0 if factor is None else x * factor + before

    def run(step):
        kept["x"] = mg.zeros(3)
        return [step(mg.full((3,), float(k)), kept["x"]).tolist() for k in range(1, 5)]

    assert run(mg.capture(step)) == run(step)


def two_tensors_of_one_memory(kind):
    if kind == "detached":
        tensor = mg.tensor(numbers(6))
        return tensor, tensor.detach()
    memory = bytearray(4 * 6)
    if kind == "a buffer":
        return [mg.from_numpy(np.frombuffer(memory, np.float32)) for _ in range(2)]
    if kind == "a view of a view":
        first = np.asarray(np.frombuffer(memory, np.float32).view(np.memmap))
        return mg.from_numpy(first), mg.from_numpy(first[:].reshape(6))
    array = numbers(6)  # memory that is NumPy's, and seen past it
    return mg.from_numpy(array), mg.from_numpy(np.frombuffer(memoryview(array), np.float32))


@pytest.mark.parametrize("swapped", (False, True))
@pytest.mark.parametrize("kind", ("detached", "a buffer", "a view of a view", "past NumPy"))
def test_memory_of_a_parameter_as_an_input(kind, swapped):
    """It changes while the launches go on; a step sees it as it was when it was called."""
    weight, same = reversed(two_tensors_of_one_memory(kind)) if swapped else two_tensors_of_one_memory(kind)
    rate = mg.tensor(0.5)

    def step(x):
        weight.sub_(x * rate)
        return (x * x).sum()

    results = []
    for run in (lambda x: step(x.clone()), mg.capture(step)):
        weight.copy_(mg.tensor(numbers(6)))
        results.append([run(same).item() for _ in range(4)])
    assert results[0] == results[1]


def test_inputs_in_another_order():
    """Only an address is handed over: other strides take a copy."""
    step, x = mg.capture(lambda x: x * 2.0), numbers(3, 3)
    for array in (x, x.T, np.asfortranarray(x), x[::-1], np.broadcast_to(x[:1], (3, 3))):
        np.testing.assert_array_equal(step(mg.Tensor(array)).numpy(), array * 2)
    with contextlib.suppress(numba.core.errors.TypingError):  # no compiled kernel takes another byte order
        np.testing.assert_array_equal(step(mg.Tensor(x.astype(">f4"))).numpy(), x * 2)


def test_inputs_without_elements_and_of_any_type():
    step = mg.capture(lambda x, n, flags: (x * 2.0, n + 1, mg.where(flags, n, n * 0)))
    for k in range(3):
        x, n, flags = mg.zeros(0, 4), mg.tensor([k, k + 1]), mg.tensor([bool(k % 2), True])
        doubled, more, chosen = step(x, n, flags)
        assert doubled.shape == (0, 4) and more.tolist() == [k + 1, k + 2]
        assert chosen.tolist() == [k if k % 2 else 0, k + 1]


@in_machine_code
def test_a_kernel_that_is_no_machine_code_gets_copies(monkeypatch):
    """Then the launches are repeated one by one, with memory of the recording's own."""
    monkeypatch.setattr(get_device("cpu"), "relocatable", lambda launches, pieces: None, raising=False)
    step = mg.capture(lambda x: x * 2.0)
    assert [step(mg.full((2,), float(k))).tolist() for k in range(3)] == [[2.0 * k] * 2 for k in range(3)]
    assert in_place(step) == [False]
