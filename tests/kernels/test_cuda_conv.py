"""Convolution and its gradients on CUDA against the definition: strides, paddings, dilations, groups, every tile."""

import numpy as np
import pytest
from agreement import FLOATS
from cuda_agreement import run_fresh

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import conv, gemm_tiles, memory, toolkit, watched
from minigrad.kernels.cuda.array import empty, from_host

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
NAMES = ["conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"]


def problem(rng, dtype, n, c, h, w, o, kernel, numbers, out=None, bias=True):
    """Inputs and output shape of each of the three kernels for one convolution."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, groups = numbers
    if out is None:
        out = ((h + 2 * top - (kernel[0] - 1) * dilation_h - 1) // stride_h + 1,
               (w + 2 * left - (kernel[1] - 1) * dilation_w - 1) // stride_w + 1)
    x, grad = rng.standard_normal((n, c, h, w)).astype(dtype), rng.standard_normal((n, o, *out)).astype(dtype)
    weight = rng.standard_normal((o, c // groups, *kernel)).astype(dtype)
    offset = rng.standard_normal(o if bias else 0).astype(dtype)
    return {"conv2d_forward": ((x, weight, offset), grad.shape), "conv2d_grad_input": ((grad, weight), x.shape),
            "conv2d_grad_weight": ((grad, x), weight.shape)}


def outputs(name, inputs, shape, dtype):
    """Arrays for the outputs: the gradient by the weight comes with the one by the bias."""
    shapes = [shape, inputs[0].shape[1:2]] if name == "conv2d_grad_weight" else [shape]
    return [np.empty(shape, dtype) for shape in shapes]


def run(name, inputs, shape, numbers):
    """The CUDA kernel's outputs."""
    outs = outputs(name, inputs, shape, inputs[0].dtype)
    places = range(len(inputs), len(inputs) + len(outs))
    got = run_fresh(name, [*inputs, *outs, outs[0].reshape(-1)[:0], *numbers], set(places))
    return [got[i] for i in places]


def defined(name, inputs, shape, numbers, dtype=np.float64):
    """The outputs by definition."""
    outs = outputs(name, inputs, shape, dtype)
    getattr(reference, name)(*(v.astype(dtype) for v in inputs), *outs, outs[0][:0], *numbers)
    return outs


def check(name, inputs, shape, numbers):
    for out, exact in zip(run(name, inputs, shape, numbers), defined(name, inputs, shape, numbers), strict=True):
        scale = np.abs(exact).max(initial=1e-30)
        np.testing.assert_allclose(out, exact, rtol=0, atol=4 * TOLERANCE[out.dtype.type] * scale)


