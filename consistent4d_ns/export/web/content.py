"""What a page shows beside the mesh: pictures of the input and of the trained object."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.datamanager import Consistent4DDataManager
from consistent4d_ns.data.images import resized
from consistent4d_ns.export.options import Timeline
from consistent4d_ns.media.pictures import output_image, render_image, straight_image, to_bytes
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.runs import Run

INPUT_SIZE = 320
"""Largest side of the input's pictures in pixels."""
POSTER_SIZE = 640
"""Side of the poster in pixels."""
THUMBNAIL_SIZE = 160
"""Side of the picture that stands for the page, in a tab of a browser for example."""
MARGIN = 1.05
"""Side of the poster as a multiple of the object's."""
VISIBLE = 0.1
"""Opacity from which on something counts as the object on the poster."""
QUALITY = 85
"""Quality of lossy WebP, 0 to 100."""


@dataclass(frozen=True)
class Content:
    """Everything on a page that depends on the run."""

    title: str
    """Its heading."""
    glb: bytes
    """The animated mesh, as it can be downloaded."""
    timeline: Timeline
    """The frames of the mesh."""
    view: OrbitViews
    """The input camera, from which the object is seen at first."""
    side: int
    """Side of the input's pictures in pixels."""
    pictures: Sequence[bytes]
    """The input's pictures that are shown, WebP with alpha, each once; none where nothing was filmed."""
    shown: Sequence[int]
    """Which of them belongs to each frame."""
    poster: bytes
    """The object at its first time as the input camera saw it, WebP with alpha."""
    thumbnail: bytes
    """The same, small."""


def content_of(run: Run, timeline: Timeline, glb: bytes, title: str | None = None) -> Content:
    """What the page of a run shows.

    Args:
        run: Trained object and input.
        timeline: The frames of the mesh.
        glb: The animated mesh.
        title: The heading; default: the name of the frames.
    """
    model, data = run.pipeline.model, run.pipeline.datamanager
    nearest = [data.frame_times.nearest(frame.time) for frame in timeline] if data.has_frames else []
    kept = sorted(set(nearest))
    side = min(data.frames.shape[-1], INPUT_SIZE)
    poster = _poster(model, data.input_view, timeline.times[0])
    return Content(
        title=title or run.source_name,
        glb=glb,
        timeline=timeline,
        view=data.input_view,
        side=side,
        pictures=[_webp(_input_picture(data, index, side)) for index in kept],
        shown=[kept.index(index) for index in nearest],
        poster=_webp(poster),
        thumbnail=_webp(poster, THUMBNAIL_SIZE),
    )


def _input_picture(data: Consistent4DDataManager, index: int, side: int) -> Float[Tensor, "side side 4"]:
    return straight_image(resized(data.frames[None, index].float(), side)[0].movedim(0, -1))


def _poster(model: Consistent4DModel, view: OrbitViews, time: float) -> Float[Tensor, "side side 4"]:
    """The object by volume rendering as large as it fits, without normals, which would take most of the time."""
    asked, model.config.render_normals = model.config.render_normals, False
    try:
        small = render_image(model, view, time, THUMBNAIL_SIZE)["accumulation"][..., 0]
        share = min(1.0, MARGIN * half_extent(small > VISIBLE))
        fovy = 2.0 * torch.rad2deg(torch.atan(share * torch.tan(torch.deg2rad(view.fovy) / 2.0)))
        outputs = render_image(model, replace(view, fovy=fovy), time, POSTER_SIZE)
    finally:
        model.config.render_normals = asked
    return output_image(model, "rgb", outputs, (0.0, 1.0))


def half_extent(mask: Bool[Tensor, "side side"]) -> float:
    """Half the side of the smallest square in the middle of an image that holds a mask, as a share of the image's
    half; 1 for an empty mask."""
    if not mask.any():
        return 1.0
    middle = (len(mask) - 1) / 2.0
    return float(((mask.nonzero() - middle).abs().max() + 0.5) / (len(mask) / 2.0))


def _webp(image: Float[Tensor, "side side 4"], side: int | None = None) -> bytes:
    """The contents of a lossy WebP file with alpha, of another side if one is given."""
    picture = Image.fromarray(np.ascontiguousarray(to_bytes(image)))
    stream = io.BytesIO()
    (picture.resize((side, side)) if side else picture).save(stream, "WEBP", quality=QUALITY)
    return stream.getvalue()
