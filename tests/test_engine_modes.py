"""What surrounds the tape: hooks, modes, threads, changes in place, anomalies, requires_grad."""

import dataclasses
import threading

import numpy as np
import pytest
from numba import config

import minigrad as mg
from minigrad import modes, ops


def leaf(*numbers, dtype="float64"):
    return mg.tensor(list(numbers), dtype, requires_grad=True)


def values(x):
    return x.numpy().tolist()


# -- hooks -------------------------------------------------------------------------------------------------------


def test_hook_on_a_leaf():
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(values(g)))
    (x * 3.0 + x).sum().backward()
    assert seen == [[4.0, 4.0]] and values(x.grad) == [4.0, 4.0]


def test_hook_replaces_and_order_counts():
    x = leaf(1.0)
    y = x * 2.0
    order = []
    y.register_hook(lambda g: (order.append("first"), g * 10.0)[1])
    y.register_hook(lambda g: (order.append("second"), g + 1.0)[1])
    y.sum().backward()
    assert order == ["first", "second"] and values(x.grad) == [22.0]


def test_hook_can_be_removed():
    x, seen = leaf(1.0), []
    handle = x.register_hook(lambda g: seen.append(1))
    (x * 2.0).sum().backward()
    handle.remove()
    handle.remove()
    (x * 2.0).sum().backward()
    with x.register_hook(lambda g: seen.append(2)):
        (x * 2.0).sum().backward()
    (x * 2.0).sum().backward()
    assert seen == [1, 2]


def test_hook_runs_once_the_gradient_is_complete():
    x, seen = leaf(1.0), []
    y = x * 1.0
    y.register_hook(lambda g: seen.append(values(g)[0]))
    (y + y * 2.0 + y * y).sum().backward()
    assert seen == [5.0]


def test_hook_with_grad():
    x = leaf(1.0)
    y = x * 2.0
    y.register_hook(lambda g: g * 3.0)
    gy, gx = mg.grad(y.sum(), [y, x])
    assert values(gy) == [3.0] and values(gx) == [6.0]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda g: 1.0, "hook: expected a Tensor or None to be returned, got float"),
        (lambda g: g.sum(), r"hook: expected a gradient of shape \(2,\) and dtype float64, got \(\) and float64"),
        (lambda g: g.float(), r"hook: expected a gradient of shape \(2,\) and dtype float64, got \(2,\) and float32"),
    ],
)
def test_hook_returns_nonsense(wrong, message):
    x = leaf(1.0, 2.0)
    x.register_hook(wrong)
    with pytest.raises((TypeError, ValueError), match=message):
        (x * 2.0).sum().backward()


def test_hook_needs_requires_grad():
    with pytest.raises(RuntimeError, match="register_hook: the tensor does not require grad"):
        mg.zeros(1).register_hook(print)


# -- modes -------------------------------------------------------------------------------------------------------


def test_modes_nest():
    assert mg.is_grad_enabled()
    with mg.no_grad():
        assert not mg.is_grad_enabled()
        with mg.enable_grad():
            assert mg.is_grad_enabled() and (leaf(1.0) * 2.0).requires_grad
            with mg.no_grad():
                assert not (leaf(1.0) * 2.0).requires_grad
        assert not mg.is_grad_enabled()
    assert mg.is_grad_enabled()


def test_modes_as_decorators():
    @mg.no_grad()
    def off(n):
        return mg.is_grad_enabled() or (n > 0 and off(n - 1))

    @mg.enable_grad()
    def on():
        return mg.is_grad_enabled()

    assert not off(3) and mg.is_grad_enabled()
    with mg.no_grad():
        assert on() and not mg.is_grad_enabled()


def test_modes_by_a_value():
    @mg.set_grad_enabled(False)
    def off(n):
        return mg.is_grad_enabled() or (n > 0 and off(n - 1))

    with mg.set_grad_enabled(False), mg.set_grad_enabled(True):
        assert (leaf(1.0) * 2.0).requires_grad and not off(3) and mg.is_grad_enabled()
    assert mg.is_grad_enabled()
    mg.set_grad_enabled(False)  # a statement holds until the next one
    assert not mg.is_grad_enabled() and not (leaf(1.0) * 2.0).requires_grad
    mg.set_grad_enabled(True)
    assert mg.is_grad_enabled()
    switch = mg.set_grad_enabled(False)
    for _ in range(2):
        with switch:
            assert not mg.is_grad_enabled()
        assert mg.is_grad_enabled()


def test_mode_is_restored_after_an_exception():
    with pytest.raises(ZeroDivisionError), mg.no_grad():
        raise ZeroDivisionError
    assert mg.is_grad_enabled()
    x = leaf(1.0)
    x.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        x.sum().backward()
    assert mg.is_grad_enabled()


def test_one_switch_entered_twice():
    switch = mg.no_grad()
    with switch, switch:
        assert not mg.is_grad_enabled()
    assert mg.is_grad_enabled()


