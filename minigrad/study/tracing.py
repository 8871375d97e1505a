"""A training step as the kernels that it launched: times, bytes, operations."""

import threading
import time
import weakref

from minigrad import modes
from minigrad.device import devices
from minigrad.function import Pick
from minigrad.study.costs import operations, traffic
from minigrad.study.module_names import joined
from minigrad.study.trace_report import Launch, Report
from minigrad.tensor import Tensor
from minigrad.watching import Watcher, watch

OPTIMIZER = ("adam", "sgd", "sum_of_squares", "scale_inplace")  # kernels of an optimizer's step and of clipping


class trace(Report):
    """Record every kernel launch of a block.

    Of each: the kernel, the op, module and phase that it belongs to, the arguments' shapes and types, the time, the
    bytes and the floating-point operations (see `minigrad.study.costs` for what is counted).

    A context manager; afterwards it is the report: print it, or look into `launches`. Only the thread that entered the
    block is recorded, on the devices that are in use by then. A step made by `minigrad.capture` runs as it is written.
    On a GPU every launch is waited for, so that its time is its own; under ``MINIGRAD_CUDA=emulate`` times mean
    nothing. Recording takes a few microseconds per launch, which the report counts as Python's.

    Parameters
    ----------
    model : Module, optional
        Names modules by their path; without it by their class.

    Attributes
    ----------
    launches : list of Launch
    wall : float
        Seconds from the start of the block to its end.

    Raises
    ------
    RuntimeError
        If a trace or a recording (`minigrad.capture`) is under way already.

    Examples
    --------
    >>> with minigrad.study.trace(model) as t:
    ...     loss_of(model(x), y).backward()
    ...     optimizer.step()
    >>> print(t)
    """

    def __init__(self, model=None):
        if model is not None and not hasattr(model, "named_modules"):
            raise TypeError(f"trace: expected a Module, got {type(model).__name__}")
        super().__init__()
        self._paths = {} if model is None else {id(module): path for path, module in model.named_modules()}
        self._kernels = []

    def __enter__(self):
        if modes.recorder.get() is not None or any(isinstance(d.kernels, _Timed) for d in devices()):
            raise RuntimeError("trace: a trace or a recording is under way already; end it first")
        self.launches.clear()
        self._pending, self._thread = [], threading.get_ident()
        for device in devices():
            self._kernels.append((device, device.kernels))
            device.kernels = _Timed(device, self)
        self._watching = watch(_Attribution(self))
        self._watching.__enter__()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception):
        self.wall = time.perf_counter() - self._start
        self._watching.__exit__(*exception)
        while self._kernels:
            device, kernels = self._kernels.pop()
            device.kernels = kernels
        self._assign("", "", "other")

    def _launched(self, device, name, arguments, start, seconds):
        arrays = [a for a in arguments if hasattr(a, "nbytes")]
        self._pending.append(Launch(
            name, str(device), tuple(a.shape for a in arrays), tuple(str(a.dtype) for a in arrays), start - self._start,
            seconds, traffic(name, arguments), operations(name, arguments),
        ))  # fmt: skip

    def _assign(self, op, module, phase):
        """What was launched since the last call belongs to an op."""
        for launch in self._pending:
            if launch.kernel in OPTIMIZER:
                launch = launch._replace(op="optimizer", phase="optimizer")
            else:
                launch = launch._replace(op=op, module=module, phase=phase)
            self.launches.append(launch)
        self._pending.clear()


class _Attribution(Watcher):
    """Whom a launch belongs to: the op that the engine reports next."""

    def __init__(self, trace):
        self.trace, self.stack, self.of = trace, [""], weakref.WeakKeyDictionary()

    def entered(self, modules):
        self.trace._assign("", self.stack[-1], "other")
        paths = self.trace._paths
        names = [paths.get(id(module), type(module).__name__) for module in modules]
        self.stack.append(joined(names))

    def left(self, modules):
        self.stack.pop()

    def computed(self, fn, inputs, results):
        self.of[fn] = self.stack[-1]
        self.trace._assign(fn.name, self.stack[-1], "forward")

    def answered(self, node, grad, answers):
        if isinstance(node, Tensor):
            self.trace._assign("into .grad", "", "backward")
        elif type(node) is not Pick:
            self.trace._assign(node.name, self.of.get(node, ""), "backward")

    def passed(self, node):
        self.trace._assign("sum of gradients", self.of.get(node, ""), "backward")


class _Timed:
    """Stands in for a device's kernels while a trace is on."""

    def __init__(self, device, trace):
        self._device, self._trace, self._module = device, trace, device.kernels

    def __getattr__(self, name):
        kernel, trace, device = getattr(self._module, name), self._trace, self._device
        if name.endswith("_workspace"):
            return kernel

        def launch(*arguments):
            if threading.get_ident() != trace._thread:
                return kernel(*arguments)
            start = time.perf_counter()
            kernel(*arguments)
            device.synchronize()
            trace._launched(device, name, arguments, start, time.perf_counter() - start)

        setattr(self, name, launch)
        return launch


__all__ = ["trace"]
