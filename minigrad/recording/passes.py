"""A pass through layers that is repeated: its kernel launches without the Python between them, forward and back.

Other than a captured step, a repeated pass takes part in the graph: its result has a node (`RepeatedPass`) that stands
for all nodes of the pass, and becomes them where that makes a difference. And every pass has memory of its own, so that
there can be several before the first goes back.

`Pass` is what all passes of one kind have in common, `Whole` one of them.
"""

import threading

import numpy as np

from minigrad import autograd, modes
from minigrad.device import devices
from minigrad.function import Function
from minigrad.ops.common import product
from minigrad.recording.capture import one_recording
from minigrad.recording.guards import Guards
from minigrad.recording.memory import ALIGNMENT, Life, plan
from minigrad.recording.pattern import INPUT, OUTPUT, SAVED, Memory, Pattern, Place, Strange
from minigrad.recording.recorder import Buffer, Launch, Recorder
from minigrad.tensor import Tensor

GRAD, SCRATCH, ANSWERS = 3, 4, 5
"""The pieces of memory of a backward pass, after those of the forward pass: the gradient that comes in, what is
allocated, and from there on one piece for the gradient of each tensor that needs one."""
BYTES = np.dtype(np.uint8)
LARGEST = 1 << 28  # bytes that a pass may allocate: it keeps more of them than its nodes would
ATTEMPTS = 3  # backward passes that are recorded in the hope of one that can be repeated


