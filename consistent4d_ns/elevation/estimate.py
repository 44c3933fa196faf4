"""The elevation of the input camera: that at which the frames and what a prior imagines beside them fit together.

A Zero123 prior is told by how much a camera moves, not how high it was. A turn about the vertical axis looks different
from every elevation, though, so the views that the prior imagines show where it takes that axis to be: of all
elevations, the views are pictures of one rigid object at that one alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import DEFAULT_CAMERA, OrbitViews, full_circle, orbit_views, relative_pose
from consistent4d_ns.data.images import resized
from consistent4d_ns.elevation.volume import VolumeFit, residuals
from consistent4d_ns.guidance.base import ViewSampler

Progress = Callable[[list[int]], Iterable[int]]
"""Iterates over the frames that are judged, for example showing a bar."""
TOLERATED = 0.1
"""Share by which the residual may exceed the least one within an estimate's spread."""


@dataclass(frozen=True)
class ElevationConfig:
    """What an estimate compares. The defaults take about 20 s of one CPU core with the bundled prior."""

    candidates: tuple[float, ...] = (-20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
    """Elevations in degrees that are compared, evenly spaced; the estimate lies between them, too."""
    rises: tuple[float, ...] = (0.0, 20.0)
    """By how many degrees the imagined views are higher than the frame."""
    azimuths: int = 12
    """Imagined views around the object at each height."""
    frames: int = 3
    """Frames that are judged, evenly spaced in the clip."""
    sampling_steps: int = 8
    """Steps in which a view is sampled."""
    scale: float = 1.0
    """Classifier-free guidance scale of the samples."""
    temperature: float = 0.0
    """Standard deviation of the samples' initial noise. At 0 they are near the mean of what the prior takes to be
    possible: blurred, but consistent with each other."""
    fit: VolumeFit = field(default_factory=VolumeFit)
    """How an object is fitted to the views."""


@dataclass(frozen=True)
class ElevationEstimate:
    """An elevation, and what spoke for it."""

    degrees: float
    """The elevation above the horizon."""
    spread: float
    """How clear it is: degrees to either side within which the residual is at most a tenth higher. Infinite where the
    best candidate is the first or the last, so that the elevation may be beyond it."""
    candidates: tuple[float, ...]
    """Elevations that were compared, in degrees."""
    scores: tuple[float, ...]
    """Residual of each, the mean over the frames; that of the best candidate of each frame counts as 1."""


def estimate_elevation(
    sampler: ViewSampler,
    images: Float[Tensor, "frames 3 size size"],
    config: ElevationConfig | None = None,
    *,
    distance: float = DEFAULT_CAMERA["distance"],
    fovy: float = DEFAULT_CAMERA["fovy"],
    progress: Progress = iter,
) -> ElevationEstimate:
    """Estimate the input camera's elevation.

    Args:
        sampler: A prior that is conditioned on all of the images. One of the Stable-Zero123 convention is told an
            elevation, which its views follow: use another.
        images: The frames in [0, 1] on white.
        config: What is compared.
        distance: Distance of the input camera in world units.
        fovy: Its vertical field of view in degrees.
        progress: Iterates over the frames that are judged.

    Raises:
        InputError: The frames show nothing but white.
    """
    config = config or ElevationConfig()
    views = imagined_views(config, distance, fovy)
    generator = torch.Generator().manual_seed(0)
    scores = []
    for frame in progress(chosen_frames(len(images), config.frames)):
        imagined = imagine(sampler, views, frame, config, generator)
        seen = torch.cat(
            [resized(some.cpu().float(), config.fit.image_size) for some in (images[frame, None], imagined)]
        )
        residual = residuals(seen, candidate_cameras(views, config.candidates), generator, config.fit)
        scores.append(residual / residual.min())
    return conclude(config.candidates, torch.stack(scores).mean(dim=0).tolist())


def chosen_frames(frames: int, most: int) -> list[int]:
    """Up to `most` of some frames, evenly spaced and in the middle of equal parts of the clip."""
    count = min(frames, most)
    return [(2 * i + 1) * frames // (2 * count) for i in range(count)]


def imagined_views(config: ElevationConfig, distance: float, fovy: float) -> OrbitViews:
    """The input camera, and then those of the views that are imagined; elevations are relative to its own."""
    around = [(rise, azimuth) for rise in config.rises for azimuth in full_circle(config.azimuths)]
    rises, azimuths = zip((0.0, 0.0), *(view for view in around if view != (0.0, 0.0)), strict=True)
    views = orbit_views(0.0, 0.0, distance, fovy, count=len(rises))
    return OrbitViews(torch.tensor(rises), torch.tensor(azimuths), views.distance, views.fovy)


def imagine(
    sampler: ViewSampler, views: OrbitViews, frame: int, config: ElevationConfig, generator: torch.Generator
) -> Float[Tensor, "imagined 3 side side"]:
    """What the prior takes one frame to look like in all views but the first."""
    return sampler.sample(
        relative_pose(views[1:], views[:1]),
        torch.full((len(views) - 1,), frame),
        scale=config.scale,
        generator=generator,
        steps=config.sampling_steps,
        temperature=config.temperature,
    )


def candidate_cameras(views: OrbitViews, candidates: Sequence[float]) -> list[OrbitViews]:
    """The views as they are if the input camera has the elevation of each candidate."""
    return [OrbitViews(views.elevation + e, views.azimuth, views.distance, views.fovy) for e in candidates]


def conclude(candidates: Sequence[float], scores: Sequence[float]) -> ElevationEstimate:
    """The elevation of the least residual, from the parabola through the best candidate and its neighbours.

    Args:
        candidates: Evenly spaced elevations in degrees, in ascending order.
        scores: Residual of each.
    """
    best = min(range(len(scores)), key=lambda i: scores[i])
    degrees, spread = float(candidates[best]), math.inf
    if 0 < best < len(scores) - 1:
        left, middle, right = scores[best - 1 : best + 2]
        step, bend = candidates[best] - candidates[best - 1], left - 2 * middle + right
        degrees += 0.5 * step * (left - right) / bend
        spread = step * math.sqrt(2 * TOLERATED * middle / bend)
    return ElevationEstimate(degrees, spread, tuple(candidates), tuple(scores))
