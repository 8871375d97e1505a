"""Record and replay: a captured step gives the bits of the uncaptured one, and says so where it cannot."""

import functools
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad import functional as F
from minigrad import layers as nn
from minigrad import optim
from minigrad.function import Function
from minigrad.optim import lr_scheduler
from minigrad.recording.memory import ALIGNMENT, Life, plan
from minigrad.recording.recorder import CaptureError


def mlp():
    return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Dropout(0.3), nn.Linear(8, 4))


def cnn():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(16, 4))


def batches(shape=(12,), sizes=(6,) * 5, seed=5):
    rng = np.random.default_rng(seed)
    return [(mg.from_numpy(rng.standard_normal((n, *shape), dtype=np.float32)), mg.tensor(rng.integers(0, 4, n)))
            for n in sizes]


class Training:
    """A model, its optimizer and a step, always from the same seed."""

    def __init__(self, make_model=mlp, make_optimizer=lambda p: optim.SGD(p, lr=0.1, momentum=0.9), captured=False,
                 inside=lambda t: None):
        mg.manual_seed(3)
        self.model = make_model()
        self.optimizer = make_optimizer(self.model.parameters())
        self.calls = 0

        def step(x, y):
            self.calls += 1
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            inside(self)
            self.optimizer.step()
            return loss

        self.step = mg.capture(step) if captured else step

    def state(self):
        """Everything that training changes, as arrays."""
        arrays = [*self.model.state_dict().values(), *[p.grad for p in self.model.parameters()]]
        for state in self.optimizer.state_dict()["state"].values():
            arrays += [value for value in state.values() if value is not None]
        return [np.asarray(a) for a in arrays] + [mg.random.default_generator.get_state()]


def same_bits(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.view(np.uint8) if a.shape else a, b.view(np.uint8) if b.shape else b)


def both(between=lambda t, i: None, data=None, **settings):
    """Train with and without capture; returns the captured training, after comparing every bit."""
    data = data or batches()
    results = []
    for captured in (False, True):
        training = Training(captured=captured, **settings)
        losses = []
        for i, (x, y) in enumerate(data):
            losses.append(training.step(x, y))
            between(training, i)
        results.append([np.array([loss.item() for loss in losses]), *training.state()])
    same_bits(results[1], results[0])
    return training


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD with dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "SGD, Nesterov, maximize": lambda p: optim.SGD(p, lr=0.01, momentum=0.8, nesterov=True, maximize=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW with AMSGrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.1, centered=True),
    "two groups": lambda p: optim.SGD([{"params": (q := list(p))[:2], "lr": 0.2}, {"params": q[2:]}], lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    training = both(make_optimizer=OPTIMIZERS[name])
    assert training.calls == (2 if "dampening" in name else 1)  # its first step is not like the others


def test_convolution_and_cumulative_batch_norm():
    training = both(make_model=cnn, data=batches((1, 4, 4)))
    assert training.calls == 1 and training.model[1].num_batches_tracked.item() == 5


SCHEDULES = {
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=12),  # moves the momentum too
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.LambdaLR(o, lambda i: 0.9**i)], [2]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_outside_the_step(name):
    schedules = {}

    def between(training, i):
        if training not in schedules:
            schedules[training] = SCHEDULES[name](training.optimizer)
        schedules[training].step()

    assert both(between).calls == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_inside_the_step(name):
    schedules = {}

    def inside(training):
        if training not in schedules:
            schedules[training] = SCHEDULES[name](training.optimizer)
        schedules[training].step()

    training = both(inside=inside)
    assert training.calls == 1 and schedules[training].last_epoch == 5


def test_rates_set_by_hand_between_steps():
    def between(training, i):
        training.optimizer.param_groups[0]["lr"] = 0.1 / (i + 2)
        training.optimizer.param_groups[0]["weight_decay"] = 0.1 * i

    assert both(between).calls == 1


def test_clipping_inside_the_step():
    training = both(inside=lambda t: optim.clip_grad_norm_(t.model.parameters(), 0.5, error_if_nonfinite=True))
    assert training.calls == 1
    x, y = batches()[0]
    with pytest.raises(RuntimeError, match="expected a finite norm of the gradients, got nan"):
        training.step(x * float("nan"), y)


