"""Whether the triangles of a moving mesh stay well shaped, and how those that do not are repaired."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64

from consistent4d_ns.export.deforming.template import both_ways, edges_of, numbered, sums_at

MOST_STRETCHED = 3.0
"""Factor by which an edge may become longer or shorter than in the template."""
SAFE = 2.7
"""Factor from which on a repair changes an edge."""
THIN = 0.02
"""Share of a triangle's area in the template below which it counts as collapsed."""
ROUNDS = 480
"""Most rounds of a repair; two moments of 128 that were tried needed more than 120."""
GROWTH = 12
"""Rounds after which a repair takes in the neighbours too."""

Vertices = Float[np.ndarray, "vertices 3"]
Faces = Int32[np.ndarray, "faces 3"]
Edges = Int64[np.ndarray, "edges 2"]


def edge_factors(vertices: Vertices, rest: Vertices, edges: Edges) -> Float[np.ndarray, " edges"]:
    """By which factor each edge has become longer or shorter than at rest; at least 1."""
    now, then = (np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1) for v in (vertices, rest))
    ratio = np.maximum(now, 1e-12) / np.maximum(then, 1e-12)
    return np.maximum(ratio, 1.0 / ratio)


def broken(vertices: Vertices, rest: Vertices, faces: Faces) -> int:
    """Number of triangles that `flipped` finds, or of which an edge has changed by more than `MOST_STRETCHED`."""
    edges = edges_of(faces)
    stretched = edges[edge_factors(vertices, rest, edges) > MOST_STRETCHED]
    long = np.isin(numbered(np.sort(_sides(faces), axis=-1)), numbered(np.sort(stretched, axis=-1)))
    return int((flipped(vertices, rest, faces) | long.any(axis=1)).sum())


def _sides(faces: Faces) -> Int64[np.ndarray, "faces 3 2"]:
    return np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).astype(np.int64)


def flipped(vertices: Vertices, rest: Vertices, faces: Faces) -> Bool[np.ndarray, " faces"]:
    """Triangles that have collapsed, or face away from where their surroundings have turned them."""
    return _flipped(vertices, rest, faces, _spread(vertices, rest, edges_of(faces)))


def _flipped(
    vertices: Vertices, rest: Vertices, faces: Faces, spread: Float[np.ndarray, "vertices 3 3"]
) -> Bool[np.ndarray, " faces"]:
    now, then = _crosses(vertices, faces), _crosses(rest, faces)
    turned = (_rotations(spread[faces].sum(axis=1)) @ then[..., None])[..., 0]
    collapsed = np.linalg.norm(now, axis=1) < THIN * np.linalg.norm(then, axis=1)
    return collapsed | ((now * turned).sum(axis=1) <= 0)


def _crosses(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "faces 3"]:
    a, b, c = vertices[faces].swapaxes(0, 1)
    return np.cross(b - a, c - a)


def _spread(vertices: Vertices, rest: Vertices, edges: Edges) -> Float[np.ndarray, "vertices 3 3"]:
    """The sum, over the edges around each vertex, of the products of the edge now and at rest."""
    now, then = (v[edges[:, 1]] - v[edges[:, 0]] for v in (vertices, rest))
    products = (now[:, :, None] * then[:, None, :]).reshape(-1, 9)
    return sums_at(edges.T.ravel(), np.tile(products, (2, 1)), len(vertices)).reshape(-1, 3, 3)


def _rotations(spread: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """The rotations that take what was at rest closest to what is now (Kabsch)."""
    left, _, right = np.linalg.svd(spread)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    return left @ right


def repaired(
    vertices: Float32[np.ndarray, "vertices 3"], rest: Float32[np.ndarray, "vertices 3"], faces: Faces
) -> Float32[np.ndarray, "vertices 3"]:
    """The mesh with its bad triangles and edges, and more and more around them, brought closer to their shape at rest.

    Each round moves vertices to where their neighbours expect them: at the edges' vectors at rest, turned as their
    surroundings have turned (a step of "As-Rigid-As-Possible Surface Modeling", Sorkine and Alexa, SGP 2007).
    """
    edges, current, start = edges_of(faces), vertices.astype(np.float64), rest.astype(np.float64)
    touched, near = np.zeros(len(vertices), bool), np.ones(len(vertices), bool)
    for step in range(ROUNDS):
        # Triangles can only have become bad around the vertices that have moved.
        looked = faces[near[faces].any(axis=1)]
        around = edges[_grown(near, edges)[edges].any(axis=1)]
        spread = _spread(current, start, around)
        bad = np.zeros(len(vertices), bool)
        bad[looked[_flipped(current, start, looked, spread)]] = True
        bad[around[edge_factors(current, start, around) > SAFE]] = True
        if not bad.any():
            break
        touched |= bad
        if step % GROWTH == GROWTH - 1:
            touched = _grown(touched, edges)
        near = _grown(touched, edges)
        current[touched] = _expected(current, start, edges, touched, near)
    return current.astype(np.float32)


def _grown(vertices: Bool[np.ndarray, " vertices"], edges: Edges) -> Bool[np.ndarray, " vertices"]:
    """Vertices and their neighbours."""
    grown = vertices.copy()
    grown[edges[vertices[edges].any(axis=1)]] = True
    return grown


def _expected(
    vertices: Vertices,
    rest: Vertices,
    edges: Edges,
    chosen: Bool[np.ndarray, " vertices"],
    near: Bool[np.ndarray, " vertices"],
) -> Float[np.ndarray, "chosen 3"]:
    """Where the neighbours of each chosen vertex expect it, on average; `near` are these vertices and neighbours."""
    turns = np.empty((len(vertices), 3, 3))
    turns[near] = _rotations(_spread(vertices, rest, edges[near[edges].any(axis=1)])[near])
    starts, ends = both_ways(edges[chosen[edges].any(axis=1)])
    apart = (0.5 * (turns[starts] + turns[ends]) @ (rest[ends] - rest[starts])[..., None])[..., 0]
    sums = sums_at(ends, vertices[starts] + apart, len(vertices))[chosen]
    return sums / np.maximum(np.bincount(ends, minlength=len(vertices))[chosen], 1)[:, None]
