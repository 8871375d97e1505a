"""The benchmark rows of the op table: the time of one small call of every op, beside NumPy's.

    python tests/bench_ops.py [PATTERN]

What is measured is the price of calling an op on a small array: forward, forward and backward, the NumPy oracle (which
is written to be obviously right, not fast). Large arrays, whole nets and other libraries are in ``minigrad bench``.
"""

import re
import sys
import time

import op_table

import minigrad as mg
from minigrad.bench.timing import summary

ROUNDS, CALLS = 7, 50


def seconds(function):
    """The times of calls, per call, after one that compiles."""
    function()
    samples = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            function()
        samples.append((time.perf_counter() - start) / CALLS)
    return summary(samples)["median"]


def first_rows(pattern):
    """Of every op that matches, its first row with something to compute."""
    seen = set()
    for row in op_table.ROWS:
        if row.op not in seen and re.search(pattern, row.op) and all(x.size for x in row.inputs()):
            seen.add(row.op)
            yield row


def main(pattern=""):
    """Print a line per op, in microseconds."""
    print(f"{'op':<36}{'forward':>10}{'+ backward':>12}{'NumPy':>10}   (µs)")
    for row in first_rows(pattern):
        arrays = [x.astype("float32") if x.dtype.kind == "f" else x for x in row.inputs()]
        plain = [mg.tensor(x) for x in arrays]
        recorded = [mg.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
        leaves = [x for x in recorded if x.requires_grad]

        def backward(row=row, recorded=recorded, leaves=leaves):
            out = row.call(*recorded)
            outputs = out if isinstance(out, tuple) else (out,)
            mg.grad(outputs, leaves, [mg.ones_like(y) for y in outputs], allow_unused=True)

        texts = [seconds(lambda row=row, plain=plain: row.call(*plain)), seconds(backward) if row.grad else None,
                 seconds(lambda row=row, arrays=arrays: row.oracle(*arrays))]
        forward, both, numpy = ["" if t is None else f"{t * 1e6:.1f}" for t in texts]
        print(f"{row.op:<36}{forward:>10}{both:>12}{numpy:>10}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
