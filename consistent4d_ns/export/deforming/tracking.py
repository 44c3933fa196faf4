"""The template brought to the surface of every moment, outward in time from its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32

from consistent4d_ns.export.deforming.fitting import Placement, body_of, closer, fit, vertices_of
from consistent4d_ns.export.deforming.following import Follower, Sightlines, no_lines
from consistent4d_ns.export.deforming.graph import Pose, at_rest, carried
from consistent4d_ns.export.deforming.matching import goal_of
from consistent4d_ns.export.deforming.moments import Moment
from consistent4d_ns.export.deforming.quality import repaired
from consistent4d_ns.export.surface import Surface, with_normals

MOMENTUM = 0.5
"""Share of the last step's shift that is expected to be taken again."""
SMOOTHING = 3
"""Rounds of smoothing in time along the surface, where a fit may slide to and fro."""


def outward(count: int, start: int) -> Iterator[tuple[int, int]]:
    """Pairs of a moment and the neighbour from which it is reached: first on to the last, then back to the first."""
    yield from ((index, index - 1) for index in range(start + 1, count))
    yield from ((index, index + 1) for index in range(start - 1, -1, -1))


def track(
    template: Surface, moments: list[Moment], times: list[float], start: int, follower: Follower
) -> Iterator[tuple[int, Float32[np.ndarray, "vertices 3"]]]:
    """Positions of the template's vertices at each moment, in the order in which they are found.

    Args:
        template: A mesh at the moment `start`.
        moments: What to fit it to, in the order of time.
        times: In [0, 1], of each moment.
        start: The template's moment.
        follower: Sees where it goes.
    """
    device = follower.model.device
    body = body_of(template, device)

    def fitted(index: int, start: Placement, lines: Sightlines) -> tuple[Placement, Float32[np.ndarray, "vertices 3"]]:
        found = fit(body, goal_of(moments[index], device), start, lines)
        vertices = repaired(vertices_of(body, found).cpu().numpy(), template.vertices, template.faces)
        offsets = torch.from_numpy(vertices).to(device) - carried(body.graph, found.pose)
        return Placement(found.pose, offsets), vertices

    rest = Placement(at_rest(body.graph), torch.zeros_like(body.graph.rest))
    own, first = fitted(start, rest, no_lines(device))
    yield start, first
    vertices = first
    before, last = own, own
    for index, source in outward(len(moments), start):
        if source == start:
            before, last, vertices = own, own, first
        lines = follower.lines(vertices, times[index])
        before, (last, vertices) = last, fitted(index, expected(before, last), lines)
        yield index, vertices


def expected(before: Placement, last: Placement) -> Placement:
    """Where a body is expected after two placements: a part of the way farther."""
    turns = torch.nn.functional.normalize(last.pose.turns, dim=-1)
    pose = Pose(turns, last.pose.shifts + MOMENTUM * (last.pose.shifts - before.pose.shifts))
    return Placement(pose, last.offsets)


def smooth_in_time(
    positions: Float32[np.ndarray, "frames vertices 3"], template: Surface
) -> Float32[np.ndarray, "frames vertices 3"]:
    """Positions that move more evenly along the surface: across it, where the fit decides, they stay.

    Each round moves every vertex half of the way to the mean of the frames before and after, in its tangent plane.
    """
    for _ in range(SMOOTHING):
        evened = positions.copy()
        for frame in range(1, len(positions) - 1):
            step = 0.5 * (0.5 * (positions[frame - 1] + positions[frame + 1]) - positions[frame])
            normals = with_normals(positions[frame], template.faces).normals
            evened[frame] += step - (step * normals).sum(axis=1, keepdims=True) * normals
        positions = evened
    return positions


def finished(
    positions: Float32[np.ndarray, "frames vertices 3"],
    template: Surface,
    moments: list[Moment],
    device: torch.device | str,
) -> Iterator[Float32[np.ndarray, "vertices 3"]]:
    """Vertices of each frame brought close to its surface again, without bad triangles."""
    body = body_of(template, device)
    for vertices, moment in zip(positions, moments, strict=True):
        near = closer(body, goal_of(moment, device), torch.from_numpy(vertices).to(device))
        yield repaired(near.cpu().numpy(), template.vertices, template.faces)
