"""Moves from one device to another."""

from minigrad import modes
from minigrad.function import Function


class ToDevice(Function):
    """y = x, on another device"""

    saves_inputs = False

    def forward(self, x, device):
        self.source = self.device
        return device.from_numpy(self.device.to_numpy(x))

    def backward(self, grad):
        return (to_device(grad, self.source),)


def to_device(x, device):
    """The tensor on a device; itself if it is there already. The gradient comes back to where the tensor was."""
    if x.device is device:
        return x
    recorder = modes.recorder.get()
    if recorder is not None:
        recorder.moves(x.device, device)
    out = ToDevice.apply(x, device=device)
    out.device = device
    return out
