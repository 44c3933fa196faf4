"""Which target views a bank holds and what a training step fits of them: pure functions of random draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.planning import PlanConfig, StepKind, StepPlan, draw_elevations
from consistent4d_ns.data.times import FrameTimes


@dataclass(frozen=True)
class Moments:
    """Views, each of one frame."""

    views: OrbitViews
    """Cameras, on the CPU."""
    frames: Int64[Tensor, " views"]
    """Frame of each view."""
    times: Float[Tensor, " views"]
    """Time of each view in [0, 1], that of its frame."""

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, chosen: Int64[Tensor, " chosen"] | slice) -> Moments:
        return Moments(self.views[chosen], self.frames[chosen], self.times[chosen])


def draw_moments(
    config: PlanConfig, count: int, frame_times: FrameTimes, input_view: OrbitViews, generator: torch.Generator
) -> Moments:
    """`count` views of a bank, from all around and of any frame.

    Azimuths are stratified: one in each of `count` equal parts of the plan's range, in random order. Elevations have
    the plan's distribution, and frames are drawn evenly.

    Args:
        config: Ranges of azimuths and elevations.
        count: Views.
        frame_times: When the frames of the sequence were filmed.
        input_view: The input camera; the views keep its distance and field of view.
        generator: CPU generator of all draws.
    """
    elevation = draw_elevations(config, count, generator)
    low, high = config.azimuth_range
    parts = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    azimuth = input_view.azimuth[:1] + low + (high - low) * parts / count
    frames = torch.randint(len(frame_times), (count,), generator=generator)
    distance, fovy = input_view.distance[:1].expand(count), input_view.fovy[:1].expand(count)
    return Moments(OrbitViews(elevation, azimuth, distance, fovy), frames, frame_times.tensor()[frames])


def plan_targets(step: int, moments: Moments, image_size: int, rays: int) -> StepPlan:
    """A step that fits random pixels of a bank.

    Args:
        step: Training step, 0-based.
        moments: All views of the bank.
        image_size: Side of the bank's images in pixels.
        rays: Pixels of the step, of all views together.
    """
    return StepPlan(step, StepKind.TARGETS, moments.frames, moments.times, moments.views, image_size, rays)
