"""`consistent4d demo`: from nothing to a video of a 4D object, with one command."""

from __future__ import annotations

import random
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from consistent4d_ns.cli.help_texts import OutArgument
from consistent4d_ns.cli.progress import announce, progress
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import MeshOptions, SolidOptions, TimeOptions
from consistent4d_ns.files.names import expanded
from consistent4d_ns.files.outputs import holds_something, new_file

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig

    from consistent4d_ns.method_configs import Consistent4DTrainerConfig

PROGRAM = "consistent4d"
"""Name of the installed program."""
VIDEO_SIZE = 192
"""Side of the videos in pixels."""
VIDEO_FRAMES = 48
"""Frames of each video."""
TOY_SIZE = 128
"""Side of the toy's images in pixels."""
TOY_FRAMES = 32
"""Frames of the toy."""
PAGE = "page.html"
"""The page in the run's folder."""
PAGE_MESH = MeshOptions(faces=5000, texture_size=256, topology="frames")
"""Fine enough for images of `TOY_SIZE`. A mesh per frame makes a larger page than one mesh for all frames would, but
looks closer to the volume render, and fitting one takes more than a minute of CPU time for the default mesh."""


def demo(out: OutArgument = Path("demo"), /, data: Path | None = None) -> None:
    """Train consistent4d-mini on the toy (or your frames), render videos and a contact sheet, measure, make a page.

    Uses CUDA if available, else the CPU (a few minutes on two cores). Nothing is downloaded: the diffusion prior is
    part of the package. Every run gets a folder of its own below OUT.

    Args:
        out: Folder for all results.
        data: Frames to train on, a folder of RGBA frames or an animated file with alpha; default: the toy.
    """
    begin = time.monotonic()
    holds_something(out)  # Raises where it can be no folder.
    if data is not None:
        data = expanded(data)
        if not data.exists():
            raise InputError(
                f"{data} does not exist: give --data a folder of RGBA frames, or leave it out for the toy."
            )
    announce("Step 1 of 4: frames")
    data = toy_frames(out / "toy") if data is None else data
    print(f"Frames: {data}")
    announce("Step 2 of 4: training consistent4d-mini; loading PyTorch and Nerfstudio first")
    trainer = train(mini_config(data, out))
    announce("Step 3 of 4: videos and metrics")
    report(trainer)
    announce("Step 4 of 4: a page to turn the object on")
    page = write_page(trainer)
    print(f"view it with:     {view_command(trainer.config.get_base_dir() / 'config.yml')}")
    print(f"took {time.monotonic() - begin:.0f} s")
    print(page)


def view_command(config: Path) -> str:
    """A line for a shell that opens the viewer, also where the shell does not find this program by its name."""
    program = [PROGRAM]
    if shutil.which(PROGRAM) is None:
        program = (
            sys.argv[:1] if Path(sys.argv[0]).name == PROGRAM else [sys.executable, "-m", "consistent4d_ns.cli.main"]
        )
    return shlex.join([*program, "view", str(config)])


def toy_frames(folder: Path) -> Path:
    """The folder of the toy's frames; they are rendered unless an earlier demo has done so.

    Raises:
        InputError: something else is there.
    """
    from consistent4d_ns.toy.sequence import is_toy, write_sequence

    if not is_toy(folder, TOY_SIZE, TOY_FRAMES):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(
                f"{folder} is not the toy of this demo, {TOY_FRAMES} frames of {TOY_SIZE} x {TOY_SIZE} pixels: move it "
                f"away, give the demo another folder, or train on what is there with --data {shlex.quote(str(folder))}."
            )
        write_sequence(
            folder, TOY_SIZE, TOY_FRAMES, progress=lambda jobs: progress(jobs, "Rendering the toy", len(jobs))
        )
    return folder


def mini_config(data: Path, out: Path) -> Consistent4DTrainerConfig:
    """The mini preset, configured to train on `data` without a viewer and to write below `out`."""
    from consistent4d_ns.method_configs import consistent4d_mini, preset

    config = preset(consistent4d_mini)
    config.data = config.pipeline.datamanager.data = data
    config.output_dir = out / "runs"
    config.vis = "tensorboard"
    config.steps_per_eval_image = 0  # Nobody looks at TensorBoard's images meanwhile.
    config.set_timestamp()
    return config


def train(config: TrainerConfig) -> Trainer:
    """Train in this process, as `ns-train` does with this configuration."""
    seed_everything(config.machine.seed)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


def seed_everything(seed: int) -> None:
    """Seed all generators as Nerfstudio's script does; importing it brings all of its methods, which takes seconds."""
    import numpy as np
    import torch

    for function in (random.seed, np.random.seed, torch.manual_seed):
        function(seed)


def report(trainer: Trainer) -> None:
    """Render videos of a trained run into its folder, evaluate it, and print metrics and paths."""
    from consistent4d_ns.media.camera_paths import camera_path, path_json
    from consistent4d_ns.media.encoding import write_frames
    from consistent4d_ns.media.path_options import Kind, PathOptions
    from consistent4d_ns.media.pictures import input_video, nerfstudio_path, render_rows
    from consistent4d_ns.media.tiles import Tile
    from consistent4d_ns.pipeline import Consistent4DPipeline
    from consistent4d_ns.record.report import PLOT, SHEET

    pipeline, out = trainer.pipeline, trainer.config.get_base_dir()
    assert isinstance(pipeline, Consistent4DPipeline)
    pipeline.eval()
    model, data = pipeline.model, pipeline.datamanager
    # Neither shown nor measured, they would take most of the time.
    model.config.render_normals = False
    options = PathOptions(frames=VIDEO_FRAMES, size=VIDEO_SIZE)
    videos: dict[Kind, Path] = {"orbit-in-time": out / "orbit.mp4", "fixed-view": out / "fixed_view.mp4"}
    for kind, file in videos.items():
        cameras, _ = nerfstudio_path(path_json(camera_path(kind, options, input_video(data))))
        rows = progress(render_rows(model, data, cameras, [Tile("rgb")]), f"Rendering {file.name}", len(cameras))
        write_frames(file, "mp4", rows, data.fps, overwrite=True)

    metrics = pipeline.get_average_eval_image_metrics()
    unseen = data.train_dataparser_outputs.metadata["ground_truth"]
    for kind, file in videos.items():
        print(f"{kind + ':':17} {file}")
    for what, file in {"contact sheet": out / SHEET, "losses": out / PLOT}.items():
        if file.is_file():  # Otherwise training has warned about it.
            print(f"{what + ':':17} {file}")
    print(f"{'novel' if unseen else 'input'}-view PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}")


def write_page(trainer: Trainer) -> str:
    """Write the page of a trained run into its folder; what to tell about it, in one line."""
    from consistent4d_ns.cli.export_web import page_of
    from consistent4d_ns.export.sequence import exporter
    from consistent4d_ns.pipeline import Consistent4DPipeline
    from consistent4d_ns.runs import Run
    from consistent4d_ns.trainer_config import Consistent4DTrainerConfig

    config, pipeline = trainer.config, trainer.pipeline
    assert isinstance(config, Consistent4DTrainerConfig)
    assert isinstance(pipeline, Consistent4DPipeline)
    run = Run(config, pipeline, config.max_num_iterations - 1)
    out = config.get_base_dir() / PAGE
    try:
        text = page_of(run, exporter(run, SolidOptions(), TimeOptions()), PAGE_MESH)
    except InputError as error:
        return f"no page to turn the object on: {error}"
    with new_file(out, overwrite=True) as file:
        file.write_text(text, encoding="utf-8")
    return f"open in a browser: {out}"
