"""The procedural training objects: sound geometry, colours, variety."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from training.draws import Draw
from training.kit import Frame, Kit, Layout, Y, Z
from training.patterns import STRIPES, UP, Layers, Spots, Styles, hsv_to_rgb, paint
from training.primitives import FINE, Form, deform, grid_triangles, unit_shapes, vertex_normals
from training.procedural import LAYOUTS, layout_objects, procedural_objects
from training.soup import Soups


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_part(form: Form, size: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Float[Tensor, "1 rows columns 3"]:
    kit = Kit(Draw(1, seeded(0)))
    kit.add(0, kit.world(), size, form, FINE)
    return deform(unit_shapes(kit.parts(), FINE), kit.parts(), 24)


def volume(corners: Float[Tensor, "triangles 3 3"]) -> Float[Tensor, " triangles"]:
    """Signed volumes between triangles and the origin."""
    return torch.linalg.det(corners) / 6


def per_object(values: Float[Tensor, "triangles n"], soups: Soups) -> Float[Tensor, "objects n"]:
    return values.new_zeros(len(soups), values.shape[1]).index_add(0, soups.owners(), values)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_makes_sound_objects(layout: Layout) -> None:
    soups = layout_objects(layout, 6, seeded(1))
    a, b, c = soups.positions.unbind(1)
    cross = torch.linalg.cross(b - a, c - a)
    assert soups.counts.min() >= 100
    assert soups.counts.max() < 10000
    assert all(values.isfinite().all() for values in (soups.positions, soups.normals, soups.colours))
    assert soups.colours.min() >= 0
    assert soups.colours.max() <= 1
    assert (cross.norm(dim=-1) > 0).all()
    torch.testing.assert_close(soups.normals.norm(dim=-1), torch.ones(len(a), 3))
    # Shading normals agree with the faces, surfaces are closed, and their outside is outside.
    assert ((soups.normals * cross[:, None]).sum(-1) > 0).all()
    torch.testing.assert_close(per_object(cross, soups), torch.zeros(6, 3), atol=1e-4, rtol=0)
    assert (per_object(volume(soups.positions)[:, None], soups) > 0).all()
    reach = per_object_maximum(soups.positions.norm(dim=-1).amax(1), soups)
    torch.testing.assert_close(reach, torch.full((6,), 0.5))


def per_object_maximum(values: Float[Tensor, " triangles"], soups: Soups) -> Float[Tensor, " objects"]:
    return torch.stack([some.max() for some in values.split(soups.counts.tolist())])


def test_same_seed_same_objects_other_seed_others() -> None:
    first, again, other = (procedural_objects(12, seeded(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert not torch.equal(first.counts, other.counts)
    assert len(first) == len(other) == 12


def test_objects_of_a_batch_differ_and_layouts_are_mixed() -> None:
    soups = procedural_objects(40, seeded(5))
    assert len(set(soups.counts.tolist())) > 30
    # Objects of one layout do not lie together: heights of neighbours are unrelated.
    tall = per_object_maximum(soups.positions[..., 2].amax(1), soups)
    assert abs(torch.corrcoef(torch.stack((tall[1:], tall[:-1])))[0, 1]) < 0.5
    colour = per_object(soups.colours.mean(1), soups) / soups.counts[:, None]
    assert colour.std(0).min() > 0.1


def test_some_objects_are_faceted() -> None:
    soups = procedural_objects(40, seeded(6))
    plain = (soups.normals[:, :1] == soups.normals).flatten(1).all(1)
    share = per_object(plain[:, None].float(), soups)[:, 0] / soups.counts
    assert 0.15 < (share == 1).float().mean() < 0.7


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form(), 4 / 3 * torch.pi),
        (Form(section=30.0, profile=30.0), 8.0),
        (Form(profile=30.0), 2 * torch.pi),
        (Form(section=1.0, profile=1.0), 4 / 3),
        (Form(ring=0.5), 2 * torch.pi * 0.5 * torch.pi * 0.5),
    ],
    ids=["ball", "box", "cylinder", "octahedron", "ring"],
)
def test_volumes_of_the_primitive(form: Form, expected: float) -> None:
    points = one_part(form)[0].flatten(0, 1)
    assert volume(points[grid_triangles(FINE, points.device)]).sum().item() == pytest.approx(expected, rel=0.07)


def test_normals_of_a_ball_point_outwards() -> None:
    points = one_part(Form())
    middle = slice(2, -2)
    cosine = (vertex_normals(points) * points).sum(-1)[:, middle]
    torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=2e-3, rtol=0)


def test_bend_moves_the_ends_and_size_scales() -> None:
    points = one_part(Form(bend=0.5), (0.1, 0.2, 2.0))[0]
    torch.testing.assert_close(points[-1].mean(0), torch.tensor((1.0, 0.0, 2.0)), atol=1e-5, rtol=0)
    assert points[..., 1].max().item() == pytest.approx(0.2)


def test_frames_turn_move_and_mirror() -> None:
    frame = Kit(Draw(2, seeded(0))).world().turned(Z, 90).moved(x=1.0, z=torch.tensor((0.0, 2.0)))
    torch.testing.assert_close(frame.origin, torch.tensor(((0.0, 1.0, 0.0), (0.0, 1.0, 2.0))), atol=1e-6, rtol=0)
    mirrored = frame.turned(Y, 30).mirrored()
    torch.testing.assert_close(mirrored.origin, frame.origin * torch.tensor((1.0, -1.0, 1.0)))
    torch.testing.assert_close(torch.linalg.det(mirrored.rotation), torch.ones(2))
    assert isinstance(mirrored, Frame)


def test_stripes_run_along_their_axis() -> None:
    layers = Layers(
        kind=torch.tensor([[STRIPES, 0]]),
        colour=torch.ones(1, 2, 3),
        axis=torch.full((1, 2), UP),
        sign=torch.ones(1, 2),
        level=torch.zeros(1, 2),
        share=torch.full((1, 2), 0.5),
        period=torch.full((1, 2), 0.2),
        phase=torch.zeros(1, 2),
        waves=torch.zeros(1, 2, 4, 3),
    )
    heights = torch.tensor((0.05, 0.15, 0.25, -0.05))
    points = torch.stack((torch.tensor((9.0, -3.0, 0.1, 2.0)), heights, heights), dim=-1)[None]
    styles = Styles(torch.zeros(1, 3), torch.zeros(1), layers)
    colours = paint(styles, Spots(points, points, torch.eye(3)[None]))
    torch.testing.assert_close(colours[0, :, 0], torch.tensor((1.0, 0.0, 1.0, 0.0)))


def test_hsv_corners() -> None:
    hue = torch.tensor((0.0, 1 / 3, 2 / 3, 0.5))
    rgb = hsv_to_rgb(hue, torch.tensor((1.0, 1.0, 1.0, 0.0)), torch.full((4,), 0.5))
    expected = 0.5 * torch.tensor(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)))
    torch.testing.assert_close(rgb, expected, atol=1e-6, rtol=0)


def test_choices_follow_their_weights() -> None:
    chosen = Draw(20000, seeded(0)).index((0.5, 0.0, 1.5))
    share = torch.bincount(chosen, minlength=3) / 20000
    torch.testing.assert_close(share, torch.tensor((0.25, 0.0, 0.75)), atol=0.02, rtol=0)
