"""What a training run shows at its end: the confusion matrix and the learning curves."""

import math

import numpy as np


def confusion_matrix(labels, predictions, classes):
    """How often each class (rows) was taken for each class (columns).

    Parameters
    ----------
    labels, predictions : numpy.ndarray
        int64, shape (N,), from 0 to ``classes - 1``.
    classes : int

    Returns
    -------
    numpy.ndarray
        int64, shape (classes, classes).
    """
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def confusion_table(matrix, names):
    """The matrix as a rich table, with the accuracy of each class in the last column."""
    from rich.table import Table

    table = Table(title="test images, rows: true class, columns: prediction", title_justify="left", box=None,
                  header_style="dim", pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in range(len(names)):
        table.add_column(str(column), justify="right")
    table.add_column("accuracy", justify="right")
    for row, name in enumerate(names):
        total = matrix[row].sum()
        cells = [_cell(count, row == column) for column, count in enumerate(matrix[row])]
        accuracy = f"{matrix[row, row] / total:.1%}" if total else "no image"
        table.add_row(name if name == str(row) else f"{row} {name}", *cells, accuracy)
    return table


def _cell(count, right):
    if right:
        return f"[green]{count}[/green]"
    return f"[bold red]{count}[/bold red]" if count else "[dim]·[/dim]"


def plot_curves(history, title, path):
    """Write a PNG of the learning curves.

    Parameters
    ----------
    history : list of dict
        One per epoch, with ``loss``, ``accuracy``, ``test_loss`` and ``test_accuracy`` (accuracies from 0 to 1).
    title : str
    path : Path
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    for axes, key, scale in ((left, "loss", 1), (right, "accuracy", 100)):
        for name, style in ((key, "o--"), (f"test_{key}", "o-")):
            label = "test" if name.startswith("test") else "training"
            axes.plot(epochs, [scale * row[name] for row in history], style, markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if all(row[name] > 0 and math.isfinite(row[name]) for row in history for name in ("loss", "test_loss")):
        left.set_yscale("log")
    left.set_ylabel("cross-entropy")
    right.set_ylabel("accuracy (%)")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
