"""The tape and the walk back: graphs of every form, memory, higher orders."""

import gc
import weakref

import numpy as np
import pytest
from numba import config

import minigrad as mg
from minigrad import ops
from minigrad.function import Function, apply_multiple

LONG = 2_000 if config.DISABLE_JIT else 100_000


def leaf(*numbers, dtype="float64"):
    return mg.tensor(list(numbers), dtype, requires_grad=True)


def values(x):
    return x.numpy().tolist()


# -- graphs ------------------------------------------------------------------------------------------------------


def test_diamond():
    """A node that is used twice gets the sum, once, before it hands anything on."""
    x = leaf(3.0)
    y = x * 2.0
    ((y + 1.0) * (y * y)).sum().backward()  # (2x + 1) 4x^2
    assert values(x.grad) == [24 * 9 + 8 * 3]


def test_deep_diamonds_take_linear_time():
    """Thirty diamonds in a row have 2**30 paths."""
    x = leaf(1.0)
    y = x
    for _ in range(30):
        y = y * 0.5 + y * 0.5
    y.sum().backward()
    assert values(x.grad) == [1.0]


def test_a_times_a():
    x = leaf(3.0, -2.0)
    (x * x).sum().backward()
    assert values(x.grad) == [6.0, -4.0]


def test_x_plus_x():
    """Both operands of an add are handed the same array; it must not be added into."""
    x = leaf(3.0)
    (x + x).sum().backward()
    assert values(x.grad) == [2.0]


def test_uneven_paths():
    """A node waits for its longest path."""
    x = leaf(2.0)
    y = x * 3.0
    z = y
    for _ in range(5):
        z = z * 1.0
    (z + y + y).sum().backward()
    assert values(x.grad) == [9.0]


def test_siblings_are_not_corrupted():
    """The first gradient that arrives is borrowed: later ones go into an array of their own."""
    a, b = leaf(1.0), leaf(1.0)
    s = a + b  # both parents get one and the same array
    (s + a * 10.0 + a * 100.0).sum().backward()
    assert values(a.grad) == [111.0] and values(b.grad) == [1.0]
    a, b = leaf(1.0), leaf(1.0)
    (a + b).sum().backward()
    assert a.grad.data is not b.grad.data
    with mg.no_grad():
        a.grad.mul_(7.0)
    assert values(b.grad) == [1.0]


def test_siblings_with_create_graph():
    """The same holds if the gradients are recorded."""
    a, b = leaf(1.0), leaf(1.0)
    (a + b).sum().backward(create_graph=True)
    assert a.grad.data is not b.grad.data


def test_the_given_gradient_is_left_alone():
    x, seed = leaf(1.0, 2.0), mg.tensor([1.0, 10.0], "float64")
    y = x + 0.0
    y.backward(seed, retain_graph=True)
    y.backward(seed)
    assert values(seed) == [1.0, 10.0] and values(x.grad) == [2.0, 20.0]
    z = leaf(1.0, 2.0)
    z.backward(seed)
    z.backward(seed)
    assert values(seed) == [1.0, 10.0] and values(z.grad) == [2.0, 20.0]


def test_accumulation_over_passes():
    x = leaf(2.0)
    for _ in range(3):
        (x * x).sum().backward()
    assert values(x.grad) == [12.0]
    x.zero_grad()
    assert x.grad is None


def test_long_chain():
    """Forward, backward and freeing of a deep graph do not recurse."""
    x = leaf(1.0)
    y = x
    for _ in range(LONG):
        y = y + 0.0
    y.sum().backward()
    assert values(x.grad) == [1.0]
    y = x
    for _ in range(LONG):  # dropped without a backward
        y = y * 1.0
    del y


