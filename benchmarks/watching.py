"""Training speed and frame rate while somebody watches training in the viewer.

    python -m benchmarks.watching [DATA] --random-prior [--out watching.json]

Trains with the trainer and the viewer of ns-train, on the toy unless DATA is given. A client (see `benchmarks.page`) is
connected repeatedly: to look at the object, to play the video, to move the camera continuously. Each is measured for
some seconds, and compared with equally long intervals without a client before and after. Then the client plays the
video and moves the camera while training is paused.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, cast

import torch
import tyro

from benchmarks.steps import PRESETS, attach_prior, full_size_networks, machine
from benchmarks.viewer_speed import frames_of
from consistent4d_ns.method_configs import preset
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.trainer import Consistent4DTrainer

SETTLE = 3.0
"""Seconds between a change and the measurement."""
PATIENCE = 120.0
"""Seconds to wait for a client's first frame."""
ENDLESS = 10**9
"""Training steps; training is stopped when all measurements are done."""


@dataclass(frozen=True)
class Mode:
    """Activity of the viewer's user."""

    name: str
    page: bool = True
    """Whether a page is open."""
    moving: bool = False
    """Whether its camera moves."""
    playing: bool = False
    """Whether the player runs."""
    paused: bool = False
    """Whether training is paused."""


NOBODY = Mode("not there", page=False)
MODES = (
    NOBODY,
    Mode("looking"),
    NOBODY,
    Mode("playing", playing=True),
    NOBODY,
    Mode("moving the camera", moving=True),
    NOBODY,
    Mode("playing, training paused", playing=True, paused=True),
    Mode("moving the camera, training paused", moving=True, paused=True),
)


@dataclass
class Options:
    """Options of the benchmark."""

    data: Annotated[Path | None, tyro.conf.Positional] = None
    """Frames to train on; the toy if none are given."""
    preset: str = "consistent4d"
    """Preset to train."""
    random_prior: bool = False
    """Distil from a full-size Zero123 with random weights; otherwise train without a prior."""
    start: int = 0
    """Step at which training begins, as if resumed there; selects a later stage."""
    steps: int = 400
    """Steps of training before anything is measured."""
    seconds: float = 10.0
    """Length of each measurement."""
    size: int = 512
    """Side of the viewer's picture in pixels."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass
class Figures:
    """Measurements of one mode."""

    mode: str
    steps_per_second: float
    frames_per_second: float
    """Frames that the page was sent."""
    side: int | None
    """Median height of these frames in pixels."""


def row(mode: Mode, figures: Figures, neighbours: list[Figures]) -> str:
    """A row of the table; `neighbours` were measured before and after."""
    training = "paused | " if mode.paused else f"{figures.steps_per_second:.2f} | "
    if mode.page and not mode.paused:
        alone = mean(other.steps_per_second for other in neighbours)
        training += f"{100.0 * (1.0 - figures.steps_per_second / alone):.1f} %"
    return f"| {figures.mode} | {training} | {figures.frames_per_second:.1f} | {figures.side or ''} |"


def make_trainer(data: Path, folder: Path, options: Options) -> Consistent4DTrainer:
    """The trainer as ns-train sets it up, with everything but training steps and the viewer disabled."""
    torch.backends.cudnn.benchmark = True
    config = preset(PRESETS[options.preset])
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.vis = folder, "viewer"
    config.steps_per_save, config.max_num_iterations = 0, ENDLESS
    config.logging.local_writer.enable = False
    config.viewer.quit_on_train_completion = True
    config.pipeline.guidance.kind = config.pipeline.interpolation.kind = "none"
    config.set_timestamp()
    config.save_config()
    torch.manual_seed(config.machine.seed)
    trainer: Any = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer._start_step = options.start
    trainer.viewer_state.control_panel._max_res.value = options.size
    if options.random_prior:
        attach_prior(pipeline_of(trainer), full_size_networks())
    return trainer


def pipeline_of(trainer: Consistent4DTrainer) -> Consistent4DPipeline:
    """The trainer's pipeline, with its type."""
    return cast(Consistent4DPipeline, trainer.pipeline)


