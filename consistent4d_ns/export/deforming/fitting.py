"""The template brought to the surface of one moment: to where it is seen to go, then to the nearest points of the
surface by its graph, then vertex by vertex."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.device.cuda_graphs import repeat
from consistent4d_ns.export.deforming.following import Sightlines, no_lines
from consistent4d_ns.export.deforming.graph import Graph, Pose, carried, graph_of, strain
from consistent4d_ns.export.deforming.matching import Goal, normals_of, points_of
from consistent4d_ns.export.deforming.template import edges_of
from consistent4d_ns.export.surface import Surface

UNIT = 0.01
"""Distance in world units that counts as 1 in what is minimised."""
STEPS = 15
"""Steps of Adam between two searches for nearest points."""
SEEN_ROUNDS = ((0.10, 20.0), (0.05, 20.0))
"""Rounds in which the graph follows lines of sight alone: the width of `Sightlines.trusted`, and the weight of the
strain of its links."""
GRAPH_ROUNDS = ((0.10, 60.0), (0.08, 40.0), (0.06, 25.0), (0.05, 15.0), (0.04, 8.0), (0.04, 8.0))
"""Searches for the graph: the width of `Goal.match`, and the weight of the strain of its links."""
VERTEX_ROUNDS = ((0.04, 20.0), (0.03, 8.0), (0.03, 4.0))
"""Searches for the vertices: the width, and the weight of the stretching of edges."""
LAST_ROUNDS = ((0.03, 4.0), (0.03, 2.0))
"""The same for vertices that have been smoothed in time."""
GRAPH_SIGHT, VERTEX_SIGHT = 1.0, 0.3
"""Weights of the lines of sight beside the nearest points, for the graph and for the vertices."""
GRAPH_RATE, VERTEX_RATE = 0.008, 0.0015
"""Adam's learning rates: radians and world units."""
LIMIT = math.log(2.0)
"""Logarithm of the change of an edge's length from which on it is held back: well within a factor of 3."""
HOLD = 200.0
"""Weight of that."""

Rounds = tuple[tuple[float, float], ...]
"""Width and weight of each round."""


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


def fit(body: Body, goal: Goal, start: Placement, lines: Sightlines) -> Placement:
    """The placement closest to a surface, as rigid as possible, found from one that is not far away.

    Args:
        body: What is placed.
        goal: The surface.
        start: Where it is expected.
        lines: Where it is seen.
    """
    pose = fit_graph(body, goal, start, lines)
    offsets = fit_vertices(body, goal, carried(body.graph, pose), start.offsets, VERTEX_ROUNDS, lines)
    return Placement(pose, offsets)


def fit_graph(body: Body, goal: Goal, start: Placement, lines: Sightlines) -> Pose:
    """The pose of the nodes, while the vertices keep their offsets."""
    turns, shifts = (value.clone().requires_grad_() for value in (start.pose.turns, start.pose.shifts))
    pose = Pose(turns, shifts)
    aim = Aim(body, lines, GRAPH_SIGHT)

    def place() -> Float[Tensor, "vertices 3"]:
        return carried(body.graph, pose) + start.offsets

    def tension(_: Tensor) -> Float[Tensor, ""]:
        return strain(body.graph, pose)

    if len(lines.vertex):
        _descend([turns, shifts], GRAPH_RATE, aim, SEEN_ROUNDS, place, tension)
    _descend([turns, shifts], GRAPH_RATE, replace(aim, goal=goal), GRAPH_ROUNDS, place, tension)
    return Pose(turns.detach(), shifts.detach())


def fit_vertices(
    body: Body,
    goal: Goal,
    base: Float[Tensor, "vertices 3"],
    start: Float[Tensor, "vertices 3"],
    rounds: Rounds,
    lines: Sightlines,
) -> Float[Tensor, "vertices 3"]:
    """What is added to the vertices at `base`, found from `start`."""
    offsets = start.clone().requires_grad_()

    def stretch(vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, ""]:
        bent = (span(offsets, body.edges) / body.lengths[:, None]).square().sum(dim=-1).mean()
        return bent + HOLD / rounds[-1][1] * too_long(body, vertices)

    _descend([offsets], VERTEX_RATE, Aim(body, lines, VERTEX_SIGHT, goal), rounds, lambda: base + offsets, stretch)
    return offsets.detach()


def closer(body: Body, goal: Goal, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
    """Vertices that are near a surface brought closer to it."""
    none = no_lines(vertices.device)
    return vertices + fit_vertices(body, goal, vertices, torch.zeros_like(vertices), LAST_ROUNDS, none)


def too_long(body: Body, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, ""]:
    """Mean square of how far changes of the edges' lengths are beyond `LIMIT`, as logarithms."""
    change = (span(vertices, body.edges).norm(dim=-1).clamp(min=1e-6) / body.lengths).log()
    return (change.abs() - LIMIT).clamp(min=0.0).square().mean()


@dataclass(frozen=True)
class Aim:
    """What the vertices should come close to."""

    body: Body
    """What is placed."""
    lines: Sightlines
    """Where it is seen."""
    sight: float
    """Their weight."""
    goal: Goal | None = None
    """The surface, if it counts too."""

    @torch.no_grad()
    def search(self, vertices: Float[Tensor, "vertices 3"], width: float) -> Callable[[Tensor], Tensor]:
        """What has to be minimised, as a function of the vertices, while nearest points stay as they are now."""
        lines, faces = self.lines.trusted(vertices, width), self.body.faces
        if self.goal is None:
            return lambda places: self.sight * lines.cost(places)
        matches = self.goal.match(points_of(vertices, faces), normals_of(vertices, faces), width)
        return lambda places: matches.cost(points_of(places, faces)) + self.sight * lines.cost(places)


def _descend(
    values: list[Tensor],
    rate: float,
    aim: Aim,
    rounds: Rounds,
    place: Callable[[], Tensor],
    penalty: Callable[[Tensor], Tensor],
) -> None:
    """Change `values` so that the vertices at `place()` come close to the aim and the penalty stays low."""
    optimiser = torch.optim.Adam(values, lr=rate, betas=(0.8, 0.95), capturable=values[0].is_cuda)
    for number, (width, weight) in enumerate(rounds):
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 ** (3.0 * number / len(rounds))
        with torch.no_grad():
            start = place()
        repeat(partial(_step, optimiser, place, aim.search(start, width), penalty, weight), STEPS, values[0].device)


def _step(
    optimiser: torch.optim.Optimizer,
    place: Callable[[], Tensor],
    cost: Callable[[Tensor], Tensor],
    penalty: Callable[[Tensor], Tensor],
    weight: float,
) -> None:
    """One step down."""
    optimiser.zero_grad()
    vertices = place()
    (cost(vertices) / UNIT**2 + weight * penalty(vertices)).backward()
    optimiser.step()
