"""Look at autograd at work: the recorded graph, the walk back, the kernels and what they were compiled to."""

import importlib

_HOMES = {
    "decompose": "decomposing",
    "explain": "explaining",
    "graph": "graphs",
    "names": "module_names",
    "numerical": "numerical_check",
    "page": "page_builder",
    "source": "sources",
    "trace": "tracing",
}  # each name with its module, imported at the first use; none has a function's name: it would take its place

__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(importlib.import_module(f"minigrad.study.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'minigrad.study' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
