"""Which point of a mesh belongs to which point of a moment's surface, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from consistent4d_ns.export.deforming.moments import Moment

if TYPE_CHECKING:
    from scipy.spatial import KDTree

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

    moment: Moment
    """Its points."""
    tree: KDTree = field(init=False, repr=False)
    """Search tree of points and normals."""

    def __post_init__(self) -> None:
        from scipy.spatial import KDTree

        object.__setattr__(self, "tree", KDTree(_features(self.moment.points, self.moment.normals)))

    def match(self, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], width: float) -> Matches:
        """Nearest points in both directions.

        Args:
            points: Of the mesh, in world units.
            normals: Unit vectors there.
            width: Distance in world units at which a pair counts a quarter.
        """
        from scipy.spatial import KDTree

        mesh = _features(points.detach().cpu().numpy(), normals.detach().cpu().numpy())
        some = slice(0, BACKWARDS)
        back_goal = _features(self.moment.points[some], self.moment.normals[some])
        ahead, back = np.asarray(self.tree.query(mesh)[1]), np.asarray(KDTree(mesh).query(back_goal)[1])
        source = torch.from_numpy(np.concatenate((np.arange(len(mesh)), back))).to(points.device)
        found = np.concatenate((ahead, np.arange(len(back))))
        goal, normal = (
            torch.from_numpy(values[found]).to(points.device) for values in (self.moment.points, self.moment.normals)
        )
        agreement = (normals[source] * normal).sum(dim=-1).clamp(min=0.0)
        closeness = width**2 / (width**2 + (points[source] - goal).square().sum(dim=-1))
        return Matches(source, goal, normal, (agreement * closeness).square().detach())


def _features(
    points: Float32[np.ndarray, "points 3"], normals: Float32[np.ndarray, "points 3"]
) -> Float32[np.ndarray, "points 6"]:
    return np.concatenate((points, NORMAL_WEIGHT * normals), axis=1)


def points_of(vertices: Float[Tensor, "vertices 3"], faces: Int64[Tensor, "faces 3"]) -> Float[Tensor, "points 3"]:
    """Points of a mesh that are fitted: its vertices and the centres of its triangles."""
    return torch.cat((vertices, vertices[faces].mean(dim=1)))


def normals_of(vertices: Float[Tensor, "vertices 3"], faces: Int64[Tensor, "faces 3"]) -> Float[Tensor, "points 3"]:
    """Unit normals at `points_of`; at vertices they average the triangles by area."""
    a, b, c = vertices[faces].unbind(dim=1)
    cross = torch.linalg.cross(b - a, c - a)
    around = torch.zeros_like(vertices).index_add_(0, faces.flatten(), cross.repeat_interleave(3, dim=0))
    return F.normalize(torch.cat((around, cross)), dim=-1)
