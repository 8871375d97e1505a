"""Why a row is slower than PyTorch: written by hand, once it has been measured and is understood.

A pattern has to match in the row's name; the first that does counts. The report shows those rows that need one.
"""

import re

REASONS = (
    (r"^first training step .*, nothing cached",
     "minigrad compiles its kernels from Python on this machine; the other libraries' came compiled"),
)

NONE = "no reason recorded"


def reason(name, reasons=REASONS):
    """The reason for a row's name, or `NONE`."""
    return next((text for pattern, text in reasons if re.search(pattern, name)), NONE)
