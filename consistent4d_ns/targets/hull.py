"""The space that silhouettes from many sides leave to an object: pure functions."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.rendering.sampling import OccupancyGrid
from consistent4d_ns.targets.bank import TargetBank
from consistent4d_ns.targets.silhouettes import dilated

NEAR = 0.5
"""How much nearer to the camera than the centre the object is taken to be, where `radius` is converted to pixels."""


def hull_of_cells(bank: TargetBank, grid: OccupancyGrid) -> Bool[Tensor, " cells"]:
    """Cells that the visual hull of a bank may touch."""
    return visual_hull(bank, grid.centres(), 0.5 * math.sqrt(3.0) * grid.cell)


def visual_hull(bank: TargetBank, points: Float[Tensor, "points 3"], radius: float) -> Bool[Tensor, " points"]:
    """Points that are, in all views of at least one frame, inside the silhouette or outside of the picture.

    Args:
        bank: Views whose opacity is judged everywhere; what is not quite transparent is inside.
        points: In world units.
        radius: How far outside of a silhouette a point may lie, in world units.
    """
    views, size = bank.moments.views, bank.image_size
    focal, poses = focal_length(views.fovy, size), views.poses()
    margin = math.ceil(float((radius * focal / (views.distance - NEAR).clamp(min=NEAR)).max()))
    masks = dilated((bank.opacity > 0).float(), margin) > 0
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for frame in bank.moments.frames.unique():
        chosen = (bank.moments.frames == frame).nonzero()[:, 0]
        within = [covers(masks[view], poses[view], focal[view], points) for view in chosen.tolist()]
        inside |= torch.stack(within).all(dim=0)
    return inside


def covers(
    mask: Bool[Tensor, "size size"],
    pose: Float[Tensor, "3 4"],
    focal: Float[Tensor, ""],
    points: Float[Tensor, "points 3"],
) -> Bool[Tensor, " points"]:
    """Value of a view's mask at each point; True for points that the view does not show.

    Args:
        mask: What the view shows.
        pose: Its camera-to-world matrix.
        focal: Its focal length in pixels.
        points: In world units.
    """
    size, pose = mask.shape[-1], pose.to(points)
    x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).unbind(dim=-1)
    depth = torch.where(z < 0, -z, torch.ones_like(z))
    pixels = focal.to(points) * torch.stack((x, -y)) / depth + size / 2
    shown = ((pixels >= 0) & (pixels < size)).all(dim=0) & (z < 0)
    column, row = pixels.long().clamp(0, size - 1)
    return mask[row, column] | ~shown