def test_long_chain_with_graph():
    x = leaf(1.0)
    y = x
    for _ in range(LONG // 10):
        y = y * 1.0
    (g,) = mg.grad(y.sum(), x, create_graph=True)
    assert values(g) == [1.0]
    del g, y


# -- memory ------------------------------------------------------------------------------------------------------


def alive(refs):
    """What is left of the watched."""
    return [
        type(ref()).__name__ if not isinstance(ref(), Function) else ref().name for ref in refs if ref() is not None
    ]


def conv_step():
    """The loss of a small net, a weak reference to each of its intermediates, and its leaves."""
    arrays = []

    def watch(t):
        arrays.append(weakref.ref(t))
        arrays.append(weakref.ref(t.data))
        arrays.append(weakref.ref(t.fn))
        return t

    x = mg.randn(2, 2, 6, 6)
    w, gamma, v = [mg.randn(*s, requires_grad=True) for s in [(3, 2, 3, 3), (3,), (4, 12)]]
    y = watch(ops.conv2d(x, w, padding=1))
    y = watch(ops.batch_norm(y, weight=gamma, bias=gamma * 1.0, training=True))
    y = watch(ops.max_pool2d(ops.gelu(y), 3))
    y = watch(ops.dropout(ops.softmax(y.flatten(1), 1), 0.5))
    y = watch(ops.layer_norm(ops.linear(y, v), 4))
    y = watch(ops.getitem(y, ([0, 1, 1],)))
    y = watch((ops.exp(y) / ops.sqrt(y * y + 1.0)).var(1))
    loss = watch(ops.cross_entropy(ops.stack([y, y], 1), mg.tensor([0, 1, 1])))
    return loss, arrays, (w, gamma, v)


@pytest.fixture
def no_gc():
    """Without the collector of cycles: what goes, goes by its reference count."""
    loss, _, leaves = conv_step()  # compiling makes cycles, so that comes first
    sum([(g * g).sum() for g in mg.grad(loss, leaves, create_graph=True)]).backward()
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_memory_goes_when_the_graph_is_dropped(no_gc):
    loss, refs, leaves = conv_step()
    assert len(alive(refs)) > len(refs) // 2
    del loss
    assert alive(refs) == []


def test_backward_frees_the_graph_on_the_way(no_gc):
    """Only the loss itself stays, although it is still referred to."""
    loss, refs, leaves = conv_step()
    loss.backward()
    assert len(alive(refs)) == 3  # the loss, its array, its emptied node
    del loss
    assert alive(refs) == []


def test_memory_goes_after_create_graph(no_gc):
    loss, refs, leaves = conv_step()
    found = mg.grad(loss, leaves, create_graph=True)
    sum([(g * g).sum() for g in found]).backward()
    del loss, found
    for x in leaves:
        x.grad = None
    assert alive(refs) == []


def test_inputs_without_gradient_cost_nothing():
    """Nothing is recorded, or kept, for tensors that require no grad."""
    x = mg.randn(3)
    y = ops.exp(x) * x
    assert y.fn is None and not y.requires_grad
    w = mg.randn(3, requires_grad=True)
    z = w * x
    assert z.fn.parents[1] is None


# -- retain_graph, create_graph, grad ----------------------------------------------------------------------------


def test_second_backward_is_an_error():
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="was freed by an earlier backward; pass retain_graph=True"):
        y.backward()
    assert values(x.grad) == [4.0]


def test_retain_graph():
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert values(x.grad) == [8.0]


def test_grad_frees_only_what_it_went_through():
    """Two heads on one trunk: the gradient of a head's weight leaves the trunk to the other head."""
    x, w = leaf(2.0), leaf(3.0)
    trunk = x * x
    first, second = (trunk * w).sum(), (trunk * 5.0).sum()
    (g,) = mg.grad(first, w)
    second.backward()
    assert values(g) == [4.0] and values(x.grad) == [20.0]


def test_higher_orders():
    x = leaf(2.0)
    y = x * x * x * x
    orders = []
    for _ in range(4):
        (y,) = mg.grad(y.sum(), x, create_graph=True)
        orders.append(values(y)[0])
    assert orders == [32.0, 48.0, 48.0, 24.0]


