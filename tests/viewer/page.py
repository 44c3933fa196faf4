"""The viewer's page in a real browser: Chromium without a window, driven by Playwright."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

ARTEFACTS = Path(os.environ.get("TEST_ARTEFACTS", Path(__file__).parents[1] / "artefacts"))
"""Folder in which screenshots are kept."""
PATIENCE = 120.0
"""Seconds to wait for anything on a slow machine."""
STILL = 3.0
"""Seconds without a change after which the page is taken to be at rest."""
SAME, OTHER = 0.5, 0.7
"""Mean differences, in 0..255, below which two pictures count as the same and above which as different. On a slow
machine the page draws fewer pixels: that alone makes up to 0.4."""
OPTIONS = (
    *("--no-sandbox", "--no-first-run", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""WebGL is drawn by the CPU, and nothing is fetched."""
EVEN_FRAMES = """
const waiting = new Map();
let last = 0, now = 0;
window.requestAnimationFrame = (callback) => (waiting.set(++last, callback), last);
window.cancelAnimationFrame = (id) => waiting.delete(id);
performance.now = () => now;
setInterval(() => {
  now += 1000 / 60;
  const callbacks = [...waiting.values()];
  waiting.clear();
  for (const callback of callbacks) callback(now);
}, 100);
"""
"""The page draws ten times a second and takes that for sixty. At what it measures on a busy machine it would draw with
fewer pixels, so that pictures of the same scene differ; and it would keep a core busy."""

Picture = UInt8[np.ndarray, "height width 3"]


def chromium() -> str:
    """The system's Chromium. Without it the tests are skipped, but fail in continuous integration (`CI` is set)."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("needs Chromium: apt-get install chromium")
    return found


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Chromium; one at a time."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=OPTIONS)
        yield browser
        browser.close()


def new_page(browser: Browser, width: int = 1100, height: int = 800) -> Page:
    """An empty page that reaches this machine only."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(1000.0 * PATIENCE)
    page.add_init_script(EVEN_FRAMES)
    page.route(lambda url: "//127.0.0.1:" not in url, lambda route: route.abort())
    return page


@dataclass
class ViewerPage:
    """What somebody does on the page, by the words they see."""

    page: Page

    def open(self, port: int, max_res: int = 128, training: bool = False) -> Picture:
        """Go to a viewer; what it shows at first, rendered with this many pixels."""
        self.page.goto(f"http://127.0.0.1:{port}/", wait_until="domcontentloaded")
        self.button("Play").wait_for()
        self.set("Max res", max_res)
        return self.rest(training)

    def folder(self, label: str) -> None:
        """Open a folder of the panel, or close it."""
        self.page.locator(f'.mantine-Paper-root:text-is("{label}"):visible').first.click()

    def button(self, name: str) -> Locator:
        """A button."""
        return self.page.get_by_role("button", name=name, exact=True)

    def number(self, label: str) -> Locator:
        """The number beside a slider."""
        return self._row(label).locator("input.mantine-NumberInput-input")

    def value(self, label: str) -> float:
        """The number beside a slider."""
        return float(self.number(label).input_value())

    def set(self, label: str, value: float) -> None:
        """Type a slider's number."""
        self.number(label).fill(f"{value:g}")

    def text(self, label: str) -> str:
        """A line that the program writes."""
        return self._row(label).locator("input").input_value()

    def checkbox(self, label: str) -> Locator:
        """A checkbox."""
        return self._row(label).locator("input[type=checkbox]")

    def choose(self, label: str, option: str) -> None:
        """Pick from a list."""
        self._row(label).locator("input.mantine-Select-input").click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def options(self, label: str) -> list[str]:
        """What a list offers."""
        self._row(label).locator("input.mantine-Select-input").click()
        names = self.page.get_by_role("option").all_inner_texts()
        self.page.keyboard.press("Escape")
        return names

    def picture(self) -> Picture:
        """The scene as it is on the screen, shrunk: the page draws it in more or fewer pixels as time allows."""
        # The other canvas is a layer over the whole page.
        box: Any = self.page.locator("canvas").last.bounding_box()
        with Image.open(io.BytesIO(self.page.screenshot(clip=box))) as image:
            return np.array(image.convert("RGB").resize((32, 32), Image.Resampling.BOX))

    def rest(self, training: bool = False) -> Picture:
        """The scene once it is rendered with all pixels and stays exactly the same for `STILL` seconds.

        While the camera moves, and for one frame after it, the viewer sends images of a lower quality. What is being
        trained never stays exactly the same: there, two pictures that hardly differ are enough.
        """
        allowed, seconds = (SAME, 0.0) if training else (0.0, STILL)
        latest, since = self.picture(), time.monotonic()

        def still() -> bool:
            nonlocal latest, since
            self.page.wait_for_timeout(300)
            earlier, latest = latest, self.picture()
            sizes = re.findall(r"Resolution: (\d+)x(\d+)px", self.page.locator("body").inner_text())
            if max(map(int, sizes[0])) != self.value("Max res") or difference(earlier, latest) > allowed:
                since = time.monotonic()
            return time.monotonic() - since > seconds

        self.until(still, "the picture to come to rest")
        return latest

    def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if condition():
                return
            self.page.wait_for_timeout(200)
        self.keep("failed")
        pytest.fail(f"waited in vain for {what}")

    def keep(self, name: str) -> None:
        """Save a screenshot as an artefact."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"viewer_{name}.png")

    def _row(self, label: str) -> Locator:
        same = f'label:text-is("{label}"):visible'
        return self.page.locator(".mantine-Flex-root", has=self.page.locator(same)).last


def difference(a: Picture, b: Picture) -> float:
    """Mean difference of two pictures, in 0..255."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean())
