"""Files fetched once, checked against a published checksum and kept in the user's cache folder."""

import os
import sys
from pathlib import Path

from minigrad.data.errors import DataError


def data_folder():
    """The folder of downloaded data sets: ``$MINIGRAD_DATA_DIR`` or the user's cache folder."""
    root = os.environ.get("MINIGRAD_DATA_DIR")
    return Path(root) if root else Path(_pooch("data_folder").os_cache("minigrad-data"))


def download(url, known_hash, folder, progress=None):
    """Fetch a file unless it lies in `folder` already, and return its path.

    Parameters
    ----------
    url : str
        Where the file is, http or https.
    known_hash : str
        ``"md5:..."`` or ``"sha256:..."``. A file in the cache is checked too, and fetched again if it differs.
    folder : str or Path
        Made if it is missing. The file appears in it only when it is whole.
    progress : object, optional
        With the attribute ``total`` and the methods ``update(n)``, ``reset()`` and ``close()``, as of a tqdm bar.
        By default one line on standard error, if that is a terminal.

    Raises
    ------
    DataError
        If pooch is not installed, the file cannot be fetched, or its checksum is another one.
    """
    name = url.rsplit("/", 1)[-1]
    pooch = _pooch(name)
    downloader = pooch.HTTPDownloader(progressbar=progress or Progress(name), timeout=30)
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, known_hash, fname=name, path=folder, downloader=downloader))
    except ValueError as error:
        raise DataError(f"{name}: what {url} sent does not have the checksum {known_hash}") from error
    except OSError as error:  # requests' errors are OSErrors too
        raise DataError(f"{name}: cannot be fetched from {url} into {folder} ({_reason(error)}); a folder that holds "
                        "the files works without a download") from error


def _reason(error):
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or inner


def _pooch(name):
    try:
        import pooch
    except ImportError as error:
        raise DataError(f"{name}: downloading a data set needs pooch: pip install pooch (or name a folder that holds "
                        "the files)") from error
    return pooch


class Progress:
    """A line of progress on standard error while a file arrives; silent when that is no terminal."""

    def __init__(self, name):
        self.name, self.total, self.done = name, 0, 0

    def update(self, n):
        self.done += n
        if sys.stderr.isatty():
            share = f" of {self.total / 1e6:.1f}" if self.total else ""
            print(f"\r{self.name}: {self.done / 1e6:.1f}{share} MB ", end="", file=sys.stderr, flush=True)

    def reset(self):
        self.done = 0

    def close(self):
        if sys.stderr.isatty():
            print(file=sys.stderr)
