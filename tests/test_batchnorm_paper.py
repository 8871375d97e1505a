"""The experiments of examples/batchnorm_paper.py on the digits, with tiny budgets; and the page that they write."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

for name, why in (("sklearn", "the digits come with scikit-learn"), ("rich", "the progress bar needs rich"),
                  ("matplotlib", "the pictures need matplotlib")):
    pytest.importorskip(name, reason=why)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import batchnorm_paper  # noqa: E402
from batchnorm import experiments, figures, nets, page, training  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad import layers as nn  # noqa: E402
from minigrad.data import DataError  # noqa: E402

NAMES = list(experiments.EXPERIMENTS)
PAGE = (ROOT / "docs" / "batchnorm.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "docs" / "batchnorm.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def digits():
    return training.load("digits", None, "cpu", lambda text: None)


@pytest.fixture(scope="module", autouse=True)
def small_grids():
    """Few runs, and short nets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RATES": (0.1, 30.0), "RATES_SEEDS": 2, "DEEP_LAYERS": 4, "DEEP_RATES": (0.1, 1.0),
                            "CNN_LAYERS": 4, "CNN_RATES": (0.1, 0.3), "SPEEDUP_RATES": (0.1, 0.3), "SPEEDUP_SEEDS": 2,
                            "SIZES": (2, 32), "SIZES_SEEDS": 2}.items():
            assert type(getattr(experiments, name)) is type(value)
            patch.setattr(experiments, name, value)
        yield


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder in which all experiments have run, with a page, as the command line makes it."""
    folder = tmp_path_factory.mktemp("everything")
    blocks = "".join(f"<!-- batchnorm-{name}: generated -->\nold\n<!-- end -->\n" for name in NAMES)
    (folder / "batchnorm.md").write_text(f"Above.\n{blocks}Below.\n", "utf-8")
    assert batchnorm_paper.main(["--data", "digits", "--steps", "100", "--out", str(folder)]) == 0
    return folder


def block(text, name):
    """The content of a generated block."""
    return re.search(rf"<!-- batchnorm-{name}: [^>]*-->\n(.*?)<!-- end -->", text, re.DOTALL)[1].strip()


def test_every_experiment_leaves_results_a_picture_and_its_block(everything):
    results = json.loads((everything / "batchnorm.json").read_text("utf-8"))
    text = (everything / "batchnorm.md").read_text("utf-8")
    assert list(results) == NAMES and text.startswith("Above.\n") and text.endswith("Below.\n") and "old" not in text
    for name, result in results.items():
        assert result["data"] == "digits" and result["steps" if name != "batch-size" else "examples"] > 0
        assert {"with", "without"} <= result["nets"].keys()
        assert (everything / "images" / f"batchnorm-{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert block(text, name) == page.block(name, result)


def test_figure_1_holds_what_it_draws(everything):
    result = json.loads((everything / "batchnorm.json").read_text("utf-8"))["figure1"]
    looks = result["looks"]
    assert looks == sorted(set(looks)) and looks[-1] == result["steps"] == 100
    for net in result["nets"].values():
        low, middle, high = np.array(net["percentiles"])
        assert len(net["accuracy"]) == len(middle) == len(looks) and net["final"] == net["accuracy"][-1]
        assert (low <= middle).all() and (middle <= high).all()
    without, normalised = (np.array(result["nets"][name]["percentiles"]) for name in ("without", "with"))
    # The plain net's sigmoid sees next to no difference between images yet; the other about one deviation each way.
    assert 4 * (without[2, -1] - without[0, -1]) < 1.5 < normalised[2, -1] - normalised[0, -1] < 3
    assert result["nets"]["with"]["final"] > result["nets"]["without"]["final"] + 0.2


def test_the_same_seed_gives_the_same_results_and_others_are_kept(everything, tmp_path):
    before = json.loads((everything / "batchnorm.json").read_text("utf-8"))
    (tmp_path / "batchnorm.json").write_text(json.dumps({"rates": before["rates"]}), "utf-8")
    assert batchnorm_paper.main(["--data", "digits", "--steps", "100", "--experiments", "deep-cnn", "--out",
                                 str(tmp_path)]) == 0
    after = json.loads((tmp_path / "batchnorm.json").read_text("utf-8"))
    assert list(after) == ["rates", "deep-cnn"] and after["rates"] == before["rates"]
    assert after["deep-cnn"] | {"seconds": 0} == before["deep-cnn"] | {"seconds": 0}


def test_redraw_trains_nothing(everything, monkeypatch):
    monkeypatch.setattr(training, "load", None)
    picture, text = everything / "images" / "batchnorm-rates.png", everything / "batchnorm.md"
    before = picture.read_bytes(), text.read_text("utf-8")
    picture.unlink()
    text.write_text(before[1].replace("learning rate", "?"), "utf-8")
    assert batchnorm_paper.main(["--redraw", "--out", str(everything)]) == 0
    assert (picture.read_bytes(), text.read_text("utf-8")) == before


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--experiments", "figure1,figure2"], "expected some of figure1, .*, got 'figure2'"),
    (["--experiments", ""], "expected some of figure1, .*, got ''"),
    (["--steps", "0"], "expected a whole number of at least 1, got '0'"),
    (["--steps", "5", "--quick"], "--quick: not allowed with argument --steps"),
    (["--data", "cifar10"], "invalid choice: 'cifar10'"),
    (["--device", "tpu"], "tpu"),
])
def test_bad_arguments_are_sentences(capsys, arguments, sentence):
    with pytest.raises(SystemExit) as error:
        batchnorm_paper.main(arguments)
    assert error.value.code == 2 and re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--data-dir", "/no/such/folder"], "mnist: the folder /no/such/folder does not exist"),
    (["--data", "digits", "--data-dir", "/no"], "digits: the data set comes with scikit-learn and takes no folder"),
    (["--redraw"], "--redraw expects the results of an earlier run, got no .*batchnorm.json"),
])
def test_bad_folders_are_sentences(capsys, tmp_path, arguments, sentence):
    assert batchnorm_paper.main([*arguments, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and re.match(f"batchnorm_paper: {sentence}", printed)


def test_a_page_without_the_block_is_a_sentence(capsys, tmp_path):
    (tmp_path / "batchnorm.md").write_text("nothing here\n", "utf-8")
    assert batchnorm_paper.main(["--data", "digits", "--steps", "20", "--experiments", "figure1", "--out",
                                 str(tmp_path)]) == 1
    assert "there is no block 'batchnorm-figure1'" in capsys.readouterr().err


def test_without_mnist_the_digits_step_in(monkeypatch):
    def offline(folder):
        raise DataError("train-images-idx3-ubyte.gz: cannot be fetched")

    monkeypatch.setattr(training.datasets, "mnist", offline)
    said = []
    assert training.load("mnist", None, "cpu", said.append).name == "digits"
    assert "no MNIST: train-images" in said[0] and "scikit-learn's digits" in said[0]
    with pytest.raises(DataError):  # a folder that was named is not passed over
        training.load("mnist", Path("here"), "cpu", said.append)


def test_binary_input_is_the_picture_cut_at_half(digits):
    from sklearn.datasets import load_digits

    rows = digits.binary().x_train
    assert rows.shape == (1442, 64) and set(np.unique(rows)) == {0.0, 1.0}
    bright = (load_digits().data > 8).astype(np.float32)
    assert {row.tobytes() for row in rows} <= {row.tobytes() for row in bright}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_papers_net(batch_norm):
    mg.manual_seed(0)
    net = nets.sigmoid_mlp((1, 28, 28), batch_norm, std=0.1)
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    assert [layer.weight.shape for layer in linear] == [(100, 784), (100, 100), (100, 100), (10, 100)]
    assert linear[0].weight.numpy().std() == pytest.approx(0.1, rel=0.02)
    kinds = [type(layer).__name__ for layer in net]
    hidden = ["Linear", "BatchNorm1d", "Sigmoid"] if batch_norm else ["Linear", "Sigmoid"]
    assert kinds == 3 * hidden + ["Linear"]
    assert [layer.bias is None for layer in linear] == [*(3 * [batch_norm]), False]


def test_the_cnn_without_batch_normalization_differs_in_that_alone():
    kinds = [[type(layer).__name__ for layer in nets.small_cnn((1, 28, 28), with_it)] for with_it in (True, False)]
    assert kinds[1] == [kind for kind in kinds[0] if kind != "BatchNorm2d"] and len(kinds[0]) == len(kinds[1]) + 2


def test_the_deep_cnn_has_the_same_convolutions_with_and_without():
    shapes = [[(layer.weight.shape, layer.stride) for layer in nets.plain_cnn((1, 64, 64), with_it, layers=5)
               if isinstance(layer, nn.Conv2d)] for with_it in (True, False)]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 5 and shapes[0][2][0] == (16, 16, 3, 3)
    assert [stride in (2, (2, 2)) for _, stride in shapes[0]] == [True, True, False, False, False]


def test_both_nets_see_the_same_batches():
    a, b = (training._batches(100, 30, np.random.default_rng(3)) for _ in range(2))
    first = [next(a) for _ in range(7)]
    assert all(np.array_equal(batch, next(b)) for batch in first)
    assert len(set(np.concatenate(first[:3]))) == 90  # a pass repeats no image
    assert not np.array_equal(first[0], first[3])


def test_reached_is_the_first_look_at_the_goal():
    looks, accuracy = [10, 20, 30], [0.5, 0.95, 0.9]
    assert experiments.reached(looks, accuracy, 0.95) == 20
    assert experiments.reached(looks, accuracy, 0.96) is None
    assert experiments.reached(looks, accuracy[:1], 0.5) == 10


def test_the_best_rate_is_first_at_the_highest_accuracy_that_is_reached():
    a, b, c = ({"reached": dict(zip(("0.9", "0.95", "0.97"), steps, strict=True))}
               for steps in ((20, 60, None), (40, 50, None), (80, 90, 100)))
    assert min((a, b), key=experiments._slowness) is b and min((a, b, c), key=experiments._slowness) is c


def test_the_typical_unit_is_the_middle_one():
    wandering = np.array([5.0, 1.0, 3.0, 9.0, 2.0])
    inputs = np.zeros((4, 3, 5))
    inputs[2, 1] = wandering
    inputs[:, 2] = 100 * np.random.default_rng(0).random((4, 5))  # only the median counts
    assert experiments.typical(inputs) == 2


def test_a_loss_that_is_no_number_is_kept_as_null_and_drawn(tmp_path):
    assert experiments._rounded([0.12346, np.nan, np.inf]) == [0.1235, None, None]
    net = {"rate": 1.0, "final": [0.1], "loss": [2.3, None], "accuracy": [0.1, 0.1]}
    figures.draw("deep-mlp", {"looks": [1, 2], "nets": {"with": net, "without": net}}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_survivors_are_the_rates_of_the_normalised_net_alone():
    result = {"rates": [0.1, 1.0, 10.0], "nets": {"without": [[0.95, 0.95], [0.95, 0.1], [0.1, 0.1]],
                                                  "with": [[0.95, 0.95], [0.95, 0.92], [0.95, 0.2]]}}
    assert page.survivors(result) == "1"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_the_results_at_hand(name):
    assert block(PAGE, name) == page.block(name, RESULTS[name])
    picture = ROOT / "docs" / "images" / f"batchnorm-{name}.png"
    assert picture.stat().st_size < 150_000


def test_the_results_at_hand_are_those_of_full_budgets():
    assert list(RESULTS) == NAMES and {result["data"] for result in RESULTS.values()} == {"mnist"}
    assert RESULTS["figure1"]["steps"] == experiments.STEPS
