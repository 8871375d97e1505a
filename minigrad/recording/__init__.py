"""Record and replay: a training step whose kernel launches are repeated without the engine.

``capture`` is what users call; ``recorder`` listens at the device's seam, ``memory`` lays out the buffers,
``guards`` says whether a recording still fits, ``tree`` takes arguments and results apart.
"""

from minigrad.recording.capture import Capture, Recording, capture

__all__ = ["Capture", "Recording", "capture"]
