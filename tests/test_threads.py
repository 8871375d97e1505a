"""How many threads the kernels use."""

import numba
import pytest

import minigrad as mg


def test_get_and_set():
    most = numba.config.NUMBA_NUM_THREADS
    before = mg.get_num_threads()
    try:
        for count in {1, most}:
            mg.set_num_threads(count)
            assert mg.get_num_threads() == numba.get_num_threads() == count
    finally:
        mg.set_num_threads(before)


@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_there_are_not_that_many(count):
    with pytest.raises(ValueError, match=rf"set_num_threads: expected 1 to \d+ threads, got {count}; NUMBA_NUM"):
        mg.set_num_threads(count)


def test_a_number_is_expected():
    with pytest.raises(TypeError, match="set_num_threads: expected an int, got str"):
        mg.set_num_threads("2")
