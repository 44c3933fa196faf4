"""How well a run shows what was filmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import cast

from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.data.dataparser import FrameSequence
from consistent4d_ns.data.images import composite_white
from consistent4d_ns.media.pictures import render_colour_and_opacity
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.rendering.metrics import image_metrics, silhouette_iou


@dataclass(frozen=True)
class Figures:
    """Of one frame, or means over frames and views; images are on white."""

    psnr: float
    """Peak signal-to-noise ratio in dB."""
    ssim: float
    """Structural similarity, at most 1."""
    iou: float
    """Intersection over union of the silhouettes, 0 to 1."""


@dataclass(frozen=True)
class View:
    """What a fixed camera saw."""

    camera: OrbitViews
    """The camera, one view."""
    frames: Float[Tensor, "frames 4 size size"]
    """Its frames, with premultiplied alpha, in [0, 1]."""


def input_view(data: Consistent4DDataManager) -> View:
    """The view that was trained on."""
    return View(data.input_view, data.frames)


def novel_views(data: Consistent4DDataManager) -> list[View]:
    """The views of the ground truth; none where the data have none."""
    views = cast(FrameSequence, data.dataparser).unseen_views
    if not views:
        return []
    frames = data.eval_dataset.rgba.unflatten(0, (len(views), -1))
    return [View(view.camera, seen) for view, seen in zip(views, frames, strict=True)]


def measure(
    model: Consistent4DModel, data: Consistent4DDataManager, views: list[View], chosen: Sequence[int] | None = None
) -> Iterator[Figures]:
    """The figures of frames of some views, at the side of the frames, as `ns-eval` computes them.

    Args:
        model: The trained object, in evaluation mode.
        data: When the frames were filmed.
        views: What was filmed.
        chosen: Which frames; None: all.
    """
    times = data.frame_times.times
    for view in views:
        for index in range(len(times)) if chosen is None else chosen:
            rgba = view.frames[index].to(model.device).float()
            rgb, opacity = render_colour_and_opacity(model, view.camera, times[index], rgba.shape[-1])
            truth = composite_white(rgba[None])[0].movedim(0, -1)
            scores = image_metrics(rgb.clamp(0.0, 1.0), truth)
            iou = silhouette_iou(opacity[..., None], rgba[3, ..., None])
            yield Figures(scores["psnr"], scores["ssim"], iou)


def average(figures: list[Figures]) -> Figures:
    """The mean of at least one frame's figures."""
    return Figures(*(mean(getattr(one, name) for one in figures) for name in ("psnr", "ssim", "iou")))
