"""Write a page that walks through one training step, forward and backward, down to the machine code."""

import argparse
import contextlib
import importlib.util
import runpy
import traceback
from pathlib import Path

from minigrad.cli.options import device, whole_number
from minigrad.device import get_device

CONVENTION = (
    "PATH is a Python file that defines study(), which returns (model, x, y) or (model, x, y, loss), or that has the "
    "names model, x, y and perhaps loss. It is run as a module named 'minigrad_study', so what stands under "
    "if __name__ == '__main__' does not run."
)
ONLY_FOR_MODELS = ("data", "data_dir", "batch_size", "device")


def add_options(parser):
    """What to study, and how much of it."""
    parser.epilog = CONVENTION
    add = parser.add_argument
    add("path", nargs="?", type=Path, metavar="PATH", help="a script that defines study(); see below")
    add("--model", choices=("mlp", "cnn"), help="in place of a script: a net of minigrad train, before its first step")
    add("--data", choices=("digits", "mnist", "fashion-mnist", "cifar10"),
        help="the data set for --model (default: digits)")
    add("--data-dir", type=Path, metavar="DIR", help="where its files are (default: downloaded once, with a checksum)")
    add("--batch-size", type=whole_number(1), metavar="N", help="images in the batch (default: 16)")
    add("--seed", type=whole_number(0), metavar="N", help="(default: 0)")
    add("--device", type=device, metavar="NAME", help="cpu or cuda, for --model (default: cpu)")
    add("--output", type=Path, default=Path("step.html"), metavar="FILE", help="the page (default: step.html)")
    add("--code", choices=("machine", "source", "none"), default="machine",
        help="what the code tabs hold: machine compiles for LLVM, assembly and PTX, seconds a kernel the first time; "
             "source does not (default: machine)")
    add("--fuse", action=argparse.BooleanOptionalAction, help="join layers into one op, or run each on its own "
                                                              "(default: as the model says)")
    add("--decompose", action="store_true", help="run fused ops as compositions of primitives")
    add("--influence", action=argparse.BooleanOptionalAction, default=True,
        help="of a net of up to 300 parameters, what each weight moves (default: yes)")


def run(options):
    """Find the net and the batch, write the page."""
    from rich.console import Console

    import minigrad as mg
    from minigrad.compiling import Compilations
    from minigrad.study import page

    console = Console(highlight=False)
    if (options.path is None) == (options.model is None):
        raise ValueError("study: expected either a script or --model, as in minigrad study --model cnn")
    if not options.output.parent.is_dir():
        folder, name = options.output.parent, options.output.name
        raise FileNotFoundError(f"study: there is no folder {folder} to write {name} into")
    if options.path is not None:
        for name in ONLY_FOR_MODELS:
            if getattr(options, name) is not None:
                raise ValueError(f"study: --{name.replace('_', '-')} goes with --model; a script makes its own net and "
                                 "batch")
    mg.manual_seed(options.seed or 0)
    with console.status("building the net") as status:
        state = {"what": "the net"}

        def compiling(name, count):
            status.update(f"{state['what']}: compiling {name} ({count})" if name else state["what"])

        def progress(what, number, count):
            state["what"] = f"{what} ({number + 1} of {count})" if what and count > 1 else what or "writing"
            status.update(state["what"])

        listeners = get_device(options.device).compile_listeners
        with Compilations(listeners, compiling):
            model, x, y, loss, title = _from_script(options) if options.path else _net(options)
            path = page(model, x, y, options.output, loss=loss, title=title, code=options.code, fuse=options.fuse,
                        decompose=options.decompose, influence=options.influence, progress=progress)
    size = path.stat().st_size
    console.print(f"{title}: wrote {path} ({size / 1e6:.1f} MB); open it in a browser", soft_wrap=True)


def _from_script(options):
    path = options.path
    if not path.is_file():
        raise FileNotFoundError(f"study: there is no file {path}")
    with _told_where(path):
        names = runpy.run_path(str(path), run_name="minigrad_study")
        made = callable(names.get("study"))
        found = names["study"]() if made else None
    if not made and {"model", "x", "y"} <= names.keys():
        found = names["model"], names["x"], names["y"], names.get("loss")
    elif not made:
        raise ValueError(f"study: expected {path.name} to define study(), which returns (model, x, y), or the names "
                         "model, x and y; for the nets of minigrad train use --model")
    if not isinstance(found, tuple) or len(found) not in (3, 4):
        raise ValueError(f"study: expected study() of {path.name} to return (model, x, y) or (model, x, y, loss), "
                         f"got {f'{len(found)} things' if isinstance(found, tuple) else type(found).__name__}")
    model, x, y, loss = (*found, None)[:4]
    if loss is not None and not callable(loss):
        raise TypeError(f"study: expected loss of {path.name} to be a function of (output, y), "
                        f"got {type(loss).__name__}")
    return model, x, y, loss, path.stem


@contextlib.contextmanager
def _told_where(path):
    """Let an error of the user's script say where in it."""
    try:
        yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        place = f"{path}, line {line}" if line else str(path)
        raise RuntimeError(f"study: {place}: {type(error).__name__}: {error}") from error


def _net(options):
    """A net of `minigrad train` and the first images of its data."""
    from minigrad import data as datasets
    from minigrad.cli.models import MODELS
    from minigrad.creation import from_numpy

    name = options.data or "digits"
    if name == "digits" and importlib.util.find_spec("sklearn") is None:
        raise ImportError("study: the digits come with scikit-learn: pip install scikit-learn, or choose other --data")
    data = datasets.load(name, options.data_dir)
    place, count = get_device(options.device), options.batch_size or 16
    model = MODELS[options.model](data.x_train.shape[1:], len(data.classes)).to(place)
    x = from_numpy(data.x_train[:count].copy(), place)
    y = from_numpy(data.y_train[:count].copy(), place)
    return model, x, y, None, f"{options.model} on {name}"
