"""Record and replay: a training step whose kernel launches are repeated without the engine.

``capture`` is what users call; ``recorder`` listens at the device's seam, ``memory`` lays out the buffers,
``guards`` says whether a recording still fits, ``tree`` takes arguments and results apart.

``passes`` records one pass of a `Sequential` in the same way, and its graph as a ``pattern``.
"""

from minigrad.recording.capture import Capture, Recording, capture

__all__ = ["Capture", "Recording", "capture"]
