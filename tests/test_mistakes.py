"""What users of PyTorch do by habit: it works, or it fails in a sentence; it never silently does something else."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn


@pytest.mark.parametrize("make", [lambda p: mg.optim.SGD(p, lr=0.1), lambda p: mg.optim.Adam(p, lr=0.1)])
@pytest.mark.parametrize("grad", [mg.ones(1), mg.ones(4), mg.ones(3, dtype="float64"), np.ones(3, np.float32)])
def test_optimizer_refuses_a_gradient_that_does_not_fit(make, grad):
    p = mg.zeros(3, requires_grad=True)
    p.grad = grad
    with pytest.raises(ValueError, match=r"expected a gradient of shape \(3,\) and dtype float32, got"):
        make([p]).step()
    assert p.tolist() == [0.0, 0.0, 0.0]


def test_masked_assignment_of_one_value_per_place():
    x = mg.arange(6).float().reshape(2, 3)
    mask = mg.tensor([[True, True, False], [True, False, False]])
    x[mask] = mg.tensor([7.0, 8.0, 9.0])
    assert x.tolist() == [[7, 8, 2], [9, 4, 5]]
    x[mask] = x[mask] * 2
    x[~mask] = 0
    assert x.tolist() == [[14, 16, 0], [18, 0, 0]]
    with pytest.raises(ValueError, match=r"setitem: expected a number or values of shape \(3,\), got \(2,\)"):
        x[mask] = mg.ones(2)


def test_augmented_assignment_writes_in_place_where_nothing_is_recorded():
    layer = nn.Linear(2, 2)
    (layer(mg.ones(4, 2)) * 3.0).sum().backward()
    before = layer.weight.numpy().copy()
    with mg.no_grad():
        for p in layer.parameters():
            p -= 0.1 * p.grad
    np.testing.assert_allclose(layer.weight.numpy(), before - 0.1 * layer.weight.grad.numpy(), rtol=1e-6)
    x = y = mg.ones(2)
    y += 1.0
    y *= 3.0
    y /= 2.0
    y -= 1.0
    assert x is y and x.tolist() == [2.0, 2.0]


def test_augmented_assignment_is_recorded_where_a_gradient_is_wanted():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    total = mg.zeros(2)
    total += x
    out = total * 2.0
    out += x
    out.sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    with pytest.raises(RuntimeError, match="add_: changing a tensor that requires grad in place"):
        x += 1.0
    counts = mg.tensor([1, 2])
    with pytest.raises(TypeError, match="add_: expected a result of dtype int64"):
        counts += 1.5


def custom(answer):
    class Custom(mg.Function):
        def forward(self, x):
            return x * 2

        def backward(self, grad):
            return answer(grad)

    return Custom


def test_backward_may_return_one_tensor():
    x = mg.ones(5, requires_grad=True)
    custom(lambda grad: grad * 2.0).apply(x).sum().backward()
    assert x.grad.tolist() == [2.0] * 5


@pytest.mark.parametrize("answer, message", [
    (lambda grad: None, "got NoneType"),
    (lambda grad: (), "got 0"),
    (lambda grad: (grad, grad), "got 2"),
    (lambda grad: (grad.numpy(),), "a Tensor or None, got ndarray"),
    (lambda grad: (grad.double(),), "of dtype float32 like that input, got float64"),
])
def test_backward_that_answers_wrongly_is_named(answer, message):
    x = mg.ones(5, requires_grad=True)
    with pytest.raises((TypeError, ValueError), match=f"expected custom.backward to return 1 gradient.*{message}"):
        custom(answer).apply(x).sum().backward()


def test_a_buffer_does_not_replace_a_parameter():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear: the name 'weight' is taken by another attribute"):
        layer.register_buffer("weight", mg.ones(1))
    layer.register_buffer("scale", mg.ones(1))
    layer.register_buffer("scale", mg.ones(2))
    assert layer.scale.shape == (2,)


def test_a_loader_wants_a_data_set():
    with pytest.raises(TypeError, match=r"DataLoader: expected a data set, got a Tensor; put it into a tuple"):
        mg.data.DataLoader(mg.ones(4, 2), batch_size=2)


def test_ops_are_functions_of_the_package():
    assert mg.cat([mg.ones(2), mg.zeros(1)]).tolist() == [1.0, 1.0, 0.0]
    assert mg.where(mg.tensor([True, False]), 1.0, 2.0).tolist() == [1.0, 2.0]
    assert "stack" in dir(mg)
    with pytest.raises(AttributeError, match="has no attribute 'concatenate_all'"):
        mg.concatenate_all  # noqa: B018


def test_a_gradient_of_the_wrong_shape_names_the_op():
    class Total(mg.Function):
        """sum, with a gradient of the wrong shape"""

        def forward(self, x):
            return x + 0

        def backward(self, grad):
            return (grad.sum(),)

    with pytest.raises(RuntimeError, match=r"expected total.backward to return a gradient of shape \(2,\)"):
        Total.apply(mg.ones(2, requires_grad=True)).backward(mg.ones(2))
