"""minigrad.study.kernel_names: what is read from the source is what is launched."""

import sys

import numpy as np
import op_table
import op_table_nn
import pytest
from functions import functions

import minigrad as mg
from minigrad.device import get_device
from minigrad.function import Function
from minigrad.study.kernel_names import gradients_of, kernels_of

assert op_table_nn
ROWS = {row.op: [r for r in op_table.ROWS if r.op == row.op] for row in op_table.ROWS}
SHARED = {"fill", "strided_copy"}  # of helpers for any op: a number as an array, an operand expanded


class Recording:
    """Stands in for the CPU's kernels: which Function's method is under way at each launch."""

    def __init__(self, kernels, launches):
        self._kernels, self._launches = kernels, launches

    def __getattr__(self, name):
        kernel = getattr(self._kernels, name)
        if not name.endswith("_workspace"):
            frame = sys._getframe(1)
            while frame is not None and frame.f_globals["__name__"] != "minigrad.autograd":  # its sums are the engine's
                fn = frame.f_locals.get("self", frame.f_locals.get("fn"))
                if isinstance(fn, Function):
                    self._launches.add((type(fn), name))
                    break
                frame = frame.f_back
        return kernel


def launches_of(row):
    """Pairs of a Function and a kernel: forward, gradient, second derivative."""
    device, launches = get_device("cpu"), set()
    kernels = device.kernels
    device.kernels = Recording(kernels, launches)
    try:
        inputs = [mg.tensor(x) for x in row.inputs()]
        floats = [x for x in inputs if x.data.dtype.kind == "f"]
        for x in floats if row.grad else ():
            x.requires_grad = True
        out = row.call(*inputs)
        for y in out if isinstance(out, (tuple, list)) else (out,):
            if row.grad and isinstance(y, mg.Tensor) and y.requires_grad:
                grads = mg.grad((y * y).sum(), floats, create_graph=True, allow_unused=True)
                total = sum([(g * g).sum() for g in grads if g is not None])
                if isinstance(total, mg.Tensor) and total.requires_grad:
                    mg.grad(total, floats, allow_unused=True)
    finally:
        device.kernels = kernels
    return launches


@pytest.mark.parametrize("op", ROWS)
def test_every_launch_is_foreseen(op):
    launches = set().union(*[launches_of(row) for row in ROWS[op]])
    missed = {(cls.__name__, kernel) for cls, kernel in launches if kernel not in {*kernels_of(cls), *SHARED}}
    assert not missed


def test_launches_are_seen_at_all():
    """The recording itself."""
    (row, *_) = [row for row in op_table.ROWS if row.op == "relu"]
    assert {(cls.__name__, kernel) for cls, kernel in launches_of(row)} >= {("Relu", "relu"), ("ReluGrad", "relu_grad")}


def test_the_forward_comes_first():
    names = {cls.__name__: cls for cls in functions()}
    assert kernels_of(names["Relu"]) == ["relu", "relu_grad"]
    assert kernels_of(names["Linear"])[0] == "linear_forward"
    assert set(kernels_of(names["Linear"])) == {"linear_forward", "matmul", "sum"}
    assert kernels_of(names["Conv2d"]) == ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"]
    assert kernels_of(names["BatchNorm"])[:2] == ["batch_norm_statistics", "batch_norm_running"]
    assert [cls.__name__ for cls in gradients_of(names["Relu"])] == ["ReluGrad"]


def test_a_function_of_ones_own():
    class Doubled(Function):
        """y = 2 x"""

        def forward(self, x):
            out = self.device.empty(x.shape, x.dtype)
            self.device.kernels.add(x.ravel(), x.ravel(), out.ravel())
            return out

        def backward(self, grad):
            return (grad * 2.0,)

    assert kernels_of(Doubled) == ["add"] and gradients_of(Doubled) == []
    np.testing.assert_array_equal(Doubled.apply(mg.tensor([1.0, 2.0])).numpy(), [2, 4])
