"""A training step as one HTML file that needs nothing else."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from minigrad import functional
from minigrad.creation import from_numpy
from minigrad.study import page_influence
from minigrad.study.page_code import LEVELS, code_of
from minigrad.study.page_data import page_data
from minigrad.study.page_influence import Influence, packed
from minigrad.study.page_recording import record
from minigrad.tensor import Tensor

WEB = Path(__file__).parent / "web"
SCRIPTS = ("values.js", "graph.js", "panel.js", "page.js")  # in the order in which they are needed
NEEDED = {"igraph": "igraph", "jinja2": "jinja2", "mpld3": "mpld3", "pygments": "pygments"}


def page(model, x, y, path="step.html", *, loss=None, title=None, code="machine", fuse=None, decompose=False,
         influence=True, progress=None):
    """Write a page that walks through one training step, forward and backward, op by op.

    The step runs once, and everything is left as it was: gradients, running statistics, random numbers, modes.

    Parameters
    ----------
    model : Module
    x, y : Tensor or numpy.ndarray
        A batch and its targets.
    path : str or Path
        The file, replaced if it exists. It opens without a server and without a network.
    loss : callable, optional
        ``loss(model(x), y)`` must be a scalar. By default cross-entropy where `y` is of integers, else the mean squared
        error.
    title : str, optional
        The page's heading; the model's class by default.
    code : {"machine", "source", "none"}
        What the code tabs hold. "machine" compiles the kernels for LLVM IR, assembly and, where the CUDA tools are
        installed, PTX: up to some seconds a kernel at the first time. "source" has only what can be read without that.
    fuse : bool, optional
        False calls the children of `Sequential` one by one, so that every layer is a node; True fuses as training does.
        As the model says by default.
    decompose : bool
        Run fused ops as compositions of primitives, see `minigrad.study.decompose`.
    influence : bool
        Whether a net of up to 300 parameters is run again for each weight, to show what it moves.
    progress : callable, optional
        ``progress(what, number, count)`` is told what is being made.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If the file's folder does not exist.
    ValueError
        If `x` and `y` are of different length, nothing requires grad, or the loss is no scalar.

    Examples
    --------
    >>> minigrad.study.page(model, x, y, "step.html")
    """
    data = step_data(model, x, y, loss=loss, title=title, code=code, fuse=fuse, decompose=decompose,
                     influence=influence, progress=progress, path=path)
    path = Path(path)
    path.write_text(as_html(data), encoding="utf-8")
    return path


def step_data(model, x, y, *, loss=None, title=None, code="machine", fuse=None, decompose=False, influence=True,
              progress=None, path=None):
    """What `page` writes, as a dict for JSON; its parameters are those of `page`."""
    _check(model, code, path)
    x, y = _batch(model, x, y, loss)
    loss = loss or (functional.cross_entropy if y.dtype.kind == "i" else functional.mse_loss)
    progress = progress or (lambda what, number, count: None)
    progress("the step", 0, 1)
    recording = record(model, x, y, loss, fuse=fuse, decomposed=decompose)
    progress("influence", 0, 1)
    found = Influence({})
    if influence:
        found = page_influence.influence(model, x, y, loss, recording, fuse=fuse, decomposed=decompose)
    texts = code_of(recording.graph, code, progress)
    return page_data(recording, model, title=title or type(model).__name__, texts=texts, influence=packed(found))


def as_html(data):
    """The page: template, style sheet, scripts, D3 and data in one text."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    template = environment.from_string((WEB / "page.html").read_text("utf-8"))
    raw = {
        "style": (WEB / "page.css").read_text("utf-8"),
        "d3": _d3(),
        "scripts": "\n".join((WEB / name).read_text("utf-8") for name in SCRIPTS),
        # "<" cannot end the script element then
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    return template.render(data=data, raw={name: jinja2.utils.markupsafe.Markup(text) for name, text in raw.items()})


def _d3():
    """D3 as mpld3 carries it; mpld3 itself, which loads matplotlib, is not imported."""
    folder = Path(importlib.util.find_spec("mpld3").origin).parent
    found = sorted((folder / "js").glob("d3.v5.min.js"))
    if not found:
        raise FileNotFoundError("page: expected d3.v5.min.js in the package mpld3; another release of mpld3 has it")
    return found[0].read_text("utf-8").replace("</script", "<\\/script")


def _check(model, code, path):
    """Complain before any time is spent."""
    if not hasattr(model, "named_parameters"):
        raise TypeError(f"page: expected model to be a Module, got {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"page: {type(model).__name__} has no parameter that requires grad, so there is no backward")
    if code not in LEVELS:
        raise ValueError(f"page: expected code to be one of {', '.join(LEVELS)}, got {code!r}")
    if path is not None:
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"page: expected a file to write, got the folder {path}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"page: there is no folder {path.parent} to write {path.name} into")
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"page: needs {', '.join(missing)}: pip install 'minigrad-numba[study]'")


def _batch(model, x, y, loss):
    """Both as tensors where the model is."""
    weight = next(iter(model.parameters()))
    tensors = []
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            if not isinstance(value, (np.ndarray, list, tuple, int, float)):
                raise TypeError(f"page: expected {name} to be a Tensor or an array, got {type(value).__name__}")
            value = np.asarray(value)
            value = value.astype(weight.dtype if value.dtype.kind == "f" else np.int64)
            value = from_numpy(value, weight.device)
        tensors.append(value)
    x, y = tensors
    if loss is None and x.shape[:1] != y.shape[:1]:
        raise ValueError(f"page: expected one target per sample, got x of shape {x.shape} and y of shape {y.shape}")
    return x, y
