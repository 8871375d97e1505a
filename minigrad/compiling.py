"""Shows what is being compiled, since a first run spends seconds on it.

Numba compiles a kernel when it is first called with arguments of new types; later processes read the machine code
from disk. `minigrad.kernels.cpu.compile` calls its listeners around every compilation.
"""

import sys
import threading


class Compilations:
    """Listens to compilations, as a context manager.

    Parameters
    ----------
    listeners : list
        ``minigrad.kernels.cpu.compile.compile_listeners``.
    show : callable
        ``show(name, count)`` is called when a compilation begins, with the kernel's name and the number of
        compilations begun so far, and ``show(None, count)`` when the last one under way has ended.

    Attributes
    ----------
    names : list of str
        The kernels compiled so far, once per signature.
    """

    def __init__(self, listeners, show):
        self.listeners, self.show = listeners, show
        self.names = []
        self._under_way = []
        self._lock = threading.Lock()

    def __enter__(self):
        self.listeners.append(self._listen)
        return self

    def __exit__(self, *exception):
        self.listeners.remove(self._listen)

    def _listen(self, event, name, signature):
        with self._lock:
            if event == "start":
                self.names.append(name)
                self._under_way.append(name)
            elif name in self._under_way:
                self._under_way.remove(name)
            self.show(self._under_way[-1] if self._under_way else None, len(self.names))


class TerminalLine:
    """A `show` for `Compilations`: one line on standard error that disappears when the compilation has ended."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stderr
        self.width = 0

    def __call__(self, name, count):
        text = f"minigrad: compiling {name} (kernel {count}, first run only)" if name else ""
        print(f"\r{text:<{self.width}}\r{text}", end="", file=self.stream, flush=True)
        self.width = len(text)


def show_compilations(listeners):
    """From now on show compilations on standard error, if that is a terminal and nobody else is listening."""
    if not sys.stderr or not sys.stderr.isatty():
        return
    line = TerminalLine()

    def show(name, count):
        if len(listeners) == 1:
            line(name, count)

    Compilations(listeners, show).__enter__()
