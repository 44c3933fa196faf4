"""Which frames and cameras a training step sees: pure functions of the configuration and random draws.

The kinds of steps but `TARGETS` are those of method.md section 2.2; where upstream's choices shift the balance of the
method (quirks 6, 7, 8, 11, 12 of section 11) there is a field to choose with. Steps that fit target views are planned
in `targets.planning`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.times import FrameTimes
from consistent4d_ns.errors import InputError

OPTIONS = "--pipeline.datamanager.plan."
"""What the options of a plan begin with, for `ns-train`."""


class StepKind(Enum):
    """What a training step renders."""

    REFERENCE = "reference"
    """The input view, to be fitted: one whole frame, or random pixels of all frames."""
    INDEPENDENT = "independent"
    """One frame from independent cameras, to be distilled."""
    AZIMUTHS = "azimuths"
    """One frame from cameras on an arc of equal steps: distilled, and consistent in space."""
    TIMES = "times"
    """Frames in equal steps of time from one camera: distilled, and consistent in time."""
    IDENTICAL = "identical"
    """One frame from one camera, repeated: distilled with different noise (upstream only, quirk 7)."""
    TARGETS = "targets"
    """Views and times of a bank of target views, to be fitted."""

    @property
    def is_distilled(self) -> bool:
        """Whether a prior judges the images."""
        return self not in (StepKind.REFERENCE, StepKind.TARGETS)

    @property
    def is_clip(self) -> bool:
        """Whether the images form a sequence that can be interpolated."""
        return self in (StepKind.AZIMUTHS, StepKind.TIMES)


@dataclass(frozen=True)
class StepPlan:
    """Frames and cameras of one training step."""

    step: int
    """Training step, 0-based."""
    kind: StepKind
    """What is rendered."""
    frames: Int64[Tensor, " views"]
    """Frame of each view."""
    times: Float[Tensor, " views"]
    """Time of each view in [0, 1]: that of its frame; of a clip in time evenly spaced, with the nearest frames."""
    views: OrbitViews
    """Camera of each view."""
    image_size: int
    """Side of the images in pixels."""
    random_pixels: int | None = None
    """Number of random pixels that are rendered, of all views together; None: all pixels of all views."""

    @property
    def num_pixels(self) -> int:
        """Pixels of all views together."""
        return len(self.frames) * self.image_size**2

    @property
    def num_rays(self) -> int:
        """Rays of the step."""
        return self.num_pixels if self.random_pixels is None else self.random_pixels


@dataclass
class PlanConfig:
    """How frames and cameras of training steps are chosen."""

    stage_steps: tuple[int, ...] = (0, 5000)
    """Steps at which the stages of training begin; the first is 0."""
    image_sizes: tuple[int, ...] = (64, 256)
    """Side of reference and novel-view images in pixels, per stage."""
    reference_sizes: tuple[int, ...] = ()
    """Side of reference images in pixels, once or per stage, where it differs from that of novel views; empty: as
    image_sizes."""
    reference_rays: int | None = None
    """Random pixels of the input view that a step fits, each of a random frame; None: all pixels of one random frame,
    as in the original."""
    views: tuple[int, ...] = (4, 1)
    """Novel views of a distillation step, per stage."""
    clip_views: tuple[int, ...] = (4, 1)
    """Views of a step with consecutive azimuths or times, per stage. The consistency loss needs at least 3, so 1 turns
    it off for that stage as upstream does at 256 pixels (quirk 6)."""
    reference_every: int = 2
    """Interval in steps at which the input view is fitted; all other steps distil (method.md section 8, n_ref). 0:
    never."""
    independent: float = 0.5
    """Fraction of distillation steps with one frame and independent cameras."""
    azimuths: float = 0.125
    """Fraction with one frame and consecutive azimuths."""
    times: float = 0.125
    """Fraction with one camera and consecutive frames."""
    identical: float = 0.25
    """Fraction of upstream's identical views (one frame, one camera, repeated), replaced as `identical_views` says."""
    identical_views: Literal["independent", "identical"] = "independent"
    """What the `identical` fraction of steps does: `independent` gives those steps independent cameras, `identical`
    keeps upstream's behaviour (quirk 7)."""
    elevation_range: tuple[float, float] = (-10.0, 60.0)
    """Elevations of novel views in degrees."""
    elevation_distribution: Literal["uniform", "sphere", "upstream"] = "uniform"
    """`uniform` in degrees and `sphere` (uniform in solid angle) draw per view; `upstream` flips one coin per batch
    between uniform and a narrower distribution, which covers -6.4 to 41.8 of the default range (quirks 11, 12)."""
    azimuth_range: tuple[float, float] = (-180.0, 180.0)
    """Azimuths of novel views in degrees, relative to the input view."""
    azimuth_step_range: tuple[float, float] = (5.0, 15.0)
    """Degrees between consecutive azimuths, drawn once per step."""
    time_step: float = 1.0 / 16.0
    """Time between consecutive frames of a clip as a fraction of the sequence, rounded down to whole frames, at least
    one frame and short enough for the clip to fit (upstream crashes below 16 frames, quirk 9)."""
    frame_reach: Literal["all", "upstream"] = "all"
    """`all`: every frame can be drawn; `upstream` never draws the last ones for clips (quirk 8)."""

    def check(self) -> None:
        """Raises: InputError: values that contradict each other."""
        lengths = {len(self.stage_steps), len(self.image_sizes), len(self.views), len(self.clip_views)}
        if len(self.reference_sizes) not in (0, 1, len(self.stage_steps)):
            raise InputError(
                f"{OPTIONS}reference-sizes has {len(self.reference_sizes)} values for {len(self.stage_steps)} stages: "
                "give one for all, one per stage, or none for those of image-sizes."
            )
        if len(lengths) != 1:
            raise InputError(
                f"{OPTIONS}stage-steps, image-sizes, views and clip-views differ in their number of stages: make them "
                "agree."
            )
        if self.stage_steps[0] != 0 or list(self.stage_steps) != sorted(set(self.stage_steps)):
            raise InputError(f"{OPTIONS}stage-steps {self.stage_steps} must begin with 0 and increase.")
        if min(*self.image_sizes, *self.reference_sizes, *self.views, *self.clip_views) < 1:
            raise InputError(f"{OPTIONS}image-sizes, reference-sizes, views and clip-views must be at least 1.")
        if self.reference_every < 0:
            raise InputError(f"{OPTIONS}reference-every is {self.reference_every}: give at least 1, or 0 for never.")
        if self.reference_rays is not None and self.reference_rays < 1:
            raise InputError(
                f"{OPTIONS}reference-rays is {self.reference_rays}: give at least 1, or None for whole frames."
            )
        if min(self.shares.values()) < 0 or sum(self.shares.values()) <= 0:
            raise InputError(
                f"{OPTIONS}independent, azimuths, times and identical are shares: give at least 0, and not all 0."
            )

    @property
    def shares(self) -> dict[StepKind, float]:
        """Unnormalised probability of each kind of distillation step."""
        kinds = (StepKind.INDEPENDENT, StepKind.AZIMUTHS, StepKind.TIMES, StepKind.IDENTICAL)
        return dict(zip(kinds, (self.independent, self.azimuths, self.times, self.identical), strict=True))

    def fits_input(self, step: int) -> bool:
        """Whether `step` is one of those at which the input view is fitted."""
        return self.reference_every > 0 and step % self.reference_every == 0

    def stage(self, step: int) -> int:
        """Index of the stage that `step` belongs to."""
        return sum(step >= begin for begin in self.stage_steps) - 1

    def reference_size(self, step: int) -> int:
        """Side of reference images in pixels at `step`."""
        sizes = self.reference_sizes or self.image_sizes
        return sizes[0] if len(sizes) == 1 else sizes[self.stage(step)]


