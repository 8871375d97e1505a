"""Train a small net on images: handwritten digits by default, no download needed."""

import importlib.util
import sys
from pathlib import Path

from minigrad.cli.options import device, positive_number, whole_number

# What is used where the command line says nothing.
EPOCHS = {"digits": {"mlp": 15, "cnn": 15}, "mnist": {"mlp": 5, "cnn": 3}, "fashion-mnist": {"mlp": 5, "cnn": 5},
          "cifar10": {"mlp": 10, "cnn": 10}}
BATCH_SIZE = {"digits": 32, "mnist": 128, "fashion-mnist": 128, "cifar10": 128}
HEADER = f"{'':12} {'loss':>8} {'accuracy':>9}   {'test loss':>9} {'accuracy':>9} {'images/s':>10}"
PEAK_LR = {"sgd": 0.1, "adam": 0.005, "adamw": 0.005}


def add_options(parser):
    """The options of ``minigrad train`` and examples/train.py."""
    add = parser.add_argument
    add("--data", choices=tuple(EPOCHS), default="digits", help="the data set (default: digits)")
    add("--data-dir", type=Path, metavar="DIR", help="where its files are (default: downloaded once, with a checksum)")
    add("--model", choices=("mlp", "cnn"), default="cnn", help="the net (default: cnn)")
    add("--epochs", type=whole_number(1), metavar="N", help="passes over the training set (default: 3 to 15, by data)")
    add("--batch-size", type=whole_number(1), metavar="N", help="images per step (default: 32 for digits, else 128)")
    add("--lr", type=positive_number, metavar="X",
        help="the learning rate at the top of its one-cycle schedule (default: 0.1 for sgd, else 0.005)")
    add("--optimizer", choices=tuple(PEAK_LR), default="adam", help="(default: adam; sgd has momentum 0.9)")
    add("--augment", action="store_true", help="shift images by up to 1/8; mirror photographs and clothes")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="same seed, same weights (default: 0)")
    add("--device", type=device, default="cpu", metavar="NAME", help="cpu or cuda (default: cpu)")
    add("--threads", type=whole_number(1), metavar="N", help="(default: one per core)")
    add("--save", type=Path, metavar="FILE", help="write the weights and all else that --resume needs, every epoch")
    add("--resume", type=Path, metavar="FILE", help="go on from a saved file, as if there had been no break")
    add("--plot", type=Path, metavar="FILE", help="the learning curves (default: runs/DATA-MODEL.png)")


def run(options):
    """Train, show the result, write the files."""
    from rich.console import Console

    import minigrad as mg
    from minigrad import data as datasets
    from minigrad.cli import report
    from minigrad.compiling import Compilations

    console = Console(highlight=False)
    options.epochs = options.epochs or EPOCHS[options.data][options.model]
    options.batch_size = options.batch_size or BATCH_SIZE[options.data]
    options.lr = options.lr or PEAK_LR[options.optimizer]
    plot = _prepare_outputs(options, console)
    if options.threads:
        mg.set_num_threads(options.threads)
    data = datasets.load(options.data, options.data_dir)
    console.print(f"{options.data}: {len(data.x_train):,} training and {len(data.x_test):,} test images of shape "
                  f"{data.x_train.shape[1:]}")
    with console.status("building the net") as status, Compilations(
        options.device.compile_listeners, lambda name, count: name and status.update(f"compiling {name} ({count})")
    ):
        trainer = _build(options, data)
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    console.print(f"{options.model}: {count:,} parameters, {options.optimizer}, batches of "
                  f"{trainer.train_loader.batch_size}, seed {options.seed}")
    _fit(options, trainer, console)

    _, predictions, labels = trainer.evaluate()
    console.print()
    console.print(report.confusion_table(report.confusion_matrix(labels, predictions, len(data.classes)), data.classes))
    right = int((predictions == labels).sum())
    console.print(f"\ntest accuracy {right / len(labels):.2%} ({right:,} of {len(labels):,})")
    if options.save:
        console.print(f"saved {options.save}", soft_wrap=True)
    if plot:
        report.plot_curves(trainer.history, f"{options.data} {options.model}, seed {options.seed}", plot)
        console.print(f"learning curves in {plot}", soft_wrap=True)


