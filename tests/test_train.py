"""Training from the command line: what it learns, writes, refuses, and that the same seed gives the same weights."""

import io
import re

import numpy as np
import pytest

from minigrad import cli
from minigrad.cli import checkpoint, report
from minigrad.data import DataError

pytest.importorskip("rich", reason="the command line needs rich")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def train(capsys, tmp_path, *arguments, plot=True):
    """Exit status, standard output, standard error of a training on the digits."""
    plot = ["--plot", tmp_path / "plot.png"] if plot else []
    status = cli.main(["train", *map(str, arguments), *map(str, plot)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def weights(path):
    return {key: np.asarray(value) for key, value in checkpoint.read(path)["model"].items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_two_epochs_learn_and_report(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="the learning curves need matplotlib")
    status, out, err = train(capsys, tmp_path, "--model", "mlp", "--epochs", 2, "--save", tmp_path / "mlp.npz")
    assert status == 0 and err == ""
    assert "digits: 1,442 training and 355 test images of shape (1, 8, 8)" in out and "epoch 2/2" in out
    accuracy = float(re.search(r"test accuracy ([\d.]+)% \(", out).group(1))
    assert accuracy > 92
    right, total = map(int, re.search(r"% \((\d+) of (\d+)\)", out).groups())
    assert accuracy == pytest.approx(100 * right / total, abs=0.005) and total == 355
    table = re.findall(r"^(\d) +((?:[\d·]+ +){10})([\d.]+)%$", out, re.M)
    counts = np.array([[0 if cell == "·" else int(cell) for cell in row.split()] for _, row, _ in table])
    assert counts.shape == (10, 10) and counts.sum() == 355 and counts.trace() == right
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_same_seed_same_weights_on_any_number_of_threads(capsys, tmp_path, model):
    import numba

    before = numba.get_num_threads()
    runs = [("a", 1, 1), ("b", 1, min(2, numba.config.NUMBA_NUM_THREADS)), ("c", 2, 1)]
    try:
        for name, seed, threads in runs:
            status, _, err = train(capsys, tmp_path, "--model", model, "--epochs", 1, "--batch-size", 128,
                                   "--seed", seed, "--threads", threads, "--save", tmp_path / f"{name}.npz")
            assert status == 0, err
    finally:
        numba.set_num_threads(before)
    a, b, c = (weights(tmp_path / f"{name}.npz") for name, _, _ in runs)
    assert same(a, b) and not same(a, c)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_resumed_training_ends_where_an_unbroken_one_does(capsys, tmp_path, optimizer, monkeypatch):
    from minigrad.cli.trainer import Trainer

    common = ["--epochs", 3, "--optimizer", optimizer, "--batch-size", 256, "--augment"]
    assert train(capsys, tmp_path, *common, "--save", tmp_path / "whole.npz")[0] == 0

    whole_epoch = Trainer.train_epoch

    def stop_in_the_second(self, on_batch=None):
        if self.train_loader.epoch == 1:
            raise KeyboardInterrupt
        return whole_epoch(self, on_batch)

    monkeypatch.setattr(Trainer, "train_epoch", stop_in_the_second)
    assert train(capsys, tmp_path, *common, "--save", tmp_path / "part.npz")[0] == 130
    monkeypatch.undo()
    status, out, err = train(capsys, tmp_path, *common, "--save", tmp_path / "end.npz",
                             "--resume", tmp_path / "part.npz")
    assert status == 0, err
    assert "epoch 1/3" not in out and "epoch 2/3" in out
    assert same(weights(tmp_path / "whole.npz"), weights(tmp_path / "end.npz"))
    assert not same(weights(tmp_path / "part.npz"), weights(tmp_path / "end.npz"))


def test_resume_refuses_what_does_not_fit(capsys, tmp_path):
    saved = tmp_path / "saved.npz"
    assert train(capsys, tmp_path, "--model", "mlp", "--epochs", 1, "--save", saved)[0] == 0
    for arguments, sentence in (
        (["--model", "cnn", "--epochs", 1], r"saved\.npz: was saved with --model mlp, got --model cnn"),
        (["--model", "mlp", "--epochs", 1, "--seed", 3], "--seed 0, got --seed 3"),
        (["--model", "mlp", "--epochs", 1, "--batch-size", 8], "--batch-size 32, got --batch-size 8"),
    ):
        status, _, err = train(capsys, tmp_path, *arguments, "--resume", saved)
        assert status == 1 and err.count("\n") == 1 and re.search(sentence, err), err


@pytest.mark.parametrize("content", [None, b"", b"garbage", "half", "array"])
def test_resume_from_a_bad_file_is_one_sentence(capsys, tmp_path, content):
    path = tmp_path / "saved.npz"
    if content == "half":
        assert train(capsys, tmp_path, "--model", "mlp", "--epochs", 1, "--save", path)[0] == 0
        path.write_bytes(path.read_bytes()[:10_000])
    elif content == "array":
        np.savez(path, a=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    status, _, err = train(capsys, tmp_path, "--model", "mlp", "--epochs", 1, "--resume", path)
    assert status == 1 and err.count("\n") == 1 and str(path) in err


def test_a_failing_save_leaves_the_earlier_file_and_nothing_else(capsys, tmp_path, monkeypatch):
    saved = tmp_path / "saved.npz"
    assert train(capsys, tmp_path, "--model", "mlp", "--epochs", 1, "--save", saved)[0] == 0
    before = saved.read_bytes()
    files = sorted(tmp_path.iterdir())

    def full_disk(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    status, _, err = train(capsys, tmp_path, "--model", "mlp", "--epochs", 1, "--seed", 5, "--save", saved)
    assert status == 1 and "No space left on device" in err
    assert saved.read_bytes() == before and sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--data", "mnist", "--data-dir", "nowhere"], "mnist: the folder nowhere does not exist"),
    (["--data", "mnist", "--data-dir", "."], r"\.: expected the file train-images-idx3-ubyte\.gz"),
    (["--data", "cifar10", "--data-dir", "."], "expected CIFAR-10 as"),
    (["--data-dir", "."], "digits: .* takes no folder"),
    (["--threads", 100_000], "set_num_threads: expected 1 to"),
    (["--save", "."], "--save expects a file, got the folder"),
    (["--save", "file/saved.npz"], "file"),
    (["--resume", "nowhere.npz"], "nowhere.npz"),
    (["--model", "mlp", "--batch-size", 1], "BatchNorm1d: expected more than one value"),
    (["--model", "mlp", "--lr", 1e30, "--optimizer", "sgd", "--epochs", 1], "expected a finite loss, got (nan|inf)"),
])
def test_bad_input_is_one_sentence_and_status_1(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    status, _, err = train(capsys, tmp_path, *arguments)
    assert status == 1 and err.count("\n") == 1 and re.search(sentence, err, re.I), err


def test_truncated_data_are_named_on_the_command_line(capsys, tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + b"123")
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"")
    status, _, err = train(capsys, tmp_path, "--data", "mnist", "--data-dir", tmp_path)
    assert status == 1 and "train-images-idx3-ubyte: the header promises 8 values" in err and err.count("\n") == 1


def test_augmentation_and_a_batch_larger_than_the_data_work(capsys, tmp_path):
    status, out, err = train(capsys, tmp_path, "--augment", "--epochs", 1, "--batch-size", 100_000)
    assert status == 0 and "batches of 1442" in out, err


def test_without_matplotlib_training_goes_on_unless_a_plot_is_asked_for(capsys, tmp_path, monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest))
    monkeypatch.chdir(tmp_path)
    status, out, _ = train(capsys, tmp_path, "--model", "mlp", "--epochs", 1, plot=False)
    assert status == 0 and "no learning curves" in out and not (tmp_path / "runs").exists()
    status, _, err = train(capsys, tmp_path, "--model", "mlp", "--epochs", 1)
    assert status == 1 and "--plot needs matplotlib" in err


def test_confusion_matrix_counts_rows_as_truth():
    matrix = report.confusion_matrix(np.array([0, 0, 2, 2]), np.array([0, 1, 2, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_a_class_without_images_has_no_accuracy():
    from rich.console import Console

    console = Console(record=True, width=80, file=io.StringIO())
    console.print(report.confusion_table(np.array([[2, 0], [0, 0]]), ("cat", "dog")))
    text = console.export_text()
    assert "0 cat" in text and "100.0%" in text and "no image" in text


def test_the_defaults_name_every_data_set():
    from minigrad.cli.train import BATCH_SIZE, EPOCHS
    from minigrad.data import LOADERS, load

    assert set(EPOCHS) == set(BATCH_SIZE) == set(LOADERS)
    with pytest.raises(DataError):
        load("")
