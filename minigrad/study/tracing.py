"""A training step as the kernels that it launched: times, bytes, operations."""

import contextlib
import sys
import threading
import time
import weakref

from minigrad import modes
from minigrad.device import devices
from minigrad.function import Function, Pick, apply_multiple
from minigrad.ops.common import product
from minigrad.recording.capture import one_recording
from minigrad.study.costs import operations, traffic
from minigrad.study.module_names import joined
from minigrad.study.trace_report import Launch, Report, Span
from minigrad.tensor import Tensor
from minigrad.watching import Watcher, watch

_OPS = {f.__code__ for f in (Function.apply, Function.apply_one, Function.apply_two, apply_multiple)}

_ELSEWHERE = {"optimizer": ("optimizer", "", "optimizer"), "autograd": ("first gradient", "", "backward")}


class trace(Report):
    """Record every kernel launch of a block.

    Of each: the kernel, the op, module and phase that it belongs to, the arguments' shapes and types, the time, the
    bytes and the floating-point operations (`minigrad.study.costs` says what is counted).

    A context manager; afterwards it is the report: print it, ask for sums with `by`, or read `launches`. Only the
    thread that entered the block is recorded, on the devices that are in use by then. A step made by `minigrad.capture`
    runs as it is written. On a GPU every launch is waited for, so its time includes the way there; under
    ``MINIGRAD_CUDA=emulate`` times mean nothing. Recording takes 4 to 7 us per launch, which the report counts as
    Python's.

    The first calls of a kernel compile it, load it, or (the 32nd on the CPU) prepare faster calls; launches that did
    are marked. Run the step a few dozen times before the one that you trace.

    Parameters
    ----------
    model : Module, optional
        Its modules are named by their path in it. By default it is whatever module is called first, and others that are
        called by themselves are named by their class.

    Attributes
    ----------
    launches : list of Launch
        In the order in which they were made.
    wall : float
        Seconds from the start of the block to its end.

    Raises
    ------
    RuntimeError
        If a trace or a recording (`minigrad.capture`) is under way already.

    Examples
    --------
    >>> with minigrad.study.trace() as t:
    ...     loss_of(model(x), y).backward()
    ...     optimizer.step()
    >>> print(t)
    >>> t.by("module")
    >>> t.to_chrome("step.json")
    """

    def __init__(self, model=None):
        if model is not None and not hasattr(model, "named_modules"):
            raise TypeError(f"trace: expected a Module, got {type(model).__name__}")
        super().__init__()
        self._model = model

    def __enter__(self):
        if modes.recorder.get() is not None or any(isinstance(d.kernels, _Timed) for d in devices()):
            raise RuntimeError("trace: a trace or a recording is under way already; end it first")
        with contextlib.ExitStack() as stack, one_recording:
            self.launches.clear()
            self.spans.clear()
            self._pending, self._told = [], []  # launches that nobody has claimed yet, and the others
            self._thread = threading.get_ident()
            self._preparations = stack.enter_context(_Preparations())
            self._prepared = self._preparations.count()
            self._watcher = _Attribution(self, self._model)
            stack.enter_context(watch(self._watcher))
            for device in devices():
                stack.callback(setattr, device, "kernels", device.kernels)
                device.kernels = _Timed(device, self)
            self._restore = stack.pop_all()
        self._start, self._last = time.perf_counter(), 0.0
        return self

    def __exit__(self, *exception):
        self._assign("", "", "other")
        self.wall = self._last
        with one_recording:
            self._restore.close()
        self._describe()

    def _now(self):
        return time.perf_counter() - self._start

    def _launched(self, device, name, arguments, start, seconds):
        prepared = self._preparations.count()
        once, self._prepared = prepared != self._prepared, prepared
        walking = self._watcher not in modes.current.get().watchers  # inside a walk back nobody watches
        by = "backward" if walking else _caller()
        what = [(a.shape, a.dtype) if hasattr(a, "dtype") else a for a in arguments]  # without the memory
        self._pending.append((name, device.name, what, start - self._start, seconds, once))
        if by not in ("forward", "backward"):  # nobody will claim it
            module = self._watcher.stack[-1]
            self._assign(*_ELSEWHERE.get(by, ("", module, "forward" if module else "other")))

    def _assign(self, op, module, phase):
        """What was launched since the last call, and the time since then, belong to an op."""
        for launch in self._pending:
            self._told.append((*launch, op, module, phase))
        self._pending.clear()
        now = self._now()
        self.spans.append(Span("op", op, self._last, now - self._last, module, phase))
        self._last = now

    def _describe(self):
        """Fill in what need not be found out while the clock runs."""
        for name, device, what, start, seconds, once, op, module, phase in self._told:
            arguments = [_Array(*a) if type(a) is tuple else a for a in what]
            arrays = [a for a in arguments if isinstance(a, _Array)]
            self.launches.append(Launch(
                name, device, tuple([a.shape for a in arrays]), tuple([str(a.dtype) for a in arrays]), start, seconds,
                traffic(name, arguments), operations(name, arguments), op, module, phase, once,
            ))  # fmt: skip


