"""Meshes seen from a camera: the visible point at every sample of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.export.raster import cover
from consistent4d_ns.export.surface import Surface


@dataclass(frozen=True)
class Shot:
    """The visible point of a mesh at every sample of a square image."""

    samples: int
    """Samples along each side of a pixel."""
    triangle: Int64[Tensor, "side side"]
    """Nearest triangle; -1 for the background."""
    weights: Float[Tensor, "side side 3"]
    """Perspective-correct barycentric coordinates in that triangle."""

    def at(self, corners: Float[Tensor, "triangles 3 channels"]) -> Float[Tensor, "side side channels"]:
        """Interpolate values, given at the corners of all triangles, at the visible points."""
        return (corners[self.triangle.clamp(min=0)] * self.weights[..., None]).sum(dim=-2)

    def opacity(self) -> Float[Tensor, "size size"]:
        """Fraction of each pixel that the mesh covers."""
        return F.avg_pool2d((self.triangle >= 0).float()[None], self.samples)[0]

    def on_white(self, colours: Float[Tensor, "side side 3"]) -> Float[Tensor, "3 size size"]:
        """The image on a white background, given the colours of all samples."""
        white = torch.where((self.triangle >= 0)[..., None], colours, 1.0)
        return F.avg_pool2d(white.movedim(-1, 0)[None], self.samples)[0]


def shoot(surface: Surface, view: OrbitViews, size: int, samples: int) -> Shot:
    """Rasterise a mesh from a view (of length 1) at `size` x `size` pixels of `samples` x `samples` samples each."""
    side = samples * size
    device = view.azimuth.device
    faces = torch.from_numpy(surface.faces).long().to(device)
    on_screen, inverse_depth = project(torch.from_numpy(surface.vertices).to(device), view, side)
    fragments = cover(on_screen[faces], side, side)
    # Perspective correction: barycentric coordinates divided by depth are linear in screen space.
    weights = fragments.weights * inverse_depth[faces][fragments.triangle]
    nearness = weights.sum(dim=1)
    nearest = weights.new_zeros(side * side).scatter_reduce_(0, fragments.pixel, nearness, reduce="amax")
    front = nearness >= nearest[fragments.pixel]
    triangle = torch.full((side * side,), -1, device=device)
    visible = weights.new_zeros(side * side, 3)
    triangle[fragments.pixel[front]] = fragments.triangle[front]
    visible[fragments.pixel[front]] = (weights / nearness[:, None])[front]
    return Shot(samples, triangle.view(side, side), visible.view(side, side, 3))


def project(
    points: Float[Tensor, "points 3"], view: OrbitViews, side: int
) -> tuple[Float[Tensor, "points 2"], Float[Tensor, " points"]]:
    """Where points in world units are in a picture of `side` x `side` pixels, as (column, row) from its top left
    corner, and the inverse of their depth."""
    pose, focal = view.poses()[0], focal_length(view.fovy, side)[0]
    in_camera = (points - pose[:, 3]) @ pose[:, :3]
    inverse_depth = -1.0 / in_camera[:, 2]
    upright = torch.tensor((1.0, -1.0), device=points.device)
    return in_camera[:, :2] * upright * inverse_depth[:, None] * focal + 0.5 * side, inverse_depth
