"""The kernels of usual training steps, compiled into the cache: ``python -m minigrad.kernels.cpu.usual NAME``.

Started by `ahead` when the kernel NAME has to be compiled; several such processes share the work by their claims.
"""

import select
import sys

from numba import types

from minigrad.kernels.cpu import loss
from minigrad.kernels.cpu.activation import relu, relu_grad
from minigrad.kernels.cpu.batch_norm import backward_of_planes, forward_of_planes, statistics_of_planes
from minigrad.kernels.cpu.batch_norm_rows import backward_of_rows, forward_of_rows, statistics_of_rows
from minigrad.kernels.cpu.claims import claim, release
from minigrad.kernels.cpu.conv_channels import correlate
from minigrad.kernels.cpu.conv_grad import correlate_grad_weight
from minigrad.kernels.cpu.launch import dispatcher_of
from minigrad.kernels.cpu.matmul import product
from minigrad.kernels.cpu.optim import adam, sgd
from minigrad.kernels.cpu.reduction import sum

# What a kernel is compiled for: x4 is a float32 array of four dimensions, i1 an int64 and d1 a float64 array of one,
# b a truth value.
STATISTICS, FORWARD, BACKWARD = "x4 x1 x1", "x4 x1 x1 x1 x1 x4 d i d", "x4 x1 x1 x1 x1 x4 x4 x1 x1 d i d"

SHORT = [
    (loss._backward_of_rows, "x3 x2 i2 x1 x1 x1 x3 d i"),
    (sgd, "x1 x1 x1 d1 i i i"),
    (adam, "x1 x1 x1 x1 x1 d1 d1 i i"),
    (relu_grad, "x1 x1 x1"),
    (relu, "x1 x1"),
]

CONVOLUTIONAL = [
    (correlate_grad_weight, "x4 x4 x4 x1 x1 i i i i i i i"),
    (backward_of_planes, BACKWARD + " i"),
    (loss._forward_of_rows, "x3 i2 x1 x0 x2 x1 i1 d i i"),
    (product, "x2 x2 x1 x2 x2 i i"),
    (sum, "x3 x2"),
    (forward_of_planes, FORWARD + " i"),
    *SHORT,
    (statistics_of_planes, STATISTICS),
]

# By the kernel that a net begins with, what follows. The program is on its way to what the forward pass needs, and a
# long one should not be left to the end: gradients and long ones come first.
AFTER = {
    "product": [
        (loss._forward_of_rows, "x3 i2 x1 x0 x2 x1 i1 d i i"),
        (backward_of_rows, BACKWARD),
        (sum, "x3 x2"),
        (statistics_of_rows, STATISTICS),
        (forward_of_rows, FORWARD),
        *SHORT,
    ],
    "correlate": CONVOLUTIONAL,
    "correlate_lines_forward": [(correlate, "x4 x4 x1 x4 x1 b i i i i i i i"), *CONVOLUTIONAL],
}


def signature(text):
    """The types of a kernel's arguments, as Numba's dispatcher finds them."""
    scalars = {"x": types.float32, "i": types.int64, "d": types.float64, "b": types.boolean}
    kinds = [(scalars[word[0]], word[1:]) for word in text.split()]
    return tuple([types.Array(scalar, int(ndim), "C") if ndim else scalar for scalar, ndim in kinds])


def compile_after(name, unwanted=lambda: False):
    """Compile what follows a kernel and is not there yet, leaving out what another process is at.

    Parameters
    ----------
    name : str
        A key of `AFTER`.
    unwanted : callable
        Asked before each kernel whether to stop.
    """
    for kernel, text in AFTER[name]:
        if unwanted():
            return
        dispatcher, kinds = dispatcher_of(kernel), signature(text)
        file = dispatcher._cache.file_of(kinds, dispatcher.targetctx.codegen())
        if not file.exists() and claim(file):
            dispatcher.compile(kinds)
            release()  # if it was there after all


def _program_has_ended():
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    compile_after(sys.argv[1], _program_has_ended)
