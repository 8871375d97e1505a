"""Seeds and random numbers, the same on every device and number of threads.

Numbers come from a counter-based generator (Philox4x32-10: Salmon et al., SC 2011), so element i of a draw
depends on the seed, the counter and i alone.
"""

import numpy as np

from minigrad.device import cpu


class Generator:
    """A seeded source of random numbers.

    Parameters
    ----------
    seed : int
        Equal seeds give equal numbers. Any int; it is taken modulo 2**64.
    """

    def __init__(self, seed=0):
        self._states = {}
        self.manual_seed(seed)

    def manual_seed(self, seed):
        """Start again from a seed."""
        self.seed = int(seed) % 2**64
        self._write((self.seed, 0))
        return self

    def _write(self, state):
        """Rewrite the states in place: a recorded step goes on reading the same arrays."""
        for device, array in self._states.items():
            device.write(array, np.array(state, np.uint64))

    def state(self, device=cpu):
        """The generator's (seed, counter) on a device: an array that kernels advance in place."""
        if device not in self._states:
            self._states[device] = device.from_numpy(np.array([self.seed, 0], np.uint64))
        return self._states[device]

    def get_state(self):
        """The state on the CPU, to be given to `set_state` later."""
        return cpu.to_numpy(self.state()).copy()

    def set_state(self, state):
        """Continue from what `get_state` returned."""
        self.seed = int(state[0])
        self.state()
        self._write(state)

    def __repr__(self):
        return f"Generator(seed={self.seed})"


default_generator = Generator(0)


def manual_seed(seed):
    """Seed the default generator: the one behind `randn`, `rand`, initialisation and dropout."""
    return default_generator.manual_seed(seed)
