"""Why a row is slower than PyTorch: written by hand, once it has been measured and is understood.

A pattern has to match in the row's name; the first that does counts. The report shows those rows that need one.
"""

import re

REASONS = (
    (r"^first training step .*, nothing cached",
     "minigrad compiles its kernels from Python on this machine; the other libraries' came compiled"),
    (r"^(gemm (16|32|64) x \2 x|gemm 60 x 100 x 10\b|linear \(60, 100\) -> 10\b)",
     "fixed cost of an op: 16 x 16 x 16 takes 1.0 us in the kernel and 2.6 to 7 from Python"),
    (r"^gemm 1 x 784",
     "one row: the kernel reads b once, at NumPy's speed (0.95 to 1.09 on one thread); the call from Python is slower"),
    (r"^gemm (512|1024|2048) x",
     "PyTorch's product is MKL's, at 1024 and 2048 cubed 5 to 10 % faster; of NumPy's time minigrad took 0.83 to 1.09 "
     "in five runs"),
    (r"^(gemm|linear) ",
     "noise: one row varied from 0.87 to 1.04 times the kernel before it; on one thread the register tile runs at "
     "NumPy's 62 to 86 GFLOP/s"),
    (r"^(add|mul|div|relu|sigmoid) 1,000, forward$",
     "the op's Python: of 2.4 to 3.0 us the kernel takes 0.4 (sigmoid 1.2), the rest are tensor, output and recording"),
    (r"^pow 2.5 of 1,000, forward$", "the op's Python: the kernel takes 3.4 of 6.7 us (Zen 3)"),
    (r"^softmax \(64, 10\)", "the op's Python, 3.5 us without its kernel"),
    (r"^cross-entropy \(60, 10\), forward$",
     "the op's Python: of 9.4 us the kernel takes 2.2, five arrays 1.3, recording 2.3, "
     "checks of arguments and labels 2.2"),
    (r"^broadcast add \(64, 1000\)", "the op's Python: the kernel takes 6.0 us, the op about 10"),
    (r"^(exp|log|tanh|sigmoid|gelu) 1,000,000|^softmax \(1000, 1000\)",
     "PyTorch has MKL's exp, log and tanh on Intel's processors; gelu and softmax were not looked into. With vectors "
     "of 64 bytes (docs/decisions.md, 110) such rows take 0.72 to 0.89 of the time that they took before"),
    (r"^(add|mul|relu|div) 1,000,000|^broadcast add \((1000, 1000|64, 32, 32, 32)\)",
     "memory bandwidth: 8 to 12 MB are moved at 85 to 120 GB/s; such rows were at 0.67 and 0.88, at 0.93 and 1.18 in "
     "two runs"),
    (r"^sum \(100, 100, 100\)",
     "the op's Python: called directly, the kernels are 1.18 to 1.22 times as fast as PyTorch's ops, but a sum of 640 "
     "elements takes 6.5 us from Python, PyTorch's 2.3"),
    (r"^conv (3x3|5x5) \(64, [13],",
     "sums of 9 to 27 terms with channels in the lanes: what a tile of outputs costs besides its multiplications "
     "weighs more, 75 to 145 GFLOP/s where 16 channels reach 230 to 260"),
    (r"^conv .*groups 4",
     "a filter's 16 channels fill one vector with AVX-512, and rows of 28 pixels seven eighths of two: with pixels in "
     "the lanes instead 0.88 of the time (docs/decisions.md, 114; the row was at 0.82)"),
    (r"^conv .*(groups 32|depthwise)",
     "few channels to a filter: half a vector of outputs, or a row of the image at a time, 30 to 145 GFLOP/s"),
    (r"^conv 1x1 \(32, 256, 7, 7\)",
     "with AVX2 0.90 and 0.98 in two runs since pixels are packed as the tiles read them (docs/decisions.md, 98), at "
     "105 to 120 GFLOP/s like a matrix product of that size; with AVX-512 1.00, at 205 to 240"),
    (r"^conv 1x1 .*stride 2", "noise: 1.02 and 0.98 in two runs"),
    (r"^conv 1x1 |^conv 3x3 .*stride 2",
     "170 to 250 GFLOP/s on two Emerald Rapids cores, where a matrix product of 1024 cubed reaches 280 to 310; not "
     "looked into"),
    (r"^conv 5x5 \(32, 32, 14, 14\)|^conv 3x3 .*dilation 2",
     "the padding is multiplied too: 16 % of the products of 5x5 at 14 x 14, 9 % of the dilated ones at 28 x 28, at 80 "
     "to 120 GFLOP/s with AVX2, 190 to 205 on Zen 4, 250 to 285 on Emerald Rapids, where matrix products take 200 to "
     "220 and 300 to 320"),
    (r"^cross-entropy \(64, 1000\), forward",
     "the op's Python, about 5 of 23 us: a batch of (60, 10) takes 6 in all"),
    (r"^peak memory of a training step A, .*captured",
     "a recording of A takes 2.5 MiB for the native code of its 47 launches, and memory for its buffers that stays "
     "its own"),
    (r"^peak memory of a training step A",
     "PyTorch takes 3.5 to 3.8 MiB; parameters, gradients, momentum and batch are 1.3 of what minigrad takes, the "
     "native code and the memory of repeated passes come on top (docs/decisions.md, 106)"),
    (r"^(one mul|chain|fan-out)",
     "recording and walking the graph is Python here, so that it can be read, and C++ there: of a mul's 2.4 us its "
     "launch takes 0.14, and its gradient is two more"),
)

