"""Colours of meshes: what rays see, per vertex and in the texture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.export.colours import seen_colours
from consistent4d_ns.export.options import MeshOptions, SolidOptions, TimeOptions
from consistent4d_ns.export.raster import cover
from consistent4d_ns.export.refining import AROUND, refined, vertex_mix, views_around
from consistent4d_ns.export.sequence import Mesh, exporter
from consistent4d_ns.export.surface import extract
from consistent4d_ns.export.texture import nearest_texels, texels_of, unwrap
from consistent4d_ns.runs import Run
from tests.export.objects import RADIUS, BallField, ball_colours, ball_run


def meshes(run: Run, colouring, count: int = 1) -> list[Mesh]:
    source = exporter(run, SolidOptions(resolution=64), TimeOptions(frames=count))
    return list(source.meshes(MeshOptions(faces=2000, texture_size=128), colouring))


def test_triangles_cover_the_pixels_whose_centres_they_hold():
    corners = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [[4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]])
    found = cover(corners + 1e-3, 6, 5)
    covered = torch.zeros(2, 30, dtype=torch.long).index_put_((found.triangle, found.pixel), torch.tensor(1))
    square = torch.zeros(5, 6, dtype=torch.long)
    square[:4, :4] = 1
    # The diagonal may belong to both.
    assert torch.equal((covered.sum(dim=0) > 0).long(), square.flatten())
    assert covered[0].sum() in range(6, 11)
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(len(found.weights)))
    places = (found.weights[..., None] * corners[found.triangle]).sum(dim=1) + 1e-3
    centres = torch.stack((found.pixel % 6, found.pixel // 6), dim=-1) + 0.5
    torch.testing.assert_close(places, centres, atol=1e-4, rtol=0)


def test_triangles_outside_and_without_area_cover_nothing():
    corners = torch.tensor([[[-9.0, 0.0], [-5.0, 0.0], [-9.0, 4.0]], [[1.0, 1.0], [3.0, 3.0], [2.0, 2.0]]])
    assert len(cover(corners, 4, 4).pixel) == 0
    assert len(cover(corners[:0], 4, 4).pixel) == 0


def test_empty_texels_take_the_nearest_colour():
    nearest = nearest_texels(np.array([7, 4]), 4)
    assert nearest.reshape(4, 4).tolist() == [[1, 1, 0, 0]] * 4


class Layered(BallField):
    """The ball with a thin skin of another colour around it, which hides half of it."""

    def forward(self, points, times):
        colours = torch.where(points.norm(dim=-1, keepdim=True) > RADIUS, 0.9, 0.1).expand(-1, 3)
        return self.density(points, times), torch.logit(colours)[None]

    def density(self, points, times):
        radius = points.norm(dim=-1)
        skin = 10.0 * np.log(2.0) * ((radius > RADIUS) & (radius < RADIUS + 0.1))
        return (200.0 * (radius <= RADIUS) + skin)[None]


@pytest.mark.slow
def test_a_ray_sees_through_thin_layers(tmp_path):
    model = ball_run(tmp_path, Layered()).pipeline.model
    normals = torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    seen = seen_colours(model, RADIUS * normals, normals, 0.5)
    assert float(seen.mean()) == pytest.approx(0.5, abs=0.06)


def test_where_no_ray_sees_anything_the_field_says_the_colour(ball: Run):
    nowhere = torch.tensor([[0.9, 0.3, -0.2]])
    seen = seen_colours(ball.pipeline.model, nowhere, torch.tensor([[1.0, 0.0, 0.0]]), 0.0)
    torch.testing.assert_close(seen, ball_colours(nowhere), atol=1e-4, rtol=0)


def test_vertices_have_the_colours_of_the_field(ball: Run):
    (mesh,) = meshes(ball, "vertex")
    assert mesh.colours is not None
    expected = ball_colours(torch.from_numpy(mesh.surface.vertices)).numpy()
    assert np.abs(mesh.colours - expected).max() < 0.12
    assert np.abs(mesh.colours - expected).mean() < 0.01


def test_the_texture_has_them_where_the_vertices_point(ball: Run):
    (mesh,) = meshes(ball, "texture")
    assert mesh.uvs is not None
    assert mesh.texture is not None
    assert mesh.uvs.min() >= 0.0
    assert mesh.uvs.max() <= 1.0
    row, column = (
        np.minimum((mesh.uvs[:, 1] * 128).astype(int), 127),
        np.minimum((mesh.uvs[:, 0] * 128).astype(int), 127),
    )
    expected = ball_colours(torch.from_numpy(mesh.surface.vertices)).numpy()
    assert np.abs(mesh.texture[row, column] / 255.0 - expected).mean() < 0.03


@pytest.mark.parametrize("colouring", ["vertex", "texture"])
def test_wrong_colours_are_corrected_by_renders(ball: Run, colouring):
    """A grey ball gets most of its colours back."""
    source = exporter(ball, SolidOptions(resolution=64), TimeOptions(frames=1))
    (frame,) = source.timeline
    surface = extract(source.solid, frame, 2000)
    texels = texels_of(unwrap(surface, 128), 128, "cpu")
    mix = vertex_mix(surface, "cpu") if colouring == "vertex" else texels.mix
    points = torch.from_numpy(surface.vertices) if colouring == "vertex" else texels.at(surface.vertices)
    grey = torch.full_like(points, 0.5)
    better = refined(grey, source.sights(surface, frame, 0, AROUND, mix))
    before, after = ((colours - ball_colours(points)).abs().mean() for colours in (grey, better))
    assert after < 0.3 * before
    torch.testing.assert_close(refined(grey, ()), grey)


def test_views_around_are_turned_from_moment_to_moment():
    view = orbit_views(10.0, 30.0, 2.0, 49.1)
    first, second = (views_around(view, turn) for turn in range(2))
    assert len(first) == len(second) == AROUND
    assert len(views_around(view, 0, 12)) == 12
    assert {float(seen.elevation) for seen in first} == {-10.0, 10.0, 30.0}
    assert float(first[0].azimuth) == 30.0
    assert float(second[0].azimuth) == pytest.approx(30.0 + 0.618034 * 360.0 / AROUND, abs=1e-3)


def test_the_texture_is_painted_once(ball: Run):
    """No two triangles share a texel, up to their common edges."""
    (mesh,) = meshes(ball, "texture")
    assert mesh.uvs is not None
    found = cover(torch.from_numpy(mesh.uvs[mesh.surface.faces]) * 128, 128, 128)
    assert len(found.pixel) < 1.02 * len(found.pixel.unique())
