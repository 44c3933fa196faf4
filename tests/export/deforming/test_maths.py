"""Deforming a mesh: its graph, what is repaired, how surfaces are compared, and what is seen at most moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from consistent4d_ns.export.deforming import nearest as nearest_module
from consistent4d_ns.export.deforming.animated import stepping_stones
from consistent4d_ns.export.deforming.comparing import Look, compared_moments, shortfall
from consistent4d_ns.export.deforming.graph import Pose, at_rest, carried, graph_of, strain
from consistent4d_ns.export.deforming.moments import Moment, best_moment, moment_of, topology, without_specks
from consistent4d_ns.export.deforming.nearest import Nearest
from consistent4d_ns.export.deforming.painting import robust_mean
from consistent4d_ns.export.deforming.quality import broken, edge_factors, flipped, repaired
from consistent4d_ns.export.deforming.residual import residual
from consistent4d_ns.export.deforming.template import edges_of, template_of
from consistent4d_ns.export.deforming.tracking import outward, smooth_in_time
from consistent4d_ns.export.looks import Likeness
from consistent4d_ns.export.options import TimedFrame, spread_moments
from consistent4d_ns.export.rotations import rotation_matrices
from consistent4d_ns.export.surface import Surface, with_normals


def ball(subdivisions: int = 3, radius: float = 0.5) -> Surface:
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return with_normals(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


def moved(surface: Surface, shift: float) -> Surface:
    return with_normals(surface.vertices + np.float32(shift), surface.faces)


def test_a_graph_at_rest_changes_nothing_and_rigid_motion_is_free():
    template = ball()
    graph = graph_of(template, "cpu")
    torch.testing.assert_close(carried(graph, at_rest(graph)), graph.rest, atol=1e-5, rtol=0)
    turn = torch.tensor([0.8, 0.2, -0.5, 0.3]).expand(len(graph.nodes), 4)
    matrix = rotation_matrices(turn)[0]
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3), atol=1e-5, rtol=0)
    shift = torch.tensor([0.1, 0.2, 0.3])
    rigid = Pose(turn, graph.nodes @ matrix.T + shift - graph.nodes)
    torch.testing.assert_close(carried(graph, rigid), graph.rest @ matrix.T + shift, atol=1e-5, rtol=0)
    assert float(strain(graph, rigid)) < 1e-9
    assert float(strain(graph, Pose(at_rest(graph).turns, graph.nodes))) > 0.5


def test_limbs_that_are_close_are_carried_by_nodes_of_their_own():
    """Two bars a hundredth apart."""
    bar = trimesh.creation.box((0.1, 1.0, 0.1))
    parts = [bar.copy().apply_translation((x, 0, 0)) for x in (-0.055, 0.055)]
    joined: Any = trimesh.util.concatenate(parts)
    joined = joined.subdivide_to_size(0.05)
    template = with_normals(np.asarray(joined.vertices, np.float32), np.asarray(joined.faces, np.int32))
    graph = graph_of(template, "cpu")
    side = torch.sign(graph.nodes[graph.carriers][..., 0])
    own = torch.sign(graph.rest[:, :1])
    assert ((side == own) | (graph.weights < 1e-6)).all()


def test_turned_over_and_stretched_triangles_are_found_and_repaired():
    rest = ball()
    assert not flipped(rest.vertices, rest.vertices, rest.faces).any()
    turn = np.asarray(trimesh.transformations.rotation_matrix(2.0, (1, 2, 3)), np.float32)[:3, :3]
    good = rest.vertices @ turn.T
    assert not flipped(good, rest.vertices, rest.faces).any()
    bad = good.copy()
    bad[7] += 0.5 * (bad[0] - bad[7])
    bad[20] *= 2.0
    edges = edges_of(rest.faces)
    assert edge_factors(bad, rest.vertices, edges).max() > 3
    assert flipped(bad, rest.vertices, rest.faces).any()
    stretched = (rest.faces == 20).any(axis=1)
    assert broken(bad, rest.vertices, rest.faces) >= stretched.sum() + flipped(bad, rest.vertices, rest.faces).sum() - 1
    assert broken(good, rest.vertices, rest.faces) == 0
    repair = repaired(bad, rest.vertices, rest.faces)
    assert not flipped(repair, rest.vertices, rest.faces).any()
    assert edge_factors(repair, rest.vertices, edges).max() < 3
    np.testing.assert_array_equal(repaired(good, rest.vertices, rest.faces), good)


def test_a_repair_stays_around_what_is_bad():
    rest = ball(4)
    bent = rest.vertices * np.array((1.0, 1.0, 1.3), np.float32)
    bad = bent.copy()
    bad[7] *= 0.2
    repair = repaired(bad, rest.vertices, rest.faces)
    assert broken(bad, rest.vertices, rest.faces) > 0
    assert broken(repair, rest.vertices, rest.faces) == 0
    far = np.linalg.norm(bent - bent[7], axis=1) > 0.35
    assert far.sum() > 1000
    np.testing.assert_array_equal(repair[far], bad[far])


def test_nearest_points_by_a_tree_and_by_comparing_all_pairs(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    points, queries = torch.rand(500, 6, generator=generator), torch.rand(301, 6, generator=generator)
    expected = torch.cdist(queries.double(), points.double()).argmin(dim=1)
    assert torch.equal(Nearest(points)(queries), expected)
    monkeypatch.setattr(nearest_module, "PAIRS", 64 * 500)
    found = nearest_module.nearest_of_all(queries, points)
    farther = (queries - points[found]).norm(dim=1) - (queries - points[expected]).norm(dim=1)
    assert farther.max() < 1e-5


def test_contacts_are_handles():
    ring = trimesh.creation.torus(0.5, 0.1, major_sections=24, minor_sections=12)
    torus = Surface(
        np.asarray(ring.vertices, np.float32), np.asarray(ring.faces, np.int32), np.zeros((0, 3), np.float32)
    )
    assert topology(torus) == (1, 1)
    assert topology(ball()) == (1, 0)
    two: Any = trimesh.util.concatenate([trimesh.creation.icosphere(1).apply_translation((x, 0, 0)) for x in (0, 3)])
    assert topology(with_normals(np.asarray(two.vertices, np.float32), np.asarray(two.faces, np.int32))) == (2, 0)


def test_specks_are_left_out_and_small_parts_stay():
    sizes = ((0.5, 0.0), (0.08, 0.7), (0.03, 0.9))
    balls: Any = [trimesh.creation.icosphere(2, radius).apply_translation((x, 0, 0)) for radius, x in sizes]
    together: Any = trimesh.util.concatenate(balls)
    surface = with_normals(np.asarray(together.vertices, np.float32), np.asarray(together.faces, np.int32))
    assert topology(surface) == (3, 0)
    kept = without_specks(surface)
    assert topology(kept) == (2, 0)
    assert kept.vertices[:, 0].max() == pytest.approx(0.78, abs=0.01)
    assert len(kept.faces) == 2 * len(balls[0].faces)
    assert without_specks(kept) is kept


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([(1, 1, 9.0), (1, 0, 1.0), (1, 2, 9.0)], 1),  # fewest contacts
        ([(1, 0, 1.0), (2, 0, 9.0), (1, 0, 1.0)], 0),  # as many parts as usual
        ([(1, 0, 1.0), (1, 0, 1.5), (1, 0, 1.0), (1, 0, 1.0)], 1),  # spread out
        ([(1, 0, 1.0), (1, 0, 1.0), (1, 0, 0.99), (1, 0, 1.0), (1, 0, 1.0)], 2),  # in the middle
    ],
)
def test_the_template_is_of_a_moment_with_few_contacts(found, best: int):
    empty = np.zeros((0, 3), np.float32)
    assert best_moment([Moment(empty, empty, *values) for values in found]) == best


def test_a_template_has_triangles_of_similar_size():
    template = template_of(ball(5), 2000)
    edges = edges_of(template.faces)
    lengths = np.linalg.norm(template.vertices[edges[:, 0]] - template.vertices[edges[:, 1]], axis=1)
    assert 1500 < len(template.faces) <= 2000
    assert topology(template) == (1, 0)
    assert lengths.min() > 0.15 * np.median(lengths)
    np.testing.assert_allclose(np.linalg.norm(template.vertices, axis=1), 0.5, atol=0.01)


def test_what_is_missed_is_outside():
    goal, mesh = moment_of(ball()), ball()
    exact = residual(mesh.vertices, mesh.faces, goal)
    assert exact.missed == 0
    assert exact.distance < 0.02
    away = moved(mesh, 0.1)
    shifted = residual(away.vertices, away.faces, goal)
    assert 0.3 < shifted.missing < 0.6
    assert 0.3 < shifted.excess < 0.6
    # A mesh inside of the surface misses all of it, but nothing of it sticks out.
    inner = residual(0.8 * mesh.vertices, mesh.faces, goal)
    assert (inner.missing, inner.excess) == (1.0, 0.0)


def test_a_limb_in_front_at_some_moments_leaves_no_trace():
    seen = torch.full((10, 5, 3), 200, dtype=torch.uint8)
    seen[:3] = 10
    seen[3:, 1] += torch.arange(7, dtype=torch.uint8)[:, None]
    mean = robust_mean(seen)
    torch.testing.assert_close(mean[0], torch.full((3,), 200 / 255), atol=0.01, rtol=0)
    torch.testing.assert_close(mean[1], torch.full((3,), 203 / 255), atol=0.01, rtol=0)
    assert spread_moments(3, 32) == [0, 1, 2]
    assert len(spread_moments(300, 32)) == 32
    assert spread_moments(300, 32)[-1] == 299


def test_steps_between_moments_are_short():
    assert stepping_stones([0.5], 0.1) == [0.5]
    assert stepping_stones([0.0, 0.1, 0.2], 0.1) == [0.0, 0.1, 0.2]
    assert stepping_stones([0.0, 1.0], 0.25) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert list(outward(5, 2)) == [(3, 2), (4, 3), (1, 2), (0, 1)]


def test_smoothing_in_time_stays_on_the_surface():
    template = ball()
    still = np.stack([template.vertices] * 5)
    np.testing.assert_allclose(smooth_in_time(still, template), still, atol=1e-6)
    turn = np.asarray(trimesh.transformations.rotation_matrix(0.05, (0, 0, 1)), np.float32)[:3, :3]
    sliding = still.copy()
    sliding[2] = sliding[2] @ turn.T
    smooth = smooth_in_time(sliding, template)
    assert np.abs(smooth[2] - still[2]).max() < 0.5 * np.abs(sliding[2] - still[2]).max()
    np.testing.assert_allclose(np.linalg.norm(smooth[2], axis=1), 0.5, atol=2e-3)


def test_one_mesh_is_compared_at_frames_between_near_ones_and_where_it_misses_most():
    times = tuple(i / 30 for i in range(31))
    missed = [0.0] * 31
    missed[9] = 0.1
    spread = [0, 6, 9, 12, 18, 24, 30]
    assert compared_moments(times, missed, 1 / 30) == [
        (i, half) for i in spread for half in (False, True) if i < 30 or not half
    ]
    # Played backwards, or with frames that are too far apart.
    assert (0, True) in compared_moments(times[::-1], missed, 1 / 30)
    assert not any(half for _, half in compared_moments(times[::10], missed[::10], 1 / 30))


def test_what_falls_short_most_counts():
    assert shortfall(Likeness(0.95, 28.0)) == 0.0
    assert shortfall(Likeness(0.76, 27.9)) == pytest.approx(0.2)
    assert shortfall(Likeness(0.94, 21.0)) == pytest.approx(0.25)


def test_the_time_of_a_frame_is_not_said_of_the_moment_halfway_to_the_next():
    at, halfway = (str(Look(TimedFrame(3, 0.1), later, Likeness(0.9, 20.0))) for later in (False, True))
    assert "volume render: at frame 3 (time 0.1), silhouettes overlap by 0.900 (at least 0.95)" in at
    assert "volume render: halfway from frame 3 (time 0.1) to the next, silhouettes" in halfway
