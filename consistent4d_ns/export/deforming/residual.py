"""What is left between a fitted mesh and the surface of a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from consistent4d_ns.export.deforming.moments import Moment

FAR = 0.03
"""Distance in world units from which on a point counts as missed: three cells of the default lattice."""
MOST_MISSED = 0.03
"""Largest share of the surface that a shared mesh may miss at a moment."""
ON_MESH = 20_000
"""Points of the mesh that are compared."""


@dataclass(frozen=True)
class Residual:
    """How a mesh differs from the surface of a moment."""

    missing: float
    """Share of the surface, in [0, 1], that is `FAR` or farther from the mesh."""
    excess: float
    """Share of the mesh, in [0, 1], that is as far from the surface, outside of it; what is inside is not seen."""
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
    points = np.asarray(trimesh.sample.sample_surface(mesh, ON_MESH, seed=0)[0], np.float32)
    missing = KDTree(points).query(moment.points)[0]
    excess, nearest = KDTree(moment.points).query(points)
    outside = ((points - moment.points[nearest]) * moment.normals[nearest]).sum(axis=1) > 0
    return Residual(
        float((missing > FAR).mean()),
        float(((excess > FAR) & outside).mean()),
        float(np.sqrt(np.square(missing).mean())),
    )