def record(function, layers, x):
    """Run ``function(x)`` and record it.

    Parameters
    ----------
    layers : iterable of Module
        What the function does depends on their settings and on x alone.
    x : Tensor

    Returns
    -------
    taken : Pass or None
        None if this can't be repeated.
    result : Tensor
    """
    guards = Guards({})
    for layer in layers:
        guards.module(layer)
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
    useless : bool
        Whether it has turned out that it can't be repeated.
    pattern : Pattern or None
        Of the graph, None if none was recorded.
    parameters : list of Tensor
    needs : tuple of bool
        Of the input and each parameter, whether it needs a gradient.
    """

    def __init__(self, recorder, guards, x, y):
        self.guards, self.device, self.kernels = guards, x.device, recorder.kernels
        self.useless, self._attempts, self._backward = False, 0, None
        self._input, self._result = (x.data.shape, x.data.dtype), (y.data.shape, y.data.dtype)
        self._changed = [t for t in guards.changed_tensors() if not t.requires_grad]
        result, pieces = recorder.buffer(y.data), [x.data]
        if not _is_plain(recorder) or not _is_whole(recorder, result) or not _apart(pieces, guards.tensors(), x.device):
            raise Strange
        alive = [number for number, allocation in enumerate(recorder.allocations) if allocation.array() is not None]
        places, self._size = _places(recorder, {result.number: (OUTPUT, 0)}, SAVED, alive)
        if self._size > LARGEST:
            raise Strange
        self.pattern = self._graph(recorder, places, x, y) if y.requires_grad else None
        pieces += [self._memory(self._size), self.device.empty(*self._result)]
        self._forward = _relocatable(recorder, places, pieces)
        if self._forward is None:
            raise Strange

    def _graph(self, recorder, places, x, y):
        tensors = self.guards.tensors()
        parameters = [t for t in tensors if t.requires_grad]
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
        self.parameters, self.needs = parameters, tuple(pattern.needs)
        self._parents = [p if need else None for p, need in zip(parameters, pattern.needs[1:], strict=True)]
        self._watched = [t for t in tensors if id(t.version) in pattern.versions]
        self._watches_input, self._keeps_output = id(x.version) in pattern.versions, id(y.version) in pattern.versions
        return pattern

    def like_input(self):
        """An array of the input's shape and dtype, for those to be asked for."""
        shape, dtype = self._input
        return np.broadcast_to(np.empty((), dtype), shape)

    def _memory(self, size):
        """As `Device.memory`, but for the offset: it takes 1.6 us to find out, and only `_start` wants it."""
        return self.device.empty((size + ALIGNMENT,), BYTES)

    # -- forward -----------------------------------------------------------------------------------------------

    def holds(self):
        """Whether another pass would do the same."""
        return self.device.kernels is self.kernels and not self.useless and self.guards.modules_hold()

    def repeat(self, x):
        """The result for another input, of the same shape and dtype."""
        memory, out = self._memory(self._size), self.device.empty(*self._result)
        self._forward(x.data, memory, out)
        for tensor in self._changed:
            tensor.version[0] += 1
        result = Tensor(out, self.device)
        if self.pattern is not None:
            whole = Whole()
            whole.taken, whole.memory, whole.x = self, memory, x if self.pattern.uses_input else None
            whole.input = x.data if self.pattern.uses_input else None
            whole.parents = ((x.fn or x) if self.needs[INPUT] else None, *self._parents)
            whole.watched = (x, *self._watched) if self._watches_input else self._watched
            whole.versions = [t.version[0] for t in whole.watched]
            whole.output = (out, result.version, 0) if self._keeps_output else None
            node = RepeatedPass()
            node.device, node.shape, node.hooks, node.needs_input_grad = self.device, out.shape, None, self.needs
            node.parents, node.inputs, node.saved_version, node.saved_output = whole.parents, None, None, None
            node.folded = whole
            result.requires_grad, result.fn = True, node
        return result

    # -- backward ----------------------------------------------------------------------------------------------

    def gradients(self, whole, grad):
        """dL/dx and the gradients of the parameters, None for those that need none."""
        if self._backward is None:
            return self._first_gradients(whole, grad)
        run, scratch, kinds, given = self._backward
        empty, device = self.device.empty, self.device
        arrays = [empty(*kind) for kind in kinds]
        run(*whole.pieces(), grad.data, self._memory(scratch), *arrays)
        arrays = iter(arrays)
        return tuple([Tensor(next(arrays), device) if there else None for there in given])

    def takes(self, grad):
        """Whether a gradient of the result is of the kind that `gradients` takes."""
        return grad.data.dtype is self._result[1] and grad.data.flags.c_contiguous

    def _first_gradients(self, whole, grad):
        """The same by way of the nodes, and the launches are noted."""
        with one_recording:
            if _traced():
                return whole.through_nodes(grad)
            with Recorder(self.device, Guards({})) as recorder:
                answers = whole.through_nodes(grad)
            if self._backward is None:  # or another thread was first
                self._attempts += 1
                self._backward = self._learn_backward(whole, grad, answers, recorder)
                self.useless = self._backward is None and self._attempts == ATTEMPTS
        return answers

    def _learn_backward(self, whole, grad, answers, recorder):
        """What `gradients` needs, if a later backward pass can be made of the launches of one that was recorded."""
        arrays = [answer.data for answer in answers if answer is not None]
        buffers = [recorder.buffer(array) for array in arrays]
        if not _is_plain(recorder) or not all([_is_whole(recorder, buffer) for buffer in buffers]):
            return None
        answered = {buffer.number: (ANSWERS + position, 0) for position, buffer in enumerate(buffers)}
        places, scratch = _places(recorder, answered, SCRATCH, [])
        pieces = [*whole.pieces(), grad.data, self._memory(scratch), *[np.empty_like(array) for array in arrays]]
        pieces = [np.empty(0, BYTES) if piece is None else piece for piece in pieces]
        if len(answered) < len(arrays) or not _apart(pieces, self.guards.tensors(), self.device):
            return None
        run = _relocatable(recorder, places, pieces)
        kinds = [(array.shape, array.dtype) for array in arrays]
        return run and (run, scratch, kinds, [answer is not None for answer in answers])


