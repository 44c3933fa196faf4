"""The surface of a moment as points to fit, and how often it touches itself there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from consistent4d_ns.export.options import TimedFrame
from consistent4d_ns.export.solid import Solid
from consistent4d_ns.export.surface import Surface, extract

POINTS = 16_000
"""Points of a surface: about 0.012 world units apart on a ball that fills half of the box."""
SPECK = 0.002
"""Parts below this share of the largest part's volume are left out: they come and go, and no template follows them."""
NEAR_LARGEST = 0.97
"""Share of the largest area from which on a surface counts as spread out."""


@dataclass(frozen=True)
class Moment:
    """The object's surface at a time."""

    points: Float32[np.ndarray, "points 3"]
    """Random points, evenly distributed, in world units."""
    normals: Float32[np.ndarray, "points 3"]
    """Unit vectors there that point outwards."""
    parts: int
    """Parts that hang together."""
    handles: int
    """Loops of the surface; limbs that touch make one."""
    area: float
    """Area in square world units."""


def surface_at(solid: Solid, frame: TimedFrame, min_part: float) -> Surface:
    """All of the surface at a time, without specks.

    Raises:
        InputError: there is nothing inside.
    """
    return without_specks(extract(solid, frame, None, min_part))


def without_specks(surface: Surface) -> Surface:
    """A closed surface without parts whose volume is below `SPECK` of the largest one's."""
    parts, part = parts_of(surface)
    a, b, c = surface.vertices[surface.faces].astype(np.float64).swapaxes(0, 1)
    owner = part[surface.faces[:, 0]]
    volumes = np.bincount(owner, (a * np.cross(b, c)).sum(axis=1) / 6.0, minlength=parts)
    large = volumes >= SPECK * volumes.max()
    if large.all():
        return surface
    kept, faces = np.unique(surface.faces[large[owner]], return_inverse=True)
    return Surface(surface.vertices[kept], faces.reshape(-1, 3).astype(np.int32), surface.normals[kept])


def parts_of(surface: Surface) -> tuple[int, Int64[np.ndarray, " vertices"]]:
    """How many parts a surface has, and which of them each vertex belongs to."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = surface.faces[:, [0, 1]].ravel(), surface.faces[:, [1, 2]].ravel()
    links = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(len(surface.vertices),) * 2)
    parts, part = connected_components(links, directed=False)
    return int(parts), np.asarray(part, np.int64)


def moment_of(surface: Surface) -> Moment:
    """Points of a closed surface; deterministic."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    points, face = trimesh.sample.sample_surface(mesh, POINTS, seed=0)[:2]
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)
    normals = (surface.normals[surface.faces[face]] * weights[..., None]).sum(axis=1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(lengths > 1e-6, normals / np.maximum(lengths, 1e-6), mesh.face_normals[face])
    parts, handles = topology(surface)
    return Moment(points.astype(np.float32), normals.astype(np.float32), parts, handles, float(mesh.area))


def topology(surface: Surface) -> tuple[int, int]:
    """Parts of a closed surface, and handles of all of them together."""
    used = np.unique(surface.faces)
    unused = len(surface.vertices) - len(used)
    parts = parts_of(surface)[0] - unused
    # Every edge of a closed surface has two triangles, so that there are one and a half times as many edges.
    euler = len(used) - len(surface.faces) // 2
    return parts, max(0, parts - euler // 2)


def best_moment(moments: list[Moment]) -> int:
    """The moment whose surface can become that of all others.

    A mesh can close a gap but not open one, so the fewest contacts count first: contacts make handles. Parts should be
    as many as usual. Limbs that lie flat against each other only cost area, so that only surfaces of about the largest
    area remain. Among them, the nearest to the middle has the shortest way to all others.
    """
    fewest = min(moment.handles for moment in moments)
    apart = [index for index, moment in enumerate(moments) if moment.handles == fewest]
    usual, _ = Counter(moments[index].parts for index in apart).most_common(1)[0]
    whole = [index for index in apart if moments[index].parts == usual]
    largest = max(moments[index].area for index in whole)
    spread = [index for index in whole if moments[index].area >= NEAR_LARGEST * largest]
    return min(spread, key=lambda index: abs(index - (len(moments) - 1) / 2))