CASES = {
    "plain": ((2, 3, 6, 7, 9, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "five channels, five by five": ((3, 5, 5, 5, 6, (5, 5), (1, 1, 0, 0, 1, 1, 1)), {}),
    "less padding below than above": ((2, 2, 8, 6, 5, (3, 3), (1, 1, 1, 2, 1, 1, 1)), {"out": (6, 4)}),
    "strided, odd edges": ((2, 6, 12, 10, 5, (3, 3), (2, 2, 1, 0, 1, 1, 1)), {"out": (5, 7)}),
    "strides and dilations that differ": ((1, 7, 9, 8, 6, (2, 3), (2, 3, 1, 2, 3, 2, 1)), {}),
    "more padding than kernel": ((2, 6, 3, 2, 5, (2, 2), (1, 1, 4, 5, 1, 1, 1)), {}),
    "groups": ((2, 10, 5, 4, 14, (3, 2), (1, 2, 1, 0, 1, 1, 2)), {}),
    "depthwise": ((2, 8, 5, 5, 8, (3, 3), (1, 1, 1, 1, 1, 1, 8)), {}),
    "depthwise, strided": ((2, 5, 7, 9, 5, (3, 3), (2, 2, 1, 1, 1, 1, 5)), {}),
    "two outputs per group": ((2, 8, 5, 6, 4, (3, 2), (1, 2, 1, 0, 1, 1, 2)), {}),
    "1 x 1, strided": ((2, 5, 9, 7, 33, (1, 1), (2, 3, 0, 0, 1, 1, 1)), {}),
    "1 x 1": ((1, 20, 3, 3, 8, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "1 x 1, planes of fours": ((2, 12, 2, 6, 8, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "1 x 1, planes of fours, groups": ((3, 16, 2, 2, 24, (1, 1), (1, 1, 0, 0, 1, 1, 2)), {}),
    "1 x 1, planes of fours, odd channels": ((2, 6, 2, 2, 9, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {}),
    "planes of fours": ((5, 6, 2, 2, 8, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "planes of fours, strided, groups": ((3, 12, 7, 3, 16, (3, 2), (2, 1, 1, 0, 1, 1, 2)), {}),
    "1 x 1, a column left out": ((2, 8, 4, 4, 12, (1, 1), (1, 1, 0, 0, 1, 1, 1)), {"out": (4, 3)}),
    "weights of fours, many of them": ((1, 16, 4, 3, 6, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "no images": ((0, 3, 8, 8, 6, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "no output": ((2, 6, 8, 8, 6, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {"out": (0, 8)}),
    "many channels of one image": ((1, 37, 3, 3, 40, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {}),
    "classes of one tile and of two": ((1, 5, 11, 12, 5, (3, 3), (2, 2, 1, 1, 1, 1, 1)), {}),
    "no bias": ((2, 3, 4, 4, 6, (3, 3), (1, 1, 1, 1, 1, 1, 1)), {"bias": False}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_named_configurations(case, name, rng):
    arguments, options = CASES[case]
    for dtype in FLOATS if case in ("strided, odd edges", "depthwise, strided") else FLOATS[:1]:
        check(name, *problem(rng, dtype, *arguments, **options)[name], arguments[-1])


@pytest.mark.parametrize("name", NAMES)
def test_an_operand_off_sixteen_bytes_is_read_element_by_element(name, rng):
    arguments = (1, 8, 2, 2, 8, (1, 1), (1, 1, 0, 0, 1, 1, 1))
    inputs, shape = problem(rng, np.float32, *arguments, bias=False)[name]
    for shifted in (0, 1):
        sent = [from_host(x) for x in inputs]
        moved = empty((1 + inputs[shifted].size,), np.float32)[1:]
        memory.from_host(moved, inputs[shifted].ravel())
        sent[shifted] = moved.reshape(inputs[shifted].shape)
        outs = [from_host(out) for out in outputs(name, inputs, shape, np.float32)]
        getattr(cuda, name)(*sent, *outs, outs[0], *arguments[-1])
        exact = defined(name, inputs, shape, arguments[-1])[0]
        np.testing.assert_allclose(outs[0].numpy(), exact, rtol=0, atol=4e-5 * np.abs(exact).max())


def meeting(extent, kernel, stride, pad, dilation):
    """For each row (or column) of the input, the taps through which an output could have read it."""
    return [[k for k in range(kernel) if (y + pad - k * dilation) % stride == 0] for y in range(extent)]


@pytest.mark.parametrize("channels, groups", [((5, 3), 1), ((4, 4), 2)], ids=["tiles", "direct"])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_residue_classes_of_the_gradient_by_the_input(stride, dilation, channels, groups, rng):
    """Kernels smaller than the stride, classes that meet no tap or have no pixel, more padding than kernel."""
    c, o = channels
    for kernel in (1, 2, 3, 4):
        # The columns have other numbers than the rows.
        strides, dilations, pads = (stride, 1 + dilation % 3), (dilation, 1 + kernel % 3), (kernel % 3, 2 * stride % 5)
        numbers = (*strides, *pads, *dilations, groups)
        arguments = (2, c, 1 + (kernel + stride) % 4, 6 + kernel % 2, o, (kernel, 1 + (kernel + dilation) % 4), numbers)
        shapes = problem(rng, np.float32, *arguments, out=(2, 3))
        check("conv2d_grad_input", *shapes["conv2d_grad_input"], numbers)


@pytest.mark.parametrize("numbers", [(2, 2, 1, 1, 1, 1), (3, 2, 2, 0, 2, 3), (4, 2, 0, 1, 2, 2)], ids=str)
def test_only_taps_that_meet_a_pixel_are_visited(numbers, rng, monkeypatch):
    """The elements of the weight that are read: once per tile of a class; by single threads, once per pixel."""
    if not toolkit.EMULATED:
        pytest.skip("counts reads in the emulator")
    reads = []
    get = watched.Pointer.__getitem__
    monkeypatch.setattr(watched.Pointer, "__getitem__", lambda self, i: (reads.append(self.name), get(self, i))[1])
    stride_h, stride_w, top, left, dilation_h, dilation_w = numbers
    down, along = meeting(8, 3, stride_h, top, dilation_h), meeting(6, 3, stride_w, left, dilation_w)
    for (c, o), groups, each in (((5, 3), 1, False), ((4, 4), 2, True)):
        inputs, shape = problem(rng, np.float32, 1, c, 8, 6, o, (3, 3), (*numbers, groups))["conv2d_grad_input"]
        reads.clear()
        run("conv2d_grad_input", inputs, shape, (*numbers, groups))
        rows, columns = (down, along) if each else (down[:stride_h], along[:stride_w])
        taps = sum(len(kh) * len(kw) for kh in rows for kw in columns)
        assert reads.count("weight") == taps * c * o // groups


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("tile", [gemm_tiles.BIG, gemm_tiles.MIDDLE], ids=["big", "middle"])
@pytest.mark.parametrize("name", NAMES)
def test_larger_tiles(name, tile, splits, rng, monkeypatch):
    """The shapes that would choose them take minutes."""
    monkeypatch.setattr(conv, "choose", lambda *shape: (tile, splits))
    for arguments in ((2, 5, 5, 4, 6, (2, 2), (2, 1, 1, 0, 1, 1, 1)), (3, 20, 2, 4, 8, (1, 1), (1, 1, 0, 0, 1, 1, 1))):
        check(name, *problem(rng, np.float32, *arguments)[name], arguments[-1])


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_reach_what_they_touch_and_nothing_else(name, rng):
    arguments = (2, 3, 5, 5, 6, (3, 3), (1, 1, 1, 1, 1, 1, 1))
    for value in (np.nan, np.inf):
        inputs, shape = problem(rng, np.float32, *arguments)[name]
        for array in inputs:
            if array.ndim == 4 and array.shape[2] == 5:
                array[1, 2, 4, 0] = value
                break
        exact = defined(name, inputs, shape, arguments[-1], np.float32)[0]
        out = run(name, inputs, shape, arguments[-1])[0]
        assert not np.isfinite(exact).all() and np.isfinite(exact).any()
        np.testing.assert_array_equal(np.isfinite(out), np.isfinite(exact))


def test_workspaces():
    assert cuda.conv2d_forward_workspace(*[0] * 14) == cuda.conv2d_grad_input_workspace(*[0] * 13) == 0
    assert cuda.conv2d_grad_weight_workspace(*[0] * 13) == 0
