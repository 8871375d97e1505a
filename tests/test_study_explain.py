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
    assert "has   (2,)            norm 4.472     (sum of 2) = [2, 4]" in str(explanation)


def test_numbers_that_would_make_a_line_too_long_go_below():
    x = mg.tensor(np.full((2, 4), -1 / 3), requires_grad=True)
    lines = str(explained((x * x).sum())).splitlines()
    row = "[" + ", ".join(["-0.3333"] * 4) + "]"
    below = f"{'':<12} = [{row}, {row}]"
    assert lines.count(below) == 2 and max(map(len, lines)) <= 100
    assert lines[lines.index(below) - 1] == "       hands (2, 4)          norm 0.9428    to leaf [0]"


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
    ones = explained(x * 3.0)
    assert ones.head == "backward from mul [1], shape (2,), started with ones, as if its elements were summed"
    assert ones.steps[-1].arrived[0].values == [3.0, 3.0]
    with pytest.raises((ValueError, RuntimeError), match=r"\(2,\).*\(3,\)"):
        explained(x * 3.0, gradient=mg.ones(3))


def test_uses_are_summed():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    explanation = explained((x * x + x).sum())
    assert explanation.steps[-1].parts == [3] and explanation.steps[-1].arrived[0].values == [3.0, 5.0]
    assert "(sum of 3) = [3, 5]" in str(explanation)
    assert [step.parts for step in explanation.steps[:-1]] == [[1], [1], [1]]


def test_hooks_are_called_on_request_only():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    y, seen = x * 2.0, []

    def hook(grad):
        seen.append(grad.tolist())
        return grad * 10.0

    y.register_hook(hook)
    handle = x.register_hook(hook)
    loss = y.sum()
    text = str(explained(loss))
    assert not seen and text.count("1 hook, not called here (pass hooks=True)") == 2
    called = explained(loss, hooks=True)
    assert seen == [[1.0, 1.0], [20.0, 20.0]] and called.steps[-1].arrived[0].values == [200.0, 200.0]
    assert "1 hook, called; shown is what came of it" in str(called)
    handle.remove()
    loss.backward()
    assert len(seen) == 3 and x.grad.tolist() == [20.0, 20.0]


def test_hooks_come_back_after_an_error():
    class Broken(Function):
        """y = x"""

        def forward(self, x):
            return x + 0

        def backward(self, grad):
            raise KeyError("broken")

    x = mg.ones(2, requires_grad=True)
    x.register_hook(lambda grad: grad)
    with pytest.raises(KeyError):
        study.explain(Broken.apply(x).sum())
    assert len(x.hooks) == 1


def test_notes_tell_where_it_went_wrong():
    x = mg.tensor([0.0, 1.0], requires_grad=True)
    unused = mg.tensor([0.0], requires_grad=True)
    explanation = explained((x.sqrt() * 2.0 + unused.detach()).sum())
    assert explanation.notes == ["!! NaN or infinity first in step 4: sqrt [1] hands it out"]
    a, b = mg.tensor([1e-4], requires_grad=True), mg.tensor([1e6], requires_grad=True)
    explanation = explained((a * 1e-9 + b * 1e6 + (a * 0.0) * b).sum())
    text = str(explanation)
    assert "!! vanishing" in text and "!! exploding" in text and "!! all zero" in text
    zero = mg.tensor([1.0], requires_grad=True)
    assert "!! all zero in leaf [0]" in explained((zero * 0.0).sum()).notes


def test_several_outputs():
    class Both(Function):
        """x and 2 x"""

        def forward(self, x):
            return x + 0, x * 2

        def backward(self, a, b):
            return (b * 2.0 if a is None else a + b * 2.0,)

    x = mg.tensor([1.0], requires_grad=True)
    first, second = apply_multiple(Both, x)
    explanation = explained(second.sum())
    assert [s.label for s in explanation.steps] == ["sum [2]", "both [1]", "leaf [0]"]
    assert explanation.steps[0].handed[0].to == "both [1]"
    assert explanation.steps[1].arrived[0] is None and explanation.steps[1].arrived[1].values == [1.0]
    assert "gets  output 0 nothing" in str(explanation)
    explanation = explained((second + first * second).sum())
    both = explanation.steps[-2]
    assert both.label == "both [1]" and both.parts == [1, 2]
    assert [g.values for g in both.arrived] == [[2.0], [2.0]] and explanation.steps[-1].arrived[0].values == [6.0]
    assert explained(second).steps[0].label == "both [1]"