class Whole:
    """One pass: what its node stands for.

    A walk back takes it for the node, so it has what a walk asks a node for. (None of the layers hands its gradient
    through: else the pass would not be repeated.)

    Attributes
    ----------
    taken : Pass
    parents : tuple of Function or Tensor
    memory : array
        What the pass has allocated.
    x : Tensor or None
        The input, if a node has saved it.
    input : array or None
        The one that the input had.
    output : tuple or None
        What a node has noted as `saved_output` that has saved the result.
    watched : sequence of Tensor
        Those of which a node wants to know whether they have been changed in place.
    versions : list of int
        Their numbers after the pass.
    """

    __slots__ = ("taken", "parents", "memory", "x", "input", "output", "watched", "versions")
    answers_are_new = True

    @property
    def name(self):
        """The last op's."""
        return self.taken.pattern.last.name

    def is_stale(self):
        """Whether the nodes would do something else than the pass: fail, for something was changed in place, or use
        another array of a parameter; or whether somebody listens to every launch."""
        taken, output = self.taken, self.output
        return (taken.device.kernels is not taken.kernels or modes.recorder.get() is not None
                or [t.version[0] for t in self.watched] != self.versions
                or output is not None and output[1][0] != output[2]
                or self.x is not None and self.x.data is not self.input or not taken.guards.arrays_hold())

    def check_versions(self):
        """Nothing: `backward` looks at them."""

    def backward(self, grad):
        """The gradients of the parents."""
        taken = self.taken
        if self.is_stale() or taken.useless or not taken.takes(grad):
            return self.through_nodes(grad)
        return taken.gradients(self, grad)

    def pieces(self):
        """The pieces of memory of the forward pass, None for what nothing refers to later."""
        return None if self.x is None else self.x.data, self.memory, self.output and self.output[0]

    def outside(self):
        """Where the graph begins: the input, or a tensor with the same node, and the parameters."""
        begin = self.parents[INPUT] if self.x is None else self.x
        if not isinstance(begin, Tensor):
            begin = Tensor(None, self.taken.device)  # only its node is asked for
            begin.fn = self.parents[INPUT]
        return [begin, *self.taken.parameters]

    def nodes(self, outside):
        """The nodes; returns the last one."""
        device, pieces = self.taken.device, self.pieces()
        starts = 0, _start(device, self.memory), 0

        def array(place):
            return device.view(pieces[place.piece], starts[place.piece] + place.offset, place.shape, place.dtype)

        versions = [(t.version, number) for t, number in zip(self.watched, self.versions, strict=True)]
        return self.taken.pattern.nodes(device, Memory(array, outside, versions, self.output))

    def through_nodes(self, grad):
        """What `backward` answers, by way of the nodes."""
        device, needs = self.taken.device, self.taken.needs
        stand_ins = []  # no hook of the tensors themselves may run here, and again behind the pass
        for tensor, need in zip(self.outside(), needs, strict=True):
            stand_in = tensor
            if need:
                stand_in = Tensor(self.taken.like_input() if tensor.data is None else tensor.data, device)
                stand_in.version, stand_in.requires_grad = tensor.version, True
            stand_ins.append(stand_in)
        end = Tensor(grad.data, device)  # only its shape counts
        end.requires_grad, end.fn = True, self.nodes(stand_ins)
        wanted = [tensor for tensor, need in zip(stand_ins, needs, strict=True) if need]
        found = iter(autograd.grad(end, wanted, grad, allow_unused=True, _stop=True))
        return tuple([next(found) if need else None for need in needs])


class RepeatedPass(Function):
    """the ops of a pass that was repeated, in one launch"""

    def backward(self, grad):
        return self.folded.backward(grad)

    def unfold(self):
        """Become the last of the nodes that this one stands for, those before it behind."""
        with _unfolding:
            whole = self.folded
            if whole is None:  # another thread was first
                return
            last = whole.nodes(whole.outside())
            for name in ("inputs", "parents", "needs_input_grad", "saved_version", "saved_output"):
                setattr(self, name, getattr(last, name))
            vars(self).update(vars(last))
            self.__class__ = type(last)
            vars(self).pop("folded", None)  # at the end: who finds it uses nothing else

    def free(self):
        with _unfolding:
            if self.folded is not None:
                self.__class__ = self.folded.taken.pattern.last  # whose name an error will say
            Function.free(self)

    def __reduce_ex__(self, protocol):
        self.unfold()
        return self.__reduce_ex__(protocol)


RepeatedPass.name = property(lambda self: self.folded.name)  # type: ignore[assignment] # that of the last op
_unfolding = threading.RLock()


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
    starts = [_start(device, piece) if number in (SAVED, SCRATCH) else 0 for number, piece in enumerate(pieces)]

    def argument(value):
        if not isinstance(value, Buffer):
            return value
        number, offset = places[value.number]
        return device.view(pieces[number], starts[number] + offset + value.offset, value.shape, value.dtype)

    launches = [(name, kernel, [argument(a) for a in arguments]) for name, kernel, arguments in recorder.tape]
    alignments = [ALIGNMENT if number in (SAVED, SCRATCH) else 1 for number in range(len(pieces))]
    return device.relocatable(launches, [*zip(pieces, alignments, strict=True)])


def _start(device, array):
    """How many bytes behind an array's start memory begins that is aligned."""
    return -device.address(array) % ALIGNMENT
