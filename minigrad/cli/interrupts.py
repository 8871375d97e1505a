"""Ctrl-C, put off while something must not be cut in two."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def held():
    """Inside, Ctrl-C waits: KeyboardInterrupt is raised when the block is left.

    Raised in the midst of writing a file, it may land in a destructor (that of ``zipfile.ZipFile``, say), and Python
    prints and forgets what is raised there.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # somebody else decides what Ctrl-C does
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
