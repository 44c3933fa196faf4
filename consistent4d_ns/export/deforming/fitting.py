"""The template brought to the surface of one moment: first by its graph, then vertex by vertex."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.export.deforming.graph import Graph, Pose, carried, graph_of, strain
from consistent4d_ns.export.deforming.matching import Goal, Matches, normals_of, points_of
from consistent4d_ns.export.deforming.template import edges_of
from consistent4d_ns.export.surface import Surface

UNIT = 0.01
"""Distance in world units that counts as 1 in what is minimised."""
STEPS = 15
"""Steps of Adam between two searches for nearest points."""
GRAPH_ROUNDS = ((0.10, 60.0), (0.08, 40.0), (0.06, 25.0), (0.05, 15.0), (0.04, 8.0), (0.04, 8.0))
"""Searches for the graph: the width of `Goal.match`, and the weight of the strain of its links."""
VERTEX_ROUNDS = ((0.04, 20.0), (0.03, 8.0), (0.03, 4.0))
"""Searches for the vertices: the width, and the weight of the stretching of edges."""
GRAPH_RATE, VERTEX_RATE = 0.008, 0.0015
"""Adam's learning rates: radians and world units."""
LIMIT = math.log(2.0)
"""Logarithm of the change of an edge's length from which on it is held back: well within a factor of 3."""
HOLD = 200.0
"""Weight of that."""


@dataclass(frozen=True)
class Body:
    """A template that can be deformed."""

    graph: Graph
    """Its graph."""
    faces: Int64[Tensor, "faces 3"]
    """Its triangles."""
    edges: Int64[Tensor, "edges 2"]
    """Each of its edges once."""
    lengths: Float[Tensor, " edges"]
    """Their lengths at rest."""


@dataclass(frozen=True)
class Placement:
    """The template at a moment."""

    pose: Pose
    """Where the graph's nodes are."""
    offsets: Float[Tensor, "vertices 3"]
    """What is added to each vertex that the graph carries, in world units."""


def body_of(template: Surface, device: torch.device | str) -> Body:
    """A body of a mesh."""
    graph = graph_of(template, device)
    faces, edges = (torch.from_numpy(x).long().to(device) for x in (template.faces, edges_of(template.faces)))
    return Body(graph, faces, edges, span(graph.rest, edges).norm(dim=-1).clamp(min=1e-6))


def span(values: Float[Tensor, "vertices 3"], edges: Int64[Tensor, "edges 2"]) -> Float[Tensor, "edges 3"]:
    """The difference of values along each edge."""
    return values[edges[:, 1]] - values[edges[:, 0]]


def vertices_of(body: Body, placement: Placement) -> Float[Tensor, "vertices 3"]:
    """Positions of the vertices."""
    return carried(body.graph, placement.pose) + placement.offsets


def fit(body: Body, goal: Goal, start: Placement) -> Placement:
    """The placement closest to a surface, as rigid as possible, found from one that is not far away."""
    pose = fit_graph(body, goal, start)
    return Placement(pose, fit_vertices(body, goal, Placement(pose, start.offsets)))


def fit_graph(body: Body, goal: Goal, start: Placement) -> Pose:
    """The pose of the nodes, while the vertices keep their offsets."""
    turns, shifts = (value.clone().requires_grad_() for value in (start.pose.turns, start.pose.shifts))
    pose = Pose(turns, shifts)

    def place() -> Float[Tensor, "vertices 3"]:
        return carried(body.graph, pose) + start.offsets

    _descend([turns, shifts], GRAPH_RATE, body, goal, GRAPH_ROUNDS, place, lambda _: strain(body.graph, pose))
    return Pose(turns.detach(), shifts.detach())


def fit_vertices(body: Body, goal: Goal, start: Placement) -> Float[Tensor, "vertices 3"]:
    """Offsets of the vertices, while the nodes keep their pose."""
    offsets = start.offsets.clone().requires_grad_()
    base = carried(body.graph, start.pose)

    def stretch(vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, ""]:
        bent = (span(offsets, body.edges) / body.lengths[:, None]).square().sum(dim=-1).mean()
        return bent + HOLD / VERTEX_ROUNDS[-1][1] * too_long(body, vertices)

    _descend([offsets], VERTEX_RATE, body, goal, VERTEX_ROUNDS, lambda: base + offsets, stretch)
    return offsets.detach()


def too_long(body: Body, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, ""]:
    """Mean square of how far changes of the edges' lengths are beyond `LIMIT`, as logarithms."""
    change = (span(vertices, body.edges).norm(dim=-1).clamp(min=1e-6) / body.lengths).log()
    return (change.abs() - LIMIT).clamp(min=0.0).square().mean()


def _descend(
    values: list[Tensor],
    rate: float,
    body: Body,
    goal: Goal,
    rounds: tuple[tuple[float, float], ...],
    place: Callable[[], Tensor],
    penalty: Callable[[Tensor], Tensor],
) -> None:
    """Change `values` so that the vertices at `place()` come close to the goal and the penalty stays low."""
    optimiser = torch.optim.Adam(values, lr=rate, betas=(0.8, 0.95))
    for number, (width, weight) in enumerate(rounds):
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 ** (3.0 * number / len(rounds))
        matches = _search(body, goal, place(), width)
        for _ in range(STEPS):
            optimiser.zero_grad()
            vertices = place()
            cost = matches.cost(points_of(vertices, body.faces)) / UNIT**2
            (cost + weight * penalty(vertices)).backward()
            optimiser.step()


@torch.no_grad()
def _search(body: Body, goal: Goal, vertices: Float[Tensor, "vertices 3"], width: float) -> Matches:
    return goal.match(points_of(vertices, body.faces), normals_of(vertices, body.faces), width)