def test_mode_belongs_to_its_thread():
    found = []
    with mg.no_grad():
        thread = threading.Thread(target=lambda: found.append(mg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert found == [True]


def test_threads_train_separate_nets():
    """Four threads at once, with kernels that run in parallel, give what one thread gives."""

    def train(seed, out):
        generator = mg.Generator(seed)
        x = (
            mg.randn(64, 3, 16, 16, generator=generator)
            if not config.DISABLE_JIT
            else mg.randn(2, 3, 6, 6, generator=generator)
        )
        w = mg.randn(8, 3, 3, 3, generator=generator, requires_grad=True)
        for _ in range(5):
            y = ops.relu(ops.batch_norm(ops.conv2d(x, w, padding=1), training=True))
            loss = (ops.exp(y * -0.5) * y).mean()
            (g,) = mg.grad(loss, w)
            with mg.no_grad():
                w.sub_(g * 0.1)
        out[seed] = w.numpy().copy()

    alone, together = {}, {}
    for seed in range(4):
        train(seed, alone)
    threads = [threading.Thread(target=train, args=(seed, together)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_array_equal(alone[seed], together[seed])


# -- changes in place --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.mul_(2.0),
        lambda w: w.fill_(0.0),
        lambda w: w.__setitem__(0, 5.0),
        lambda w: w.detach().zero_(),
        lambda w: w.reshape(1, -1).add_(1.0),
    ],
)
def test_change_of_a_saved_input(change):
    w = leaf(1.0, 2.0)
    y = (w * w).sum()
    with mg.no_grad():
        change(w)
    with pytest.raises(RuntimeError, match="a tensor that mul saved for its gradient was changed in place"):
        y.backward()


def test_change_of_a_saved_output():
    x = leaf(1.0, 2.0)
    y = ops.exp(x)
    with mg.no_grad():
        y.mul_(2.0)
    with pytest.raises(RuntimeError, match="exp saved for its gradient was changed in place"):
        y.sum().backward()


def test_change_of_something_unsaved():
    x = leaf(1.0, 2.0)
    y = x * 2.0 + x  # add saves nothing
    with mg.no_grad():
        y.mul_(3.0)
    y.sum().backward()
    assert values(x.grad) == [3.0, 3.0]


def test_change_after_backward():
    w = leaf(1.0)
    for _ in range(3):
        (w * w).sum().backward()
        with mg.no_grad():
            w.sub_(w.grad * 0.1)
        w.grad = None
    assert values(w) == pytest.approx([0.512])


def test_running_statistics_are_changed_in_place():
    """The buffers of a training forward are not saved for its gradient."""
    x = mg.randn(4, 2, requires_grad=True)
    mean, var = mg.zeros(2), mg.ones(2)
    y = ops.batch_norm(x, mean, var, training=True)
    ops.batch_norm(x, mean, var, training=True)
    y.sum().backward()
    batch = x.numpy().astype("float64")
    np.testing.assert_allclose(mean.numpy(), 0.19 * batch.mean(0), atol=1e-6)
    np.testing.assert_allclose(var.numpy(), 0.81 + 0.19 * batch.var(0, ddof=1), rtol=1e-5)


def test_in_place_on_a_tensor_that_requires_grad():
    x = leaf(1.0)
    for change in (
        lambda: x.add_(1.0),
        lambda: x.__setitem__(0, 1.0),
        lambda: x.copy_(x.detach()),
        lambda: (x * 2.0).zero_(),
    ):
        with pytest.raises(RuntimeError, match="requires grad in place would not be recorded"):
            change()


# -- anomalies ---------------------------------------------------------------------------------------------------


def test_anomaly_in_forward_names_the_op():
    x = leaf(-1.0)
    with (
        mg.detect_anomaly(),
        pytest.raises(FloatingPointError, match=r"the forward of log produced NaN \(result of shape \(1,\)\)"),
    ):
        ops.log(ops.abs(x) * -1.0)


def test_anomaly_in_backward_names_the_op():
    x = leaf(0.0)
    with mg.detect_anomaly(), np.errstate(all="ignore"):  # NumPy warns where no kernel is compiled
        y = ops.sqrt(x) * 0.0  # 0 / (2 sqrt 0)
        with pytest.raises(FloatingPointError, match="the backward of sqrt produced NaN"):
            y.sum().backward()


def test_nan_in_data_is_named_where_it_enters():
    x = mg.tensor([1.0, float("nan")])
    with mg.detect_anomaly(), pytest.raises(FloatingPointError, match="the forward of relu"):
        ops.relu(x)
    assert np.isnan(ops.relu(x).numpy()[1])


# -- requires_grad -----------------------------------------------------------------------------------------------


def test_results_that_have_no_gradient():
    """Integer and bool results never require grad, whatever they come from."""
    x = leaf(1.0, -2.0)
    for y in (x.long(), x.bool(), x > 0.0, x.argmax(), x.any(), ops.logical_not(x)):
        assert not y.requires_grad and y.fn is None


def test_requires_grad_():
    x = mg.zeros(2).requires_grad_()
    assert x.requires_grad and x.is_leaf and not x.requires_grad_(False).requires_grad
    with pytest.raises(TypeError, match="only float tensors have gradients, this one is int64"):
        mg.tensor([1]).requires_grad_()
    with pytest.raises(RuntimeError, match="only a leaf"):
        (leaf(1.0) * 2.0).requires_grad_(False)
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        mg.zeros(()).backward()
    with pytest.raises(RuntimeError, match=r"grad: an input of shape \(2,\) does not require grad"):
        mg.grad(leaf(1.0), mg.zeros(2))


def test_detach():
    x = leaf(2.0)
    y = (x * 3.0).detach()
    assert not y.requires_grad and y.is_leaf and y.fn is None
    (x * y).sum().backward()
    assert values(x.grad) == [6.0]


def test_gradient_crosses_dtypes():
    """float64 and float32 mix to float64; each leaf gets a gradient of its own dtype."""
    a, b = mg.tensor([1.5], "float32", requires_grad=True), leaf(2.0)
    y = a * b
    y.sum().backward()
    assert y.dtype == "float64" and a.grad.dtype == "float32" and b.grad.dtype == "float64"


def test_switching_the_recording_changes_nothing_else():
    values = {field.name: object() for field in dataclasses.fields(modes.Mode)}
    switched = modes.Mode(**values).recording(False)
    assert {name: getattr(switched, name) for name in values} == {**values, "grad": False}
