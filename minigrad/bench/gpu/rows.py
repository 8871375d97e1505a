"""What is compared on a GPU. The rows are those of the CPU's benchmark in kind, and large."""

from dataclasses import dataclass

from minigrad.bench import nets
from minigrad.bench.row import Row, shape_text

MIB = 1 << 20
BATCH = 64


@dataclass(frozen=True)
class ProductRow(Row):
    """A row with a precision of its own, see `minigrad.set_float32_matmul_precision`."""

    precision: str = "highest"


def memory_rows(count, channels=64, side=16):
    """Ops that do little but move arrays of `count` elements."""
    images = (count // (channels * side * side), channels, side, side)
    rows, group, size = (max(count // 1024, 1), min(count, 1024)), "memory", f"{4 * count / MIB:.3g} MiB"
    # Bytes that have to be moved per call: each input and each result once, per element of 4 bytes.
    made = [
        Row(f"add {size}, forward", group, "forward", "add", ((count,), (count,)), {}, 12 * count, "B"),
        Row(f"relu {size}, forward", group, "forward", "relu", ((count,),), {}, 8 * count, "B"),
        Row(f"exp {size}, forward", group, "forward", "exp", ((count,),), {}, 8 * count, "B"),
        Row(f"softmax {shape_text(rows)}, forward", group, "forward", "softmax", (rows,), {"dim": 1}, 8 * count, "B"),
    ]
    norm = images, ("uniform", (channels,), 0.5, 1.5), (channels,)
    for mode, title, traffic in (("forward", "forward", 12), ("backward", "forward + backward", 12 + 20)):
        made.append(Row(f"batch norm 2d {shape_text(images)}, {title}", group, mode, "batch_norm", norm, {},
                        traffic * count, "B", tolerance=1e-3))
    for what, traffic in (("sgd", 20), ("adam", 28)):
        made.append(Row(f"{what} on {size}", group, "optimizer", what, ((count,),), {}, traffic * count, "B"))
    return made


def product_rows(n, batch):
    """A square matrix product, and the convolution of a ResNet's first stage."""
    shape, out = (batch, 64, 56, 56), 64
    flop = 2 * 9 * 64 * out * batch * 56 * 56
    conv = shape, (out, 64, 3, 3), (out,)
    gemm = "matmul", ((n, n), (n, n)), {}, 2 * n**3, "FLOP"
    return [
        Row(f"gemm {n} x {n} x {n}, forward", "products", "forward", *gemm, tolerance=1e-3),
        ProductRow(f"gemm {n} x {n} x {n} in 3xtf32, forward", "products", "forward", *gemm, tolerance=1e-3,
                   precision="3xtf32"),
        ProductRow(f"gemm {n} x {n} x {n} in tf32, forward", "products", "forward", *gemm, tolerance=3e-3,
                   precision="high"),
        ProductRow(f"gemm {n} x {n} x {n} in bf16, forward", "products", "forward", *gemm, tolerance=2.4e-2,
                   precision="medium"),
        Row(f"conv 3x3 {shape_text(shape)} -> {out}, forward", "products", "forward", "conv2d", conv, {"padding": 1},
            flop, "FLOP", tolerance=1e-3),
        Row(f"conv 3x3 {shape_text(shape)} -> {out}, forward + backward", "products", "backward", "conv2d", conv,
            {"padding": 1}, 3 * flop, "FLOP", tolerance=1e-3),
    ]


def net_rows(names, batch):
    """Training steps, as they are and captured."""
    made = []
    for name in names:
        for mode, suffix in (("train", ""), ("captured", ", captured")):
            tolerance = {"tolerance": 0.2, "rms_tolerance": 0.05} if mode == "captured" else {
                "tolerance": 0.05, "rms_tolerance": 0.01}
            net = nets.NETS[name]._replace(batch=batch)
            made.append(Row(f"training step {name}, batch {batch}{suffix}", "nets", mode, name, params={"batch": batch},
                            work=nets.flop(net, training=True), unit="FLOP", floor=1e-2, **tolerance))
    return made


def rows(small=False):
    """All of them; `small` for a look at whether everything works, in the emulator too."""
    if small:
        return [*memory_rows(512, 4, 4), *product_rows(24, 1)[:4], *net_rows("A", 3)]
    return [*memory_rows(64 * MIB), *product_rows(4096, 64), *net_rows("ABC", BATCH)]
