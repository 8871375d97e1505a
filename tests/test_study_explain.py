"""minigrad.study.explain and numerical: what they say against gradients computed by hand and by NumPy."""

import io

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn
from minigrad import study
from minigrad.function import Function, apply_multiple


def explained(*arguments, **options):
    text = io.StringIO()
    explanation = study.explain(*arguments, file=text, **options)
    assert text.getvalue() == f"{explanation}\n"
    return explanation


def test_a_product_by_hand():
    w = mg.tensor([1.0, 2.0], requires_grad=True)
    explanation = explained((w * w).sum())
    total, product, leaf = explanation.steps
    assert [s.label for s in explanation.steps] == ["sum [2]", "mul [1]", "leaf [0]"]
    assert product.formula == "y = a b" and product.arrived[0].values == [1.0, 1.0]
    assert [(g.to, g.values) for g in product.handed] == [("leaf [0]", [1.0, 2.0])] * 2
    assert leaf.leaf and leaf.arrived[0].values == [2.0, 4.0] and leaf.arrived[0].norm == pytest.approx(20**0.5)
    assert repr(explanation) == "<Explanation of 3 steps>"
    assert "has   (2,)            norm 4.472     = [2, 4]" in str(explanation)


def test_the_graph_and_grad_are_left_alone():
    w = mg.tensor([1.0, 2.0], requires_grad=True)
    loss = (w * w).sum()
    explained(loss)
    assert w.grad is None
    loss.backward()
    assert w.grad.tolist() == [2.0, 4.0]


def test_a_model_against_backward():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with study.names(model):
        loss = F.cross_entropy(model(mg.randn(5, 4)), mg.tensor([0, 1, 2, 0, 1]))
    explanation = explained(loss, model)
    loss.backward()
    complete = {s.label.split()[0]: s.arrived[0] for s in explanation.steps if s.leaf}
    for name, p in model.named_parameters():
        assert complete[name].shape == p.shape
        assert complete[name].norm == pytest.approx(float(np.linalg.norm(p.grad.numpy())), rel=1e-6)
    assert "linear_batch_norm_act [5] of module 0-2" in str(explanation)
    assert str(explanation).startswith("backward from cross_entropy [10], shape (), started with 1")


def test_broadcast_zeros_and_infinities_are_pointed_out():
    b = mg.ones(1, 3, requires_grad=True)
    x = mg.tensor([[0.0, -1.0, -2.0], [0.0, -1.0, -3.0]], requires_grad=True)
    text = str(explained((x.relu() * 0.0 + b).sum()))
    assert "to leaf [3], summed to (1, 3), for it was broadcast" in text and "!! all zero" in text
    text = str(explained(mg.zeros(2, requires_grad=True).sqrt().sum()))
    assert "!! 2 of 2 not finite" in text
    wide = mg.tensor(np.arange(-10.0, 10.0), requires_grad=True)
    assert "(55% zero)" in str(explained(wide.relu().sum()))


def test_gradient_to_start_from():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    explanation = explained(x * 3.0, gradient=mg.tensor([1.0, 10.0]))
    assert explanation.steps[0].handed[0].values == [3.0, 30.0] and "norm 10.05" in explanation.head
    with pytest.raises(RuntimeError, match="expected a scalar or an explicit gradient"):
        explained(x * 3.0)


def test_several_outputs():
    class Both(Function):
        """x and 2 x"""

        def forward(self, x):
            return x + 0, x * 2

        def backward(self, a, b):
            return (b * 2.0 if a is None else a + b * 2.0,)

    x = mg.tensor([1.0], requires_grad=True)
    _, second = apply_multiple(Both, x)
    explanation = explained(second.sum())
    assert [s.label for s in explanation.steps] == ["sum [2]", "both [1]", "leaf [0]"]
    assert explanation.steps[0].handed[0].to == "both [1]"
    assert explanation.steps[1].arrived[0] is None and explanation.steps[1].arrived[1].values == [1.0]
    assert "gets  output 0 nothing" in str(explanation)


