"""Inside and outside: as dense as asked, as opaque as asked, silhouettes as the volume render shows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.parts import large_parts
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.options import MeshOptions, SolidOptions, TimedFrame, TimeOptions
from consistent4d_ns.export.sequence import exporter
from consistent4d_ns.export.solid import (
    Solid,
    Threshold,
    least_optical_depth,
    lines_of_sight,
    occupied_lattice,
)
from consistent4d_ns.export.surface import (
    extract,
    filled,
    sample_evenly,
    without_cavities_and_small_parts,
)
from consistent4d_ns.rendering.sampling import OccupancyGrid
from consistent4d_ns.runs import Run
from tests.export.objects import DENSITY, RADIUS, STRETCH, BallField, ball_run

SIDE_VIEW = orbit_views(0.0, 0.0, 2.0, 49.1)


def solid_of(run: Run, resolution: int = 64, threshold: Threshold | None = None) -> Solid:
    model = run.pipeline.model
    lattice = occupied_lattice(model.occupancy, resolution)
    return Solid(model, lattice, lines_of_sight(SIDE_VIEW), threshold or Threshold(DENSITY / 2, 0.5))


def test_the_lattice_holds_the_points_of_occupied_cells():
    occupancy = OccupancyGrid(4, step=0.1)
    occupancy.occupied[:] = False
    occupancy.occupied[occupancy.cell_index(torch.tensor([[0.1, 0.1, -0.9]]))] = True
    lattice = occupied_lattice(occupancy, 32)
    assert bool(occupancy(lattice.points).all())
    axis = torch.linspace(-1, 1, 33)
    everywhere = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    assert len(lattice.points) == int(occupancy(everywhere).sum())
    block = lattice.block(lattice.points[:, 2], math.nan)
    assert block.isnan()[0].all()
    assert block.isnan()[:, :, -1].all()
    corner = (block == lattice.points[0, 2]).nonzero()[0]
    torch.testing.assert_close(lattice.origin + corner * lattice.spacing, lattice.points[0])


def test_an_empty_occupancy_grid_is_named():
    occupancy = OccupancyGrid(4, step=0.1)
    occupancy.occupied[:] = False
    with pytest.raises(InputError, match="occupancy grid is empty"):
        occupied_lattice(occupancy, 16)


def test_the_least_optical_depth_is_that_of_the_shortest_line():
    """A slab with density 3, 0.5 thick in x and wide in y and z: through its middle 1.5, along x."""
    lattice = occupied_lattice(OccupancyGrid(2, step=0.1), 80)
    slab = 3.0 * ((lattice.points[:, 0].abs() <= 0.25) & (lattice.points[:, 1:].abs() <= 0.8).all(dim=1)).float()
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
    middle = lattice.points.norm(dim=1).argmin()
    for chosen, expected in ((directions, 1.5), (directions[1:2], 4.8), (directions[2:], 2.5)):
        least = least_optical_depth(lattice, slab, chosen)
        assert float(least[middle]) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("time", [0.0, 1.0])
def test_a_surface_lies_where_the_density_says(ball: Run, time: float):
    surface = extract(solid_of(ball), TimedFrame(0, time), 3000)
    scale = np.array((1.0 + (STRETCH - 1.0) * time, 1.0, 1.0))
    np.testing.assert_allclose(np.linalg.norm(surface.vertices / scale, axis=1), RADIUS, atol=0.01)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3 * scale.prod(), rel=0.03)
    assert len(surface.faces) <= 3000
    outwards = surface.vertices / scale**2
    cosines = (surface.normals * outwards).sum(axis=1) / np.linalg.norm(outwards, axis=1)
    # Decimation leaves a few slivers whose normals are worse.
    assert np.quantile(cosines, 0.01) > 0.95
    assert cosines.min() > 0.5
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1.0, atol=1e-5)


class Foggy(BallField):
    """The ball in a wide, thin fog that no view sees as opaque."""

    def density(self, points, times):
        fog = 0.6 * (points.norm(dim=-1) < 0.65)
        return super().density(points, times) + fog[None]


def opaque_radius(field: BallField, opacity: float) -> float:
    """Distance from the centre at which lines past it absorb this share at time 0, integrated densely."""
    along, past = torch.linspace(-1.0, 1.0, 2001), torch.linspace(0.0, 0.9, 901)
    points = torch.stack(torch.broadcast_tensors(along, past[:, None], torch.zeros(1)), dim=-1)
    density = field.density(points.reshape(-1, 3), torch.full((points[..., 0].numel(),), -1.0)).view(len(past), -1)
    opacities = -torch.expm1(-density.sum(dim=1) * float(along[1] - along[0]))
    return float(past[opacities > opacity].max())


def test_fog_that_is_not_seen_is_carved_away(tmp_path):
    run = ball_run(tmp_path, Foggy())
    kept = extract(solid_of(run, threshold=Threshold(0.4, 0.0)), TimedFrame(0, 0.0), None)
    carved = extract(solid_of(run, threshold=Threshold(0.4, 0.55)), TimedFrame(0, 0.0), None)
    assert np.linalg.norm(kept.vertices, axis=1).max() == pytest.approx(0.65, abs=0.02)
    expected = opaque_radius(Foggy(), 0.55)
    assert expected < 0.5
    np.testing.assert_allclose(np.linalg.norm(carved.vertices, axis=1), expected, atol=0.03)


@pytest.mark.slow
def test_the_threshold_is_found(tmp_path):
    """Rays are half absorbed up to a certain distance from the centre: that is where the surface should be."""
    run = ball_run(tmp_path, Foggy())
    source = exporter(run, SolidOptions(resolution=64), TimeOptions(frames=1))
    radii = np.linalg.norm(extract(source.solid, TimedFrame(0, 0.0), None).vertices, axis=1)
    assert radii.mean() == pytest.approx(opaque_radius(Foggy(), 0.5), abs=0.01)
    chosen = exporter(run, SolidOptions(resolution=32, density=7.0, opacity=0.2), TimeOptions(frames=1))
    assert chosen.solid.threshold == Threshold(7.0, 0.2)


@pytest.mark.slow
def test_a_transparent_object_is_named(tmp_path):
    run = ball_run(tmp_path, BallField(density=0.01))
    with pytest.raises(InputError, match="transparent from all sides"):
        exporter(run, SolidOptions(resolution=32), TimeOptions())


def test_a_time_without_anything_is_named_with_its_frame(ball: Run):
    with pytest.raises(InputError, match=r"frame 3 \(time 0\.25\): nothing is as dense as 500 .*--density"):
        extract(solid_of(ball, 32, Threshold(500.0, 0.5)), TimedFrame(3, 0.25), 1000)


def test_cavities_are_filled_and_small_parts_left_out_on_request():
    inside = np.zeros((20, 20, 20), bool)
    inside[2:12, 2:12, 2:12] = True
    inside[5:7, 5:7, 5:7] = False
    inside[15:17, 15:17, 15:17] = True
    assert filled(inside)[5, 5, 5]
    assert large_parts(inside, 0.0)[15, 15, 15]
    assert large_parts(inside, 0.001)[15, 15, 15]
    only = large_parts(inside, 0.1)
    assert not only[15, 15, 15]
    assert only[2, 2, 2]


def test_a_small_hollow_part_is_left_out_with_its_cavity():
    level = np.full((24, 24, 24), -0.5, np.float32)
    level[2:14, 2:14, 2:14] = 0.5
    level[5:8, 5:8, 5:8] = -0.5
    level[17:22, 17:22, 17:22] = 0.5
    level[18:21, 18:21, 18:21] = -0.5
    kept = without_cavities_and_small_parts(level, 0.0)
    dropped = without_cavities_and_small_parts(level, 0.5)
    assert (kept > 0).sum() == 12**3 + 5**3
    assert (dropped > 0).sum() == 12**3
    assert (dropped[16:, 16:, 16:] < 0).all()
    # A hollow part counts with its cavity, as it is exported.
    assert (without_cavities_and_small_parts(level, 0.9 * 5**3 / 12**3) > 0).sum() == 12**3 + 5**3
    assert kept.dtype == np.float32


def test_points_are_evenly_spread(ball: Run):
    surface = extract(solid_of(ball), TimedFrame(0, 0.0), None)
    positions, normals = sample_evenly(surface, 2000)
    assert positions.shape == normals.shape == (2000, 3)
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), RADIUS, atol=0.01)
    assert ((positions / RADIUS) * normals).sum(axis=1).min() > 0.95
    distances = trimesh.points.PointCloud(positions).kdtree.query(positions, k=2)[0][:, 1]
    # Random points have neighbours at 0.52 of their mean distance, and closer.
    assert distances.min() > 0.6 * distances.mean()
    again, _ = sample_evenly(surface, 2000)
    np.testing.assert_array_equal(again, positions)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_finds_the_same_surface(ball: Run, tmp_path):
    on_cuda = ball_run(tmp_path, device="cuda")
    on_cuda.pipeline.model.occupancy.load_state_dict(ball.pipeline.model.occupancy.state_dict())
    options, times, mesh = SolidOptions(resolution=64), TimeOptions(times=(0.5,)), MeshOptions(500, 128)
    first, second = (exporter(run, options, times) for run in (ball, on_cuda))
    assert first.solid.threshold == second.solid.threshold
    torch.testing.assert_close(second.solid.level(0.5).cpu(), first.solid.level(0.5), atol=1e-3, rtol=1e-3)
    (ours,), (theirs,) = (list(source.meshes(mesh, "texture")) for source in (first, second))
    assert ours.texture is not None
    assert theirs.texture is not None
    assert np.abs(ours.texture.mean(axis=(0, 1)) - theirs.texture.mean(axis=(0, 1))).max() < 3.0