def plan_step(
    config: PlanConfig,
    step: int,
    frame_times: FrameTimes,
    input_view: OrbitViews,
    useful: frozenset[StepKind],
    generator: torch.Generator,
) -> StepPlan:
    """Choose what training step `step` renders.

    Args:
        config: The rules.
        step: Training step, 0-based.
        frame_times: When the frames of the sequence were filmed.
        input_view: The input camera; novel views keep its distance and field of view.
        useful: Kinds that give a training signal; if no kind of distillation does, the input view is fitted instead.
        generator: CPU generator of this step.
    """
    stage = config.stage(step)
    kind = draw_kind(config, step, useful, generator)
    if kind is StepKind.REFERENCE and config.reference_rays is not None:
        return video_plan(step, frame_times, input_view, config.reference_size(step), config.reference_rays)
    if kind is StepKind.REFERENCE:
        frame = torch.randint(len(frame_times), (1,), generator=generator)
        return reference_plan(step, frame, frame_times, input_view, config.reference_size(step))
    count = config.clip_views[stage] if kind.is_clip else config.views[stage]
    frames = draw_frames(config, kind, len(frame_times), count, generator)
    views = draw_views(config, kind, len(frames), input_view, generator)
    times = frame_times.tensor()[frames]
    if kind is StepKind.TIMES and not frame_times.is_even:
        frames, times = evenly_in_time(frames, frame_times)
    return StepPlan(step, kind, frames, times, views, config.image_sizes[stage])