class _Array:
    """What is known of an argument whose memory may be gone."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype
        self.size = product(shape)
        self.nbytes = self.size * dtype.itemsize


def _caller():
    """Who launches a kernel outside of a walk back: "forward" (an op), one of `_ELSEWHERE`, or ""."""
    frame = sys._getframe(3)
    while frame is not None:
        if frame.f_code in _OPS:
            return "forward"
        module = frame.f_globals.get("__name__", "")
        if module.startswith("minigrad.optim"):
            return "optimizer"
        if module == "minigrad.autograd":
            return "autograd"
        frame = frame.f_back
    return ""


class _Attribution(Watcher):
    """Whom a launch belongs to: the op that the engine reports next."""

    def __init__(self, trace, model):
        self.trace, self.model, self.of = trace, model, weakref.WeakKeyDictionary()
        self.paths, self.roots = {}, set()
        self.stack, self.begun = [""], []
        if model is not None:
            self.name(model)

    def name(self, root):
        """Give every module in a root its name; those of later roots begin with the name of theirs."""
        kind = name = type(root).__name__
        number = 1
        while name in self.roots:
            number += 1
            name = f"{kind} {number}"
        prefix = f"{name}." if self.roots else ""
        self.roots.add(name)
        for path, module in root.named_modules():
            self.paths.setdefault(id(module), prefix + path if path else name)

    def entered(self, modules):
        self.between()
        for module in modules:
            if id(module) not in self.paths:
                self.name(module)
        self.stack.append(joined([self.paths[id(module)] for module in modules]))
        self.begun.append(self.trace._last)

    def between(self):
        """So far it was a module's own Python, or anybody's."""
        self.trace._assign("", self.stack[-1], "forward" if self.stack[-1] else "other")

    def left(self, modules):
        self.between()
        name, begun = self.stack.pop(), self.begun.pop()
        self.trace.spans.append(Span("module", name, begun, self.trace._last - begun, name, "forward"))

    def computed(self, fn, inputs, results):
        if results[0].requires_grad:
            self.of[fn] = self.stack[-1]
        self.trace._assign(fn.name, self.stack[-1], "forward")

    def answered(self, node, grad, answers):
        if isinstance(node, Tensor):
            self.trace._assign("into .grad", "", "backward")
        elif type(node) is not Pick:
            self.trace._assign(node.name, self.of.get(node, ""), "backward")

    def passed(self, node):
        op = "sum of gradients" if self.trace._pending else node.name  # or nothing but the engine's Python
        self.trace._assign(op, self.of.get(node, ""), "backward")


class _Preparations:
    """Counts what a later call need not do again: compiling and loading kernels, and making functions to call them."""

    def __enter__(self):
        from numba.core import event

        from minigrad.kernels.cpu.launch import functions_made

        self._made, self._stack = functions_made, contextlib.ExitStack()
        self._compilers = self._stack.enter_context(event.install_recorder("numba:compiler_lock")).buffer
        self._others = []
        for device in devices():
            device.compile_listeners.append(self._listen)
            self._stack.callback(device.compile_listeners.remove, self._listen)
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def _listen(self, *what):
        self._others.append(what)

    def count(self):
        return len(self._compilers) + len(self._others) + self._made()


class _Timed:
    """Stands in for a device's kernels while a trace is on."""

    traced = True  # so that nobody takes it for the kernels that a recording may keep

    def __init__(self, device, trace):
        self._device, self._trace, self._module = device, trace, device.kernels

    def __getattr__(self, name):
        module, trace, device = self._module, self._trace, self._device
        if name.endswith("_workspace"):
            return getattr(module, name)

        def launch(*arguments):
            kernel = getattr(module, name)  # at every launch: a kernel that is called often is replaced
            if threading.get_ident() != trace._thread:
                return kernel(*arguments)
            start = time.perf_counter()
            kernel(*arguments)
            device.synchronize()
            trace._launched(device, name, arguments, start, time.perf_counter() - start)

        setattr(self, name, launch)
        return launch