def _prepare_outputs(options, console):
    """Make the folders of the files to be written, and return where the curves go: before any time is spent."""
    plot = options.plot or Path("runs") / f"{options.data}-{options.model}.png"
    if importlib.util.find_spec("matplotlib") is None:
        if options.plot:
            raise ModuleNotFoundError("train: --plot needs matplotlib: pip install matplotlib")
        console.print("no learning curves will be drawn: that needs matplotlib (pip install matplotlib)")
        plot = None
    for name, path in (("--plot", plot), ("--save", options.save)):
        if path is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"train: {name} expects a file, got the folder {path}")
    return plot


def _build(options, data):
    """The trainer of the given options, seeded; where it was saved before, as it was then."""
    import minigrad as mg
    from minigrad.cli.checkpoint import restore
    from minigrad.cli.models import MODELS
    from minigrad.cli.trainer import Trainer

    mg.manual_seed(options.seed)
    model = MODELS[options.model](data.x_train.shape[1:], len(data.classes)).to(options.device)
    batch_size = min(options.batch_size, len(data.x_train))
    loader = mg.data.DataLoader((data.x_train, data.y_train), batch_size, shuffle=True, drop_last=True,
                                transform=_augmentation(options, data), seed=options.seed, device=options.device)
    test_loader = mg.data.DataLoader((data.x_test, data.y_test), 500, device=options.device)
    optimizer = {
        "sgd": lambda parameters: mg.optim.SGD(parameters, lr=options.lr, momentum=0.9, weight_decay=5e-4),
        "adam": lambda parameters: mg.optim.Adam(parameters, lr=options.lr),
        "adamw": lambda parameters: mg.optim.AdamW(parameters, lr=options.lr),
    }[options.optimizer](model.parameters())
    scheduler = mg.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.epochs * len(loader))
    trainer = Trainer(model, mg.functional.cross_entropy, optimizer, scheduler, loader, test_loader)
    if options.resume:
        restore(trainer, options.resume, _settings(options))
    return trainer


def _augmentation(options, data):
    from minigrad.data import compose, random_crop, random_horizontal_flip

    if not options.augment:
        return None
    shift = random_crop(max(1, data.x_train.shape[-1] // 8))
    return shift if options.data in ("digits", "mnist") else compose(shift, random_horizontal_flip())


def _settings(options):
    """What must be the same for a resumed training to be the one that was interrupted."""
    names = ("data", "model", "epochs", "batch_size", "lr", "optimizer", "augment", "seed")
    return {name: getattr(options, name) for name in names}


def _fit(options, trainer, console):
    """Train the epochs that are left, with a progress bar on a terminal and a line per epoch."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from minigrad.cli.checkpoint import save
    from minigrad.cli.interrupts import held
    from minigrad.compiling import Compilations, TerminalLine

    loader = trainer.train_loader
    per_epoch = len(loader) * loader.batch_size
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=10), TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"), TimeRemainingColumn(compact=True), TextColumn("left"),
        console=console, transient=True, disable=not console.is_terminal,
    )
    task = progress.add_task("starting", total=options.epochs * per_epoch, completed=loader.epoch * per_epoch,
                             figures="")

    def epoch():
        return f"epoch {max(1, loader.epoch)}/{options.epochs}"

    def show_in_bar(name, count):
        progress.update(task, description=f"compiling {name} ({count})" if name else epoch())

    def on_batch(images, loss, accuracy):
        speed = progress.tasks[0].speed
        figures = f"loss {loss:.4f}  accuracy {accuracy:.1%}" + (f"  {speed:,.0f} images/s" if speed else "")
        progress.update(task, advance=images, description=epoch(), figures=figures)

    silent = not sys.stderr.isatty()
    show = show_in_bar if console.is_terminal else (lambda name, count: None) if silent else TerminalLine()
    with progress, Compilations(options.device.compile_listeners, show) as compilations:
        if loader.epoch < options.epochs:
            console.print(HEADER, style="dim")
        while loader.epoch < options.epochs:
            row = trainer.train_epoch(on_batch)
            if options.save:
                with held():
                    save(trainer, options.save, _settings(options))
            console.print(f"{epoch():12} {row['loss']:8.4f} {row['accuracy']:9.2%}   {row['test_loss']:9.4f} "
                          f"{row['test_accuracy']:9.2%} {row['images_per_second']:10,.0f}", soft_wrap=True)
    if compilations.names:
        console.print(f"compiled {len(compilations.names)} kernels; the next run reads them from disk", style="dim")
