"""The rows of single ops, the optimizers and the engine."""

import math

from minigrad.bench.row import ENGINES, Row, shape_text, size


def _both(name, group, what, inputs, forward_work, backward_work, params=None, unit="B", **more):
    """A row for the forward pass and one for forward and backward."""
    params = params or {}
    yield Row(f"{name}, forward", group, "forward", what, inputs, params, forward_work, unit, **more)
    yield Row(f"{name}, forward + backward", group, "backward", what, inputs, params, forward_work + backward_work,
              unit, **more)


def _gemm_rows():
    for n in (16, 32, 64, 128, 256, 512, 1024, 2048):
        yield from _both(f"gemm {n} x {n} x {n}", "gemm", "matmul", ((n, n), (n, n)), 2 * n**3, 4 * n**3, unit="FLOP")
    # What A's and the classifiers' layers multiply, at batch 1 and 60 or 64; the last two are gradients of weights.
    thin = [(60, 784, 100), (60, 100, 100), (60, 100, 10), (64, 1568, 128), (64, 2048, 10), (1, 784, 100),
            (1, 2048, 10), (784, 60, 100), (1568, 64, 128)]
    for m, k, n in thin:
        yield Row(f"gemm {m} x {k} x {n}, forward", "gemm", "forward", "matmul", ((m, k), (k, n)), {}, 2 * m * k * n,
                  "FLOP")
    for n, i, o in ((60, 784, 100), (60, 100, 100), (60, 100, 10), (64, 1568, 128), (64, 2048, 10)):
        yield from _both(f"linear ({n}, {i}) -> {o}", "gemm", "linear", ((n, i), (o, i), (o,)), 2 * n * i * o,
                         4 * n * i * o, unit="FLOP")


# (kernel, input, output channels, further arguments): 3x3 of the nets, then of every width at 32 channels and more.
CONVOLUTIONS: tuple[tuple, ...] = (
    (3, (64, 1, 28, 28), 16, {}),
    (3, (64, 16, 14, 14), 32, {}),
    (3, (64, 3, 32, 32), 32, {}),
    (3, (64, 32, 32, 32), 32, {}),
    (3, (64, 32, 16, 16), 64, {}),
    (3, (64, 64, 16, 16), 64, {}),
    (3, (64, 64, 8, 8), 128, {}),
    (3, (64, 128, 8, 8), 128, {}),
    (3, (32, 256, 7, 7), 256, {}),
    (3, (32, 128, 14, 14), 128, {}),
    (3, (32, 64, 28, 28), 64, {}),
    (3, (16, 32, 56, 56), 32, {}),
    (1, (16, 64, 56, 56), 64, {}),
    (1, (32, 256, 14, 14), 64, {}),
    (1, (32, 256, 7, 7), 256, {}),
    (5, (64, 1, 28, 28), 32, {}),
    (5, (32, 32, 14, 14), 64, {}),
    (3, (16, 64, 56, 56), 128, {"stride": 2}),
    (1, (16, 64, 56, 56), 128, {"stride": 2}),
    (3, (32, 64, 28, 28), 64, {"dilation": 2}),
    (3, (32, 64, 28, 28), 64, {"groups": 4}),
    (3, (32, 256, 14, 14), 256, {"groups": 32}),
    (3, (16, 32, 56, 56), 32, {"groups": 32}),
    (3, (32, 256, 14, 14), 256, {"groups": 256}),
)