def test_backward_with_create_graph():
    x = leaf(3.0)
    (x * x * x).sum().backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.sum().backward()
    assert values(x.grad) == [18.0]


def test_gradients_carry_no_graph_without_create_graph():
    x = leaf(3.0)
    (g,) = mg.grad((x * x).sum(), x)
    assert g.fn is None and not g.requires_grad and x.grad is None


def test_grad_of_interior_and_several_outputs():
    x = leaf(2.0)
    y = x * 3.0
    z = y * y
    gy, gx = mg.grad(z.sum(), [y, x], retain_graph=True)
    assert values(gy) == [12.0] and values(gx) == [36.0]
    (gx,) = mg.grad([z.sum(), y.sum()], x, retain_graph=True)
    assert values(gx) == [39.0]
    (same,) = mg.grad(y, y)
    assert values(same) == [1.0]


def test_grad_with_weights():
    x = leaf(1.0, 2.0)
    (g,) = mg.grad([x * x, x], [x], [mg.tensor([1.0, 10.0], "float64"), mg.tensor([0.5, 0.5], "float64")])
    assert values(g) == [2.5, 40.5]


def test_grad_of_unused_inputs():
    x, other = leaf(1.0), leaf(1.0)
    y = (x * 2.0).sum()
    with pytest.raises(RuntimeError, match=r"input 1 of shape \(1,\) was not used.*allow_unused=True"):
        mg.grad(y, [x, other], retain_graph=True)
    assert mg.grad(y, [x, other], allow_unused=True)[1] is None


def test_backward_of_a_non_scalar():
    x = leaf(1.0, 2.0)
    with pytest.raises(
        RuntimeError, match=r"backward: expected a scalar or an explicit gradient, got a tensor of shape \(2,\)"
    ):
        (x * 2.0).backward()
    (x * 2.0).backward(mg.tensor([1.0, 10.0], "float64"))
    assert values(x.grad) == [2.0, 20.0]


class SinCos(Function):
    """Two outputs."""

    def forward(self, x):
        return np.sin(x), np.cos(x)

    def backward(self, grad_sin, grad_cos):
        (x,) = self.inputs
        s, c = apply_multiple(SinCos, x)
        total = 0.0
        if grad_sin is not None:
            total = total + grad_sin * c
        if grad_cos is not None:
            total = total - grad_cos * s
        return (total,)


def test_several_outputs():
    """A Function with two outputs gets one gradient for each, None for one that took no part."""
    x = leaf(0.3, 1.2)
    s, c = apply_multiple(SinCos, x)
    np.testing.assert_allclose(mg.grad(s.sum(), x, retain_graph=True)[0].numpy(), np.cos(x.numpy()))
    np.testing.assert_allclose(mg.grad(c.sum(), x, retain_graph=True)[0].numpy(), -np.sin(x.numpy()))
    (s * c).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(2 * x.numpy()))
    assert mg.testing.gradcheck(lambda x: apply_multiple(SinCos, x), leaf(0.3, 1.2))
    assert mg.testing.gradgradcheck(lambda x: apply_multiple(SinCos, x), leaf(0.3, 1.2))


def test_several_outputs_passed_straight_through():
    """What an output's gradient was is borrowed as well."""

    class Both(Function):
        saves_inputs = False

        def forward(self, x):
            return x + 0.0, x + 0.0

        def backward(self, first, second):
            return (first if second is None else first + second,)

    x, seed = leaf(1.0), mg.tensor([5.0], "float64")
    a, _ = apply_multiple(Both, x)
    a.backward(seed)
    assert x.grad.data is not seed.data


def test_wrong_shape_from_a_function_is_an_error():
    class Wrong(Function):
        def forward(self, x):
            return x * 1.0

        def backward(self, grad):
            return (ops.stack([grad, grad], 1),)

    x = leaf(1.0, 2.0, 3.0)
    with pytest.raises((RuntimeError, ValueError), match=r"\(3,\).*\(3, 2\)|\(3, 2\).*\(3,\)"):
        Wrong.apply(x).sum().backward()