def test_a_leaf_without_a_gradient():
    class First(Function):
        """y = a, whatever b is"""

        def forward(self, a, b):
            return a + 0

        def backward(self, grad):
            return grad, None

    a, b = (mg.ones(2, requires_grad=True) for _ in range(2))
    explanation = explained(First.apply(a, b).sum())
    assert explanation.notes == ["no gradient reaches leaf [1]"] and "leaf [1] gets no gradient" in str(explanation)


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
    (lambda: study.explain(mg.ones(2), most=0), "expected most to be an int >= 1 or None, got 0"),
    (lambda: explained([mg.ones(2)]), "explain: expected one Tensor, got several"),
    (lambda: study.numerical(lambda x: x, mg.ones(2), dtype="int64"), "expected dtype float32 or float64, got int64"),
    (lambda: study.numerical(lambda x: x, mg.ones(2), eps=0.0), "expected eps > 0, got 0.0"),
    (lambda: study.numerical(lambda x: x, mg.ones(0)), r"at least one element to compare, got x of shape \(0,\)"),
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

    result = study.numerical(Wrong.apply, mg.tensor([1.0, 3.0]), gradient=mg.ones(2))
    assert result.worst == (1,) and result.error[1] == pytest.approx(3.0)
    assert result.relative_error[1] == pytest.approx(0.5)


def test_numerical_marks_kinks_and_only_them():
    result = study.numerical(lambda x: x.relu() + x.exp() * 0.001, mg.tensor([0.0, 1.0, -1.0]))
    assert result.kinks.tolist() == [True, False, False] and "kink" in str(result)
    bent = study.numerical(lambda x: (x * 3000.0).exp(), np.zeros(1))  # slopes at ±1e-5 differ by 3 %: curvature
    assert not bent.kinks.any() and bent.analytic[0] == 3000.0
    smooth = study.numerical(lambda x: x.softmax(1), mg.randn(4, 4), gradient=mg.randn(4, 4), dtype="float32")
    assert not smooth.kinks.any() and smooth.error.max() < 1e-3


def test_numerical_takes_arrays_gradients_and_shortens():
    seed = np.arange(40.0).reshape(5, 8)
    result = study.numerical(lambda x: x * x, np.ones((5, 8)), gradient=seed)
    np.testing.assert_allclose(result.numerical, 2 * seed, atol=1e-6)
    text = str(result).splitlines()
    assert len(text) == 24 and text[-3] == "the worst 20 of 40 elements" and repr(result) == str(result)
    assert text[-1] == ("of the sum of the function's 40 elements, each with a factor of its own "
                        "(gradient= sets the factors)")


def test_numerical_checks_elements_whose_sum_is_constant():
    x = np.array([0.1, 0.7, -0.3])
    result = study.numerical(lambda x: x.softmax(0), x)
    p = np.exp(x) / np.exp(x).sum()
    np.testing.assert_allclose(result.analytic, p * (result.weights - (p * result.weights).sum()), rtol=1e-10)
    assert np.abs(result.analytic).min() > 1e-3 and result.error.max() < 1e-9
    again = study.numerical(lambda x: x.softmax(0), x)
    np.testing.assert_array_equal(again.weights, result.weights)


def test_numerical_hands_other_arguments_on_in_its_type():
    x, w = mg.randn(2, 3), mg.randn(4, 3, requires_grad=True)
    result = study.numerical(F.linear, x, w, gradient=np.ones((2, 4)))
    np.testing.assert_allclose(result.analytic, np.tile(w.numpy().sum(0), (2, 1)), rtol=1e-6)
    assert result.error.max() < 1e-8 and w.grad is None and result.analytic.dtype == np.float64
    assert study.numerical(F.linear, x, w, dtype="float32").error.max() < 1e-2
    labels = mg.tensor([0, 2])
    assert study.numerical(F.cross_entropy, x, labels).error.max() < 1e-9
    result = study.numerical(lambda x: x.sqrt().sum(), mg.tensor([0.0, 1.0]))  # not finite on one side
    assert result.worst == (0,) and "nan, inf: the function is not finite" in str(result)
    assert np.isnan(result.relative_error[0])


def test_messages_name_who_was_called():
    x = mg.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match="explain: expected model to be a Module, got int"):
        explained(x.sum(), 3)
    with pytest.raises(ValueError, match=r"explain: expected gradient to be a Tensor of shape \(2,\), got \(3,\)"):
        explained(x * 2.0, gradient=mg.ones(3))
    with pytest.raises(TypeError, match="numerical: expected a function, got int"):
        study.numerical(3, x)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):  # and nothing about float64
        study.numerical(lambda a, b: a * b, x)
