"""A pass through a module that is repeated: its kernel launches without the Python between them, forward and back.

Other than a captured step, a repeated pass takes part in the graph: its result has a node (`Replayed`) that stands for
all nodes of the pass, and becomes them where somebody wants to see them. And every pass has memory of its own, so that
there can be several before the first goes back.
"""

import numpy as np

from minigrad import autograd, modes
from minigrad.device import devices
from minigrad.function import Alias, Function, _version
from minigrad.ops.common import product
from minigrad.recording.capture import one_recording
from minigrad.recording.guards import Guards
from minigrad.recording.memory import ALIGNMENT, Life, plan
from minigrad.recording.pattern import INPUT, OUTPUT, SAVED, Pattern, Place, Strange
from minigrad.recording.recorder import Buffer, Launch, Recorder
from minigrad.tensor import Tensor

GRAD, SCRATCH, GRADIENTS, INPUT_GRADIENT = 3, 4, 5, 6
"""The pieces of memory of a backward pass, after those of the forward pass: the gradient that comes in, what is
allocated, the gradients of parameters, that of the input."""
ALIGNMENTS = 1, ALIGNMENT, 1, 1, ALIGNMENT, 1, 1
BYTES = np.dtype(np.uint8)


def record(function, module, x):
    """Run ``function(x)`` and record it.

    Parameters
    ----------
    module : Module
        What the function does depends on its settings and on x alone.
    x : Tensor

    Returns
    -------
    taken : Pass or None
        None if this can't be repeated.
    result : Tensor
    """
    guards = Guards({})
    guards.module(module)
    with one_recording:
        if _traced():
            return None, function(x)
        with Recorder(x.device, guards) as recorder:
            y = function(x)
    guards.finish()
    try:
        return Pass(recorder, guards, x, y), y
    except Strange:
        return None, y


