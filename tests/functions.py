"""All Functions of the project, for tests that go through them."""

import minigrad.functional  # noqa: F401 - so that all of them are defined
from minigrad.function import Function


def functions(base=Function):
    """The project's subclasses of a Function, however deep."""
    for child in base.__subclasses__():
        if child.__module__.startswith("minigrad."):
            yield child
        yield from functions(child)
