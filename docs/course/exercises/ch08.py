"""Exercises of chapter 8: what a kernel's time cannot fall below, and a product by tiles.

    python -m pytest docs/course/exercises/test_ch08.py
"""

# Exercise 1: the floor.


def floor(nbytes, operations, bandwidth, peak):
    """The least time that a kernel can take, and what sets it.

    Parameters
    ----------
    nbytes : float
        Bytes that it reads and writes.
    operations : float
        Floating-point operations.
    bandwidth : float
        Bytes per second that memory delivers.
    peak : float
        Operations per second that the processor can do.

    Returns
    -------
    seconds : float
        Reading and computing go on at the same time.
    bound : str
        "memory" or "compute": the one that takes longer; "memory" if both take the same.
    """
    raise NotImplementedError("exercise: the two times, and the longer one")


def linear_cost(n, inputs, outputs):
    """Bytes and operations of ``x @ weight.T + bias`` in float32: x is (n, inputs), weight (outputs, inputs).

    Every array is read or written once; a multiplication and an addition are one operation each.
    """
    raise NotImplementedError("exercise: count them")


# Exercise 2: x times its transpose.


def gram(x, out, tile):
    """out[i, j] = sum over k of x[i, k] x[j, k], by tiles of `tile` rows; x is (n, m) with any n, out (n, n).

    Two tiles of rows are in use at a time: all results of rows i0 to i0 + tile with rows j0 to j0 + tile are complete
    before a row of another tile is touched. Use loops over elements as in the chapter: Numba compiles the function.
    The last tiles may have fewer rows.
    """
    raise NotImplementedError("exercise: five loops, over i0, j0, i, j, k")