class Pass:
    """What a pass does, ready to be repeated.

    Attributes
    ----------
    guards : Guards
    """

    def __init__(self, recorder, guards, x, y):
        self.guards, self.device, self._kernels = guards, x.device, x.device.kernels
        self._shape, self._dtype, self._backward = y.data.shape, y.data.dtype, None
        self._changed, result = guards.changed_tensors(), recorder.buffer(y.data)
        if not _is_plain(recorder) or not _is_whole(recorder, result):
            raise Strange
        alive = [number for number, allocation in enumerate(recorder.allocations) if allocation.array() is not None]
        places, self._size = _places(recorder, {result.number: (OUTPUT, 0)}, SAVED, alive)
        pieces = x.data, self._memory(self._size), self._result()
        if not _apart(pieces, guards.tensors(), x.device):
            raise Strange
        self._pattern = self._graph(recorder, places, x, y) if y.requires_grad else None
        self._forward = _relocatable(recorder, places, pieces)
        if self._forward is None:
            raise Strange

    def _graph(self, recorder, places, x, y):
        parameters = [t for t in self.guards.tensors() if t.requires_grad]
        if any([t.fn is not None for t in parameters]):
            raise Strange
        start = self.device.address(x.data)

        def place(array):
            buffer = recorder.buffer(array)
            if buffer is not None:
                piece, offset = places[buffer.number]
                return Place(piece, offset + buffer.offset, buffer.shape, buffer.dtype)
            offset = self.device.address(array) - start
            return Place(INPUT, offset, array.shape, array.dtype) if 0 <= offset < x.data.nbytes else None

        pattern = Pattern(y, [x, *parameters], place)
        self._parameters, self._needs = parameters, tuple(pattern.needs)
        self._parents = [p if need else None for p, need in zip(parameters, pattern.needs[1:], strict=True)]
        self._watched = [p for p, saved in zip(parameters, pattern.saves[1:-1], strict=True) if saved]
        self._saves_input, self._saves_output = pattern.saves[0], pattern.saves[-1]
        return pattern

    def _memory(self, size):
        return self.device.empty(size + ALIGNMENT, BYTES)

    def _result(self):
        return self.device.empty(self._shape, self._dtype)

    # -- forward -----------------------------------------------------------------------------------------------

    def holds(self):
        """Whether another pass would do the same."""
        return self.device.kernels is self._kernels and self.guards.modules_hold()

    def repeat(self, x):
        """The result for another input, of the same shape and dtype."""
        memory, out = self._memory(self._size), self._result()
        self._forward(x.data, memory, out)
        for tensor in self._changed:
            tensor.version[0] += 1
        result = Tensor(out, self.device)
        if self._pattern is not None:
            node = Replayed()
            node.device, node.shape, node.hooks = self.device, self._shape, None
            node.needs_input_grad = self._needs
            node.parents = ((x.fn or x) if self._needs[0] else None, *self._parents)
            node.inputs = (x, *self._watched) if self._saves_input else self._watched
            node.saved_version = _version(node.inputs)
            node.saved_output = (out, result.version, 0) if self._saves_output else None
            node.taken, node.x, node.memory = self, x, memory
            result.requires_grad, result.fn = True, node
        return result

    # -- backward ----------------------------------------------------------------------------------------------

    def nodes(self, node, outside):
        """The nodes that a `Replayed` stands for; returns the last one."""
        output = node.saved_output
        pieces = node.x.data, node.memory, output and output[0]
        starts = 0, _start(self.device, node.memory, ALIGNMENT), 0

        def array(place):
            return self.device.view(pieces[place.piece], starts[place.piece] + place.offset, place.shape, place.dtype)

        return self._pattern.nodes(self.device, array, outside, output)

    def outside(self, node):
        """The input and the parameters of a pass."""
        return [node.x, *self._parameters]

    def gradients(self, node, grad):
        """dL/dx and the gradients of the parameters, None for those that need none."""
        if self.device.kernels is not self._kernels or modes.recorder.get() or grad.data.dtype is not self._dtype:
            return self._through_graph(node, grad)
        if self._backward is None:
            return self._first_gradients(node, grad)
        device, x = self.device, node.x.data
        gradients = device.empty(self._gradients_size, BYTES)
        own = device.empty(x.shape, x.dtype) if self._needs[0] else None
        output = node.saved_output[0] if self._saves_output else None
        self._backward(x, node.memory, output, grad.data, self._memory(self._scratch_size), gradients, own)
        answers = [None if own is None else Tensor(own, device)]
        for place in self._answers:
            answers.append(place and Tensor(device.view(gradients, *place), device))
        return tuple(answers)

    def _through_graph(self, node, grad):
        """The same by way of the nodes."""
        outside = self.outside(node)
        with modes.enable_grad():  # so that no hook of theirs runs here, and again behind the pass
            outside = [Alias.apply(t) if need else t for t, need in zip(outside, self._needs, strict=True)]
        end = Tensor(grad.data, self.device)  # only its shape counts
        end.requires_grad, end.fn = True, self.nodes(node, outside)
        wanted = [alias for alias, need in zip(outside, self._needs, strict=True) if need]
        found = iter(autograd.grad(end, wanted, grad, allow_unused=True, _stop=True))
        return tuple([next(found) if need else None for need in self._needs])

    def _first_gradients(self, node, grad):
        """The same by way of the nodes, and the launches are noted."""
        with one_recording:
            if _traced():
                return self._through_graph(node, grad)
            with Recorder(self.device, Guards({})) as recorder:
                answers = self._through_graph(node, grad)
        self._learn_backward(node, grad, answers, recorder)
        return answers

    def _learn_backward(self, node, grad, answers, recorder):
        buffers = [None if answer is None else recorder.buffer(answer.data) for answer in answers]
        given = [buffer for answer, buffer in zip(answers, buffers, strict=True) if answer is not None]
        strange = not _is_plain(recorder) or not all([_is_whole(recorder, buffer) for buffer in given])
        if strange or len({buffer.number for buffer in given}) < len(given):
            self._kernels = None  # not to be repeated
            return
        places, size = {}, 0
        for position, buffer in enumerate(buffers):
            if buffer is not None:
                places[buffer.number] = (GRADIENTS, size) if position else (INPUT_GRADIENT, 0)
                size += -(-recorder.allocations[buffer.number].size // ALIGNMENT) * ALIGNMENT if position else 0
        own = dict(places)
        places, scratch_size = _places(recorder, places, SCRATCH, [])
        nothing = np.empty(0, BYTES)
        pieces = (
            node.x.data, node.memory, node.saved_output[0] if self._saves_output else nothing, grad.data,
            self._memory(scratch_size), self.device.empty(size, BYTES),
            self.device.empty(node.x.shape, node.x.dtype) if self._needs[0] else nothing,
        )  # fmt: skip
        if not _apart(pieces, self.guards.tensors(), self.device):
            return
        self._scratch_size, self._gradients_size = scratch_size, size
        self._answers = [b and (own[b.number][1], b.shape, b.dtype) for b in buffers[1:]]
        self._backward = _relocatable(recorder, places, pieces)
        if self._backward is None:
            self._kernels = None


class Replayed(Function):
    """the ops of a pass that was repeated, in one launch"""

    answers_are_new = True

    def backward(self, grad):
        return self.taken.gradients(self, grad)

    def unfold(self):
        """Become the last of the nodes that this one stands for, those before it behind."""
        if self.parents is None:
            return
        last = self.taken.nodes(self, self.taken.outside(self))
        vars(self).clear()
        self.__class__ = type(last)
        for name in ("inputs", "parents", "needs_input_grad", "saved_version", "saved_output"):
            setattr(self, name, getattr(last, name))
        vars(self).update(vars(last))


def _traced():
    """Whether somebody times the kernels, or records another step."""
    return any([getattr(device.kernels, "traced", False) for device in devices()])


def _is_plain(recorder):
    """Whether all that was done are launches of kernels, the same every time."""
    return recorder.repeatable and all([isinstance(entry, Launch) for entry in recorder.tape])


def _is_whole(recorder, buffer):
    """Whether something is a buffer of the pass's own from its first byte to its last."""
    if buffer is None or buffer.offset:
        return False
    return product(buffer.shape) * buffer.dtype.itemsize == recorder.allocations[buffer.number].size


def _places(recorder, given, piece, lasting):
    """For each allocation its piece of memory and its place there: as given, or in one piece, whose size comes second.

    Of those that are lasting the memory is not used again.
    """
    numbers = [number for number in range(len(recorder.allocations)) if number not in given]
    lives = [Life(a.size, a.first, len(recorder.tape) if number in lasting else a.last)
             for number, a in enumerate(recorder.allocations) if number not in given]
    offsets, size = plan(lives)
    return {**given, **{number: (piece, offset) for number, offset in zip(numbers, offsets, strict=True)}}, size


def _apart(pieces, tensors, device):
    """Whether no piece of memory has a byte in common with another, or with one of the tensors."""
    ranges = [(device.address(a), device.address(a) + a.nbytes) for a in [*pieces, *[t.data for t in tensors]]]
    return not any([
        low < other_high and other_low < high
        for number, (low, high) in enumerate(ranges[: len(pieces)]) for other_low, other_high in ranges[number + 1 :]
    ])  # fmt: skip


def _relocatable(recorder, places, pieces):
    """The launches as a function of the pieces of memory; None if they can't be one."""
    device = recorder.device

    def argument(value):
        if not isinstance(value, Buffer):
            return value
        number, offset = places[value.number]
        offset += _start(device, pieces[number], ALIGNMENTS[number])
        return device.view(pieces[number], offset + value.offset, value.shape, value.dtype)

    launches = [(name, kernel, [argument(a) for a in arguments]) for name, kernel, arguments in recorder.tape]
    return device.relocatable(launches, [*zip(pieces, ALIGNMENTS[: len(pieces)], strict=True)])


def _start(device, array, alignment):
    """How many bytes behind an array's start the next multiple of an alignment is."""
    return -device.address(array) % alignment
