"""Does distillation reconstruct unseen sides? Mini runs on the toy without guidance and with the exact score.

    python -m benchmarks.exact_score [--steps 600] [--size 64]

Prints novel-view PSNR and SSIM (six evaluation views) of both runs. The exact score is that of an ideal prior, which
knows the true image of every view and time: any remaining error is due to cameras, rendering or the field.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from consistent4d_ns.guidance.exact import ExactScoreGuidance
from consistent4d_ns.method_configs import consistent4d_mini, preset
from consistent4d_ns.pipeline import Consistent4DPipeline
from consistent4d_ns.targets.config import TargetsConfig
from consistent4d_ns.toy import ToyTruth, write_sequence


@dataclass
class Options:
    """Options of the benchmark."""

    steps: int = 600
    """Training steps of each run."""
    size: int = 64
    """Side of images and of the prior's latents in pixels."""
    frames: int = 16
    """Frames of the toy."""
    sds_weight: float = 3.0
    """Weight of the distillation loss."""


def make_pipeline(data: Path, options: Options, guided: bool) -> Consistent4DPipeline:
    """The mini preset without stages of target views; `guided` adds the exact score."""
    config = preset(consistent4d_mini)
    config.data = config.pipeline.datamanager.data = data
    config.pipeline.datamanager.dataparser.image_size = options.size
    plan = config.pipeline.datamanager.plan
    plan.image_sizes, plan.stage_steps = (options.size // 2, options.size), (0, options.steps // 2)
    plan.reference_sizes, plan.reference_rays = (), None
    config.pipeline.guidance.kind = "none"
    config.pipeline.targets = TargetsConfig()
    config.pipeline.model.loss_weights.sds = (options.sds_weight,)
    config.pipeline.model.render_normals = False
    torch.manual_seed(0)
    pipeline = config.pipeline.setup(device=config.machine.device_type, test_mode="val")
    if guided:
        truth = ToyTruth(size=options.size, frames=options.frames, samples_per_side=1)
        pipeline.guidance = ExactScoreGuidance(truth, pipeline.datamanager.input_view, latent_size=options.size)
    return pipeline


def train(pipeline: Consistent4DPipeline, steps: int) -> None:
    """Optimise in the same way as the trainer."""
    optimizer = (
        preset(consistent4d_mini).optimizers["field"]["optimizer"].setup(params=pipeline.get_param_groups()["field"])
    )
    for step in range(steps):
        if step % 16 == 0:
            pipeline.model.update_occupancy(step)
        _, losses, _ = pipeline.get_train_loss_dict(step)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()


def main(options: Options) -> None:
    """Run both and print the table."""
    print("| guidance | novel-view PSNR (dB) | SSIM | silhouette IoU |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "toy"
        write_sequence(data, size=options.size, frames=options.frames, samples_per_side=2)
        for name in ("none", "exact score"):
            pipeline = make_pipeline(data, options, guided=name != "none")
            train(pipeline, options.steps)
            figures = pipeline.get_average_eval_image_metrics()
            print(f"| {name} | {figures['psnr']:.2f} | {figures['ssim']:.3f} | {figures['iou']:.3f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
