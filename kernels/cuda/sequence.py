"""A recorded step as one unit: a CUDA graph on a GPU, a loop in the emulator."""

from minigrad.kernels.cuda.memory import backend, own_scratch


def sequence(launches):
    """A function that repeats launches, given as (name, kernel, arguments), in order.

    The arrays among the arguments must stay where they are; the function keeps them alive. What the kernels compile is
    there already, and how much scratch memory they need is known, since each has run with these arguments before.
    """
    launches = [(kernel, arguments) for _, kernel, arguments in launches]

    with own_scratch() as scratch:

        def run(keep_alive=scratch):
            for kernel, arguments in launches:
                kernel(*arguments)

        return backend.recorded(run)
