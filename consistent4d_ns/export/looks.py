"""How meshes look: unlit pictures of them, and how close these come to the volume render."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.export.refining import SIZE, views_around
from consistent4d_ns.export.sequence import Exporter, Mesh
from consistent4d_ns.export.shot import Shot, shoot
from consistent4d_ns.media.pictures import render_colour_and_opacity
from consistent4d_ns.rendering.metrics import silhouette_iou

SAMPLES = 3
"""Samples along each side of a pixel; odd, so that no pixel is covered by exactly a half."""


def picture(mesh: Mesh, shot: Shot) -> Float[Tensor, "3 size size"]:
    """The image of a mesh on white, with its vertex colours or its texture."""
    device = shot.triangle.device
    faces = torch.from_numpy(mesh.surface.faces).long().to(device)
    if mesh.colours is not None:
        return shot.on_white(shot.at(torch.from_numpy(mesh.colours).to(device)[faces]))
    assert mesh.uvs is not None
    assert mesh.texture is not None
    uv = shot.at(torch.from_numpy(mesh.uvs).to(device)[faces]) * 2.0 - 1.0
    texture = torch.from_numpy(mesh.texture).to(device).float().movedim(-1, 0)[None] / 255.0
    looked_up = F.grid_sample(texture, uv[None], align_corners=False, padding_mode="border")[0]
    return shot.on_white(looked_up.movedim(0, -1))


@dataclass(frozen=True)
class Likeness:
    """How like the volume render a mesh looks; means over the input view and views all around."""

    overlap: float
    """Intersection over union of the silhouettes, in [0, 1]."""
    psnr: float
    """Peak signal-to-noise ratio of the pictures in dB."""


def likeness(source: Exporter, mesh: Mesh, time: float) -> Likeness:
    """How like the volume render at a time in [0, 1] a mesh looks."""
    # Turned, so that they are not those that corrected the colours of the first frame.
    views = (source.view, *views_around(source.view, 1))
    overlaps, psnrs = zip(*(_compared(source, mesh, view.to(source.model.device), time) for view in views), strict=True)
    return Likeness(mean(overlaps), mean(psnrs))


def _compared(source: Exporter, mesh: Mesh, view: OrbitViews, time: float) -> tuple[float, float]:
    """Intersection over union, and PSNR, in one view."""
    rgb, opacity = render_colour_and_opacity(source.model, view, time, SIZE)
    shot = shoot(mesh.surface, view, SIZE, SAMPLES)
    error = (picture(mesh, shot) - rgb.movedim(-1, 0)).square().mean().clamp(min=1e-10)
    overlap = silhouette_iou(shot.opacity()[..., None], opacity[..., None])
    return overlap, float(-10.0 * error.log10())
