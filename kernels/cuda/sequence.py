"""A recorded step as one unit: a CUDA graph on a GPU, a loop in the emulator."""

from minigrad.kernels.cuda.memory import backend, own_scratch
from minigrad.kernels.precision import matmul_precision


def sequence(launches):
    """A function that repeats launches, given as (name, kernel, arguments), in order.

    The arrays among the arguments must stay where they are; the function keeps them alive. What the kernels compile is
    there already, and how much scratch memory they need is known, since each has run with these arguments before.
    """
    launches = [(kernel, arguments) for _, kernel, arguments in launches]
    precision = matmul_precision.get()

    with own_scratch() as scratch:

        def run(keep_alive=scratch):
            token = matmul_precision.set(precision)  # that of the recording: where launches are repeated one by one too
            try:
                for kernel, arguments in launches:
                    kernel(*arguments)
            finally:
                matmul_precision.reset(token)

        return backend.recorded(run)
