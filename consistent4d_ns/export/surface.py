"""The object's surface as triangles: marching cubes, decimation, smooth normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from consistent4d_ns.data.parts import large_parts
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import TimedFrame
from consistent4d_ns.export.solid import Solid

OVERSAMPLING = 4
"""Random candidates for each point that is kept."""
FARTHEST_POINT_DEPTH = 7
"""Depth of fpsample's search tree; affects the run time only."""


@dataclass(frozen=True)
class Surface:
    """A triangle mesh in world units, z up."""

    vertices: Float32[np.ndarray, "vertices 3"]
    """Positions in world units."""
    faces: Int32[np.ndarray, "faces 3"]
    """Vertices of each triangle, counter-clockwise seen from outside."""
    normals: Float32[np.ndarray, "vertices 3"]
    """Unit vectors that point outwards, averaged over the triangles around a vertex."""


def extract(solid: Solid, frame: TimedFrame, faces: int | None, min_part: float = 0.0) -> Surface:
    """The object's surface at a time.

    Args:
        solid: The object's inside.
        frame: When.
        faces: Target number of faces; None keeps all.
        min_part: Parts smaller than this share of the largest one are left out.

    Raises:
        InputError: there is nothing inside.
    """
    from skimage.measure import marching_cubes

    level = solid.level(frame.time).cpu().numpy()
    inside = level > 0
    if not inside.any():
        need = solid.threshold
        raise InputError(
            f"{frame}: nothing is as dense as {need.density:g} and as opaque as {need.opacity:g}; "
            "lower --density or --opacity, leave that time out with --times, or train for longer."
        )
    level = without_cavities_and_small_parts(level, min_part)
    # Values increase inwards, which marching cubes calls an ascent.
    vertices, triangles, _, _ = marching_cubes(level, 0.0, gradient_direction="ascent", allow_degenerate=False)
    origin = solid.lattice.origin.cpu().numpy()
    vertices = vertices * solid.lattice.spacing + origin
    return decimate(vertices.astype(np.float32), triangles.astype(np.int32), faces)


def without_cavities_and_small_parts(
    level: Float32[np.ndarray, "x y z"], min_part: float
) -> Float32[np.ndarray, "x y z"]:
    """Levels, positive inside, with cavities filled and then parts removed that are too small.

    Args:
        level: At the points of a lattice.
        min_part: Parts of a volume below this share of the largest part's are removed; a cavity counts as volume.
    """
    whole = filled(level > 0)
    level = np.where(whole & (level <= 0), np.float32(1.0), level)
    return np.where(whole & ~large_parts(whole, min_part), np.float32(-1.0), level)


def filled(inside: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The object and its cavities, which no view sees and which would cost faces."""
    from scipy.ndimage import binary_fill_holes

    whole = binary_fill_holes(inside)
    assert whole is not None
    return whole


def decimate(
    vertices: Float32[np.ndarray, "vertices 3"], triangles: Int32[np.ndarray, "triangles 3"], faces: int | None
) -> Surface:
    """The surface with about `faces` faces left by quadric error decimation, and normals."""
    from fast_simplification import simplify

    if faces is not None and len(triangles) > faces:
        vertices, triangles = simplify(vertices, triangles, target_count=faces)[:2]
    return with_normals(vertices.astype(np.float32), triangles.astype(np.int32))


def with_normals(vertices: Float32[np.ndarray, "vertices 3"], triangles: Int32[np.ndarray, "triangles 3"]) -> Surface:
    """Normals that average those of the faces around each vertex, weighted by their angle there."""
    import trimesh

    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    # Where the faces' normals cancel out, any direction is as good as another: up.
    up = np.broadcast_to(np.array((0.0, 0.0, 1.0)), vertices.shape)
    return Surface(vertices, triangles, unit(np.asarray(mesh.vertex_normals), up))


def sample_evenly(
    surface: Surface, count: int
) -> tuple[Float32[np.ndarray, "count 3"], Float32[np.ndarray, "count 3"]]:
    """Exactly `count` points evenly spread over a surface, and unit normals there; deterministic.

    Farthest point sampling among several times as many random points.
    """
    import trimesh
    from fpsample import bucket_fps_kdline_sampling

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    points, face = trimesh.sample.sample_surface(mesh, OVERSAMPLING * count, seed=0)[:2]
    points = np.asarray(points, np.float32)
    kept = bucket_fps_kdline_sampling(points, count, h=FARTHEST_POINT_DEPTH, start_idx=0)
    points, face = points[kept], face[kept]
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
    normals = (surface.normals[surface.faces[face]] * weights[..., None]).sum(axis=1)
    return points, unit(normals, mesh.face_normals[face])


def unit(vectors: Float[np.ndarray, "n 3"], otherwise: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Vectors scaled to length 1; vectors close to zero are replaced by those of `otherwise`."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.where(lengths > 1e-6, vectors, otherwise)
    return (known / np.linalg.norm(known, axis=1, keepdims=True)).astype(np.float32)
