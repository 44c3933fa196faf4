"""Following a mesh by what is seen of it: lines of sight, optical flow, and a ball that turns but keeps its shape."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.export.deforming import following
from consistent4d_ns.export.deforming.fitting import Placement, body_of, fit, vertices_of
from consistent4d_ns.export.deforming.following import Flow, Follower, Sightlines, no_lines, through, visible
from consistent4d_ns.export.deforming.graph import at_rest
from consistent4d_ns.export.deforming.matching import goal_of
from consistent4d_ns.export.deforming.moments import moment_of
from consistent4d_ns.export.looks import picture
from consistent4d_ns.export.sequence import Mesh
from consistent4d_ns.export.shot import project, shoot
from consistent4d_ns.export.surface import Surface, with_normals

VIEW = orbit_views(10.0, 30.0, 2.0, 49.1)


def ball(subdivisions: int = 3) -> Surface:
    mesh = trimesh.creation.icosphere(subdivisions, 0.5)
    return with_normals(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


def turned(surface: Surface, degrees: float) -> Surface:
    turn = np.asarray(trimesh.transformations.rotation_matrix(np.radians(degrees), (0.0, 0.0, 1.0)))[:3, :3]
    return with_normals((surface.vertices @ turn.T).astype(np.float32), surface.faces)


def pattern(surface: Surface) -> np.ndarray:
    """Colours with detail in all directions."""
    return (0.5 + 0.4 * np.sin(12.0 * surface.vertices + np.array((0.0, 1.0, 2.0)))).astype(np.float32)


def test_lines_go_through_the_points_that_are_seen():
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    place, _ = project(points, VIEW, 100)
    camera = VIEW.poses()[0, :, 3].expand(20, 3)
    lines = Sightlines(torch.arange(20), camera, through(place, VIEW, 100), torch.ones(20))
    assert float(lines.cost(points)) < 1e-10
    moved = points.clone()
    moved[3] += 0.2 * torch.linalg.cross(lines.direction[3], torch.tensor((0.0, 0.0, 1.0)))
    assert float(lines.cost(moved)) > 1e-4
    trusted = lines.trusted(moved, 0.05)
    assert float(trusted.weight[3]) < 0.1
    torch.testing.assert_close(trusted.weight[4:], torch.ones(16))
    assert float(no_lines("cpu").cost(points)) == 0


def test_flow_finds_a_shift_and_doubts_what_does_not_return():
    noise = np.random.default_rng(0).uniform(0, 255, (32, 32)).astype(np.float32)
    before = np.kron(noise, np.ones((4, 4), np.float32))[:128, :128].astype(np.uint8)
    there, sure = Flow()(before, np.roll(before, (2, 3), (0, 1)))
    inner = (slice(20, 108), slice(20, 108))
    np.testing.assert_allclose(np.median(there[inner], axis=(0, 1)), (3, 2), atol=0.1)
    assert np.median(sure[inner]) > 0.9
    _, unsure = Flow()(before, np.ascontiguousarray(before[::-1, ::-1]))
    assert np.median(unsure[inner]) < 0.5


def test_hidden_vertices_are_not_looked_at():
    surface = ball()
    facing = visible(surface, shoot(surface, VIEW, 128, 1), VIEW)
    towards = torch.nn.functional.normalize(VIEW.poses()[0, :, 3], dim=-1)
    height = torch.from_numpy(surface.normals) @ towards
    assert (facing[height < 0.1] == 0).all()
    assert (facing[height > 0.5] > 0.2).all()


@pytest.mark.slow
def test_a_ball_that_turns_is_followed_where_its_shape_says_nothing(monkeypatch):
    start, end = ball(), turned(ball(), 8.0)

    def render(model: Any, view: Any, time: float, size: int) -> torch.Tensor:
        now = turned(start, 8.0 * time)
        return picture(Mesh(now, colours=pattern(start)), shoot(now, view, size, 3)).movedim(0, -1)

    monkeypatch.setattr(following, "render_colour", render)
    model: Any = SimpleNamespace(device="cpu")
    follower = Follower(model, VIEW, torch.from_numpy(start.faces).long(), torch.from_numpy(pattern(start)))
    body = body_of(start, "cpu")
    rest = Placement(at_rest(body.graph), torch.zeros_like(body.graph.rest))

    def off(lines: Sightlines) -> float:
        found = vertices_of(body, fit(body, goal_of(moment_of(end), "cpu"), rest, lines)).numpy()
        # The poles hardly move.
        return float(np.linalg.norm(found - end.vertices, axis=1)[np.abs(end.vertices[:, 2]) < 0.35].mean())

    assert off(no_lines("cpu")) > 0.04
    assert off(follower.lines(start.vertices, 1.0)) < 0.015
