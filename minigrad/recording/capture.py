"""``minigrad.capture``: the step as users see it."""

import functools
import itertools
import threading
import types
import warnings

from minigrad import modes
from minigrad.device import devices, get_device
from minigrad.recording.guards import Guards
from minigrad.recording.memory import Life, plan
from minigrad.recording.recorder import Buffer, CaptureError, Launch, Recorder
from minigrad.recording.tree import flatten, key_of, unflatten
from minigrad.tensor import Tensor

MOST_RECORDINGS = 8

one_recording = threading.RLock()  # the seam of a device has room for one recorder


def capture(function=None, *, most_recordings=MOST_RECORDINGS):
    """Record a step once, and from then on replay its kernel launches without any of the engine's Python.

    ::

        @minigrad.capture
        def train_step(images, labels):
            loss = loss_of(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        for images, labels in batches:
            loss = train_step(images, labels)

    The first call runs the step as it is and notes every launch with its buffers. A later call with tensors of the
    same shapes repeats the launches with them; parameters, running statistics, optimizer state, ``.grad`` and
    random numbers come out bit for bit as without capture, with learning-rate schedules stepped inside or outside.
    Other shapes, another mode (``eval``, ``no_grad``), frozen parameters, changed settings or another value of an
    argument that is no tensor are recorded anew. (A setting is noticed when it is set as an attribute of its module,
    not if it is written into the module's ``__dict__``.)

    What a replay does not repeat is Python of your own: a counter in the step, a branch on a Python variable keep what
    they did while the step was recorded, and so does a variable that means another tensor by now (rewrite the tensor
    with ``copy_``, or make it an argument).

    Neither the step nor another thread may change an argument before the call returns: on the CPU the step reads it
    where it is. It gets a copy on a GPU, of an argument in memory that it uses besides or has put away, of one that is
    not contiguous, and where memory is not NumPy's.

    Parameters
    ----------
    function : callable
        Takes and returns tensors, also in tuples, lists and dicts. It may not read a tensor's value.
    most_recordings : int
        How many recordings are kept. A call that would need one more warns and runs the step without recording.

    Returns
    -------
    Capture
        Called like the function. Results are new tensors, without a graph.

    Raises
    ------
    CaptureError
        If the step reads a value while it is being recorded, if it computes on another device than that of its inputs,
        if it changes an input in place, if an input requires grad or is a NumPy array.
    """
    if function is None:
        return functools.partial(capture, most_recordings=most_recordings)
    return Capture(function, most_recordings)


class Capture:
    """A step that is recorded when it is first called, see `capture`.

    Attributes
    ----------
    recordings : list of Recording
        One for each combination of shapes and settings met so far.
    """

    def __init__(self, function, most_recordings=MOST_RECORDINGS):
        if not callable(function):
            raise TypeError(f"capture: expected a function, got {type(function).__name__}")
        functools.update_wrapper(self, function)
        self.function, self.most_recordings = function, most_recordings
        self.name = getattr(function, "__name__", repr(function))  # a partial object has no name
        self.recordings = []
        self._by_key = {}
        self._warned = False
        self._lock = threading.RLock()

    def __call__(self, *args, **kwargs):
        if modes.recorder.get() is not None:  # inside another step, which records this one too
            return self.function(*args, **kwargs)
        mode = modes.current.get()
        if mode.watchers:  # a replay would tell them nothing
            return self.function(*args, **kwargs)
        tensors = []
        key = mode, key_of(args, tensors), key_of(kwargs, tensors)
        with self._lock:
            known = self._by_key.setdefault(key, [])
            for recording in known:
                if recording.guards.hold():
                    return recording.replay(tensors)
            if len(self.recordings) >= self.most_recordings:
                return self._without_recording(args, kwargs)
            tensors = []
            structure = flatten((args, kwargs), tensors)
            _check_inputs(structure, tensors)
            with one_recording:
                if any(getattr(device.kernels, "traced", False) for device in devices()):  # by another thread
                    return self.function(*args, **kwargs)
                recording, result = record(self.function, structure, tensors, known)
            if recording is not None:
                known.append(recording)
                self.recordings.append(recording)
            return result

    def __get__(self, instance, owner=None):
        """As a decorator of a method: each object has recordings of its own."""
        return self if instance is None else types.MethodType(self, instance)

    def _without_recording(self, args, kwargs):
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"capture: {self.most_recordings} recordings of {self.name} exist and none fits this call (other "
                "shapes, arguments or settings every time?); it runs without recording. Pass most_recordings= for more",
                RuntimeWarning, stacklevel=3,
            )
        return self.function(*args, **kwargs)

    def reset(self):
        """Forget all recordings and give their memory back."""
        with self._lock:
            self._by_key.clear()
            self.recordings.clear()
            self._warned = False

    def __repr__(self):
        return f"<capture of {self.name}: {len(self.recordings)} recording(s)>"


