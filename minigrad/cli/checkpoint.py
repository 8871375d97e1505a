"""A training in a file: the weights, and all else that going on from there needs to give the same numbers."""

import minigrad as mg
from minigrad.random import default_generator

FORMAT = "minigrad training 1"
MISSING = object()


def save(trainer, path, settings):
    """Write the state after an epoch; an earlier file of that name stays until the new one is complete.

    Parameters
    ----------
    trainer : Trainer
    path : Path
        The weights are under ``model`` of what `minigrad.load` returns:
        ``model.load_state_dict(mg.load(path)["model"])``.
    settings : dict
        The options that a resumed training must share; ``restore`` compares them.
    """
    mg.save({
        "format": FORMAT,
        "settings": settings,
        "epoch": trainer.train_loader.epoch,
        "history": trainer.history,
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "generator": default_generator.get_state(),
    }, path)


def read(path):
    """The dict that `save` wrote.

    Raises
    ------
    OSError, ValueError
        If there is no such file, it is damaged, or it holds something else.
    """
    state = mg.load(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a training that --save wrote, got something else")
    return state


def restore(trainer, path, settings):
    """Bring a freshly built trainer to where it was when the file was written.

    Raises
    ------
    OSError, ValueError
        As `read`; also if it was saved with other settings.
    """
    state = read(path)
    for name, wanted in settings.items():
        saved = state["settings"].get(name, MISSING)
        if saved != wanted:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{path}: was saved with {option} {saved}, got {option} {wanted}")
    trainer.model.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scheduler.load_state_dict(state["scheduler"])
    trainer.train_loader.epoch = state["epoch"]
    trainer.history = state["history"]
    default_generator.set_state(state["generator"])
