"""Look at autograd at work: the recorded graph, the walk back, the kernels and what they were compiled to."""

import importlib

_HOMES = {
    "decompose": "decompose",
    "explain": "explain",
    "graph": "graph",
    "names": "names",
    "numerical": "numerical",
    "page": "page",
    "source": "source",
    "trace": "trace",
}  # each name with its module, imported at the first use

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(f"minigrad.study.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'minigrad.study' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