def _check_inputs(structure, tensors):
    for tensor in tensors:
        if tensor.device is not tensors[0].device:
            raise CaptureError(
                f"capture: expected inputs on one device, got {tensors[0].device} and {tensor.device}; move them "
                "before the call"
            )
        if tensor.requires_grad:
            raise CaptureError(
                f"capture: expected inputs that need no gradient, got one of shape {tensor.shape} that requires grad; "
                "make it a parameter that the step refers to, or detach it"
            )
    for value in _others(structure):
        if hasattr(value, "__array_interface__"):
            raise CaptureError(
                "capture: expected tensors, got a NumPy array, which would keep its first value; "
                "pass minigrad.from_numpy(array)"
            )


def _check_unchanged(inputs):
    for tensor in inputs:
        if tensor.version[0]:
            raise CaptureError(
                f"capture: the step changes an input of shape {tensor.shape} in place, and what it gets is sometimes a "
                "copy, so that the caller would not see it; return the new values, or keep the tensor outside and let "
                "the step refer to it by its name"
            )


def _others(structure):
    """Everything in a structure that is not a container."""
    if isinstance(structure, (tuple, list)):
        for item in structure:
            yield from _others(item)
    elif isinstance(structure, dict):
        yield from _others(list(structure.values()))
    else:
        yield structure


