"""The space that silhouettes from many sides leave to an object: pure functions."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.targets.bank import TargetBank
from consistent4d_ns.targets.silhouettes import dilated

NEAR = 0.5
"""How much nearer to the camera than the centre the object is taken to be, where `radius` is converted to pixels."""


def visual_hull(bank: TargetBank, points: Float[Tensor, "points 3"], radius: float) -> Bool[Tensor, " points"]:
    """Points that are, in all views of at least one frame, inside the silhouette or outside of the picture.

    Args:
        bank: Views whose opacity is judged everywhere; what is not quite transparent is inside.
        points: In world units.
        radius: How far outside of a silhouette a point may lie, in world units.
    """
    views, size = bank.moments.views, bank.image_size
    focal = focal_length(views.fovy, size)
    margin = math.ceil(float((radius * focal / (views.distance - NEAR).clamp(min=NEAR)).max()))
    masks = dilated((bank.opacity > 0).float(), margin) > 0
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for frame in bank.moments.frames.unique():
        chosen = (bank.moments.frames == frame).nonzero()[:, 0]
        within = [visible(masks[view], views[view : view + 1], points) for view in chosen.tolist()]
        inside |= torch.stack(within).all(dim=0)
    return inside


def visible(
    mask: Bool[Tensor, "size size"], view: OrbitViews, points: Float[Tensor, "points 3"]
) -> Bool[Tensor, " points"]:
    """Value of one view's mask at each point; True for points that the view does not show."""
    size = mask.shape[-1]
    pose = view.poses()[0].to(points)
    x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).unbind(dim=-1)
    depth = torch.where(z < 0, -z, torch.ones_like(z))
    focal = focal_length(view.fovy, size).to(points)
    pixels = torch.stack((focal * x, -focal * y)) / depth + size / 2
    shown = ((pixels >= 0) & (pixels < size)).all(dim=0) & (z < 0)
    column, row = pixels.long().clamp(0, size - 1)
    return mask[row, column] | ~shown
