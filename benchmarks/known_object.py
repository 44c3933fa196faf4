"""Fits the mini preset to all views of a sequence with ground truth, as an ideal prior would.

    python -m benchmarks.known_object toy gt4d/Fox gt4d/Trex --out runs

Without a prior, the field is fog wherever the input view does not see it; benchmarks of surfaces (of meshes, for
example) need a field with a well-defined one. The runs are ordinary ones: `ns-viewer`, `consistent4d export` and so on
open them. The evaluation views are trained on, so their PSNR does not measure the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import torch
import tyro
from jaxtyping import Float
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from benchmarks.four_d import true_clips
from consistent4d_ns.cli.demo import mini_config
from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.images import composite_white, resized
from consistent4d_ns.data.planning import reference_plan
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.draws import draw_rendering
from consistent4d_ns.errors import show_input_errors_in_one_line
from consistent4d_ns.model import OCCUPANCY_EVERY
from consistent4d_ns.pipeline import Consistent4DPipeline


@dataclass
class Options:
    """Options of the script."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Sequences with ground truth."""
    out: Path
    """Folder for the runs."""
    steps: int = 1500
    """Training steps."""
    image_size: int = 64
    """Side of the images in pixels."""


def fit(data: Path, options: Options) -> Path:
    """Train on all views of a sequence; the run's folder."""
    config = mini_config(data, options.out)
    config.pipeline.interpolation.kind = config.pipeline.guidance.kind = "none"
    torch.manual_seed(config.machine.seed)
    config.save_config()
    trainer = cast(Trainer, config.setup(local_rank=0, world_size=1))
    trainer.setup()
    pipeline = cast(Consistent4DPipeline, trainer.pipeline)
    views, rgba = all_views(pipeline)
    rgba = resized(rgba.flatten(0, 1), options.image_size).unflatten(0, rgba.shape[:2])
    for step in range(options.steps):
        if step % OCCUPANCY_EVERY == 0:
            pipeline.model.update_occupancy(step)
        loss = step_loss(pipeline, views, rgba, step)
        trainer.optimizers.zero_grad_all()
        loss.backward()
        trainer.optimizers.optimizer_step_all()
    trainer.save_checkpoint(options.steps - 1)
    return config.get_base_dir()


def all_views(pipeline: Consistent4DPipeline) -> tuple[list[OrbitViews], Float[Tensor, "views frames 4 size size"]]:
    """The input and evaluation views, and their frames as premultiplied RGBA."""
    data = pipeline.datamanager
    others, _ = true_clips(pipeline)
    unseen = data.eval_dataset.rgba.to(data.frames).unflatten(0, (len(others), -1))
    views = [data.input_view, *(view.camera for view in others)]
    return views, torch.cat((data.frames[None], unseen)).float()


def step_loss(
    pipeline: Consistent4DPipeline,
    views: list[OrbitViews],
    rgba: Float[Tensor, "views frames 4 size size"],
    step: int,
) -> Tensor:
    """Colour and mask loss of one random frame of one random view."""
    model, size = pipeline.model, rgba.shape[-1]
    view, frame = (int(torch.randint(n, ())) for n in rgba.shape[:2])
    plan = reference_plan(step, torch.tensor([frame]), pipeline.datamanager.frame_times, views[view], size)
    rays = view_rays(views[view].to(model.device), plan.times.to(model.device), size)
    true = rgba[view, frame]
    batch = {"plan": plan, "image": composite_white(true).movedim(0, -1).reshape(-1, 3), "alpha": true[3].reshape(-1)}
    rendering = model.render(rays, draw_rendering(len(rays), torch.Generator().manual_seed(step)), with_normals=False)
    losses = model.get_loss_dict({"rendering": rendering}, batch)
    return torch.stack(list(losses.values())).sum()


def main(options: Options) -> None:
    """Fit all sequences and print the folders of the runs."""
    for data in options.data:
        run = fit(data, options)
        print(run, flush=True)


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main(tyro.cli(Options, description=__doc__))