def reference_plan(
    step: int, frame: Int64[Tensor, "1"], frame_times: FrameTimes, input_view: OrbitViews, image_size: int
) -> StepPlan:
    """A step that shows one frame from the input camera."""
    return StepPlan(step, StepKind.REFERENCE, frame, frame_times.tensor()[frame], input_view, image_size)


def video_plan(
    step: int, frame_times: FrameTimes, input_view: OrbitViews, image_size: int, random_pixels: int
) -> StepPlan:
    """A step that shows random pixels of all frames from the input camera."""
    count, times = len(frame_times), frame_times.tensor()
    views = input_view[torch.zeros(count, dtype=torch.int64)]
    return StepPlan(step, StepKind.REFERENCE, torch.arange(count), times, views, image_size, random_pixels)


def evenly_in_time(
    frames: Int64[Tensor, " views"], frame_times: FrameTimes
) -> tuple[Int64[Tensor, " views"], Float[Tensor, " views"]]:
    """Even steps of time over the span of some frames, and the frames nearest to them.

    Interpolation takes the middle of a clip for the middle in time; frames of a variable rate are not.
    """
    begin, end = frame_times.times[int(frames[0])], frame_times.times[int(frames[-1])]
    times = torch.linspace(begin, end, len(frames))
    return torch.tensor([frame_times.nearest(time) for time in times.tolist()]), times


def draw_kind(config: PlanConfig, step: int, useful: frozenset[StepKind], generator: torch.Generator) -> StepKind:
    """Reference on every `reference_every`-th step, else one of the useful kinds at random."""
    shares = {kind: share for kind, share in config.shares.items() if kind in useful and share > 0}
    if config.fits_input(step) or not shares:
        return StepKind.REFERENCE
    chosen = torch.multinomial(torch.tensor(list(shares.values())), 1, generator=generator)
    kind = list(shares)[int(chosen)]
    if kind is StepKind.IDENTICAL and config.identical_views == "independent":
        return StepKind.INDEPENDENT
    return kind


def clip_stride(time_step: float, num_frames: int, count: int) -> int:
    """Frames between the members of a clip of `count` frames."""
    longest = (num_frames - 1) // max(1, count - 1)
    return max(1, min(int(num_frames * time_step), longest))


def draw_frames(
    config: PlanConfig, kind: StepKind, num_frames: int, count: int, generator: torch.Generator
) -> Int64[Tensor, " views"]:
    """Frames of the views: equidistant for a clip in time (at most the whole sequence), else one frame for all."""
    if kind is not StepKind.TIMES:
        return torch.randint(num_frames, (1,), generator=generator).expand(count)
    count = min(count, num_frames)
    stride = clip_stride(config.time_step, num_frames, count)
    span = stride * (count - 1 if config.frame_reach == "all" else count)
    start = torch.randint(max(1, num_frames - span), (1,), generator=generator)
    return start + stride * torch.arange(count)


def draw_views(
    config: PlanConfig, kind: StepKind, count: int, input_view: OrbitViews, generator: torch.Generator
) -> OrbitViews:
    """Cameras of a distillation step; azimuths may run past 180 degrees (they are not wrapped)."""
    independent = count if kind is StepKind.INDEPENDENT else 1
    elevation = draw_elevations(config, independent, generator).expand(count)
    azimuth = _uniform(config.azimuth_range, independent, generator).expand(count)
    if kind is StepKind.AZIMUTHS:
        azimuth = azimuth + _uniform(config.azimuth_step_range, 1, generator) * torch.arange(count)
    distance, fovy = input_view.distance[:1].expand(count), input_view.fovy[:1].expand(count)
    return OrbitViews(elevation, azimuth + input_view.azimuth[:1], distance, fovy)


def draw_elevations(config: PlanConfig, count: int, generator: torch.Generator) -> Float[Tensor, " views"]:
    """Elevations in degrees from the configured distribution."""
    low, high = config.elevation_range
    law = config.elevation_distribution
    if law == "upstream":
        law = "uniform" if torch.rand(1, generator=generator) < 0.5 else "narrow"
    if law == "uniform":
        return _uniform((low, high), count, generator)
    if law == "sphere":
        sines = (math.sin(math.radians(low)), math.sin(math.radians(high)))
        return torch.rad2deg(torch.asin(_uniform(sines, count, generator)))
    # Upstream maps the angle, rather than its sine, linearly to fractions of the sphere (quirk 12).
    return torch.rad2deg(torch.asin(_uniform((low / 90.0, high / 90.0), count, generator)))


def _uniform(bounds: Sequence[float], count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(count, generator=generator)
