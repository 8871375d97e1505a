"""docs/batchnorm.md: its code prints what the page says, its line numbers are right, its links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import layers as nn
from minigrad.kernels import reference

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "batchnorm.md").read_text("utf-8")
WITHOUT_CODE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)


def load(name):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script, pages = load("batchnorm"), load("pages")


@pytest.fixture(scope="module")
def executed():
    """What the code blocks print, and the namespace that they leave behind."""
    return pages.run([block.code for block in pages.blocks(PAGE)], "batchnorm.md")


@pytest.fixture
def page(executed):
    """The functions that the page defines."""
    return executed[1]


def test_code_prints_what_the_page_says(executed):
    blocks = pages.blocks(PAGE)
    assert len(blocks) == PAGE.count("```python")
    for block, printed in zip(blocks, executed[0], strict=True):
        assert block.compared
        assert printed == block.printed, f"rewrite it by `python docs/pages.py`, if this is right:\n{block.code}"


def test_every_output_belongs_to_a_block():
    assert PAGE.count(pages.OUTPUT) == sum(bool(block.printed) for block in pages.blocks(PAGE))


@pytest.mark.parametrize("name", script.LINES)
def test_lines_are_where_the_page_says(name):
    said = re.search(rf"<!-- lines {name}: [^>]*-->\n(.*?)<!-- end -->", PAGE, re.DOTALL)[1].strip()
    assert said == script.lines_table(name), "rewrite it by `python docs/batchnorm.py`"


def test_a_line_that_is_not_there_is_a_sentence():
    with pytest.raises(ValueError, match="no function missing in layers/norm.py"):
        script.line_of("layers/norm.py", "missing", "x")
    with pytest.raises(ValueError, match="'absent' stands in 0 lines of _BatchNorm.run"):
        script.line_of("layers/norm.py", "_BatchNorm.run", "absent")


def test_linked_files_exist():
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE)
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).resolve().exists(), target


def test_linked_headings_exist():
    headings = re.findall(r"^#+ (.*)$", WITHOUT_CODE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert linked and linked <= anchors


def test_named_links_are_defined_and_used():
    defined = set(re.findall(r"^\[([\w-]+)\]: https://", PAGE, re.MULTILINE))
    assert defined == set(re.findall(r"\]\[([\w-]+)\]", re.sub(r"`[^`]*`", "", WITHOUT_CODE).replace("\n", " ")))


def test_formulas_in_the_text_end_in_their_line():
    """GitHub shows $...$ across a line break as it stands."""
    text = re.sub(r"\$\$.*?\$\$", "", WITHOUT_CODE, flags=re.DOTALL)
    for line in text.splitlines():
        assert line.count("$") % 2 == 0, line


@pytest.mark.parametrize("seed", range(5))
def test_derived_formula_is_the_kernels(page, seed):
    draw = np.random.default_rng(seed)
    m, channels = draw.integers(2, 50), draw.integers(1, 6)
    x, grad = draw.normal(3.0, 2.0, (m, channels)), draw.standard_normal((m, channels))
    weight, bias = draw.standard_normal(channels), draw.standard_normal(channels)
    dx, dweight, dbias = np.empty((m, channels, 1, 1)), np.empty(channels), np.empty(channels)
    reference.batch_norm_backward(x[:, :, None, None], x.mean(0), x.var(0), weight, bias, grad[:, :, None, None], dx,
                                  dweight, dbias, 1e-5, 1, 1.0, 0)
    by_hand = page["backward_by_hand"](x, weight, grad)
    for derived, kernels in zip(by_hand, (dx[:, :, 0, 0], dweight, dbias), strict=True):
        np.testing.assert_allclose(derived, kernels, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
@pytest.mark.parametrize("absent", ["", "gamma", "beta"])
def test_converted_layer_computes_what_keras_does(page, rng, eps, absent):
    arrays = {"gamma": rng.uniform(0.5, 2.0, 3), "beta": rng.standard_normal(3)}
    arrays.pop(absent, None)
    arrays |= {"moving_mean": rng.standard_normal(3), "moving_variance": rng.uniform(0.01, 2.0, 3)}
    layer = nn.BatchNorm1d(3, eps=eps, dtype=mg.float64).eval()
    layer.load_state_dict(page["from_keras"](**arrays, eps=eps))
    x = rng.standard_normal((5, 3))
    wanted = (x - arrays["moving_mean"]) / np.sqrt(arrays["moving_variance"] + 1e-3) * arrays.get("gamma", 1.0)
    np.testing.assert_allclose(layer(mg.from_numpy(x)).numpy(), wanted + arrays.get("beta", 0.0), rtol=1e-12)


def test_recomputed_statistics_are_plain_averages(page, rng):
    batches = rng.normal(3.0, 2.0, (7, 16, 4))
    model = nn.Sequential(nn.BatchNorm1d(4)).double()
    model(mg.from_numpy(batches[0] * 100))
    page["recompute_statistics"](model, [mg.from_numpy(batch) for batch in batches])
    norm = model[0]
    np.testing.assert_allclose(norm.running_mean.numpy(), batches.mean((0, 1)))
    np.testing.assert_allclose(norm.running_var.numpy(), batches.var(1, ddof=1).mean(0))
    assert norm.momentum == 0.1 and not norm.training


def test_figure_is_small_and_pauses_at_every_step():
    path = ROOT / "docs" / "images" / "batchnorm-steps.gif"
    assert path.stat().st_size < 500_000
    pauses = 0
    pillow = pytest.importorskip("PIL.Image", reason="the animation is read with Pillow, which comes with matplotlib")
    with pillow.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            pauses += image.info["duration"] >= 2000
        corner = image.convert("RGB").getpixel((1, 1))
    assert pauses >= 5 and corner == (255, 255, 255)


def test_figure_shows_what_the_layer_computes():
    pytest.importorskip("matplotlib", reason="the figure is drawn with it")
    figure = load("batchnorm_figure")
    channel = figure.Channel()
    np.testing.assert_allclose(channel.normalised, (channel.x - channel.x.mean()) / channel.x.std(), rtol=1e-4)
    np.testing.assert_allclose(channel.y, figure.GAMMA * channel.normalised + figure.BETA, rtol=1e-12)
    assert (channel.mean, channel.deviation) == pytest.approx((channel.x.mean(), channel.x.std()))
    np.testing.assert_allclose(np.diff(channel.means), 0.1 * (channel.batches.mean(1) - channel.means[:-1]), rtol=1e-9)
    image = figure.picture(figure.frame(channel, 4, known=3))
    assert image.size == (880, 440)