class Recording:
    """The launches of one step, ready to be repeated.

    Attributes
    ----------
    launches : list of str
        The kernels, in order.
    shared_bytes, separate_bytes : int
        The memory that the step's temporary buffers take, and would take if none shared memory with another.
    """

    def __init__(self, recorder, kinds, outputs, structure):
        device, tape = recorder.device, recorder.tape
        self.guards, self.device = recorder.guards, device
        self.launches = [entry.name for entry in tape if isinstance(entry, Launch)]
        self._outputs, self._structure = outputs, structure
        self._grads = [(leaf, leaf.grad) for leaf in recorder.grads]
        self._changed = recorder.guards.changed_tensors()
        buffers, inputs = self._place(recorder.allocations, kinds)
        # An input is taken where the caller has it, unless somebody holds the one of the recording (it is a result,
        # say, or the step has put it away), or memory is used that can be reached without our noticing: then it is
        # copied.
        owners = [device.owner_of(array) for array in self._visible(recorder)]
        free = {n for n in range(len(kinds)) if recorder.allocations[n].array() is None}
        if not device.relocates or not all([owner.flags.owndata for owner in owners]):
            free = set()
        steps = self._steps_with(tape, buffers, [(inputs[n], 1) for n in sorted(free)]) if free else None
        if steps is None:
            free, steps = set(), self._steps_with(tape, buffers, [])
        self._steps = steps
        self._inputs = [None if n in free else array for n, array in enumerate(inputs)]
        owners += [device.owner_of(array) for array in self._inputs if array is not None]
        self._used = set(map(id, owners))

    def _steps_with(self, tape, buffers, pieces):
        """What a replay does, in order: pairs of a function and whether it takes the successors of `pieces`. None if
        there are no such functions."""
        steps = []
        for launched, group in itertools.groupby(tape, lambda entry: isinstance(entry, Launch)):
            if launched:
                launches = [(entry.name, entry.kernel, [buffers(a) if isinstance(a, Buffer) else a
                                                        for a in entry.arguments]) for entry in group]
                run = self.device.relocatable(launches, pieces) if pieces else self.device.sequence(launches)
                if run is None:
                    return None
                steps.append((run, True))
            else:
                steps += [(entry, False) for entry in group]
        return steps

    def _place(self, allocations, kinds):
        """Give every temporary buffer its place; returns a function from a `Buffer` to its array, and the inputs', the
        first allocations."""
        kept = {number: a.array() for number, a in enumerate(allocations) if a.array() is not None}
        inputs = [kept[number] if number in kept else self.device.empty(*kind) for number, kind in enumerate(kinds)]
        kept.update(enumerate(inputs))
        numbers = [number for number in range(len(allocations)) if number not in kept]
        lives = [Life(a.size, a.first, a.last) for a in (allocations[number] for number in numbers)]
        offsets, self.shared_bytes = plan(lives)
        self.separate_bytes = sum([life.size for life in lives])
        memory, start = self.device.memory(self.shared_bytes)
        at = {number: start + offset for number, offset in zip(numbers, offsets, strict=True)}

        def array(buffer):
            if buffer.number in kept:
                return self.device.view(kept[buffer.number], buffer.offset, buffer.shape, buffer.dtype)
            return self.device.view(memory, at[buffer.number] + buffer.offset, buffer.shape, buffer.dtype)

        return array, inputs

    def _visible(self, recorder):
        """The arrays that launches use and that others hold too."""
        for entry in recorder.tape:
            for value in entry.arguments if isinstance(entry, Launch) else ():
                if isinstance(value, Buffer):
                    value = recorder.allocations[value.number].array()
                if hasattr(value, "dtype"):
                    yield value

    def _apart(self, array):
        """An input as launches can take it: a copy if it is in memory that they use besides, or lies otherwise."""
        owner = self.device.owner_of(array)
        if id(owner) in self._used or self.device.relocates and not _is_plain(array, owner):
            return _copy(self.device, array).data
        return array

    def replay(self, tensors):
        """Repeat the step for other inputs."""
        arrays, found = [self._apart(tensor.data) for tensor in tensors], []
        for own, array in zip(self._inputs, arrays, strict=True):
            if own is None:
                found.append(array)
            else:
                self.device.kernels.copy(array.ravel(), own.ravel())
        for run, takes_inputs in self._steps:
            run(*found) if takes_inputs else run()
        for leaf, grad in self._grads:
            leaf.grad = grad
        for tensor in self._changed:
            tensor.version[0] += 1
        return self.results()

    def results(self):
        """What the step returned, in memory of its own."""
        return unflatten(self._structure, [_copy(self.device, array) for array in self._outputs])


def _is_plain(array, owner):
    """Whether an address is all that has to be known of an array, and `owner`, whose memory it has, is NumPy's."""
    flags = array.flags
    return flags.c_contiguous and flags.aligned and array.dtype.isnative and owner.flags.owndata


def _copy(device, array):
    out = device.empty(array.shape, array.dtype)
    device.kernels.copy(array.ravel(), out.ravel())
    return Tensor(out, device)


def record(function, structure, tensors, known):
    """Run a step and record it.

    Parameters
    ----------
    structure, tensors
        Its arguments, as `flatten` takes them apart.
    known : list of Recording
        Earlier recordings for arguments of the same kind.

    Returns
    -------
    recording : Recording or None
        None if the step is one that no later one repeats.
    result
        What the function returned, in memory of its own.
    """
    device = tensors[0].device if tensors else get_device(None)
    inputs = [_copy(device, tensor.data) for tensor in tensors]
    guards = Guards({leaf: leaf.grad for recording in known for leaf, _ in recording._grads})
    with Recorder(device, guards) as recorder:
        recorder.own([tensor.data for tensor in inputs])
        args, kwargs = unflatten(structure, inputs)
        result = function(*args, **kwargs)
        outputs = []
        result = flatten(result, outputs)
    _check_unchanged(inputs)
    outputs = [tensor.data for tensor in outputs]  # without the graph: whatever nobody else holds is temporary
    del args, kwargs, inputs
    guards.finish()
    if not recorder.repeatable:
        return None, unflatten(result, [_copy(device, array) for array in outputs])
    recording = Recording(recorder, [(t.data.shape, t.data.dtype) for t in tensors], outputs, result)
    return recording, recording.results()
