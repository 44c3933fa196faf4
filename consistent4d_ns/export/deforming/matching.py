"""Which point of a mesh belongs to which point of a moment's surface, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.export.deforming.moments import Moment
from consistent4d_ns.export.deforming.nearest import Nearest

NORMAL_WEIGHT = 0.06
"""World units that a difference of 1 between unit normals counts as: opposite sides of a thin limb are kept apart."""
BACKWARDS = 6000
"""Points of a surface whose nearest point of the mesh is looked for."""
ALONG = 0.1
"""Weight of distances along the surface, relative to those perpendicular to it: a mesh may slide."""


@dataclass(frozen=True)
class Matches:
    """Pairs of a point of the mesh and a point of the surface."""

    source: Int64[Tensor, " pairs"]
    """Index of the mesh's point."""
    goal: Float[Tensor, "pairs 3"]
    """The surface's point."""
    normal: Float[Tensor, "pairs 3"]
    """The surface's normal there."""
    weight: Float[Tensor, " pairs"]
    """In [0, 1]; little where pairs are far apart or face different ways."""

    def cost(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, ""]:
        """Mean weighted square of the distances between pairs in square world units, most of it perpendicular."""
        apart = points[self.source] - self.goal
        across = (apart * self.normal).sum(dim=-1).square()
        return (self.weight * (across + ALONG * apart.square().sum(dim=-1))).mean()


@dataclass(frozen=True)
class Goal:
    """A surface that is searched for nearest points."""

    points: Float[Tensor, "points 3"]
    """Points of the surface in world units."""
    normals: Float[Tensor, "points 3"]
    """Unit vectors there that point outwards."""
    nearest: Nearest
    """Finds points with normals like given ones."""

    def match(self, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], width: float) -> Matches:
        """Nearest points in both directions.

        Args:
            points: Of the mesh, in world units.
            normals: Unit vectors there.
            width: Distance in world units at which a pair counts a quarter.
        """
        mesh, some = _features(points, normals), slice(0, BACKWARDS)
        back = Nearest(mesh)(_features(self.points[some], self.normals[some]))
        source = torch.cat((torch.arange(len(mesh), device=mesh.device), back))
        found = torch.cat((self.nearest(mesh), torch.arange(len(back), device=mesh.device)))
        goal, normal = self.points[found], self.normals[found]
        agreement = (normals[source] * normal).sum(dim=-1).clamp(min=0.0)
        closeness = width**2 / (width**2 + (points[source] - goal).square().sum(dim=-1))
        return Matches(source, goal, normal, (agreement * closeness).square().detach())


def goal_of(moment: Moment, device: torch.device | str) -> Goal:
    """The surface of a moment, to be searched on a device."""
    points, normals = (torch.from_numpy(values).to(device) for values in (moment.points, moment.normals))
    return Goal(points, normals, Nearest(_features(points, normals)))


def _features(points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 6"]:
    return torch.cat((points, NORMAL_WEIGHT * normals), dim=1).detach()


def points_of(vertices: Float[Tensor, "vertices 3"], faces: Int64[Tensor, "faces 3"]) -> Float[Tensor, "points 3"]:
    """Points of a mesh that are fitted: its vertices and the centres of its triangles."""
    return torch.cat((vertices, vertices[faces].mean(dim=1)))


def normals_of(vertices: Float[Tensor, "vertices 3"], faces: Int64[Tensor, "faces 3"]) -> Float[Tensor, "points 3"]:
    """Unit normals at `points_of`; at vertices they average the triangles by area."""
    a, b, c = vertices[faces].unbind(dim=1)
    cross = torch.linalg.cross(b - a, c - a)
    around = torch.zeros_like(vertices).index_add_(0, faces.flatten(), cross.repeat_interleave(3, dim=0))
    return F.normalize(torch.cat((around, cross)), dim=-1)