def test_long_walks_are_shortened():
    x = mg.ones(2, requires_grad=True)
    y = x
    for _ in range(1000):
        y = y * 1.0
    explanation = explained(y.sum(), most=6)
    text = str(explanation)
    assert len(explanation.steps) == 1002 and "... 996 steps more ..." in text
    assert [f"{n:>3}. " in text for n in (1, 4, 5, 1000, 1001, 1002)] == [True, True, False, False, True, True]
    assert "1000. " in str(explained(y.sum(), most=None))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: explained(mg.ones(2)), "has no graph"),
    (lambda: explained([mg.ones(2)]), "explain: expected one Tensor, got several"),
    (lambda: study.numerical(lambda x: x, mg.ones(2), dtype="int64"), "expected dtype float32 or float64, got int64"),
    (lambda: study.numerical(lambda x: x, mg.ones(2), eps=0.0), "expected eps > 0, got 0.0"),
    (lambda: study.numerical(lambda x: 3.0, mg.ones(2)), "to return a Tensor of floats, got float"),
    (lambda: study.numerical(lambda x: mg.ones(2), mg.ones(2)), "does not depend on x"),
    (lambda: study.numerical(lambda x: x, mg.ones(2), gradient=mg.ones(3)), r"gradient of shape \(2,\), got \(3,\)"),
    (lambda: study.numerical(nn.Linear(2, 1), mg.ones(1, 2)), "does not take a float64 tensor"),
    (lambda: study.numerical(lambda x: F.dropout(x, 0.5, training=True), mg.ones(50)), "gave different values"),
])  # fmt: skip
def test_mistakes_are_sentences(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_numerical_agrees_where_the_function_is_smooth():
    x = mg.tensor([[0.3, -1.2], [0.7, 2.0]])
    result = study.numerical(lambda x: (x * x).tanh().sum(), x)
    value = x.numpy().astype(np.float64)
    np.testing.assert_allclose(result.analytic, 2 * value / np.cosh(value**2) ** 2, rtol=1e-6)
    np.testing.assert_allclose(result.numerical, result.analytic, atol=1e-8)
    assert result.error.shape == (2, 2) and not result.kinks.any() and x.grad is None
    lines = str(result).splitlines()
    assert len(lines) == 6 and lines[0].split() == ["element", "x", "analytic", "numerical", "error", "relative"]
    assert sum("<- worst" in line for line in lines) == 1


def test_numerical_finds_a_wrong_gradient():
    class Wrong(Function):
        """y = x^2, with a gradient of x"""

        def forward(self, x):
            return x * x

        def backward(self, grad):
            return (grad * self.inputs[0],)

    result = study.numerical(Wrong.apply, mg.tensor([1.0, 3.0]))
    assert result.worst == (1,) and result.error[1] == pytest.approx(3.0)
    assert result.relative_error[1] == pytest.approx(0.5)


def test_numerical_marks_kinks_and_only_them():
    result = study.numerical(lambda x: x.relu() + x.exp() * 0.001, mg.tensor([0.0, 1.0, -1.0]))
    assert result.kinks.tolist() == [True, False, False] and "kink" in str(result)
    smooth = study.numerical(lambda x: x.softmax(1), mg.randn(4, 4), gradient=mg.randn(4, 4), dtype="float32")
    assert not smooth.kinks.any() and smooth.error.max() < 1e-3


def test_numerical_takes_arrays_gradients_and_shortens():
    seed = np.arange(40.0).reshape(5, 8)
    result = study.numerical(lambda x: x * x, np.ones((5, 8)), gradient=seed)
    np.testing.assert_allclose(result.numerical, 2 * seed, atol=1e-6)
    text = str(result).splitlines()
    assert len(text) == 23 and text[-2] == "the worst 20 of 40 elements" and repr(result) == str(result)
