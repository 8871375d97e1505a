"""What takes seconds to make, kept on disk beside the compiled kernels."""

import json
import os
import time

DAYS = 60  # what nobody has looked at for so long is of earlier versions


def kept(name, make, complete=lambda made: True):
    """What ``make()`` returns, plain lists and dicts, from the disk if it has been made before.

    A folder that cannot be written or a file that cannot be read is no error: it is made again.

    Parameters
    ----------
    name : str
        Of the file; it has a hash of all that the content depends on.
    make : callable
    complete : callable, optional
        Whether what was made is worth keeping.
    """
    from minigrad.kernels.cpu.compile import cache_folder

    file = cache_folder() / "study" / f"{name}.json"
    try:
        known = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        known = make()
        if complete(known):
            _write(file, known)
    return known


def _write(file, known):
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(known), "utf-8")
        partial.replace(file)  # another process sees the whole file or none
        oldest = time.time() - DAYS * 86400
        for other in file.parent.iterdir():
            if other.stat().st_mtime < oldest:
                other.unlink()
    except OSError:
        pass
