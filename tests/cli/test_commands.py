"""Nerfstudio's own commands, end to end on the CPU: train, resume, evaluate, render, view; and errors in one line.

No command here finds any prior's weights: the user cache and the hub's are empty.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import yaml
from jaxtyping import UInt8
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, consistent4d, consistent4d_mini
from consistent4d_ns.record.history import read_history
from consistent4d_ns.toy import write_sequence
from tests.support.commands import executable, run_command

pytestmark = pytest.mark.slow

FRAMES = 4
VIEWS = 6
SIZE = 32
STEPS = 40
EXTRA_STEPS = 5
STAGE_STEP = 30
RIFE = ("--pipeline.interpolation.kind", "rife")
TIMES = (0.0, 0.25, 0.5, 1.0)
"""Times of the camera path."""
SMALL = (
    *("--data", "toy", "--output-dir", "out"),
    *("--pipeline.interpolation.kind", "none"),
    *("--pipeline.datamanager.dataparser.image-size", str(SIZE)),
    *("--pipeline.datamanager.plan.image-sizes", "16", "32"),
    *("--pipeline.datamanager.plan.reference-sizes", "16", "32"),
    *("--pipeline.targets.imagine.image-size", "32", "--pipeline.targets.imagine.views", "8"),
    *("--pipeline.targets.imagine.sampling-steps", "2"),
    *("--pipeline.datamanager.plan.stage-steps", "0", str(STAGE_STEP)),
    *("--pipeline.datamanager.plan.views", "2", "1", "--pipeline.datamanager.plan.clip-views", "2", "1"),
    *("--pipeline.model.grid-resolutions", "8", "8", "8", "4", "16", "16", "16", "6"),
    *("--pipeline.model.loss-weights.orientation.start", "0.5"),
    *("--pipeline.model.loss-weights.opaqueness", "0.1"),
    *("--pipeline.model.loss-weights.mask", "50", "60"),
)
"""Options of a run that takes seconds."""

CONFIG = "with_priors.yml"
"""Configuration that the finished run is looked at with."""

Picture = UInt8[np.ndarray, "height width channels"]


@dataclass(frozen=True)
class Workplace:
    """A folder to run commands in."""

    folder: Path
    env: dict[str, str]

    def try_run(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run one of the console commands to its end, however it ends."""
        return run_command(command, *options, cwd=self.folder, env=self.env)

    def run(self, command: str, *options: str) -> str:
        """Standard output of a command that must succeed."""
        result = self.try_run(command, *options)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    def render(self, kind: str, output: str, *options: str) -> Path:
        """Run `ns-render` on the trained toy; where its output is."""
        self.run("ns-render", kind, "--load-config", CONFIG, "--output-path", output, *options)
        return self.folder / output


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """A toy with ground truth, an `ffmpeg` on the path, and empty caches."""
    folder = tmp_path_factory.mktemp("commands")
    write_sequence(folder / "toy", size=SIZE, frames=FRAMES, samples_per_side=2)
    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    own = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    return Workplace(folder, os.environ | own)


@pytest.fixture(scope="module")
def trained(place: Workplace) -> Path:
    """The folder of a finished run; `CONFIG` is its configuration, changed to name priors that are not there."""
    options = ("--timestamp", "first", "--vis", "tensorboard", "--steps-per-eval-image", "20")
    place.run("ns-train", "consistent4d-mini", *SMALL, *options, "--max-num-iterations", str(STEPS))
    run = place.folder / "out" / "toy" / "consistent4d-mini" / "first"
    config = read_config(run)
    config.pipeline.guidance.prior, config.pipeline.interpolation.kind = "nobody/no-prior", "rife"
    (place.folder / CONFIG).write_text(yaml.dump(config))
    return run


@pytest.fixture(scope="module")
def dataset(place: Workplace, trained: Path) -> Path:
    """Everything that `ns-render dataset` wrote for the evaluation split."""
    names = ("gt-rgb", "rgb", "rgba", "depth", "accumulation", "normals")
    options = ("--image-format", "png", "--rendered-output-names", *names)
    return place.render("dataset", "dataset", *options) / "test"


def read_config(run: Path) -> Consistent4DTrainerConfig:
    """The configuration that a run saved, read as nerfstudio reads it."""
    return yaml.load((run / "config.yml").read_text(), Loader=yaml.Loader)


def read_events(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run))
    events.Reload()
    return events


def logged(events: EventAccumulator, tag: str) -> dict[int, float]:
    """Values of a figure by step."""
    return {event.step: event.value for event in events.Scalars(tag)}


def read(path: Path) -> Picture:
    return np.array(Image.open(path))