def _conv_rows():
    for kernel, shape, out, more in CONVOLUTIONS:
        stride, dilation, groups = (more.get(name, 1) for name in ("stride", "dilation", "groups"))
        padding = kernel // 2 * dilation
        positions = [(extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for extent in shape[2:]]
        flop = 2 * kernel**2 * shape[1] // groups * out * shape[0] * math.prod(positions)
        suffix = "".join(", depthwise" if value == shape[1] else f", {name} {value}" for name, value in more.items())
        yield from _both(f"conv {kernel}x{kernel} {shape_text(shape)} -> {out}{suffix}", "convolution", "conv2d",
                         (shape, (out, shape[1] // groups, kernel, kernel), (out,)), flop, 2 * flop,
                         {"padding": padding, **more}, "FLOP")


SIZES = (1_000, 1_000_000)


def _elementwise_rows():
    for what in ("add", "mul", "div"):
        for n in SIZES:
            inputs = (n,), ("uniform", (n,), 0.5, 2.0) if what == "div" else (n,)
            read = {"add": 4, "mul": 12, "div": 12}[what]  # bytes per element: the gradient, and both factors
            yield from _both(f"{what} {n:,}", "elementwise", what, inputs, 12 * n, (read + 8) * n)
    for a, b in (((64, 1000), (1000,)), ((1000, 1000), (1000, 1)), ((64, 32, 32, 32), (1, 32, 1, 1))):
        yield from _both(f"broadcast add {shape_text(a)} + {shape_text(b)}", "elementwise", "add", (a, b),
                         4 * size(a, a, b), 4 * size(a, b))
    for what in ("exp", "log", "tanh", "sigmoid", "relu", "gelu", "pow"):
        # NumPy has no erf, so that it can't compute gelu but element by element in Python.
        more = {"libraries": ENGINES} if what == "gelu" else {}
        name, params = ("pow 2.5 of", {"exponent": 2.5}) if what == "pow" else (what, {})
        for n in SIZES:
            spec = ("uniform", (n,), 0.1, 10.0) if what in ("log", "pow") else (n,)
            yield from _both(f"{name} {n:,}", "elementwise", what, (spec,), 8 * n, 12 * n, params, **more)


def _reduction_rows():
    shape = (100, 100, 100)
    count = math.prod(shape)
    for dim in (0, 1, 2, None):
        title = "all axes" if dim is None else f"axis {dim}"
        yield from _both(f"sum {shape_text(shape)}, {title}", "reductions", "sum", (shape,), 4 * count, 4 * count,
                         {"dim": dim})
    for shape, dims in (((100, 100, 100), (0, 1, 2)), ((1000, 1000), (0, 1)), ((64, 10), (1,))):
        for dim in dims:
            count = math.prod(shape)
            yield from _both(f"softmax {shape_text(shape)}, axis {dim}", "reductions", "softmax", (shape,), 8 * count,
                             12 * count, {"dim": dim})


def _layer_rows():
    for shape in ((60, 100), (64, 1024), (64, 32, 32, 32), (64, 16, 28, 28)):
        count, channels = math.prod(shape), shape[1]
        yield from _both(f"batch norm {len(shape) // 2}d {shape_text(shape)}", "layers", "batch_norm",
                         (shape, ("uniform", (channels,), 0.5, 1.5), (channels,)), 8 * count, 12 * count,
                         tolerance=1e-3)
    for what, title in (("max_pool2d", "max pool"), ("avg_pool2d", "average pool")):
        for shape in ((64, 32, 32, 32), (64, 16, 28, 28)):
            count = math.prod(shape)
            yield from _both(f"{title} 2x2 {shape_text(shape)}", "layers", what, (shape,), 5 * count, 5 * count)
    for title, what, shape, params in (
        ("max pool 3x3, stride 2", "max_pool2d", (32, 64, 28, 28), {"size": 3, "stride": 2, "padding": 1}),
        ("average pool 3x3, stride 2", "avg_pool2d", (32, 64, 28, 28), {"size": 3, "stride": 2, "padding": 1}),
        ("average pool 7x7", "avg_pool2d", (32, 256, 7, 7), {"size": 7}),  # of all pixels, as nets end with it
    ):
        count, outputs = math.prod(shape), math.prod(shape) // params.get("stride", params["size"]) ** 2
        yield from _both(f"{title} {shape_text(shape)}", "layers", what, (shape,), 4 * (count + outputs),
                         4 * (count + outputs), params)
    for n, classes in ((60, 10), (64, 1000)):
        yield from _both(f"cross-entropy ({n}, {classes})", "layers", "cross_entropy",
                         ((n, classes), ("labels", (n,), classes)), 4 * n * classes, 8 * n * classes)


def _optimizer_rows():
    for what, traffic in (("sgd", 20), ("adam", 28)):  # bytes per element: SGD has one buffer, Adam two
        for count, shape in ((1, (1000, 1000)), (100, (1000,))):
            yield Row(f"{what} on {count} x {shape_text(shape)}", "optimizers", "optimizer", what, (shape,) * count, {},
                      traffic * count * math.prod(shape), "B")


def _engine_rows():
    pair = ((8,), ("uniform", (8,), 0.99, 1.01))
    ops = (("one mul", "mul", pair, {}, 1), ("chain of 100 mul", "chain", pair, {"length": 100}, 100),
           ("fan-out of 100 mul, added up", "fan_out", pair, {"width": 100}, 199))
    for title, what, inputs, params, count in ops:
        for mode, suffix in (("recorded", "forward"), ("backward", "forward + backward")):
            yield Row(f"{title}, 8 elements, {suffix}", "engine", mode, what, inputs, params, count, "op",
                      libraries=ENGINES)


def op_rows():
    """All of them, in the order of the report."""
    for rows in (_gemm_rows, _conv_rows, _elementwise_rows, _reduction_rows, _layer_rows, _optimizer_rows,
                 _engine_rows):
        yield from rows()
