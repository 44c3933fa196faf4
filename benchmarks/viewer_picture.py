"""Takes docs/images/viewer.png: the viewer's page while the mini preset is trained on the toy, in Chromium.

    python -m benchmarks.viewer_picture TOY viewer.png

Needs the extra `test` and Chromium. Takes as long as the training does until it is paused.
"""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from PIL import Image

from consistent4d_ns.cli.ports import free_port

PAGE = (1100, 965)
"""Width and height of the page in pixels."""
AS_AT_FIRST = """() => {
  document.activeElement.blur();
  for (const element of document.querySelectorAll("*")) element.scrollTop = element.scrollLeft = 0;
}"""
"""Takes the focus away and scrolls everything back: clicking and typing have moved parts of the page."""
WIDTH = 840
"""Width of the picture in pixels; it shows the page below its header."""
RESOLUTION = 512
"""Side of what the viewer renders in pixels."""
FOLDERS = ("Steering", "Progress")
"""Folders of the panel that are opened."""


@dataclass
class Options:
    """Options of the picture."""

    data: Annotated[Path, tyro.conf.Positional]
    """Frames to train on: what `consistent4d toy` writes."""
    out: Annotated[Path, tyro.conf.Positional]
    """The picture to write."""
    step: int = 2000
    """Training step at which training is paused, at the earliest."""
    frame: int = 16
    """Frame of the video that is shown."""


def main(options: Options) -> None:
    """Train, pause, and take the picture."""
    port = free_port("127.0.0.1", 0)
    program = [str(Path(sys.executable).with_name("ns-train")), "consistent4d-mini", "--data", str(options.data)]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        command = [*program, "--output-dir", folder, "--viewer.websocket-port", str(port)]
        training = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            take(port, options)
        finally:
            training.kill()
            training.wait()


def take(port: int, options: Options) -> None:
    """Take a picture of the page, once training has come to the step."""
    from tests.viewer.page import ViewerPage, new_page, started_browser

    with started_browser() as browser:
        page = ViewerPage(new_page(browser, *PAGE))
        page.until(lambda: _answers(port), "the viewer")
        page.open(port, RESOLUTION, training=True)
        page.until(lambda: _step(page.page.inner_text("body")) >= options.step, "the step", patience=3600.0)
        page.button("Pause Training").click()
        for label in FOLDERS:
            page.folder(label)
        page.set("Frame", options.frame)
        page.rest()
        save(page.page, options.out)


def save(page: Any, out: Path) -> None:
    """Write what a page shows below its header, shrunk to `WIDTH`."""
    page.evaluate(AS_AT_FIRST)
    page.wait_for_timeout(1000)
    top = page.locator("canvas").last.bounding_box()["y"]
    box = {"x": 0, "y": top, "width": PAGE[0], "height": PAGE[1] - top}
    with Image.open(io.BytesIO(page.screenshot(clip=box))) as image:
        height = round(image.height * WIDTH / image.width)
        image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).save(out, optimize=True)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _step(text: str) -> int:
    """Training step that the page tells."""
    found = re.search(r"Step: (\d+)", text)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
