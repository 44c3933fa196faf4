"""What is left between a fitted mesh and the surface of a moment.

What lies inside of the other one does not count, because it is not seen: walls of a crack that the mesh covers, or
limbs of the mesh that are in contact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from consistent4d_ns.export.deforming.moments import Moment

FAR = 0.03
"""Distance in world units from which on a point counts as missed: three cells of the default lattice."""
MOST_MISSED = 0.08
"""Largest share of the surface that a shared mesh may miss at a moment; with 0.065, silhouettes still overlap by 0.96
(docs/performance.md, Meshes)."""
ON_MESH = 20_000
"""Points of the mesh that are compared."""


@dataclass(frozen=True)
class Residual:
    """How a mesh differs from the surface of a moment."""

    missing: float
    """Share of the surface, in [0, 1], that is more than `FAR` away from the mesh, outside of it."""
    excess: float
    """Share of the mesh, in [0, 1], that is as far away from the surface, outside of it."""
    distance: float
    """Root mean square distance of the surface from the mesh, in world units, up to the spacing of points."""

    @property
    def missed(self) -> float:
        """The larger of both shares."""
        return max(self.missing, self.excess)


def residual(
    vertices: Float32[np.ndarray, "vertices 3"], faces: Int32[np.ndarray, "faces 3"], moment: Moment
) -> Residual:
    """Compare a mesh with a moment; deterministic."""
    import trimesh
    from scipy.spatial import KDTree

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    points, face = trimesh.sample.sample_surface(mesh, ON_MESH, seed=0)[:2]
    missing, mesh_point = KDTree(points).query(moment.points)
    excess, surface_point = KDTree(moment.points).query(points)
    above_mesh = _above(moment.points, points[mesh_point], mesh.face_normals[face][mesh_point])
    above_surface = _above(points, moment.points[surface_point], moment.normals[surface_point])
    return Residual(
        float(((missing > FAR) & above_mesh).mean()),
        float(((excess > FAR) & above_surface).mean()),
        float(np.sqrt(np.square(missing).mean())),
    )


def _above(
    points: Float[np.ndarray, "points 3"],
    nearest: Float[np.ndarray, "points 3"],
    normals: Float[np.ndarray, "points 3"],
) -> Bool[np.ndarray, " points"]:
    """Whether points are outside of a surface, judged by the nearest of its points and the normal there."""
    return ((points - nearest) * normals).sum(axis=1) > 0
