"""The elevation of the input camera: that at which a frame and what a prior imagines beside it fit together.

A Zero123 prior is told by how much a camera moves, not how high it stands. From each elevation, however, a turn about
the vertical axis looks different, so that the views that the prior imagines show where it takes that axis to be: only
at the right elevation are their silhouettes those of one rigid object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import DEFAULT_CAMERA, OrbitViews, full_circle, orbit_views, relative_pose
from consistent4d_ns.data.images import composite_white, resized
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.errors import InputError
from consistent4d_ns.guidance import bundled_prior
from consistent4d_ns.guidance.base import ViewSampler
from consistent4d_ns.guidance.config import GuidanceConfig
from consistent4d_ns.targets.silhouettes import background

Progress = Callable[[list[int]], Iterable[int]]
"""Iterates over the frames that are judged, for example showing a bar; called for each of up to two passes."""
LEAST_CONTRAST = 0.05
"""How far from white the darkest channel of a frame's object has to be, at least."""
TOLERATED = 0.1
"""Share by which a score may exceed the least one within an estimate's spread."""


@dataclass(frozen=True)
class ElevationConfig:
    """What an estimate compares."""

    candidates: tuple[float, ...] = tuple(float(e) for e in range(-20, 51, 5))
    """Elevations in degrees that are compared, evenly spaced and ascending; the estimate lies between them, too."""
    rises: tuple[float, ...] = (0.0, 20.0)
    """By how many degrees the imagined views are higher than the input camera, at first."""
    high: float = 10.0
    """If the first estimate is more than this many degrees, a second one with other views takes its place."""
    rises_of_high: tuple[float, ...] = (-30.0, 0.0)
    """By how many degrees those are higher than the input camera. Of an object seen from above, level views tell more;
    of others, views from below would lie outside of what priors are trained on."""
    azimuths: int = 8
    """Imagined views around the object at each height."""
    frames: int = 3
    """Frames that are judged, evenly spaced in the clip."""
    sampling_steps: int = 5
    """Steps in which a view is sampled."""
    scale: float = 1.0
    """Classifier-free guidance scale of the samples."""
    temperature: float = 0.0
    """Standard deviation of the samples' initial noise. At 0 they are near the mean of what the prior takes to be
    possible: blurred, but in agreement with each other."""
    white_tolerance: float = 0.1
    """How far from white the background of a sample may be."""
    image_size: int = 24
    """Side of the silhouettes in pixels."""
    cells: int = 32
    """Cells along each side of the cube that the object may fill."""


@dataclass(frozen=True)
class ElevationEstimate:
    """An elevation, and what speaks for it."""

    degrees: float
    """The elevation above the horizon."""
    spread: float
    """How clear it is: degrees to either side within which the score is at most a tenth higher. Infinite where the
    best candidate is the first or the last: the elevation may lie beyond it."""
    candidates: tuple[float, ...]
    """Elevations that were compared, in degrees."""
    scores: tuple[float, ...]
    """Share of the silhouettes' area that no object can explain at each, the mean over views and frames; less is
    better."""


def estimate_elevation(
    sampler: ViewSampler,
    images: Float[Tensor, "frames 3 size size"],
    config: ElevationConfig | None = None,
    *,
    distance: float = DEFAULT_CAMERA["distance"],
    fovy: float = DEFAULT_CAMERA["fovy"],
    progress: Progress = iter,
) -> ElevationEstimate:
    """Estimate the input camera's elevation from its frames.

    Args:
        sampler: A prior that is conditioned on all of the images and is not told the elevation (as Stable-Zero123 is).
        images: The frames in [0, 1] on white.
        config: What is compared.
        distance: Distance of the input camera in world units.
        fovy: Its vertical field of view in degrees.
        progress: Iterates over the frames that are judged.

    Raises:
        InputError: A frame and its views show nothing but white.
    """
    config = config or ElevationConfig()
    camera, chosen = orbit_views(0.0, 0.0, distance, fovy), chosen_frames(len(images), config.frames)
    first = compare_views(
        sampler, images, progress(chosen), imagined_views(config.rises, config.azimuths, camera), config
    )
    if first.degrees <= config.high:
        return first
    others = imagined_views(config.rises_of_high, config.azimuths, camera)
    return compare_views(sampler, images, progress(chosen), others, config)


