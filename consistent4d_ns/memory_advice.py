"""What a training was doing when memory was too little, and which options need less."""

from __future__ import annotations

from consistent4d_ns.data.planning import StepKind
from consistent4d_ns.pipeline import Consistent4DPipelineConfig
from consistent4d_ns.targets.config import TargetRound

LEAST_RAYS = 256
"""Fewer pixels of a step are not advised."""
LOADING = (
    "loading the prior and the frames",
    "end what else uses this device, use a smaller prior (--pipeline.guidance.prior bundled), or train "
    "consistent4d-mini",
)
"""Phase and remedy before the first step."""
EVALUATING = (
    "rendering an image for the log",
    "--steps-per-eval-image 0 leaves these out, and --pipeline.model.eval-num-rays-per-chunk 4096 takes less for each",
)
"""Phase and remedy of evaluations while training."""


def advice(
    config: Consistent4DPipelineConfig, step: int, kind: StepKind, making: TargetRound | None
) -> tuple[str, str]:
    """Phase of training, and options that need less memory in it.

    Args:
        config: What is trained.
        step: Training step, 0-based.
        kind: What the step renders.
        making: The round whose target views are being made, if some are.
    """
    if making is not None:
        return _making(config, making)
    if kind is StepKind.REFERENCE:
        return _reference(config, step)
    if kind is StepKind.TARGETS:
        rays = [f"--pipeline.targets.{name}.rays {_half(getattr(config.targets, name).rays)}" for name in _ROUNDS]
        return "fitting target views", f"{' and '.join(rays)} fit fewer pixels in a step"
    return _distilling(config, step)


_ROUNDS = ("imagine", "hold")


def _making(config: Consistent4DPipelineConfig, making: TargetRound) -> tuple[str, str]:
    name = "imagine" if making.is_imagined else "hold"
    option = f"--pipeline.targets.{name}"
    smaller = max(16, getattr(config.targets, name).image_size // 2)
    return (
        f"making target views ({making.name})",
        f"{option}.image-size {smaller} makes smaller ones, {option}.views {max(1, making.views // 2)} fewer, and "
        f"{option}.steps 0 leaves the stage out",
    )


def _reference(config: Consistent4DPipelineConfig, step: int) -> tuple[str, str]:
    plan = config.datamanager.plan
    sizes = plan.reference_sizes or plan.image_sizes
    pixels = plan.reference_rays or sizes[min(plan.stage(step), len(sizes) - 1)] ** 2
    return "fitting the input view", f"--pipeline.datamanager.plan.reference-rays {_half(pixels)} fits fewer pixels"


def _distilling(config: Consistent4DPipelineConfig, step: int) -> tuple[str, str]:
    plan, stage = config.datamanager.plan, config.datamanager.plan.stage(step)
    views, size = plan.views[stage], plan.image_sizes[stage]
    remedies = []
    if views > 1:
        fewer = (*plan.views[:stage], views // 2, *plan.views[stage + 1 :])
        remedies.append(f"--pipeline.datamanager.plan.views {_words(fewer)}")
    smaller = (*plan.image_sizes[:stage], max(16, size // 2), *plan.image_sizes[stage + 1 :])
    remedies.append(f"--pipeline.datamanager.plan.image-sizes {_words(smaller)}")
    return (
        f"distilling {views} views of {size} pixels",
        f"{' or '.join(remedies)} needs less, and --pipeline.guidance.cuda-graphs False frees what recordings keep",
    )


def _half(rays: int) -> int:
    return max(LEAST_RAYS, rays // 2)


def _words(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))
