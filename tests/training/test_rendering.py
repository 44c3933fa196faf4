"""Rendered training views: visible triangles against a brute-force search, and images of balls worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from consistent4d_ns.data.cameras import orbit_poses
from tests.support.interpreted import needs_triton, run_interpreted
from tests.support.spheres import as_one_object, cameras, plain_scenes, sphere
from training import scenes as scenes_module
from training.rasterize import (
    NONE,
    ScreenTriangles,
    _search_with_torch,
    _search_with_triton,
    nearest_triangles,
    screen_triangles,
)
from training.scenes import DISTANCE, FOVY, INPUT_VIEWS, barycentric, brightness, draw_cameras, draw_scenes, render
from training.soup import Soups, join

SIDE = 64
FOCAL = 50.0
SIZE = 64
PIXELS = 0.5 * SIZE / math.tan(math.radians(FOVY) / 2)
"""Focal length of a rendered image."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_triangles(count: int, seed: int) -> Float[Tensor, "triangles 3 3"]:
    """Triangles of all sizes, some of them partly outside the image."""
    generator = seeded(seed)
    centre = torch.rand(count, 1, 3, generator=generator) * torch.tensor((4.0, 4.0, 2.0)) - torch.tensor((2, 2, 4.0))
    spread = 0.1 + 2.4 * torch.rand(count, 1, 1, generator=generator)
    return centre + spread * (torch.rand(count, 3, 3, generator=generator) - 0.5)


def on_screen(corners: Float[Tensor, "triangles 3 3"]) -> ScreenTriangles:
    return screen_triangles(corners, torch.full((len(corners),), FOCAL), SIDE)


def visible(corners: Float[Tensor, "triangles 3 3"]) -> Int32[Tensor, "side side"]:
    """What one image of the triangles shows."""
    return nearest_triangles(on_screen(corners), torch.tensor([0, len(corners)]), SIDE)[0]


def brute_force(corners: Float[Tensor, "triangles 3 3"]) -> tuple[Tensor, Tensor]:
    """Nearest triangle along the ray of every sample, and whether no ray passes close to an edge there."""
    place = torch.arange(SIDE, dtype=torch.float64) + 0.5 - SIDE / 2
    rays = torch.stack((*torch.meshgrid(place, -place, indexing="xy"), torch.full((SIDE, SIDE), -FOCAL)), dim=-1)
    # Columns are corners: the coefficients of a ray in them are its barycentric coordinates, up to its length.
    coefficients = torch.linalg.solve(
        corners.double().mT[:, None], rays.reshape(-1, 3).T.expand(len(corners), 1, 3, -1)
    )
    coefficients = coefficients[:, 0].mT
    inverse_depth = coefficients.sum(-1)
    shares = coefficients / inverse_depth[..., None]
    inside = (shares >= 0).all(-1) & (inverse_depth > 0)
    nearest, index = torch.where(inside, inverse_depth, 0.0).max(0)
    clear = (shares.abs().amin(-1) > 1e-4).all(0)
    return torch.where(nearest > 0, index, NONE).view(SIDE, SIDE), clear.view(SIDE, SIDE)


def test_nearest_triangles_are_those_that_rays_meet_first() -> None:
    sets = [random_triangles(count, seed) for seed, count in enumerate((40, 0, 100, 3))]
    starts = torch.tensor([0, 40, 40, 140, 143])
    index = nearest_triangles(on_screen(torch.cat(sets)), starts, SIDE)
    assert (index[1] == NONE).all()
    for image in (0, 2, 3):
        expected, clear = brute_force(sets[image])
        found = torch.where(index[image] == NONE, NONE, index[image] - starts[image])
        assert clear.float().mean() > 0.9
        assert torch.equal(found[clear], expected[clear])
        assert 0.05 < (expected != NONE).float().mean() < 0.95


