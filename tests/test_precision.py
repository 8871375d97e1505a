"""The precision of float32 matrix products: what it changes on CUDA (the emulator, see conftest), where it holds."""

import threading

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F

EXACT, TF32, BF16 = 1e-6, 1e-3, 8e-3  # of the largest element; bfloat16 has three bits fewer than tf32


@pytest.fixture(autouse=True)
def highest_again():
    yield
    mg.set_float32_matmul_precision("highest")


def gradients(op, arrays, device, dtype):
    """The output of an op and the gradients of its inputs, in float64."""
    tensors = [mg.tensor(array.astype(dtype), device=device, requires_grad=True) for array in arrays]
    out = op(*tensors)
    weight = np.cos(np.arange(np.prod(out.shape))).reshape(out.shape).astype(dtype)
    (out * mg.tensor(weight, device=device)).sum().backward()
    return [t.numpy().astype(np.float64) for t in (out.detach(), *[t.grad for t in tensors])]


def error(got, wanted):
    return max(np.abs(g - w).max() / np.abs(w).max() for g, w in zip(got, wanted, strict=True))


OPS = {
    "matmul": (lambda a, b: a @ b, [(5, 12), (12, 7)]),
    "batches": (lambda a, b: a @ b, [(2, 5, 12), (2, 12, 7)]),
    "linear": (lambda x, w: F.linear(x, w), [(6, 12), (8, 12)]),
    "conv2d": (lambda x, w: F.conv2d(x, w, padding=1), [(2, 6, 5, 5), (8, 6, 3, 3)]),
}


@pytest.mark.parametrize("name", OPS)
def test_forward_and_backward(name, rng):
    op, shapes = OPS[name]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    wanted = gradients(op, [a.astype(np.float32) for a in arrays], "cpu", np.float64)
    errors, on_cpu = {}, []
    for precision in ("highest", "3xtf32", "high", "medium"):
        mg.set_float32_matmul_precision(precision)
        assert mg.get_float32_matmul_precision() == precision
        got = gradients(op, arrays, "cuda", np.float32)
        errors[precision] = error(got, wanted)
        on_cpu.append(gradients(op, arrays, "cpu", np.float32))
        if precision in ("high", "medium"):
            assert all(error([g], [w]) > 10 * EXACT for g, w in zip(got, wanted, strict=True)), "nothing was rounded"
    assert errors["highest"] < EXACT and errors["3xtf32"] < EXACT
    assert errors["high"] < TF32 and 2 * errors["high"] < errors["medium"] < BF16, errors
    for other in on_cpu[1:]:
        for a, b in zip(on_cpu[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrong", ["low", "tf32", None, 3, ["high"]])
def test_other_values_are_refused(wrong):
    with pytest.raises(ValueError, match="expected one of 'highest', '3xtf32', 'high', 'medium', got"):
        mg.set_float32_matmul_precision(wrong)


def test_it_holds_in_its_own_thread():
    mg.set_float32_matmul_precision("high")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(mg.get_float32_matmul_precision()))
    thread.start()
    thread.join()
    assert seen == ["highest"] and mg.get_float32_matmul_precision() == "high"


def test_a_captured_step_keeps_its_precision(rng):
    x = mg.tensor(rng.standard_normal((4, 8)).astype(np.float32), device="cuda")
    w = mg.tensor(rng.standard_normal((8, 5)).astype(np.float32), device="cuda")
    outputs = {}
    for precision in ("highest", "high"):
        mg.set_float32_matmul_precision(precision)
        outputs[precision] = (x @ w).numpy()
    step = mg.capture(lambda x: x @ w)
    step(x)
    step(x)
    mg.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(step(x).numpy(), outputs["high"])
    assert mg.get_float32_matmul_precision() == "highest" and (outputs["high"] != outputs["highest"]).any()


def test_a_step_cannot_change_it():
    def step(x):
        mg.set_float32_matmul_precision("high")
        return x + 1

    with pytest.raises(RuntimeError, match="a captured step has one precision"):
        mg.capture(step)(mg.zeros(2))