def test_a_replay_runs_no_op(monkeypatch):
    training = Training(captured=True)
    (first, second), *_ = batches()
    training.step(first, second)
    applied = []
    for name in [name for name in vars(Function) if name.startswith("apply")]:
        monkeypatch.setattr(Function, name, classmethod(lambda cls, *a, **k: applied.append(cls)))
    training.step(first, second)
    assert applied == []


def test_other_shapes_are_recorded_anew():
    training = both(data=batches(sizes=(6, 6, 3, 6, 3)))
    assert training.calls == 2 and len(training.step.recordings) == 2


def test_too_many_shapes_warn_and_run():
    training = Training(captured=True)
    training.step.most_recordings = 2
    data = batches(sizes=(6, 5, 4, 3, 6))
    for x, y in data[:2]:
        training.step(x, y)
    with pytest.warns(RuntimeWarning, match="2 recordings of step exist and none fits this call"):
        training.step(*data[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        training.step(*data[3])
    assert training.calls == 4 and len(training.step.recordings) == 2
    training.step(*data[4])
    assert training.calls == 4
    training.step.reset()
    training.step(*data[2])
    assert training.calls == 5 and len(training.step.recordings) == 1


def toggle_training(training, i):
    training.model.train(i % 2 == 1)


def change_dropout(training, i):
    training.model[3].p = 0.5 if i == 2 else 0.3


def change_momentum_of_batch_norm(training, i):
    training.model[1].momentum = 0.2 if i == 1 else 0.1


def freeze(training, i):
    training.model[0].requires_grad_(i == 2)


def replace_a_layer(training, i):
    if i == 1:
        training.model[2] = nn.Tanh()


def new_weights(training, i):
    if i == 1:
        training.model.load_state_dict({k: v * 0.5 if v.dtype == "float32" else v
                                        for k, v in training.model.state_dict().items()})


def state_of_an_earlier_step(training, i):
    if i == 0:
        training.saved = {k: {n: v if v is None else np.array(v) for n, v in s.items()}
                          for k, s in training.optimizer.state_dict()["state"].items()}
    if i == 2:
        training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": training.saved})


def seed_again(training, i):
    mg.manual_seed(i // 2)


def other_memory(training, i):
    if i == 1:
        training.model[4].bias.data = training.model[4].bias.data * np.float32(2)


def no_gradients(training, i):
    training.model.zero_grad()
    for p in training.model.parameters():
        p.grad = None


@pytest.mark.parametrize("change", [
    toggle_training, change_dropout, change_momentum_of_batch_norm, freeze, replace_a_layer, new_weights,
    state_of_an_earlier_step, seed_again, other_memory,
])
def test_changes_between_steps(change):
    both(change)


def test_gradients_cleared_between_steps():
    training = Training(captured=True)
    for i, (x, y) in enumerate(batches()):
        training.step(x, y)
        assert all(p.grad is not None for p in training.model.parameters())
        no_gradients(training, i)
    assert training.calls == 1


@pytest.mark.parametrize("clear", ["to none", "to zero", "by hand", "outside", "never"])
def test_accumulating_gradients(clear):
    """``.grad`` is cleared in one of several ways, or grows."""
    results = []
    for captured in (False, True):
        mg.manual_seed(0)
        model = nn.Linear(12, 4)
        calls = []

        def step(x, y, model=model, calls=calls):
            calls.append(1)
            if clear == "by hand":
                for p in model.parameters():
                    p.grad = None
            elif clear.startswith("to "):
                model.zero_grad(set_to_none=clear == "to none")
            F.cross_entropy(model(x), y).backward()
            F.cross_entropy(model(x * 2.0), y).backward()

        run = mg.capture(step) if captured else step
        grads = []
        for i, (x, y) in enumerate(batches(sizes=(6,) * 7)):
            run(x, y)
            grads += [p.grad.numpy().copy() for p in model.parameters()]
            if clear == "outside" and i % 3 == 2:
                model.zero_grad()
        results.append(grads)
    same_bits(results[1], results[0])
    assert len(calls) <= {"to none": 1, "to zero": 2, "by hand": 2, "outside": 2, "never": 2}[clear]


READS = {
    "item": lambda t: t.item(), "numpy": lambda t: t.numpy(), "float": float, "bool": bool, "print": repr,
    "comparison": lambda t: 1 if t > 0.0 else 0, "tolist": lambda t: t.tolist(), "asarray": np.asarray,
}


@pytest.mark.parametrize("read", READS)
def test_reading_a_value_is_an_error_that_says_so(read):
    x = mg.tensor([2.0])
    step = mg.capture(lambda x: READS[read]((x * x).sum()))
    with pytest.raises(CaptureError, match="capture: the step reads a value while it is being recorded"):
        step(x)
    assert step.recordings == [] and (x * 3.0).item() == 6.0  # the seam is as before


def test_an_error_in_the_step_leaves_nothing_behind():
    step = mg.capture(lambda x, w: x @ w)
    x = mg.ones(2, 3)
    with pytest.raises(ValueError, match="matmul: expected the last extent"):
        step(x, mg.ones(2, 3))
    assert step.recordings == [] and step(x, mg.ones(3, 1)).tolist() == [[3.0], [3.0]]
    assert step(x * 2.0, mg.ones(3, 1)).tolist() == [[6.0], [6.0]]


def test_bad_labels_are_found_in_a_replay():
    training = Training(captured=True)
    (x, y), *_ = batches()
    training.step(x, y)
    with pytest.raises(ValueError, match="cross_entropy: expected class indices from 0 to 3, got 7"):
        training.step(x, mg.tensor([0, 1, 2, 7, 0, 1]))
    lookup = mg.capture(lambda i, w: F.embedding(i, w))
    weight = mg.ones(3, 2)
    lookup(mg.tensor([0, 1]), weight)
    with pytest.raises(IndexError, match="embedding: expected indices from 0 to 2, got -1"):
        lookup(mg.tensor([0, -1]), weight)


def test_inputs_that_cannot_be_recorded():
    step = mg.capture(lambda x: x * 2.0)
    with pytest.raises(CaptureError, match="got a NumPy array, which would keep its first value"):
        step(np.ones(3))
    with pytest.raises(CaptureError, match=r"got one of shape \(3,\) that requires grad"):
        step(mg.ones(3, requires_grad=True))
    with pytest.raises(TypeError, match="capture: expected a function, got int"):
        mg.capture(3)


def test_inputs_changed_in_place():
    """While it is recorded the step gets copies: what it did to them would be lost."""
    step = mg.capture(lambda x: x.add_(1.0).sum())
    expected = r"changes an input of shape \(3,\) in place, and what it gets is sometimes a copy"
    with pytest.raises(CaptureError, match=expected):
        step(mg.ones(3))
    assert step.recordings == []
    state = mg.ones(3)
    step = mg.capture(lambda x: state.add_(x).sum())
    assert [step(mg.ones(3)).item() for _ in range(3)] == [6.0, 9.0, 12.0]


def test_structures_and_other_arguments():
    """Tensors come and go in containers; other arguments are part of what a recording is for."""
    calls = []

    @mg.capture
    def step(pair, scale=1.0, *, names):
        calls.append(1)
        return {"sum": pair[0] + pair[1]["b"], "rest": [pair[0] * scale, names, None]}

    for k in (1.0, 2.0):
        for scale in (1.0, 3.0):
            found = step((mg.tensor([k]), {"b": mg.tensor([10.0])}), scale, names="x")
            assert found["sum"].item() == k + 10 and found["rest"][0].item() == k * scale
            assert found["rest"][1:] == ["x", None]
    assert len(calls) == 2 and step.__name__ == "step"
    assert repr(step) == "<capture of step: 2 recording(s)>"


def test_a_function_without_a_name():
    step = mg.capture(functools.partial(lambda factor, x: x * factor, 2.0), most_recordings=1)
    assert step(mg.ones(2)).tolist() == [2.0, 2.0] and "partial" in repr(step)
    with pytest.warns(RuntimeWarning, match="1 recordings of functools.partial"):
        step(mg.ones(3))


def test_methods():
    class Scale:
        def __init__(self, factor):
            self.factor = factor

        @mg.capture
        def __call__(self, x):
            return x * self.factor

    two, three = Scale(2.0), Scale(3.0)
    for k in (1.0, 5.0):
        assert two(mg.tensor([k])).item() == 2 * k and three(mg.tensor([k])).item() == 3 * k
    assert len(Scale.__call__.recordings) == 2


def test_results_are_new_tensors_without_a_graph():
    model = nn.Linear(3, 2)
    step = mg.capture(lambda x: model(x))
    first, second, third = (step(mg.full((1, 3), k)) for k in (1.0, 2.0, 3.0))
    for k, found in ((1.0, first), (2.0, second), (3.0, third)):
        np.testing.assert_array_equal(found.numpy(), model(mg.full((1, 3), k)).numpy())
        assert found.fn is None and not found.requires_grad


def test_modes_are_part_of_the_key():
    model = nn.Linear(3, 2)
    step = mg.capture(lambda x: model(x).sum().backward() if mg.is_grad_enabled() else model(x))
    x = mg.ones(1, 3)
    for _ in range(2):
        model.zero_grad()
        assert step(x) is None and model.bias.grad.tolist() == [1.0, 1.0]
        with mg.no_grad():
            assert step(x).shape == (1, 2)
    x = x * float("nan")
    with mg.detect_anomaly(), pytest.raises(FloatingPointError, match="anomaly: the forward of linear"):
        step(x)


def test_a_captured_step_inside_another_is_recorded_with_it():
    inner = mg.capture(lambda x: x * 2.0)
    outer = mg.capture(lambda x: inner(x) + 1.0)
    assert [outer(mg.tensor([k])).item() for k in (1.0, 2.0)] == [3.0, 5.0]
    assert inner.recordings == [] and outer.recordings[0].launches[:2] == ["mul", "add"]


def test_other_threads_are_not_recorded():
    """A tensor that another thread computes meanwhile is none of the step's."""
    started, done = threading.Event(), threading.Event()
    found = []

    def compute():
        started.wait(10)
        found.append((mg.ones(5) * 3.0).sum().item())
        done.set()

    def step(x):
        started.set()
        done.wait(10)
        return x + 1.0

    thread = threading.Thread(target=compute)
    thread.start()
    captured = mg.capture(step)
    captured(mg.ones(2))
    thread.join()
    assert found == [15.0] and captured.recordings[0].launches == ["add"]


def test_replays_in_several_threads():
    model = nn.Linear(4, 3)
    with mg.no_grad():
        step = mg.capture(lambda x: model(x))
        step(mg.ones(2, 4))
    wrong = []

    def work(k):
        with mg.no_grad():
            for _ in range(50):
                x = mg.full((2, 4), float(k))
                if not np.array_equal(step(x).numpy(), model(x).numpy()):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_changes_in_place_are_still_noticed():
    """A graph made before a replay has saved the weights that the replay changes."""
    training = Training(captured=True)
    (x, y), *_ = batches()
    training.step(x, y)
    hidden = training.model[4](mg.ones(1, 8, requires_grad=True))
    training.step(x, y)
    with pytest.raises(RuntimeError, match="was changed in place"):
        hidden.sum().backward()


def test_buffers_share_memory():
    training = Training(make_model=cnn, captured=True)
    training.step(*batches((1, 4, 4))[0])
    recording = training.step.recordings[0]
    assert 0 < recording.shared_bytes < 0.7 * recording.separate_bytes


lives = st.lists(st.builds(lambda size, first, more: Life(size, first, first + more), st.integers(0, 5000),
                           st.integers(0, 20), st.integers(0, 8)), max_size=30)


@given(lives)
def test_plan(lives):
    """No two buffers that are in use at once overlap, all are aligned and inside, and no byte is needed twice."""
    offsets, size = plan(lives)
    for i, (a, start) in enumerate(zip(lives, offsets, strict=True)):
        assert start % ALIGNMENT == 0 and 0 <= start and start + a.size <= size
        for b, other in list(zip(lives, offsets, strict=True))[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert start + a.size <= other or other + b.size <= start
    padded = [-(-life.size // ALIGNMENT) * ALIGNMENT for life in lives]
    assert size <= sum(padded)
    at_once = [sum(p for p, life in zip(padded, lives, strict=True) if life.first <= t <= life.last) for t in range(30)]
    assert size >= max(at_once, default=0)
