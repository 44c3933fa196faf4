"""The mesh that is deformed: few, well-shaped triangles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64

from consistent4d_ns.export.surface import Surface, decimate, with_normals

SMOOTHING = 6
"""Rounds of smoothing before decimation, which take away the steps of marching cubes but keep the volume."""
CLEANING = 3
"""Rounds in which short edges are collapsed."""
RELAXING = 4
"""Rounds after each in which vertices slide towards the middle of their neighbours, so that no triangle stays thin."""
SLIDE = 0.5
"""Part of the way that they slide in a round."""
SHORTEST = 0.2
"""Edges shorter than this share of the median are collapsed."""


def template_of(surface: Surface, faces: int) -> Surface:
    """A mesh of about `faces` triangles of similar size on a surface."""
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    trimesh.smoothing.filter_taubin(mesh, iterations=SMOOTHING)
    coarse = decimate(np.asarray(mesh.vertices, np.float32), surface.faces, faces)
    for _ in range(CLEANING):
        coarse = cleaned(coarse.vertices, coarse.faces)
        for _ in range(RELAXING):
            coarse = with_normals(relaxed(coarse), coarse.faces)
    return coarse


def cleaned(vertices: Float32[np.ndarray, "vertices 3"], faces: Int32[np.ndarray, "faces 3"]) -> Surface:
    """The mesh without very short edges, triangles that have collapsed or occur twice, and vertices without any."""
    import trimesh

    edges = edges_of(faces)
    lengths = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    short = edges[(lengths < SHORTEST * np.median(lengths)) & _collapsible(edges, len(vertices))]
    # Each vertex takes part in one collapse at most, so that no chain of them takes a large step.
    _, first = np.unique(short[:, 0], return_index=True)
    short = short[first]
    short = short[~np.isin(short[:, 1], short[:, 0])]
    place = np.arange(len(vertices))
    place[short[:, 0]] = short[:, 1]
    mesh = trimesh.Trimesh(vertices, place[faces], process=False)
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    return with_normals(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


def _collapsible(edges: Int64[np.ndarray, "edges 2"], count: int) -> Bool[np.ndarray, " edges"]:
    """Whether a collapse leaves the surface a surface: the ends of an edge have exactly two neighbours in common."""
    from scipy.sparse import coo_matrix

    both = both_ways(edges)
    near = coo_matrix((np.ones(both.shape[1], np.int32), tuple(both)), shape=(count, count)).tocsr()
    return np.asarray(near[edges[:, 0]].multiply(near[edges[:, 1]]).sum(axis=1)).ravel() == 2


def relaxed(surface: Surface) -> Float32[np.ndarray, "vertices 3"]:
    """Vertices after a step towards the mean of their neighbours, within the tangent plane."""
    step = SLIDE * (neighbour_means(surface.vertices, edges_of(surface.faces)) - surface.vertices)
    across = (step * surface.normals).sum(axis=1, keepdims=True) * surface.normals
    return (surface.vertices + step - across).astype(np.float32)


def neighbour_means(
    values: Float32[np.ndarray, "vertices width"], edges: Int64[np.ndarray, "edges 2"]
) -> Float32[np.ndarray, "vertices width"]:
    """The mean of the values at the neighbours of every vertex; its own where it has none."""
    ends, starts = both_ways(edges)
    count = np.bincount(ends, minlength=len(values)).astype(np.float32)[:, None]
    sums = sums_at(ends, values[starts], len(values))
    return np.where(count > 0, sums / np.maximum(count, 1), values).astype(np.float32)


def both_ways(edges: Int64[np.ndarray, "edges 2"]) -> Int64[np.ndarray, "2 directed"]:
    """First and last vertex of every edge, and then of every edge the other way round."""
    return np.concatenate((edges, edges[:, ::-1])).T


def sums_at(
    vertex: Int64[np.ndarray, " items"], values: Float[np.ndarray, "items width"], count: int
) -> Float[np.ndarray, "vertices width"]:
    """Sums of the values that belong to each of `count` vertices."""
    return np.stack([np.bincount(vertex, column, minlength=count) for column in values.T], axis=1)


def edges_of(faces: Int32[np.ndarray, "faces 3"]) -> Int64[np.ndarray, "edges 2"]:
    """Every edge once, the smaller vertex first."""
    edges = np.sort(np.concatenate((faces[:, :2], faces[:, 1:], faces[:, ::2])).astype(np.int64), axis=1)
    numbers = np.unique(numbered(edges))  # much faster than rows are sorted
    return np.stack((numbers >> 32, numbers & 0xFFFFFFFF), axis=1)


def numbered(edges: Int64[np.ndarray, "*shape 2"]) -> Int64[np.ndarray, "*shape"]:
    """A number for each edge, in the order of its first vertex and then of its second."""
    return edges[..., 0] << 32 | edges[..., 1]
