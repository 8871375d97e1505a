"""Draws docs/images/study.png: the page of `minigrad study examples/study_xor.py` in the middle of its way back.

    python docs/study_picture.py

It needs Chromium and playwright, as the tests of the page do (MINIGRAD_CHROMIUM names another browser's program).
"""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from minigrad.cli import main

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "study.png"
STEPS = 12  # forward 7, then back to the op that hands the first layer its gradient
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def draw():
    """Write the page, walk through it, take the picture."""
    program = os.environ.get("MINIGRAD_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "step.html"
        if main(["study", str(ROOT / "examples" / "study_xor.py"), "--output", str(page)]):
            raise SystemExit(1)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
        view.goto(page.as_uri())
        for _ in range(STEPS):
            view.keyboard.press("ArrowRight")
        view.keyboard.press("Enter")
        view.keyboard.press("f")
        view.wait_for_timeout(800)  # until everything has come to rest
        view.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    draw()
    print(f"wrote {PICTURE}")
