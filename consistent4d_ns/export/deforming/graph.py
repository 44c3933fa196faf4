"""An embedded deformation graph: nodes on a mesh, each with a rotation and a shift, that carry its vertices along.

After Sumner, Schmid and Pauly, "Embedded Deformation for Shape Manipulation" (SIGGRAPH 2007), with distances along the
mesh instead of through space, so that limbs that are close to each other move apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from consistent4d_ns.export.deforming.template import edges_of
from consistent4d_ns.export.rotations import rotation_matrices
from consistent4d_ns.export.surface import Surface

NODES = 250
"""Nodes of a graph, if the mesh has that many vertices."""
CARRIERS = 4
"""Nodes that carry a vertex."""


@dataclass(frozen=True)
class Graph:
    """Nodes of a mesh and what they carry, as the mesh is at rest."""

    rest: Float[Tensor, "vertices 3"]
    """Positions of the vertices."""
    nodes: Float[Tensor, "nodes 3"]
    """Positions of the nodes."""
    carriers: Int64[Tensor, "vertices carriers"]
    """Nodes that carry each vertex."""
    weights: Float[Tensor, "vertices carriers"]
    """How much, summing to 1."""
    links: Int64[Tensor, "links 2"]
    """Pairs of nodes that carry the same vertex, in both directions."""


@dataclass(frozen=True)
class Pose:
    """Where the nodes are at a moment."""

    turns: Float[Tensor, "nodes 4"]
    """Rotations as quaternions (w, x, y, z) of any length."""
    shifts: Float[Tensor, "nodes 3"]
    """Shifts in world units."""


def at_rest(graph: Graph) -> Pose:
    """No rotation, no shift."""
    turns = torch.zeros(len(graph.nodes), 4, device=graph.nodes.device)
    turns[:, 0] = 1.0
    return Pose(turns, torch.zeros_like(graph.nodes))


def carried(graph: Graph, pose: Pose) -> Float[Tensor, "vertices 3"]:
    """Positions of the vertices in a pose."""
    # Each node moves the whole of space: x goes to R x + (node + shift - R node). These maps are mixed.
    turned = rotation_matrices(pose.turns)
    offset = graph.nodes + pose.shifts - (turned @ graph.nodes[..., None])[..., 0]
    maps = torch.cat((turned, offset[..., None]), dim=-1).flatten(1)
    mixed = (maps[graph.carriers] * graph.weights[..., None]).sum(dim=1).unflatten(1, (3, 4))
    return (mixed[..., :3] * graph.rest[:, None]).sum(dim=-1) + mixed[..., 3]


def strain(graph: Graph, pose: Pose) -> Float[Tensor, ""]:
    """How far linked nodes are from where their partners carry them: the mean square, relative to their distance."""
    start, end = graph.links.unbind(dim=-1)
    apart = graph.nodes[end] - graph.nodes[start]
    carried_to = (rotation_matrices(pose.turns)[start] @ apart[..., None])[..., 0]
    moved = apart + pose.shifts[end] - pose.shifts[start]
    return ((carried_to - moved).square().sum(dim=-1) / apart.square().sum(dim=-1)).mean()


def graph_of(template: Surface, device: torch.device | str) -> Graph:
    """A graph with nodes evenly spread over a mesh; deterministic."""
    from fpsample import bucket_fps_kdline_sampling

    count = len(template.vertices)
    chosen = bucket_fps_kdline_sampling(template.vertices, min(NODES, count), h=5, start_idx=0).astype(np.int64)
    near, weights = _carriers(_distances(template, chosen))
    parts = (template.vertices, template.vertices[chosen], near, weights, _links(near, weights))
    return Graph(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts))


def _carriers(
    distances: Float[np.ndarray, "nodes vertices"],
) -> tuple[Int64[np.ndarray, "vertices carriers"], Float32[np.ndarray, "vertices carriers"]]:
    """The nearest nodes of each vertex and how much they carry it."""
    near = np.argsort(distances, axis=0, kind="stable")[: CARRIERS + 1].T
    reach = np.take_along_axis(distances.T, near, axis=1)
    finite = np.isfinite(reach)
    # The next node after the carriers gets the weight 0, so that weights are continuous along the mesh.
    last = np.where(finite[:, -1:], reach[:, -1:], 2.0 * reach[finite].max())
    closeness = np.clip(1.0 - reach[:, :-1] / np.maximum(last, 1e-9), 1e-3, 1.0)
    weights = np.where(finite[:, :-1], np.square(closeness), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return near[:, : weights.shape[1]], weights.astype(np.float32)


def _distances(template: Surface, chosen: Int64[np.ndarray, " nodes"]) -> Float[np.ndarray, "nodes vertices"]:
    """Lengths of the shortest ways along edges, infinite between parts; through space for parts without any node."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    edges = edges_of(template.faces)
    lengths = np.linalg.norm(template.vertices[edges[:, 0]] - template.vertices[edges[:, 1]], axis=1)
    count = len(template.vertices)
    ways = coo_matrix((np.maximum(lengths, 1e-9), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    distances = dijkstra(ways, directed=False, indices=chosen)
    lost = np.isinf(distances).all(axis=0)
    if lost.any():
        away = template.vertices[chosen][:, None] - template.vertices[lost][None]
        distances[:, lost] = np.linalg.norm(away, axis=-1)
    return distances


def _links(
    carriers: Int64[np.ndarray, "vertices carriers"], weights: Float[np.ndarray, "vertices carriers"]
) -> Int64[np.ndarray, "links 2"]:
    """Pairs of different nodes that carry the same vertex, in both directions."""
    width = carriers.shape[1]
    pairs = np.concatenate(
        [carriers[(weights[:, i] > 0) & (weights[:, j] > 0)][:, [i, j]] for i in range(width) for j in range(i)]
    )
    return np.unique(np.concatenate((pairs, pairs[:, ::-1])), axis=0)
