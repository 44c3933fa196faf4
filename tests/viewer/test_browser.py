"""Nerfstudio's viewer with our panel in a real browser: a finished run, and one in training.

Screenshots of what was seen stay in `tests/artefacts` (or where TEST_ARTEFACTS says).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from playwright.sync_api import Browser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from consistent4d_ns.guidance.random_prior import random_networks
from consistent4d_ns.guidance.saving import save_folder
from consistent4d_ns.runs import read_config
from tests.support.commands import executable, start_command
from tests.support.tiny import tiny_run, toy_folder
from tests.viewer.page import OTHER, PATIENCE, SAME, Picture, ViewerPage, difference, new_page, started_browser

pytestmark = pytest.mark.slow

STEPS = 80
"""Training steps of the finished run: enough for something to be seen."""
OUTPUTS = {"rgb", "accumulation", "depth", "expected_depth", "normals"} | {
    f"{name}_{level}" for name in ("rgb", "accumulation", "depth") for level in (0, 1)
}
PRIORS = ("diffusers", "transformers", "consistent4d_ns.interpolation.ifnet", "consistent4d_ns.guidance.loading")
"""Modules that only training needs."""


@dataclass(frozen=True)
class Seen:
    """A viewer, and the page that shows it."""

    page: ViewerPage
    first: Picture
    """What the page showed at first."""
    port: int
    log: Path
    """What the command prints."""

    def told(self, words: str) -> bool:
        """Whether the command has printed this."""
        return words in self.log.read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with started_browser() as started:
        yield started


@contextmanager
def served(browser: Browser, folder: Path, *command: str, port_option: str, height: int = 600) -> Iterator[Seen]:
    """Run a command that serves a viewer, with a page on it; no weights are to be found.

    The page is small, because the CPU draws it.
    """
    port, log = free_port(), folder / "viewer.log"
    env = os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPROFILEIMPORTTIME": "1",
        "COLUMNS": "200",
    }
    words = (*command[1:], port_option, str(port))
    if command[0] == "ns-train":
        process = start_command(command[0], *words, cwd=folder, env=env, output=log)
    else:  # In a process that begins without any imports, which is what its log is about.
        with log.open("wb") as stream:
            program = [str(executable(command[0])), *words]
            process = subprocess.Popen(program, cwd=folder, env=env, stdout=stream, stderr=subprocess.STDOUT)
    viewer = ViewerPage(new_page(browser, width=900, height=height))
    try:
        viewer.until(lambda: process.poll() is not None or listening(port), "the server", 2 * PATIENCE)
        assert process.poll() is None, log.read_text()[-3000:]
        yield Seen(viewer, viewer.open(port, training=command[0] == "ns-train"), port, log)
    finally:
        viewer.page.close()
        process.kill()
        process.wait()


def listening(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory, browser: Browser) -> Path:
    """Configuration of a finished run; it names priors that are not there."""
    path = tiny_run(tmp_path_factory.mktemp("finished"), STEPS) / "config.yml"
    saved = read_config(path)
    saved.pipeline.guidance.kind, saved.pipeline.interpolation.kind = "zero123", "rife"
    path.write_text(yaml.dump(saved))
    return path


@pytest.fixture(scope="module", params=["consistent4d", "ns-viewer"])
def finished_page(request, browser: Browser, finished: Path, tmp_path_factory) -> Iterator[Seen]:
    """A page that shows the finished run, by either command."""
    ours = ("consistent4d", "view", str(finished))
    theirs = ("ns-viewer", "--load-config", str(finished), "--viewer.websocket-host", "127.0.0.1")
    command, option = (ours, "--port") if request.param == "consistent4d" else (theirs, "--viewer.websocket-port")
    with served(browser, tmp_path_factory.mktemp("view"), *command, port_option=option) as seen:
        yield seen


@pytest.fixture
def look(finished_page: Seen) -> ViewerPage:
    """That page at the input view, at the beginning."""
    page = finished_page.page
    if page.button("Pause").is_visible():
        page.button("Pause").click()
    page.set("Time", 0)
    page.until(lambda: difference(page.picture(), finished_page.first) < SAME, "the first picture")
    return page


@pytest.fixture
def first(finished_page: Seen) -> Picture:
    """What it shows there. Pictures taken later may be those of lower quality that are sent in between."""
    return finished_page.first


def test_the_time_slider_scrubs(look: ViewerPage, first: Picture):
    """Another time is another picture, and the same time the same one."""
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 200
    look.set("Time", 0.3)
    look.until(lambda: difference(look.picture(), first) > OTHER, "another picture")
    look.until(lambda: look.value("Frame") == 2, "the frame of that time")
    look.set("Frame", 0)
    look.until(lambda: look.value("Time") == 0, "the time of the frame")
    look.until(lambda: difference(look.picture(), first) < SAME, "the first picture")


def test_playing_advances_the_time(look: ViewerPage, first: Picture):
    look.set("Speed", 0.2)
    look.button("Play").click()
    times = {look.value("Time")}
    look.until(lambda: len(times.add(look.value("Time")) or times) > 3, "several times")
    look.until(lambda: difference(look.picture(), first) > OTHER, "another picture")
    look.button("Pause").click()
    look.button("Play").wait_for()
    stopped = look.value("Time")
    look.rest()
    assert look.value("Time") == stopped
    look.checkbox("Loop").uncheck()
    look.set("Speed", 4)
    look.button("Play").click()
    look.until(lambda: look.value("Time") == 1, "the end")
    look.button("Play").wait_for()
    look.checkbox("Loop").check()
    look.set("Speed", 1)


def test_every_output_can_be_chosen(look: ViewerPage, first: Picture):
    offered = set(look.options("Output type"))
    assert offered >= OUTPUTS
    for output in sorted(OUTPUTS - {"rgb"}):
        look.choose("Output type", output)
        if output == "rgb_1":
            look.until(lambda: difference(look.picture(), first) < SAME, "the finest level, which is what rgb shows")
        else:
            look.until(lambda: difference(look.picture(), first) > OTHER, output)
        look.keep(f"output_{output}")
    look.choose("Output type", "rgb")
    look.until(lambda: difference(look.picture(), first) < SAME, "rgb again")


def test_the_camera_comes_back_to_the_input_view(look: ViewerPage, first: Picture):
    mouse = look.page.mouse
    mouse.move(300, 400)
    mouse.down()
    mouse.move(450, 330, steps=5)
    mouse.up()
    look.until(lambda: difference(look.picture(), first) > OTHER, "another view")
    look.folder("Scene")
    look.button("Input view").click()
    look.until(lambda: difference(look.picture(), first) < SAME, "the input view")
    look.checkbox("Input frame").check()
    look.until(lambda: difference(look.picture(), first) > OTHER, "the input frame")
    look.keep("input_frame")
    look.checkbox("Input frame").uncheck()
    look.checkbox("Occupied").check()
    look.until(lambda: difference(look.picture(), first) > OTHER, "the occupied cells")
    look.checkbox("Occupied").uncheck()
    look.until(lambda: difference(look.picture(), first) < SAME, "nothing but the object")
    assert re.fullmatch(r"\d+\.\d % of the box", look.text("Occupied share"))
    look.folder("Scene")


def test_a_finished_run_is_not_trained(look: ViewerPage, finished_page: Seen):
    """No element for training, no prior, and nothing listens beyond this machine."""
    for name in ("Pause Training", "Resume Training", "Hide Train Cams", "Reset", "Sample the prior"):
        assert look.button(name).count() == 0, name
    assert not listening(finished_page.port, "127.0.0.2")
    assert finished_page.told("consistent4d_ns.viewer.scene")
    for module in PRIORS:
        assert not re.search(rf"\| +{re.escape(module)}$", finished_page.log.read_text(), re.MULTILINE), module


@pytest.fixture(scope="module")
def training(tmp_path_factory, browser: Browser) -> Iterator[Seen]:
    """The page of a run in training, with an untrained prior."""
    folder = tmp_path_factory.mktemp("training")
    toy_folder(folder)
    save_folder(random_networks("small", "cpu", 0), folder / "prior")
    options = (
        *("--data", "toy", "--output-dir", "out", "--max-num-iterations", "100000"),
        *("--pipeline.datamanager.dataparser.image-size", "32", "--pipeline.interpolation.kind", "none"),
        *("--pipeline.datamanager.plan.image-sizes", "16", "32", "--pipeline.datamanager.plan.views", "1", "1"),
        *("--pipeline.datamanager.plan.clip-views", "1", "1"),
        *("--pipeline.model.grid-resolutions", "8", "8", "8", "4", "16", "16", "16", "6"),
        *("--pipeline.targets.imagine.views", "4", "--pipeline.targets.imagine.sampling-steps", "2"),
        *("--pipeline.guidance.kind", "zero123", "--pipeline.guidance.prior", "prior"),
        *("--pipeline.guidance.previews", "True", "--logging.steps-per-log", "1"),
        *("--optimizers.field.optimizer.lr", "1e-12"),  # The picture comes to rest at once.
    )
    command = ("ns-train", "consistent4d-mini", *options)
    with served(browser, folder, *command, port_option="--viewer.websocket-port", height=1500) as seen:
        for label in ("Steering", "Progress", "Prior"):
            seen.page.folder(label)
        yield seen


def test_steering_reaches_the_next_step_and_the_log(training: Seen):
    page = training.page
    page.set("Colour factor", 2)
    page.until(lambda: training.told(": rgb 1.0 -> 2.0"), "the change to be told")
    page.until(lambda: "1000" in weights(page, "rgb_1"), "the weight in the table")
    (since,) = re.findall(r"From step (\d+) on: rgb 1\.0 -> 2\.0", training.log.read_text())
    page.until(lambda: max(logged(training, "weight/rgb_1")) > int(since) + 1, "the log")
    figures = logged(training, "weight/rgb_1")
    assert {step: weight for step, weight in figures.items() if step >= int(since)}.keys()
    assert all(weight == (1000.0 if step >= int(since) else 500.0) for step, weight in figures.items())
    page.checkbox("Pause distillation").check()
    page.until(lambda: page.text("Noise now") == "paused", "the pause")
    page.keep("steering")
    page.button("Reset").click()
    page.until(lambda: training.told(": rgb 2.0 -> 1.0"), "the change back")
    page.until(lambda: re.fullmatch(r"0\.\d\d to 0\.\d\d", page.text("Noise now")) is not None, "distillation")
    assert page.value("Colour factor") == 1
    assert not page.checkbox("Pause distillation").is_checked()


def test_what_is_not_there_cannot_be_steered(training: Seen):
    """The number beside a disabled slider can be typed into all the same."""
    training.page.set("ICL factor", 3)
    training.page.set("Mask factor", 3)
    training.page.until(lambda: training.told(": mask 1.0 -> 3.0"), "the later change to be told")
    assert not training.told(": consistency 1.0 -> ")


def test_the_prior_answers(training: Seen):
    page = training.page
    page.button("Sample the prior").click()
    page.until(lambda: page.page.get_by_text("rendered, sampled").count() > 0, "an answer")
    picture: Any = page.page.locator("img[src^='data:image/png']").first
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [128, 64]
    page.keep("prior")


def test_training_goes_on_while_frames_are_rendered(training: Seen):
    """Playing asks for frame after frame; steps come in between."""
    page = training.page
    page.button("Play").click()
    before, times = max(logged(training, "weight/rgb_1")), {page.value("Time")}
    page.until(lambda: max(logged(training, "weight/rgb_1")) > before + 10, "training steps")
    page.until(lambda: len(times.add(page.value("Time")) or times) > 3, "several times")
    page.button("Pause").click()
    page.button("Play").wait_for()


def weights(page: ViewerPage, term: str) -> str:
    """The table's row of a term."""
    row = page.page.locator("tr", has=page.page.get_by_text(term, exact=True))
    return row.inner_text() if row.count() else ""


def logged(training: Seen, figure: str) -> dict[int, float]:
    """Values of a figure in the log so far, by step; {0: 0} while there are none."""
    (folder,) = (training.log.parent / "out").glob("toy/consistent4d-mini/*")
    events = EventAccumulator(str(folder))
    events.Reload()
    tag = f"Train Metrics Dict/{figure}"
    if tag not in events.Tags()["scalars"]:
        return {0: 0.0}
    return {event.step: event.value for event in events.Scalars(tag)}
