"""A pipeline small enough for tests: real data and field, priors that need no weights."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from nerfstudio.plugins.types import MethodSpecification
from torch import Tensor

from consistent4d_ns.cli.demo import train
from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.guidance.exact import ExactScoreGuidance
from consistent4d_ns.interpolation.consistency import Interpolator
from consistent4d_ns.interpolation.ifnet import IFNet
from consistent4d_ns.method_configs import Consistent4DTrainerConfig, consistent4d_mini, preset
from consistent4d_ns.model import LossWeights
from consistent4d_ns.pipeline import Consistent4DPipeline, StepDraws
from consistent4d_ns.record.report import TrainingReport
from consistent4d_ns.targets.config import TargetsConfig
from consistent4d_ns.toy import ToyTruth, write_sequence

FRAMES = 9
SIZE = 32
SMALL_MODEL = (
    "pipeline.model.grid_resolutions=8 8 8 4 16 16 16 6",
    "pipeline.model.samples_per_ray=32",
    "pipeline.model.occupancy_resolution=8",
)
"""A small model, for benchmarks that take options as PATH=VALUE."""


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or a nested dataclass of tensors, with `function` applied to every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: map_tensors(getattr(value, f.name), function) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def losses_and_gradients(
    pipeline: Consistent4DPipeline, draws: StepDraws
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weighted losses and gradients of one training step."""
    pipeline.zero_grad()
    _, losses, _ = pipeline.training_step(draws)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in pipeline.model.field.named_parameters() if p.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def first_step(pipeline: Consistent4DPipeline, kind: StepKind) -> StepDraws:
    """Draws of the first training step of a kind."""
    return next(d for d in map(pipeline.draw, range(200)) if d.plan.kind is kind)


def gradient_error(gradients: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative L2 distance between all gradients, concatenated."""
    ours, theirs = (torch.cat([g.double().cpu().flatten() for g in side.values()]) for side in (gradients, expected))
    return float((ours - theirs).norm() / theirs.norm())


def toy_folder(parent: Path) -> Path:
    """Write a toy sequence of `FRAMES` frames at `SIZE` pixels to `parent/toy`; it is rendered once per process."""
    return Path(shutil.copytree(Path(_rendered_toy().name) / "toy", parent / "toy"))


@cache
def _rendered_toy() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory()
    write_sequence(Path(folder.name) / "toy", size=SIZE, frames=FRAMES)
    return folder


def tiny_config(data: Path, method: MethodSpecification = consistent4d_mini) -> Consistent4DTrainerConfig:
    """A mini preset, smaller still, with every loss term switched on, no priors and no stages of target views."""
    config = preset(method)
    config.data = config.pipeline.datamanager.data = data
    config.pipeline.datamanager.dataparser.image_size = SIZE
    plan = config.pipeline.datamanager.plan
    plan.stage_steps, plan.image_sizes, plan.views, plan.clip_views = (0, 100), (16, 32), (2, 1), (3, 3)
    plan.reference_sizes, plan.reference_rays = (), None
    config.pipeline.targets = TargetsConfig()
    model = config.pipeline.model
    times = (0, 0) if model.is_static else (4, 8)
    model.grid_resolutions, model.samples_per_ray = ((8, 8, 8, times[0]), (16, 16, 16, times[1])), 48
    model.loss_weights = LossWeights(
        normal_smoothness_2d=1.0, sparsity=1.0, opaqueness=1.0, depth_variance=1.0, sds=(0.1, 0.2)
    )
    config.pipeline.interpolation.kind = config.pipeline.guidance.kind = "none"
    return config


def tiny_run(parent: Path, steps: int, **changes: Any) -> Path:
    """Train the tiny configuration without priors on a toy, both below `parent`.

    Args:
        parent: An empty folder.
        steps: Training steps.
        changes: Fields of the trainer's configuration.

    Returns:
        The run's folder. It holds no plot of the losses, which takes longer to draw than a hundred steps.
    """
    config = dataclasses.replace(tiny_config(toy_folder(parent)), max_num_iterations=steps, **changes)
    config.output_dir, config.vis = parent / "out", "tensorboard"
    config.set_timestamp()
    with mock.patch.object(TrainingReport, "draw_losses"):
        train(config)
    return config.get_base_dir()


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a run but TensorBoard's, to which a thread of the finished training may still write."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name}


def tiny_pipeline(data: Path, priors: bool = True, device: str = "cpu") -> Consistent4DPipeline:
    """A pipeline in training mode; `priors` attaches the exact score of the toy and an untrained interpolator."""
    torch.manual_seed(0)
    pipeline = tiny_config(data).pipeline.setup(device=device, test_mode="val")
    pipeline.model.update_occupancy(0)
    if priors:
        attach_priors(pipeline)
    return pipeline


def attach_priors(pipeline: Consistent4DPipeline) -> None:
    """The exact score of the toy and an untrained interpolator."""
    truth = ToyTruth(size=16, frames=FRAMES)
    pipeline.guidance = ExactScoreGuidance(truth, pipeline.datamanager.input_view, latent_size=16)
    pipeline.interpolator = Interpolator(IFNet("residual").to(pipeline.device).requires_grad_(False))