def compare_views(
    sampler: ViewSampler,
    images: Float[Tensor, "frames 3 size size"],
    frames: Iterable[int],
    views: OrbitViews,
    config: ElevationConfig,
) -> ElevationEstimate:
    """An estimate from given views of some of the frames; see `estimate_elevation`."""
    generator = torch.Generator().manual_seed(0)
    scores = []
    for frame in frames:
        imagined = imagine(sampler, views, frame, config, generator)
        pictures = [some.cpu().float() for some in (images[frame, None], imagined)]
        scores.append(compare(torch.cat([opacity(some, config) for some in pictures]), views, config))
    return conclude(config.candidates, torch.stack(scores).mean(dim=0).tolist())


def estimate_from_frames(
    rgba: Float[Tensor, "frames 4 size size"],
    prior: GuidanceConfig | None = None,
    config: ElevationConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> ElevationEstimate:
    """Load a prior and estimate the elevation of the camera that filmed some frames, at the default distance.

    Args:
        rgba: The frames in [0, 1], colours multiplied by alpha.
        prior: Which prior; the bundled one by default.
        config: What is compared.
        device: Where the prior runs.
        progress: Iterates over the frames that are judged.

    Raises:
        InputError: The frames are not pictures of an object, or the prior cannot be used or is told the elevation.
    """
    prior, config = prior or GuidanceConfig(prior=bundled_prior.NAME), config or ElevationConfig()
    images = on_white(rgba[chosen_frames(len(rgba), config.frames)])
    from consistent4d_ns.guidance.loading import build_guidance

    guidance = build_guidance(replace(prior, kind="zero123", previews=True), 0.0, device)
    assert guidance is not None
    if guidance.camera_convention == "stable-zero123":
        raise InputError(
            f"elevation auto: --pipeline.guidance.prior {prior.prior} has to be told the elevation (camera convention "
            "stable-zero123), so it cannot find it; use another prior, for example bundled, or give the elevation."
        )
    guidance.prepare(images)
    return estimate_elevation(guidance, images, config, progress=progress)


def on_white(rgba: Float[Tensor, "frames 4 size size"]) -> Float[Tensor, "frames 3 size size"]:
    """Frames as the prior sees them.

    Raises:
        InputError: One shows no object; or they are of another shape, or have values out of range.
    """
    if rgba.ndim != 4 or rgba.shape[1] != 4 or rgba.shape[2] != rgba.shape[3] or not len(rgba):
        raise InputError(
            f"elevation auto: frames of shape {tuple(rgba.shape)}; they have to be [frames, 4, size, size]."
        )
    if not rgba.is_floating_point() or not ((rgba >= 0) & (rgba <= 1)).all():
        raise InputError("elevation auto: frames have values that are not from 0 to 1.")
    images = composite_white(rgba)
    if ((1.0 - images).amax(dim=(1, 2, 3)) < LEAST_CONTRAST).any():
        raise InputError("elevation auto: a frame shows nothing but white; give the elevation in degrees.")
    return images


def chosen_frames(frames: int, most: int) -> list[int]:
    """Up to `most` of some frames: the middle ones of equal parts of the clip."""
    count = min(frames, most)
    return [(2 * i + 1) * frames // (2 * count) for i in range(count)]


def imagined_views(rises: Sequence[float], azimuths: int, camera: OrbitViews) -> OrbitViews:
    """The input camera, and then views all around at some heights; elevations are relative to its own.

    Args:
        rises: Elevations.
        azimuths: Views at each.
        camera: One view, whose distance and field of view all have.
    """
    around = [(rise, azimuth) for rise in rises for azimuth in full_circle(azimuths)]
    elevation, azimuth = zip((0.0, 0.0), *(view for view in around if view != (0.0, 0.0)), strict=True)
    distance, fovy = (value.expand(len(elevation)) for value in (camera.distance, camera.fovy))
    return OrbitViews(torch.tensor(elevation), torch.tensor(azimuth), distance, fovy)


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


def opacity(images: Float[Tensor, "images 3 h w"], config: ElevationConfig) -> Float[Tensor, "images side side"]:
    """Share of each pixel of the silhouettes that the object covers."""
    covered = (~background(images, config.white_tolerance)).float()
    return resized(covered[:, None], config.image_size)[:, 0]


def compare(
    silhouettes: Float[Tensor, "views side side"], views: OrbitViews, config: ElevationConfig
) -> Float[Tensor, " candidates"]:
    """Share of the silhouettes' area that no object can explain, for each candidate of the input camera's elevation.

    Args:
        silhouettes: Opacity in [0, 1].
        views: Their cameras; elevations are relative to the input camera's.
        config: What is compared.

    Raises:
        InputError: There is no object in the silhouettes.
    """
    points = cell_centres(object_reach(silhouettes, views), config.cells)
    turned = [OrbitViews(views.elevation + e, *views.stacked()[1:]) for e in config.candidates]
    return torch.stack([unexplained(silhouettes, candidate, points) for candidate in turned])


def object_reach(silhouettes: Float[Tensor, "views side side"], views: OrbitViews) -> float:
    """Half the side in world units of a cube around the origin that holds all that the silhouettes show.

    Raises:
        InputError: They show nothing.
    """
    side = silhouettes.shape[-1]
    _, row, column = silhouettes.nonzero(as_tuple=True)
    if len(row) == 0:
        raise InputError("elevation auto: there is nothing but white in the frames; give the elevation in degrees.")
    edge = torch.stack((row, column, side - 1 - row, side - 1 - column)).max() + 1 - side / 2
    return float(edge * (views.distance / focal_length(views.fovy, side)).max())


def cell_centres(reach: float, cells: int) -> Float[Tensor, "points 3"]:
    """Centres of `cells`^3 equal cells of a cube around the origin."""
    axis = reach * ((2 * torch.arange(cells) + 1) / cells - 1)
    return torch.cartesian_prod(axis, axis, axis)


def unexplained(
    silhouettes: Float[Tensor, "views side side"], views: OrbitViews, points: Float[Tensor, "points 3"]
) -> Float[Tensor, ""]:
    """Share of the silhouettes' area that their visual hull leaves empty, the mean over the views.

    Args:
        silhouettes: Opacity in [0, 1].
        views: Their cameras.
        points: Where the hull may be, closer to each other than pixels.
    """
    side = silhouettes.shape[-1]
    at = projected(points, views)
    hull = F.grid_sample(silhouettes[:, None], at[:, None], align_corners=False)[:, 0, 0].amin(dim=0)
    column, row = ((at + 1) * (side / 2)).long().clamp(0, side - 1).unbind(dim=-1)
    filled = torch.zeros(len(views), side * side).scatter_reduce(
        1, side * row + column, hull.expand(len(views), -1), "amax"
    )
    area = silhouettes.sum(dim=(1, 2))
    missing = (silhouettes - filled.view_as(silhouettes)).clamp(min=0).sum(dim=(1, 2))
    return (missing / area.clamp(min=1)).mean()


def projected(points: Float[Tensor, "points 3"], views: OrbitViews) -> Float[Tensor, "views points 2"]:
    """Where views show some points in front of them: right and down, from -1 to 1 across the picture."""
    poses = views.poses()
    x, y, z = ((points - poses[:, None, :, 3]) @ poses[:, :, :3]).unbind(dim=-1)
    return torch.stack((x, -y), dim=-1) * (focal_length(views.fovy, 2)[:, None] / -z)[..., None]


def conclude(candidates: Sequence[float], scores: Sequence[float]) -> ElevationEstimate:
    """The elevation of the least score, from the parabola through the best candidate and its neighbours.

    Args:
        candidates: Evenly spaced elevations in degrees, ascending.
        scores: The score of each.
    """
    best = min(range(len(scores)), key=lambda i: scores[i])
    degrees, spread = float(candidates[best]), math.inf
    if 0 < best < len(scores) - 1:
        left, least, right = scores[best - 1 : best + 2]
        step, bend = candidates[best] - candidates[best - 1], left - 2 * least + right
        degrees += 0.5 * step * (left - right) / bend
        spread = step * math.sqrt(2 * TOLERATED * least / bend)
    return ElevationEstimate(degrees, spread, tuple(candidates), tuple(scores))