OBSTACLES = (
    (r"^inference A\b",
     "Inference of A: its products are 12 MFLOP, 118 to 138 µs on two Zen 3 cores (160 on one), normalization and "
     "activation some 30, and the rest of its 240 to 330 µs was Python, 103 µs with kernels that do nothing, until a "
     "Sequential repeated its passes (docs/decisions.md, 106)"),
    (r"^training step A\b",
     "A: the products of a training step are 26 MFLOP. Its kernels take 252 µs on two Zen 4 cores (products 167, SGD "
     "33, batch normalization 38; 357 on one, products 271), 505 on one Zen 3 core, 416 to 524 on two. The second "
     "core saves less than it could, since what one core has written is slow to reach the other: 10,000 float32 take "
     "17 µs to be touched once, 2 on the core that wrote them (Zen 4). Recording and the walk were 120 µs of Python on "
     "top there, 255 to 445 on Zen 3, until a Sequential repeated its passes (docs/decisions.md, 106); what is left "
     "beside the two passes (loss, walk, optimizer, 14 gradients) is in what a captured step takes less. On two "
     "Emerald Rapids cores the kernels of a captured step take 207 µs (262 on one; products 137, batch normalization "
     "50, SGD 27); a step takes 60 to 120 more, Python and what the kernels lose by it. Five times PyTorch's speed "
     "would be 170 µs on Zen 4 and 190 to 230 on Emerald Rapids, a third of NumPy's time 230: the kernels alone"),
    (r"^training step B against",
     "B: on two Emerald Rapids cores its kernels take 2.8 ms, convolutions 1.5, batch normalization and pooling 0.85, "
     "products 0.35 (3.0 to 3.1 before decisions 111 to 114); PyTorch's step took 9.6 to 14.3 in five runs. On two Zen "
     "4 cores they took 3.0 to 3.1 before decisions 107 to 109: convolutions 1.8 (the gradients by the weights 0.73), "
     "batch normalization and pooling 0.7, products 0.5. On either, a twelfth of NumPy's time would be 1.5 to 2 ms, a "
     "fourth of PyTorch's 2.4 to 3.8. Statistics from the convolution's hot tile, not built, would save 0.1 "
     "(docs/decisions.md, 83)"),
    (r"^engine, backward",
     "The engine's backward: of a chain's 5 µs per mul on a Zen 4 core the two products of its gradient take 2.6 (1.3 "
     "each, in tensor ops, as they are written), finding the node's arrays, checking and handing on the rest; "
     "PyTorch's, in C++, take 4.6. On the Zen 3 machine both take three times as long for a chain"),
    (r"^engine, forward",
     "The engine's forward: a tensor, a node and a launch of 0.14 µs are 1.7 to 2.1 µs of Python on a Zen 4 core, 5.5 "
     "on the Zen 3 machine, where PyTorch takes 5.0 to 5.4"),
    (r"^GEMM from",
     "With AVX-512, on two Emerald Rapids cores, 1024³ and 2048³ take 1.0 to 1.09 of NumPy's time, at 280 to 310 "
     "GFLOP/s; slices of half and three quarters of the depth, blocks of half and twice as many rows made no "
     "difference, or took up to 1.16 times as long. Large products with AVX2: 256³ to 1024³ take "
     "0.93 to 1.07 of NumPy's time, 2048³ 1.05 to 1.08. Before a tile's loop took four steps at a time "
     "(docs/decisions.md, 90) it was 1.05 to 1.22: beside another machine's work on the same core it is instructions "
     "that count. What is left at 2048³ was not found: lower blocks, which leave more of the second-level cache to "
     "others, made it 1.08 times as fast, shorter slices of the depth slower"),
    (r"^GEMM below|^every single op",
     "Small products: 16 x 16 x 16 takes 2.6 µs from Python on a Zen 4 core, 1.0 of them in the kernel, and NumPy's "
     "1.7; on a Zen 3 core, at best, 3.3, 0.8 and 1.6. Thin ones: 10 columns are fewer than an AVX-512 vector has "
     "lanes, of which six are idle: 60 x 100 x 10 takes 4.3 µs on two Zen 4 cores, NumPy's 3.2"),
    (r"^second thread",
     "The second thread on C: from 1.35 to 1.90 in seven runs, on cores that other machines disturb: a kernel ends "
     "when the slower of them does"),
)
"""The same for targets: a pattern that matches in the claims, what was tried, what stands in the way."""

NONE = "no reason recorded"


def reason(name, reasons=REASONS):
    """The reason for a row's name, or `NONE`."""
    return next((text for pattern, text in reasons if re.search(pattern, name)), NONE)


def obstacle(claim, obstacles=OBSTACLES):
    """What stands in the way of a target, or None."""
    return next((text for pattern, text in obstacles if re.search(pattern, claim)), None)