def difference(a: Picture, b: Picture) -> int:
    """Greatest difference of two pictures, in 0..255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_options_reach_the_saved_config(trained: Path):
    config = read_config(trained)
    assert config.pipeline.model.grid_resolutions == ((8, 8, 8, 4), (16, 16, 16, 6))
    assert config.pipeline.model.loss_weights.mask == (50.0, 60.0)
    assert config.pipeline.model.loss_weights.orientation.start == 0.5
    assert config.pipeline.datamanager.plan.stage_steps == (0, STAGE_STEP)


def test_the_log_holds_every_term_weight_and_schedule(trained: Path):
    events = read_events(trained)
    terms = ("rgb_0", "rgb_1", "mask_0", "mask_1", "orientation", "opaqueness")
    for term in terms:
        figures = [f"Train Loss Dict/{term}", f"Train Metrics Dict/term/{term}", f"Train Metrics Dict/weight/{term}"]
        loss, value, weight = (logged(events, tag) for tag in figures)
        assert list(loss) == [0, 10, 20, 30]
        assert all(loss[step] == pytest.approx(value[step] * weight[step], rel=1e-4) for step in loss)
    sizes = logged(events, "Train Metrics Dict/schedule/image_size")
    assert sizes == {0: 16.0, 10: 16.0, 20: 16.0, STAGE_STEP: 32.0}
    rgb = logged(events, "Train Loss Dict/rgb_1")
    assert rgb[20] < rgb[0]
    assert {"Eval Images Metrics/psnr", "Eval Images Metrics/ssim"} <= set(events.Tags()["scalars"])
    assert {"Eval Images/img", "Eval Images/input_and_novel_views"} <= set(events.Tags()["images"])


def test_checkpoints_hold_plain_tensors(trained: Path):
    (path,) = (trained / "nerfstudio_models").iterdir()
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == STEPS - 1
    assert all(name.startswith("_model.") for name in saved["pipeline"])


def test_a_run_is_resumed_under_the_default_viewer(place: Workplace, trained: Path):
    start = ("--load-dir", str(trained / "nerfstudio_models"), "--timestamp", "second", "--logging.steps-per-log", "1")
    viewer = ("--viewer.websocket-port", str(free_port()), "--viewer.quit-on-train-completion", "True")
    told = place.run(
        "ns-train", "consistent4d-mini", *SMALL, *start, *viewer, "--max-num-iterations", str(STEPS + EXTRA_STEPS)
    )
    assert "http://127.0.0.1:" in told
    assert "http://0.0.0.0:" not in told
    run = trained.with_name("second")
    steps = list(range(STEPS, STEPS + EXTRA_STEPS))
    (path,) = (run / "nerfstudio_models").iterdir()
    (state, *_) = torch.load(path, weights_only=True)["optimizers"]["field"]["state"].values()
    assert state["step"] == STEPS + EXTRA_STEPS
    history = read_history(run / "losses.jsonl")
    assert [row["step"] for row in history] == list(range(STEPS + EXTRA_STEPS))
    assert history[:STEPS] == read_history(trained / "losses.jsonl")
    events = read_events(run)
    losses = logged(events, "Train Loss")
    assert list(losses) == steps
    assert all(map(math.isfinite, losses.values()))
    assert logged(events, "Train Metrics Dict/schedule/image_size") == dict.fromkeys(steps, 32.0)
    assert logged(events, "Train Loss Dict/rgb_1")[STEPS] == pytest.approx(next_loss(place, trained), rel=1e-3)


def next_loss(place: Workplace, run: Path) -> float:
    """Colour loss of the step that comes after a run, computed here from its checkpoint."""
    config = read_config(run)
    config.pipeline.datamanager.data = place.folder / "toy"
    (path,) = (run / "nerfstudio_models").iterdir()
    torch.manual_seed(config.machine.seed)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    pipeline.load_pipeline(torch.load(path, weights_only=True)["pipeline"], STEPS - 1)
    _, losses, _ = pipeline.get_train_loss_dict(STEPS)
    return float(losses["rgb_1"].detach())


def test_evaluation_measures_the_unseen_views(place: Workplace, trained: Path):
    place.run("ns-eval", "--load-config", CONFIG, "--output-path", "eval.json", "--render-output-path", "eval")
    results = json.loads((place.folder / "eval.json").read_text())["results"]
    assert 10.0 < results["psnr"] < 60.0
    assert 0.0 < results["ssim"] <= 1.0
    assert 0.0 < results["iou"] <= 1.0
    pictures = sorted((place.folder / "eval").glob("eval_img_*.png"))
    assert len(pictures) == VIEWS * FRAMES
    assert read(pictures[0]).shape == (SIZE, 2 * SIZE, 3)


def test_dataset_renders_every_unseen_frame(dataset: Path):
    for output in dataset.iterdir():
        assert len(list(output.glob("eval_*/*.png"))) == VIEWS * FRAMES, output.name
    for view in range(VIEWS):
        first, last = (read(dataset / "rgb" / f"eval_{view}" / f"{frame}.png") for frame in (0, FRAMES - 1))
        assert difference(first, last) > 0


def test_dataset_pairs_each_frame_with_its_truth(place: Workplace, dataset: Path):
    for name in ("eval_0/0.png", f"eval_3/{FRAMES - 1}.png"):
        straight = read(place.folder / "toy" / name) / 255.0
        alpha = straight[..., 3:]
        white = ((straight[..., :3] * alpha + 1.0 - alpha) * 255.0).astype(np.uint8)
        assert difference(read(dataset / "gt-rgb" / name), white) <= 2


def test_rgba_pictures_have_true_alpha(dataset: Path):
    rgba = read(dataset / "rgba" / "eval_1" / "2.png") / 255.0
    assert rgba[..., 3].min() == 0.0
    assert rgba[..., 3].max() > 0.5
    white = (rgba[..., :3] * rgba[..., 3:] + 1.0 - rgba[..., 3:]) * 255.0
    assert difference(white, read(dataset / "rgb" / "eval_1" / "2.png")) <= 3


def test_a_camera_path_follows_its_times(place: Workplace, trained: Path):
    """One camera stands still, so whatever changes is time's doing."""
    pose = torch.eye(4)
    pose[:3] = orbit_views(0.0, 30.0, 2.0, 49.1).poses()[0]
    camera = {"camera_to_world": pose.flatten().tolist(), "fov": 49.1, "aspect": 4 / 3}
    path = {"camera_type": "perspective", "render_height": 48, "render_width": 64, "seconds": 1.0, "fps": len(TIMES)}
    path["camera_path"] = [{**camera, "render_time": time} for time in TIMES]
    (place.folder / "path.json").write_text(json.dumps(path))
    output = ("--output-format", "images", "--image-format", "png")
    frames = place.render("camera-path", "path", "--camera-path-filename", "path.json", *output)
    pictures = [read(frames / f"{i:05d}.png") for i in range(len(TIMES))]
    assert len(list(frames.iterdir())) == len(TIMES)
    assert pictures[0].shape == (48, 64, 3)
    assert all(difference(earlier, later) > 0 for earlier, later in pairwise(pictures))