@dataclass(frozen=True)
class Page:
    """A connected client of the viewer."""

    process: subprocess.Popen[bytes]
    log: Path
    """A line for each received frame: time, width and height."""

    def heights(self, begin: float, end: float = math.inf) -> list[int]:
        """Heights of the frames received between two times."""
        frames = [tuple(map(float, line.split())) for line in self.log.read_text().splitlines()]
        return [int(height) for moment, _, height in frames if begin <= moment < end]

    def wait_for_frame(self, begin: float) -> None:
        """Wait until a frame has been received after `begin`."""
        end = time.monotonic() + PATIENCE
        while not self.heights(begin):
            assert self.process.poll() is None, "the page has failed"
            assert time.monotonic() < end, "the page was sent no frame"
            time.sleep(0.1)


@contextmanager
def opened(trainer: Consistent4DTrainer, mode: Mode) -> Iterator[Page | None]:
    """A client that has received its first frame, if the mode has one."""
    if not mode.page:
        yield None
        return
    viewer: Any = trainer.viewer_state
    command = [sys.executable, "-m", "benchmarks.page", str(viewer.viser_server.get_port())]
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as log:
        process = subprocess.Popen([*command, *(["--moving"] if mode.moving else [])], stdout=log)
        try:
            page = Page(process, Path(log.name))
            page.wait_for_frame(0.0)
            yield page
        finally:
            process.terminate()
            process.wait()


@contextmanager
def happening(trainer: Consistent4DTrainer, mode: Mode) -> Iterator[None]:
    """Pause training and play the video as the mode requires."""
    player = pipeline_of(trainer).panel.playback
    assert player is not None  # What is watched has more than one frame.
    if mode.paused:
        trainer.training_state = "paused"
    if mode.playing:
        player.start()
    try:
        yield
    finally:
        player.stop()
        trainer.training_state = "training"


def measure(trainer: Consistent4DTrainer, training: Future[None], mode: Mode, seconds: float) -> Figures:
    """Measure a mode for some seconds; with a client, at least until a frame has arrived."""
    with opened(trainer, mode) as page, happening(trainer, mode):
        time.sleep(SETTLE)
        begin, first = time.monotonic(), trainer.step
        time.sleep(seconds)
        if page is not None:
            page.wait_for_frame(begin)
        end, last = time.monotonic(), trainer.step
        heights = page.heights(begin, end) if page is not None else []
    if training.done():
        training.result()
    side = int(median(heights)) if heights else None
    return Figures(mode.name, (last - first) / (end - begin), len(heights) / (end - begin), side)


def watch(trainer: Consistent4DTrainer, training: Future[None], options: Options) -> Iterator[Figures]:
    """Measure all modes, one after the other."""
    while trainer.step < options.start + options.steps and not training.done():
        time.sleep(0.1)
    for mode in MODES:
        yield measure(trainer, training, mode, options.seconds)


def main(options: Options) -> None:
    """Train, measure all modes and print the table."""
    with frames_of(options.data) as data, tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        trainer = make_trainer(data, Path(folder), options)
        training = pool.submit(trainer.train)
        try:
            figures = list(watch(trainer, training, options))
        finally:
            trainer.stop_training = True
            wait((training,))  # before the viewer, to which its last step writes, is gone
            trainer.shutdown()
        training.result()
    prior = "full-size random prior" if options.random_prior else "no prior"
    print(f"{machine()}, {options.preset}, {prior}, {options.seconds:g} s each, up to {options.size} pixels")
    print("| somebody is | steps per second | slower by | frames per second | pixels |\n|---|---|---|---|---|")
    for index, mode in enumerate(MODES):
        print(row(mode, figures[index], figures[index - 1 : index + 2 : 2]))
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "modes": [asdict(figure) for figure in figures]}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