def test_nearer_triangles_hide_farther_ones_in_any_order() -> None:
    square = torch.tensor([(-1.0, -1, 0), (1, -1, 0), (0, 1, 0)])
    near, far = square + torch.tensor((0.0, 0, -2)), 2 * square + torch.tensor((0.0, 0, -3))
    assert visible(torch.stack((near, far)))[SIDE // 2, SIDE // 2] == 0
    assert visible(torch.stack((far, near)))[SIDE // 2, SIDE // 2] == 1
    both = visible(torch.stack((far, near)))
    assert {0, 1} <= set(both.unique().tolist())


def test_triangles_that_cross_are_both_seen() -> None:
    left = torch.tensor([(-2.0, -2, -2), (2, -2, -4), (0, 2, -3)])
    right = torch.tensor([(-2.0, -2, -4), (2, -2, -2), (0, 2, -3)])
    row = visible(torch.stack((left, right)))[SIDE // 2 + 8]
    assert row[SIDE // 2 - 8] == 0
    assert row[SIDE // 2 + 8] == 1


@pytest.mark.parametrize(
    "corners",
    [
        [(0.0, 0, -2), (0, 0, -2), (0, 0, -2)],
        [(-1.0, 0, -2), (0, 0, -2), (1, 0, -2)],
        [(-1.0, 0, -2), (1, 0, -2), (0, 0, -3)],
    ],
    ids=["point", "line", "edge-on"],
)
def test_triangles_without_area_on_the_screen_are_not_seen(corners: list[tuple[float, float, float]]) -> None:
    assert (visible(torch.tensor([corners])) == NONE).all()


def test_both_sides_of_a_triangle_are_seen() -> None:
    corners = random_triangles(1, 3)
    assert torch.equal(visible(corners), visible(corners.flip(1)))


def test_sides_are_multiples_of_a_tile() -> None:
    with pytest.raises(ValueError, match="33"):
        nearest_triangles(on_screen(random_triangles(1, 0)), torch.tensor([0, 1]), 33)


def disagreement(device: str) -> float:
    """Share of samples that the kernel and the search in torch see differently; starts are no multiples of blocks."""
    screen = on_screen(random_triangles(75, 1))
    starts = torch.tensor([0, 43, 43, 75])
    expected = _search_with_torch(screen, starts, SIDE)
    moved = ScreenTriangles(screen.planes.to(device), screen.bounds.to(device))
    found = _search_with_triton(moved, starts.to(device), SIDE).cpu()
    assert (expected != NONE).float().mean() > 0.1
    return float((found != expected).float().mean())


def assert_kernel_agrees() -> None:
    assert disagreement("cpu") == 0


@pytest.mark.slow
@needs_triton
def test_kernel_agrees_when_interpreted() -> None:
    run_interpreted(assert_kernel_agrees)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernel_agrees_on_cuda() -> None:
    # Fused multiply-adds decide a few samples on edges otherwise.
    assert disagreement("cuda") < 1e-3


def test_barycentric_coordinates_of_known_points() -> None:
    corners = random_triangles(50, 4).double()
    weights = torch.rand(50, 3, generator=seeded(5)).double() + 0.05
    weights = weights / weights.sum(-1, keepdim=True)
    lengths = torch.rand(50, 1, generator=seeded(6)) + 0.5
    directions = lengths * torch.einsum("tc,tci->ti", weights, corners)
    torch.testing.assert_close(barycentric(corners, directions), weights)


def picture(soups: Soups, elevation: float = 0.0, azimuth: float = 0.0, /, **changes: Tensor) -> Float[Tensor, "4 h w"]:
    """One view of the first object."""
    return next(render(soups, plain_scenes([0], **changes), cameras([(elevation, azimuth)]), SIZE))[0, 0]


def centre(mask: Float[Tensor, "h w"]) -> tuple[float, float]:
    """Mean column and row, in pixels right of and above the image's centre."""
    place = torch.arange(SIZE) + 0.5 - SIZE / 2
    return float((mask.sum(0) * place).sum() / mask.sum()), -float((mask.sum(1) * place).sum() / mask.sum())


def test_silhouette_of_a_ball_follows_the_pinhole_formula() -> None:
    radius = PIXELS * 0.5 / math.sqrt(DISTANCE**2 - 0.5**2)
    alpha = picture(sphere(columns=64), 20.0, 75.0)[3]
    assert math.sqrt(alpha.sum() / math.pi) == pytest.approx(radius, abs=0.2)
    assert (alpha.amax(0) > 0.5).sum() / 2 == pytest.approx(radius, abs=1)
    assert (alpha.amax(1) > 0.5).sum() / 2 == pytest.approx(radius, abs=1)
    assert centre(alpha) == pytest.approx((0, 0), abs=0.02)


@pytest.mark.parametrize(("elevation", "azimuth"), [(0.0, 0.0), (30.0, 110.0), (-10.0, -60.0)])
def test_places_in_the_image_are_those_of_the_cameras(elevation: float, azimuth: float) -> None:
    a = math.radians(azimuth)
    right = (-0.5 * math.sin(a), 0.5 * math.cos(a), 0.0)
    balls = {(1, 0, 0): (0.0, 0.0, 0.5), (0, 1, 0): right}
    image = picture(as_one_object(join([sphere(at, 0.05, colour) for colour, at in balls.items()])), elevation, azimuth)
    pose = orbit_poses(*(torch.tensor(value) for value in (elevation, azimuth, DISTANCE)))
    found = [centre(image[channel]) for channel in (0, 1)]
    for (_, at), where in zip(balls.items(), found, strict=True):
        x, y, z = pose[:, :3].T @ (torch.tensor(at) - pose[:, 3])
        assert where == pytest.approx((float(-PIXELS * x / z), float(-PIXELS * y / z)), abs=0.2)
    # In words: up is at the top, and the camera's right is on the right.
    assert found[0][1] > 8
    assert found[1][0] > 8


def test_shift_moves_and_linear_scales() -> None:
    moved = picture(sphere(), linear=0.1 * torch.eye(3)[None], shift=torch.tensor([(0.0, 0.3, -0.2)]))
    assert centre(moved[3]) == pytest.approx((0.3 * PIXELS / DISTANCE, -0.2 * PIXELS / DISTANCE), abs=0.1)


def test_colours_are_premultiplied() -> None:
    image = picture(sphere(colour=(1.0, 0.5, 0.25)))
    assert 0 < ((image[3] > 0) & (image[3] < 1)).float().mean() < 0.1
    torch.testing.assert_close(image[:3], image[3] * torch.tensor((1.0, 0.5, 0.25))[:, None, None])


def test_recolouring_mixes_channels_and_is_clamped() -> None:
    exchanged = torch.tensor([[(0.0, 0, 1), (2, 0, 0), (0, -1, 0)]])
    image = picture(sphere(colour=(0.8, 0.5, 0.3)), recolour=exchanged)
    torch.testing.assert_close(image[:3], image[3] * torch.tensor((0.3, 1.0, 0.0))[:, None, None])


def test_light_comes_from_its_direction() -> None:
    light = {"light": torch.tensor([(0.0, 1.0, 0.0)]), "ambient": torch.tensor([0.4])}
    row = picture(sphere(columns=64), **light)[0, SIZE // 2]
    # The camera on +x has +y on its right; the left half faces away.
    assert row[SIZE // 2 - 10] == pytest.approx(0.4, abs=1e-3)
    assert (row[SIZE // 2 + 1 : SIZE // 2 + 14].diff() > 0).all()
    assert 0.9 < row.max() <= 1


@pytest.mark.parametrize("softness", [0.0, 0.3, 1.0])
def test_brightness_lies_between_ambient_and_one(softness: float) -> None:
    scenes = plain_scenes([0], ambient=torch.tensor([0.4]), softness=torch.tensor([softness]))
    normals = F.normalize(torch.randn(500, 3, generator=seeded(0)), dim=-1)
    normals[:2] = torch.tensor([(0.0, 0, 1), (0, 0, -1)])
    values = brightness(normals, scenes, torch.zeros(500, dtype=torch.int64))
    assert values[:2].tolist() == pytest.approx([1.0, 0.4])
    assert values.min() >= 0.4 - 1e-6
    assert values.max() <= 1 + 1e-6
    assert torch.equal(values.argmax(), normals[:, 2].argmax())


def test_stretching_a_ball_stretches_its_shading() -> None:
    stretch = torch.tensor((1.0, 0.6, 1.4))
    light = {"light": F.normalize(torch.tensor([(1.0, 1.0, 0.5)])), "ambient": torch.tensor([0.2])}
    ball = sphere(radius=0.4, columns=32)
    normals = F.normalize(ball.normals / stretch, dim=-1)
    egg = Soups(ball.positions * stretch, normals, ball.colours, ball.starts)
    scaled = picture(ball, linear=torch.diag(stretch)[None], **light)
    torch.testing.assert_close(scaled, picture(egg, **light), atol=0.02, rtol=0)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    soups = join([sphere(colour=(1, 0, 0)), sphere(columns=8, colour=(0, 1, 0)), sphere((0.2, 0, 0), 0.3, (0, 0, 1))])
    scenes, views = plain_scenes([2, 0, 1, 1, 2]), cameras([(0, 0), (20, 130)], scenes=5)
    (whole,) = render(soups, scenes, views, SIZE)
    # Two views of objects 0 and 2 have 512 triangles each, of object 1 128.
    monkeypatch.setattr(scenes_module, "TRIANGLES_AT_ONCE", 700)
    parts = list(render(soups, scenes, views, SIZE))
    assert [len(part) for part in parts] == [1, 2, 2]
    torch.testing.assert_close(torch.cat(parts), whole)
    monkeypatch.setattr(scenes_module, "TRIANGLES_AT_ONCE", 1)
    assert [len(part) for part in render(soups, scenes, views, SIZE)] == [1] * 5


def test_cameras_keep_to_their_ranges() -> None:
    drawn = draw_cameras(2000, 10, seeded(0))
    inputs, others = drawn.elevation.split((INPUT_VIEWS, 10 - INPUT_VIEWS), dim=1)
    for values, low, high in ((inputs, -10, 40), (others, -10, 60), (drawn.azimuth, -180, 180)):
        assert low <= values.min() < low + 1
        assert high - 1 < values.max() <= high
    level = (inputs.abs() <= 5).all(1)
    assert level.float().mean() == pytest.approx(0.5, abs=0.05)
    same = (drawn.distance == DISTANCE).all(1)
    assert same.float().mean() == pytest.approx(0.85, abs=0.05)
    assert 1.7 <= drawn.distance.min() < 1.72
    assert 2.38 < drawn.distance.max() <= 2.4


def test_drawn_scenes_stay_in_front_of_the_cameras_and_lit_from_above() -> None:
    drawn = draw_scenes(torch.arange(2000), seeded(0))
    reach = 0.5 * torch.linalg.matrix_norm(drawn.linear, 2) + drawn.shift.norm(dim=-1)
    assert 0.9 < reach.max() < 1.3
    torch.testing.assert_close(drawn.light.norm(dim=-1), torch.ones(2000))
    assert drawn.light[:, 2].min() > 0
    assert 0.35 <= drawn.ambient.min() <= drawn.ambient.max() <= 0.95
    # Half the objects keep their hues: their recolouring is a multiple of the identity.
    plain = (drawn.recolour / drawn.recolour[:, :1, :1] - torch.eye(3)).abs().amax((1, 2)) < 1e-6
    assert plain.float().mean() == pytest.approx(0.5, abs=0.05)
