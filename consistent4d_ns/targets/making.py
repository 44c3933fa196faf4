"""How banks of target views are made: imagined by a prior, or rendered and cleaned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews, relative_pose
from consistent4d_ns.data.images import resized
from consistent4d_ns.data.rays import view_rays
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance.base import Start, ViewSampler
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.targets.bank import TargetBank, bank_from_images
from consistent4d_ns.targets.config import HoldConfig, ImagineConfig, TargetRound
from consistent4d_ns.targets.planning import Moments
from consistent4d_ns.targets.silhouettes import background, cleaned

RENDERED_AT_ONCE = 1 << 16
"""Rays rendered together, at least those of one view."""
MADE_AT_ONCE = 32
"""Views that are made together. The noise of samples follows from it: another number gives other samples."""

Pictures: TypeAlias = tuple[Float[Tensor, "views 3 size size"], Float[Tensor, "views size size"]]
"""Colour on white and opacity, both in [0, 1]."""
Progress: TypeAlias = Callable[[list[Moments]], Iterable[Moments]]
"""Iterates over the parts of a bank while they are made, for example showing how many views are done."""


def imagined_bank(
    config: ImagineConfig,
    plan: TargetRound,
    moments: Moments,
    prior: ViewSampler,
    input_view: OrbitViews,
    render: Callable[[Moments, int], Pictures],
    generator: torch.Generator,
    progress: Progress = iter,
) -> TargetBank:
    """Views that the prior samples; their opacity is judged in their background alone, where it is to be 0.

    Args:
        config: How they are sampled.
        plan: The round; a strength below 1 starts from what `render` shows.
        moments: Views and frames.
        prior: What is sampled.
        input_view: The camera that its frames were filmed with.
        render: Pictures of some views as the object is now, of a given side.
        generator: CPU generator of the noise.
        progress: Called with the parts that are sampled one after the other.

    Raises:
        InputError: the prior gives values that are not finite.
    """
    assert plan.strength is not None
    samples = []
    for part in progress(_parts(moments)):
        images = render(part, plan.image_size)[0] if plan.strength < 1.0 else None
        sampled = prior.sample(
            relative_pose(part.views, input_view),
            part.frames,
            scale=config.scale,
            generator=generator,
            steps=config.sampling_steps,
            start=Start(images, plan.strength),
        )
        samples.append(resized(sampled.float(), plan.image_size))
    rgb = torch.cat(samples)
    if not rgb.isfinite().all():
        raise InputError(
            "the views that the prior imagines hold values that are not finite: try "
            "--pipeline.guidance.precision fp32, or check its weights with `consistent4d weights`."
        )
    empty = background(rgb, config.white_tolerance)
    return bank_from_images(plan.begin, moments, rgb, (~empty).float(), empty)


def held_bank(
    config: HoldConfig,
    plan: TargetRound,
    moments: Moments,
    render: Callable[[Moments, int], Pictures],
    progress: Progress = iter,
) -> TargetBank:
    """Views of the object as it is now, cleaned; their opacity is judged everywhere.

    Args:
        config: How they are cleaned.
        plan: The round.
        moments: Views and times.
        render: Pictures of some views as the object is now, of a given side.
        progress: Called with the parts that are rendered one after the other.
    """
    pictures = [render(part, plan.image_size) for part in progress(_parts(moments))]
    rgb, accumulation = (torch.cat(parts) for parts in zip(*pictures, strict=True))
    rgb, opacity = cleaned(rgb, accumulation, config.opacity_range, config.min_part)
    return bank_from_images(plan.begin, moments, rgb, opacity, torch.ones_like(opacity, dtype=torch.bool))


def _parts(moments: Moments) -> list[Moments]:
    """The views in the parts that are made together."""
    return [moments[begin : begin + MADE_AT_ONCE] for begin in range(0, len(moments), MADE_AT_ONCE)]


@torch.no_grad()
def rendered(model: Consistent4DModel, moments: Moments, size: int) -> Pictures:
    """The finest level of the object in some views, `size` pixels wide, without randomness."""
    rgb, opacity = [], []
    views_at_once = max(1, RENDERED_AT_ONCE // size**2)
    for begin in range(0, len(moments), views_at_once):
        part = moments[begin : begin + views_at_once]
        rays = view_rays(part.views.to(model.device), part.times.to(model.device), size)
        rendering = model.render(rays, None, with_normals=False)
        rgb.append(rendering.rgb[-1].view(len(part), size, size, 3).movedim(-1, 1))
        opacity.append(rendering.accumulation[-1].view(len(part), size, size))
    return torch.cat(rgb).clamp(0.0, 1.0), torch.cat(opacity).clamp(0.0, 1.0)
