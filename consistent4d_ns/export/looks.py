"""How meshes look: unlit pictures of them, and how close these come to the volume render."""

from __future__ import annotations

from statistics import mean

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.export.options import TimedFrame
from consistent4d_ns.export.refining import SAMPLES, SIZE, views_around
from consistent4d_ns.export.sequence import Exporter, Mesh
from consistent4d_ns.export.shot import Shot, shoot
from consistent4d_ns.media.pictures import render_colour


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


def loss(source: Exporter, frame: TimedFrame, mesh: Mesh, other: Mesh) -> float:
    """By how many dB of PSNR against the volume render one mesh of a frame looks worse than another.

    A mean over the input view and views all around; below 0 where it looks better.
    """
    device = source.model.device
    found = []
    # Turned, so that they are not those that corrected the colours of a mesh of its own.
    for view in (source.view, *views_around(source.view, 1)):
        view = view.to(device)
        truth = render_colour(source.model, view, frame.time, SIZE).movedim(-1, 0)
        shown = (picture(m, shoot(m.surface, view, SIZE, SAMPLES)) for m in (mesh, other))
        one, two = (float((image - truth).square().mean().clamp(min=1e-10).log10()) for image in shown)
        found.append(10.0 * (one - two))
    return mean(found)
