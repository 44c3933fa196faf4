"""Whether the triangles of a moving mesh stay well shaped, and how those that do not are repaired."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64

from consistent4d_ns.export.deforming.template import edges_of, neighbour_means

MOST_STRETCHED = 3.0
"""Factor by which an edge may become longer or shorter than in the template."""
SAFE = 2.7
"""Factor that a repair keeps to."""
THIN = 0.02
"""Share of a triangle's area in the template below which it counts as collapsed."""
ROUNDS = 60
"""Most rounds of a repair."""


def edge_factors(
    vertices: Float32[np.ndarray, "vertices 3"],
    rest: Float32[np.ndarray, "vertices 3"],
    edges: Int64[np.ndarray, "edges 2"],
) -> Float[np.ndarray, " edges"]:
    """By which factor each edge has become longer or shorter; at least 1."""
    now, then = (np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1) for v in (vertices, rest))
    ratio = np.maximum(now, 1e-12) / np.maximum(then, 1e-12)
    return np.maximum(ratio, 1.0 / ratio)


def flipped(
    vertices: Float32[np.ndarray, "vertices 3"], base: Float32[np.ndarray, "vertices 3"], faces: Int32[np.ndarray, "faces 3"]
) -> Bool[np.ndarray, " faces"]:
    """Triangles that are turned over against their surroundings, or have collapsed.

    A triangle is turned over if it faces away from where its surroundings face, by more than it did in `base`, where
    surroundings are the triangles that share a vertex with it.
    """
    crosses, before = _crosses(vertices, faces), _crosses(base, faces)
    collapsed = np.linalg.norm(crosses, axis=1) < THIN * np.linalg.norm(before, axis=1)
    against = (crosses * _around(crosses, faces, len(vertices))).sum(axis=1) < 0
    was = (before * _around(before, faces, len(base))).sum(axis=1) < 0
    return collapsed | (against & ~was)


def _crosses(vertices: Float32[np.ndarray, "vertices 3"], faces: Int32[np.ndarray, "faces 3"]) -> np.ndarray:
    a, b, c = vertices[faces].swapaxes(0, 1)
    return np.cross(b - a, c - a)


def _around(crosses: np.ndarray, faces: Int32[np.ndarray, "faces 3"], count: int) -> np.ndarray:
    """The sum of the crosses of the triangles around each triangle, without its own."""
    sums = np.stack(
        [np.bincount(faces.ravel(), np.repeat(column, 3), minlength=count) for column in crosses.T], axis=1
    )
    return sums[faces].sum(axis=1) - 3 * crosses


def repaired(
    vertices: Float32[np.ndarray, "vertices 3"],
    rest: Float32[np.ndarray, "vertices 3"],
    smooth: Float32[np.ndarray, "vertices 3"],
    faces: Int32[np.ndarray, "faces 3"],
) -> Float32[np.ndarray, "vertices 3"]:
    """The mesh with offsets from `smooth`, the mesh as its graph carries it, evened out where triangles are bad.

    Where that does not help, the offsets fade away: the shape that the graph gives is kept there.
    """
    edges, offsets = edges_of(faces), vertices - smooth
    for step in range(ROUNDS):
        current = (smooth + offsets).astype(np.float32)
        bad = np.zeros(len(vertices), bool)
        bad[edges[edge_factors(current, rest, edges) > SAFE]] = True
        bad[faces[flipped(current, rest, faces)]] = True
        if not bad.any():
            break
        for _ in range(1 + step // 10):
            bad[edges[bad[edges].any(axis=1)]] = True
        fading = 1.0 if step < ROUNDS // 2 else 0.8
        offsets[bad] = fading * neighbour_means(offsets, edges)[bad]
    return (smooth + offsets).astype(np.float32)
