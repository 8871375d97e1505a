"""Pages of minigrad.study.page in a real browser: no error, no request, all in reach of mouse and keyboard."""

import re

import pytest
import study_interactions

import minigrad as mg
from minigrad import layers as nn

pytest.importorskip("igraph")
pytest.importorskip("jinja2")
pytest.importorskip("mpld3")
pytest.importorskip("pygments")
api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = study_interactions.chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, found by name or by MINIGRAD_CHROMIUM")


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Paths of pages, written once."""
    folder, known = tmp_path_factory.mktemp("pages"), {}

    def xor(path):
        mg.manual_seed(3)
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        x = mg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        return mg.study.page(model, x, mg.tensor([[0.0], [1.0], [1.0], [0.0]]), path, code="source")

    class Residual(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return (x + self.conv(x)).relu()

    def images(path):
        mg.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Residual(), nn.Flatten(), nn.Linear(144, 2))
        return mg.study.page(model, mg.randn(2, 1, 6, 6), mg.tensor([0, 1]), path, code="none")

    makers = {"xor": xor, "images": images, "large": study_interactions.large_page}

    def page(name):
        if name not in known:
            known[name] = makers[name](folder / f"{name}.html")
        return known[name]

    return page


@pytest.fixture
def visit(browser, pages):
    """Opens a page; at the end nothing may have been logged or asked for."""
    contexts, faults = [], []

    def open_page(name="xor", width=1280, height=800, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url))
        page.goto(pages(name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def told(page):
    return page.locator("#told").inner_text()


def box(page, label):
    return page.locator(f'.view:not([display="none"]) .box[aria-label^="{label}"]')


def test_the_slider_reaches_the_end(visit):
    page = visit()
    slider = page.get_by_role("slider", name="Step")
    assert told(page).startswith("Before the first of 14 steps")
    assert page.locator(".box.waiting").count() == 7 and page.locator(".box.graded").count() == 0
    slider.fill("7")
    assert told(page).startswith("Step 7 of 14, forward of div: ")
    assert page.locator(".box.waiting").count() == 0 and page.locator(".box.graded").count() == 0
    slider.fill("14")
    assert told(page).startswith("Step 14 of 14, backward of linear (0): gradient (4, 4)")
    assert page.locator(".box.graded").count() == 11  # all but x and y
    assert page.locator(".wire.returned.now").count() == 2
    assert page.get_by_role("button", name="One step on").is_disabled()


def test_gradients_light_up_as_they_arrive(visit):
    page = visit()
    page.keyboard.press("End")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert told(page).startswith("Step 8 of 14, backward of div")
    lit = [element.get_attribute("aria-label") for element in page.locator(".box.graded").all()]
    assert [label.split(",")[0] for label in sorted(lit)] == ["loss: div", "sum"]
    page.get_by_role("button", name="One step on").click()
    assert page.locator(".box.graded").count() == 3


def test_a_click_opens_values_and_source(visit):
    page = visit()
    page.keyboard.press("End")
    box(page, "0: linear").click()
    panel = page.get_by_role("complementary", name="Details")
    assert panel.get_by_role("heading", level=2).inner_text() == "linear (0)"
    assert "(4, 4)" in panel.inner_text() and panel.locator(".grid").count() == 2
    for tab, text in (("Function", "class Linear(Function)"), ("reference", "def linear_forward"),
                      ("njit", "def linear_forward"), ("CUDA", "def "), ("PTX", "Write it with code=")):
        panel.get_by_role("tab", name=tab).click()
        api.expect(page.locator("#code")).to_contain_text(text)
    panel.get_by_role("tab", name="reference").click()
    panel.get_by_label("Kernel").select_option("matmul")
    api.expect(page.locator("#code")).to_contain_text("def matmul")
    assert panel.locator("pre .k").count() > 0  # highlighted
    page.keyboard.press("Escape")


def test_by_keyboard_alone(visit):
    page = visit()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('box')"):
            break
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != label
    outline = page.evaluate("getComputedStyle(document.activeElement.querySelector('.halo')).stroke")
    assert outline != "none"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "panel" and page.locator(".box.selected").count() == 1
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("Step 1 of 14")
    page.keyboard.press("Escape")
    assert page.locator(".box.selected").count() == 0
    assert page.evaluate("document.activeElement.classList.contains('box')")
    page.keyboard.press("m")
    assert page.get_by_role("button", name="Modules").get_attribute("aria-pressed") == "true"
    page.keyboard.press("End")
    assert told(page).startswith("Step 14 of 14")
    page.keyboard.press("p")  # from the end it starts again
    api.expect(page.locator("#told")).to_contain_text("Step 1 of 14")
    page.keyboard.press("p")


def test_hover_over_a_weight_follows_it_to_the_loss(visit):
    page = visit()
    page.keyboard.press("End")
    box(page, "0.weight").locator("image").first.hover()
    line = page.locator("#influence")
    found = re.search(r"0\.weight\[\d, \d\] = .* d loss / d w = (\S+) by central differences; backward says (\S+)\.$",
                      line.inner_text())
    assert found and abs(float(found[1].replace("−", "-")) - float(found[2].replace("−", "-"))) < 1e-4
    labels = [element.get_attribute("aria-label").split(",")[0] for element in page.locator(".box.moved").all()]
    assert sorted(labels) == sorted(["0: linear", "1: tanh", "2: linear", "sub", "mul", "sum", "loss: div"])
    assert page.locator(".wire.moved").count() == 8  # mul gets sub twice
    page.mouse.move(2, 2)
    assert page.locator(".box.moved").count() == 0 and line.inner_text() == ""


def test_a_weight_by_keyboard(visit):
    page = visit()
    box(page, "2.weight").click(position={"x": 8, "y": 8})
    page.locator("#panel .cell").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#influence").inner_text().startswith("2.weight[0, 1] = ")
    page.keyboard.press("Enter")
    page.locator("#slider").focus()
    assert page.locator(".box.moved").count() == 5  # pinned
    page.keyboard.press("Escape")
    assert page.locator(".box.moved").count() == 0


@pytest.mark.parametrize("width", [320, 375])
def test_on_a_phone(visit, width):
    page = visit(width=width, height=740, has_touch=True, reduced_motion="reduce")  # nothing scrolls meanwhile
    for step in ("0", "7", "14"):
        page.get_by_role("slider", name="Step").fill(step)
        box(page, "0: linear").dispatch_event("click")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    graph, panel = page.locator("#stage").bounding_box(), page.locator("#panel").bounding_box()
    assert panel["y"] >= graph["y"] + graph["height"] - 1 and panel["width"] <= width


def contrast(page, selector):
    """The contrast of an element's text with the background behind it, by WCAG's formula."""
    return page.evaluate("""(selector) => {
      const bytes = (text) => text.match(/[\\d.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b]
        .map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const element = document.querySelector(selector);
      const svg = element.namespaceURI.endsWith("svg");
      let behind = svg ? element.closest(".box").querySelector(".body") : element;
      while (!svg && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
      const style = getComputedStyle(element), back = getComputedStyle(behind);
      const pair = [light(bytes(svg ? style.fill : style.color)), light(bytes(svg ? back.fill : back.backgroundColor))];
      return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }""", selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_readable_in_light_and_dark(visit, scheme):
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    page.keyboard.press("End")
    box(page, "0: linear").click()
    api.expect(page.locator("#code .k").first).to_be_visible()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert dark == (scheme == "dark")
    for selector in (".facts", "#told", "#told b", "#panel h2", ".list dt", ".formula", ".stats", "#code", "#code .k",
                     "#code .nf", "#code .sd", ".tabs button", ".phases span", "#forward-part", ".box.graded text",
                     ".box.graded .shape", ".box.graded .scalar", ".box.constant text", ".cell.numbered"):
        assert contrast(page, selector) >= 4.5, selector


def test_reduced_motion(visit):
    page = visit(reduced_motion="reduce")
    page.keyboard.press("End")
    assert page.evaluate("getComputedStyle(document.querySelector('.wire.now')).animationName") == "none"


def test_the_scheme_may_change(visit):
    page = visit(color_scheme="light")
    page.keyboard.press("End")
    page.emulate_media(color_scheme="dark")
    assert page.locator('.view:not([display="none"]) .box.graded').count() == 11
    assert page.evaluate("ramps.value.zero.join()") == "21,27,35"


def test_a_thousand_nodes_can_be_used(visit):
    page = visit("large", reduced_motion="reduce")
    assert page.evaluate("DATA.nodes.length") > 1000
    assert page.get_by_role("button", name="Modules").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Ops").click()
    last = page.evaluate("LAST")
    page.get_by_role("slider", name="Step").fill(str(last))
    assert told(page).startswith(f"Step {last} of {last}")
    current = page.locator('.view:not([display="none"]) .box.current')
    current.click()
    assert page.locator("#panel h2").inner_text() == "linear (0.0)"
    page.get_by_role("slider", name="Step").fill("300")  # most boxes are out of sight
    assert page.evaluate("view().hidden.filter((hidden) => hidden).length") > 900
    page.get_by_role("button", name="Fit").click()
    api.expect(page.locator(".view.far")).to_have_count(1)
    assert page.evaluate("view().hidden.every((hidden) => !hidden)")
    looks = page.evaluate("view().looks.map((look, i) => "
                          "[look.includes('valued'), DATA.nodes[view().data.boxes[i].main].forward <= 300])")
    assert all(look == expected for look, expected in looks)
    times = study_interactions.measure(page, rounds=1, pause=0)
    assert set(times) == set(study_interactions.ACTS)


def test_images_are_tiles_and_wide_matrices_histograms(visit):
    page = visit("images")
    page.keyboard.press("End")
    grid = page.evaluate("(() => { const g = gridOf([2, 4, 6, 6], 288);"
                         "return [g.rows, g.columns, g.cell(36 * 5 + 7), g.at(8, 8), g.at(6, 0), g.at(0, 6)]; })()")
    assert grid == [13, 27, [8, 8], 36 * 5 + 7, None, None]  # sample 1, channel 1, row 1, column 1; two spaces between
    panel = page.locator("#panel")
    for label in ("1: relu", "2: reshape", "3.weight"):
        box(page, label).click()
        assert panel.evaluate("p => p.scrollWidth <= p.clientWidth"), label
        kind = ".grid" if label == "1: relu" else ".histogram"
        assert panel.locator(kind).count() == 2  # value and gradient
    box(page, "1: relu").click()
    panel.locator('.cell[data-index="5"]').first.focus()
    page.keyboard.press("ArrowRight")  # over the space to the next tile
    assert page.evaluate("document.activeElement.dataset.index") == "36"


def test_a_click_leaves_the_graph_where_it_is(visit):
    page = visit(reduced_motion="reduce")
    before = page.evaluate("String(d3.zoomTransform(svg.node()))")
    box(page, "0.weight").click()
    assert page.evaluate("String(d3.zoomTransform(svg.node()))") == before
    assert page.locator("#panel h2").inner_text() == "0.weight"


def test_a_small_graph_is_in_sight_as_a_whole(visit):
    page = visit()
    bottom = page.evaluate("Math.max(...Array.from(document.querySelectorAll('.view:not([display=\"none\"]) .box'))"
                           ".map((b) => b.getBoundingClientRect().bottom))")
    assert bottom <= page.locator("#stage").bounding_box()["y"] + page.locator("#stage").bounding_box()["height"]


def test_a_tap_on_a_phone_brings_the_panel(visit):
    page = visit(width=375, height=700, has_touch=True, reduced_motion="reduce")
    box(page, "0.weight").tap()
    assert page.locator("#panel h2").bounding_box()["y"] < 200


def test_the_keyboard_keeps_its_place(visit):
    page = visit()
    page.keyboard.press("ArrowDown")  # nothing had the focus: a box has it now
    assert page.evaluate("document.activeElement.classList.contains('box')")
    page.keyboard.press("Enter")
    page.locator("#panel dd button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.getElementById('panel').contains(document.activeElement)")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.classList.contains('box')")


def test_a_gradient_that_is_a_sum_arrives_in_shares(visit):
    page = visit("images")
    box(page, "0: conv2d").click()
    steps = page.evaluate("DATA.edges.filter((e) => DATA.nodes[e.source].title === 'conv2d (0)').map((e) => e.step)"
                          ".sort((a, b) => a - b)")
    assert len(steps) == 2
    said = page.locator("#panel .later")
    for step, count in ((steps[0] - 1, 0), (steps[0], 1)):
        page.get_by_role("slider", name="Step").fill(str(step))
        assert said.inner_text().startswith(f"{count} of 2 shares have arrived, complete at step {steps[1]}")
