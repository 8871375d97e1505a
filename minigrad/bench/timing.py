"""How long to measure and what to say of the times."""

import numpy as np

TURN_SECONDS = 0.075
BATCHES, FEW = 10, 3
# At the start of a turn the caches are full of another library's data and the threads are asleep: of a 128x128x128
# product the first 8 ms came out 2.0 (minigrad), 1.7 (NumPy) and 1.4 (PyTorch) times as long as the last of 75 ms.
WARM_SECONDS = 0.05
LONG = 0.25  # seconds: for such a call the state of caches and threads at its start does not matter


def turn(seconds_per_call, turn_seconds=TURN_SECONDS):
    """How many calls to a batch and batches to a turn fill a turn's time; a few where a call takes as long as that."""
    calls = max(1, round(turn_seconds / BATCHES / seconds_per_call))
    few = 1 if seconds_per_call > LONG else FEW
    return calls, max(few, min(BATCHES, int(turn_seconds / (calls * seconds_per_call))))


def summary(samples):
    """Median and spread of times in seconds per call."""
    low, p25, median, p75 = np.percentile(samples, [0, 25, 50, 75])
    return {"median": float(median), "min": float(low), "p25": float(p25), "p75": float(p75), "samples": len(samples)}
