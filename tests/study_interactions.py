"""How long a page of a graph of 1,000 nodes takes to answer, in headless Chromium.

    python tests/study_interactions.py

Each figure is from the call of the handler to the end of the next frame: scripts, style, layout and paint. It is no
test: a benchmark on a shared machine fails for reasons of its own. tests/test_study_browser.py checks what is shown.
"""

import os
import shutil
import statistics
import tempfile
from pathlib import Path

TIME = """async (act) => {
  const start = performance.now();
  new Function(act)();
  await new Promise((resolve) => requestAnimationFrame(() => {
    const channel = new MessageChannel();  // its message comes after the frame has been painted
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(0);
  }));
  return performance.now() - start;
}"""
ACTS = {
    "one step on": "document.getElementById('next').click()",
    "slider to the middle": "slider.value = 500; slider.dispatchEvent(new Event('input'))",
    "slider to the start": "slider.value = 0; slider.dispatchEvent(new Event('input'))",
    "to the end": "document.getElementById('last').click()",
    "click on a box": "document.querySelector('.box.current').dispatchEvent(new MouseEvent('click', {bubbles: true}))",
    "let go": "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))",
    "to modules": "document.querySelector('[data-view=modules]').click()",
    "to ops": "document.querySelector('[data-view=ops]').click()",
    "fit": "document.getElementById('fit').click()",
    "zoom in": "document.getElementById('in').click()",
}


def chromium():
    """The path of a Chromium, None if there is none."""
    named = os.environ.get("MINIGRAD_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def large_page(path):
    """Write the page of a net of 250 linear layers with activations: more than 1,000 nodes."""
    import minigrad as mg
    from minigrad import layers as nn

    mg.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(250)])
    return mg.study.page(model, mg.randn(2, 4), mg.randn(2, 4), path, code="none", influence=False, title="1,000 nodes")


def measure(page, rounds=5, pause=350):
    """Milliseconds of each act: median and worst of some rounds after one that warms up."""
    found = {name: [] for name in ACTS}
    for number in range(rounds + 1):
        for name, act in ACTS.items():
            taken = page.evaluate(TIME, act)
            page.wait_for_timeout(pause)  # a pan may be under way
            if number:
                found[name].append(taken)
    return {name: (statistics.median(times), max(times)) for name, times in found.items()}


def main():
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        path = large_page(Path(folder) / "step.html")
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_timeout(1000)
        page.click("[data-view=ops]")
        for name, (median, worst) in measure(page).items():
            print(f"{name:22} median {median:6.1f} ms, worst {worst:6.1f} ms")
        browser.close()


if __name__ == "__main__":
    main()