def test_a_spiral_becomes_a_video(place: Workplace, trained: Path):
    video = place.render("spiral", "spiral.mp4", "--seconds", "0.5", "--frame-rate", "8")
    frames = list(imageio_ffmpeg.read_frames(str(video)))[1:]
    assert len(frames) == 4
    assert len(set(frames)) == 4


def test_interpolation_passes_the_cameras_while_time_passes(place: Workplace, dataset: Path):
    """Nerfstudio drops the times of interpolated cameras; the model sweeps them over the whole path."""
    output = ("--output-format", "images", "--image-format", "png", "--interpolation-steps", "2")
    frames = place.render("interpolate", "interpolated", *output)
    count = (VIEWS * FRAMES - 1) * 2
    assert len(list(frames.iterdir())) == count
    first, last = (read(frames / f"{i:05d}.png") for i in (0, count - 1))
    assert difference(first, read(dataset / "rgb" / "eval_0" / "0.png")) <= 1
    assert difference(last, read(dataset / "rgb" / f"eval_{VIEWS - 1}" / f"{FRAMES - 1}.png")) <= 1
    # The input's camera stands still over the frames of the first view, so whatever changes there is time's doing.
    assert difference(first, read(frames / f"{2 * FRAMES - 4:05d}.png")) > 0


def test_a_path_of_ours_is_rendered_without_an_ffmpeg_on_the_path(place: Workplace, trained: Path):
    """`consistent4d camera-path`, then `ns-render`; only what comes with Python is on the PATH."""
    place.run("consistent4d", "camera-path", "orbit-in-time", "ours.json", "--frames", "4", "--size", "48")
    bare = Workplace(place.folder, place.env | {"PATH": str(executable("python").parent)})
    assert not shutil.which("ffmpeg", path=bare.env["PATH"])
    video = bare.render("camera-path", "ours.mp4", "--camera-path-filename", "ours.json")
    size, *frames = imageio_ffmpeg.read_frames(str(video))
    assert size["size"] == (48, 48)
    assert len(set(frames)) == 4


def test_a_run_leaves_its_losses_and_pictures(trained: Path):
    rows = read_history(trained / "losses.jsonl")
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert {name for row in rows for name in row} >= {"rgb_0", "rgb_1", "mask_0", "mask_1", "orientation", "opaqueness"}
    assert read(trained / "losses.png").shape[1] > 1000
    assert read(trained / "contact_sheet.png").shape[1] > 7 * SIZE
    assert [file.suffix for file in (trained / "nerfstudio_models").iterdir()] == [".ckpt"]


def test_presets_serve_this_machine_only():
    for method in (consistent4d, consistent4d_mini):
        assert method.config.viewer.websocket_host == "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "nowhere"), ("nowhere does not exist", "--data")),
        (("--data", "toy", *RIFE), ("RIFE weights", "consistent4d weights rife", "--pipeline.interpolation.kind none")),
    ],
)
def test_errors_of_the_user_are_one_line(place: Workplace, options: tuple[str, ...], words: tuple[str, ...]):
    result = place.try_run("ns-train", "consistent4d-mini", *options, "--output-dir", "failed", "--vis", "tensorboard")
    assert result.returncode == 2
    last = result.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in words)
    assert "Traceback" not in result.stderr + result.stdout
