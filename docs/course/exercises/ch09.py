"""Exercises of chapter 9: where the buffers of a recorded step lie.

    python -m pytest docs/course/exercises/test_ch09.py
"""

# Exercise 1: lives.


def lives(tape, returned):
    """From which launch to which each buffer is in use.

    Parameters
    ----------
    tape : list of (str, tuple)
        The launches in order: a kernel's name, and the names of the buffers among its arguments.
    returned : set of str
        The buffers that the step hands out; they are in use up to the last launch of the tape.

    Returns
    -------
    dict of str to (int, int)
        Of each buffer of the tape the numbers of the first and the last launch that it is in use at.
    """
    raise NotImplementedError("exercise: walk along the tape")


# Exercise 2: places.


def place(sizes, lives):
    """Give every buffer its place in one piece of memory.

    Parameters
    ----------
    sizes : dict of str to int
        Bytes of each buffer.
    lives : dict of str to (int, int)
        First and last launch of each; two that are in use at the same launch must not overlap.

    Returns
    -------
    offsets : dict of str to int
        Where each buffer begins.
    total : int
        Bytes of the piece. A good plan places the largest buffers first, each at the lowest offset that is free during
        its life.
    """
    raise NotImplementedError("exercise: find the lowest free offset for each, the largest first")
