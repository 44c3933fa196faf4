"""A page of `consistent4d export web` in Chromium, drawn by the CPU: size, time until it shows the object, frame times.

    python -m benchmarks.web_page PAGE.html [--picture web.png]

Frame times are those between two drawings of the screen while the page plays and turns the object. Without a graphics
card the browser draws in software, so they are upper bounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

SIZES = ((1280, 800), (640, 400))
"""Widths and heights of the window in pixels."""
FRAMES = 200
"""Frames that are timed."""
PATIENCE = 120_000
"""Milliseconds to wait for anything on a slow machine."""
MEASURE = """count => new Promise((done) => {
  const times = [];
  const note = (now) => { times.push(now); times.length > count ? done(times) : requestAnimationFrame(note); };
  requestAnimationFrame(note);
})"""


@dataclass
class Options:
    """Options of the measurement."""

    page: Annotated[Path, tyro.conf.Positional]
    """The page."""
    picture: Path | None = None
    """Where to write a picture of it, at rest on the third frame."""


def main(options: Options) -> None:
    """Open the page in windows of several sizes."""
    from tests.viewer.page import started_browser

    print(f"{options.page.stat().st_size / 1e6:.2f} MB")
    with started_browser() as browser:
        for width, height in SIZES:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PATIENCE)
            begin = time.monotonic()
            page.goto(options.page.absolute().as_uri())
            page.locator('body[data-state="ready"]').wait_for()
            shown = time.monotonic() - begin
            page.keyboard.press("r")
            page.wait_for_timeout(3000)  # Every mesh has been shown once.
            steps = np.diff(page.evaluate(MEASURE, FRAMES))
            median, slow = np.percentile(steps, (50, 95))
            print(f"{width} x {height}: shown after {shown:.1f} s, a frame takes {median:.0f} ms, 95 % {slow:.0f} ms")
            page.close()
        if options.picture is not None:
            page = browser.new_page(viewport={"width": 1280, "height": 720}, reduced_motion="reduce")
            page.set_default_timeout(PATIENCE)
            page.goto(options.page.absolute().as_uri())
            page.locator('body[data-state="ready"]').wait_for()
            for _ in range(2):
                page.keyboard.press("ArrowRight")
            for _ in range(4):
                page.keyboard.press("Shift+ArrowLeft")
            page.wait_for_timeout(2000)
            page.screenshot(path=options.picture)
            page.close()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
