"""The toy is one solid object, seen alike by all its cameras, and its folder says what it shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from consistent4d_ns.cli.toy import toy
from consistent4d_ns.data.cameras import orbit_poses, orbit_views, relative_pose
from consistent4d_ns.data.dataparser import read_cameras
from consistent4d_ns.data.images import composite_white
from consistent4d_ns.data.rays import pixel_rays
from consistent4d_ns.errors import InputError
from consistent4d_ns.toy import ToyTruth, render, sequence, write_sequence
from consistent4d_ns.toy.creature import RADIUS, creature
from consistent4d_ns.toy.render import trace
from consistent4d_ns.toy.sequence import DISTANCE, FOVY, VIEWS, layout_views
from consistent4d_ns.toy.shapes import Box, Capsule, Ellipsoid, Shape

SIZE = 48
SHAPES = [Ellipsoid(0.1, 0.2, 0.3), Capsule(0.2, 0.1), Box(0.1, 0.2, 0.3)]


def render_layout(time: float, size: int = SIZE) -> Float[Tensor, "views 4 size size"]:
    return render(layout_views().poses(), FOVY, size, torch.full((len(VIEWS),), time), samples_per_side=2)


def outside(shape: Shape, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
    """Negative inside, zero on the surface, positive outside: the definition of each solid."""
    if isinstance(shape, Ellipsoid):
        return (points / points.new_tensor((shape.x, shape.y, shape.z))).norm(dim=-1) - 1
    if isinstance(shape, Capsule):
        height = points[:, 2].clamp(-shape.half_length, shape.half_length)
        return torch.hypot(points[:, :2].norm(dim=-1), points[:, 2] - height) - shape.thickness
    assert isinstance(shape, Box)
    return (points.abs() - points.new_tensor((shape.x, shape.y, shape.z))).amax(-1)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_rays_enter_shapes_at_the_surface(shape: Shape) -> None:
    """Against the definition of each solid: entries lie on it, nothing lies before them, misses meet nothing."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    directions = torch.cat((directions, torch.eye(3).double().repeat(20, 1), -torch.eye(3).double().repeat(20, 1)))
    directions = torch.nn.functional.normalize(directions, dim=-1)
    points = 0.15 * torch.randn(len(directions), 3, generator=generator, dtype=torch.float64)
    entry = shape.enter(points, directions)
    hit = entry.isfinite()
    assert 0.2 < hit.double().mean() < 0.98
    surface = points[hit] + entry[hit, None] * directions[hit]
    assert outside(shape, surface).abs().max() < 1e-6
    normals = shape.normals(surface)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals), dtype=torch.float64))
    assert ((normals * directions[hit]).sum(-1) < 1e-6).all(), "a ray enters against the normal"
    assert surface.norm(dim=-1).max() <= shape.radius + 1e-9
    for step in torch.linspace(-2, 2, 401, dtype=torch.float64):
        before = ~hit | (step < entry - 1e-6)
        assert (outside(shape, points + step * directions)[before] > -1e-6).all()


def test_images_are_deterministic() -> None:
    assert torch.equal(render_layout(0.4), render_layout(0.4))


@pytest.mark.parametrize("time", [0.0, 0.2, 0.37, 0.5, 0.75, 0.9])
def test_the_toy_is_well_inside_every_frame(time: float) -> None:
    rgba = render_layout(time)
    assert rgba.min() >= 0
    assert rgba.max() <= 1
    alpha = rgba[:, 3]
    assert (rgba[:, :3] <= alpha[:, None] + 1e-6).all(), "colours are premultiplied"
    margin = SIZE // 10
    inner = alpha[:, margin:-margin, margin:-margin]
    assert torch.equal(alpha.sum((1, 2)), inner.sum((1, 2)))
    covered = alpha.mean((1, 2))
    assert ((covered > 0.08) & (covered < 0.4)).all()
    assert ((alpha > 0) & (alpha < 1)).any(), "edges are soft"


@pytest.mark.parametrize("time", [0.0, 0.13, 0.5, 0.8])
def test_the_toy_stays_in_its_ball(time: float) -> None:
    directions = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    for part in creature(time):
        surface = part.shape.enter(torch.zeros_like(directions), directions)[:, None] * directions
        world = surface @ part.frame.rotation.T + part.frame.position
        assert world.norm(dim=-1).max() < RADIUS


def test_two_views_see_the_same_surface() -> None:
    """Points seen in one view, looked for from another: the same colour at the same place, or something before it."""
    parts, poses = creature(0.3), layout_views().poses()
    focal = torch.full((1,), 60.0, dtype=torch.float64)
    shared = 0
    for first, second in [(0, 2), (0, 5), (4, 6), (1, 4)]:
        rays = pixel_rays(poses[first, None], focal, 64, 64)[1].view(-1, 3)
        distance, colour = trace(parts, poses[first, :, 3], rays)
        hit = distance.isfinite()
        points = poses[first, :, 3] + distance[hit, None] * rays[hit]
        towards = points - poses[second, :, 3]
        far = towards.norm(dim=-1)
        found, again = trace(parts, poses[second, :, 3], towards / far[:, None])
        assert (found <= far + 1e-6).all(), "a solid surface cannot be looked through"
        visible = found > far - 1e-6
        shared += int(visible.sum())
        # Points on the very border of a texture may fall to either side.
        agrees = (again - colour[hit]).abs().amax(-1) < 1e-4
        assert agrees[visible].double().mean() > 0.99
    assert shared > 300


def test_an_image_shows_the_surface_where_the_camera_projects_it() -> None:
    """A marked world point, projected by the pinhole formula, has its colour in the rendered image."""
    rgba = render(orbit_poses(*torch.tensor([[0.0], [0.0], [DISTANCE]])), FOVY, 256, torch.zeros(1))[0]
    origin, belly = torch.tensor([DISTANCE, 0.0, 0.0]), torch.tensor([0.19, 0.0, -0.2])
    direction = torch.nn.functional.normalize(belly - origin, dim=-1)
    _, colour = trace(creature(0.0), origin, direction[None])
    focal = 128 / np.tan(np.deg2rad(FOVY / 2))
    row = int(128 - focal * belly[2].item() / (DISTANCE - belly[0].item()))
    torch.testing.assert_close(rgba[:3, row, 128], colour[0], atol=0.02, rtol=0)


def test_front_and_back_and_the_sides_differ() -> None:
    """Mean differences over whole images, of which the toy covers about a fifth."""
    poses = orbit_poses(torch.zeros(4), torch.tensor([0.0, 180.0, 90.0, -90.0]), torch.full((4,), DISTANCE))
    front, back, left, right = composite_white(render(poses, FOVY, SIZE, torch.zeros(4)))
    assert (front - back).abs().mean() > 0.02
    assert (front - back.flip(-1)).abs().mean() > 0.02, "nor is the back the mirrored front"
    assert (left - right.flip(-1)).abs().mean() > 0.01
    assert (front - front.flip(-1)).abs().mean() > 0.01


def test_it_moves_smoothly_and_repeats() -> None:
    times = torch.linspace(0, 1, 33)
    poses = layout_views().poses()[:1].float().expand(len(times), -1, -1)
    images = composite_white(render(poses, FOVY, SIZE, times))
    steps = (images[1:] - images[:-1]).abs().mean((1, 2, 3))
    assert steps.min() > 1e-3
    assert steps.max() < 0.03
    torch.testing.assert_close(images[0], images[-1], atol=1e-3, rtol=0)


def test_precision_follows_the_poses() -> None:
    exact = render_layout(0.6)
    assert exact.dtype == torch.float64
    single = render(layout_views().poses().float(), FOVY, SIZE, torch.full((len(VIEWS),), 0.6), samples_per_side=2)
    assert single.dtype == torch.float32
    assert (exact - single).abs().mean() < 1e-4


def test_truth_is_the_rendered_frame() -> None:
    truth = ToyTruth(size=SIZE, frames=5)
    angles = torch.tensor([0.0, 30.0]), torch.tensor([15.0, 240.0]), torch.full((2,), DISTANCE)
    images = truth(*angles, torch.tensor([0, 3]))
    expected = composite_white(render(orbit_poses(*angles), FOVY, SIZE, torch.tensor([0.0, 0.75]), samples_per_side=2))
    torch.testing.assert_close(images, expected)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "new" / "folder"
    write_sequence(out, size=SIZE, frames=3)
    return out


def test_folder_holds_the_rendered_images(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted([*VIEWS, "meta.json"])
    assert [path.name for path in written.parent.iterdir()] == [written.name], "nothing temporary is left"
    for index, name in enumerate(VIEWS):
        assert sorted(path.name for path in (written / name).iterdir()) == ["0.png", "1.png", "2.png"]
        stored = np.asarray(Image.open(written / name / "1.png"))
        assert stored.shape == (SIZE, SIZE, 4)
        rgba = torch.from_numpy(stored.copy()).permute(2, 0, 1) / 255
        pose = layout_views().poses()[index, None].float()
        expected = render(pose, FOVY, SIZE, torch.tensor([0.5]))[0]
        premultiplied = torch.cat((rgba[:3] * rgba[3:], rgba[3:]))
        torch.testing.assert_close(premultiplied, expected, atol=1.01 / 255, rtol=0)
        assert (rgba[:3, rgba[3] == 0] == 0).all()


def test_folder_tells_its_cameras(written: Path) -> None:
    meta = json.loads((written / "meta.json").read_text())
    assert (meta["frames"], meta["resolution"], meta["fov_y_deg"], meta["distance"]) == (
        3,
        [SIZE, SIZE],
        FOVY,
        DISTANCE,
    )
    assert list(meta["cameras"]) == list(VIEWS)
    for camera in meta["cameras"].values():
        keys = ("elevation_deg", "azimuth_deg", "distance")
        pose = orbit_poses(*(torch.tensor(camera[key], dtype=torch.float64) for key in keys))
        matrix = torch.tensor(camera["camera_to_world_opengl"], dtype=torch.float64)
        torch.testing.assert_close(matrix[:3], pose, atol=1e-12, rtol=0)
        assert matrix[3].tolist() == [0, 0, 0, 1]
        assert camera["position"] == matrix[:3, 3].tolist()


def test_the_input_camera_is_the_origin_of_relative_poses() -> None:
    pose = relative_pose(layout_views(), orbit_views(0, 0, DISTANCE, FOVY))
    torch.testing.assert_close(pose[0], torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=pose.dtype))


def test_cameras_are_those_of_the_ground_truth_sequences(shared_data: Path) -> None:
    meta = json.loads((shared_data / "gt4d" / "Fox" / "meta.json").read_text())
    views = layout_views()
    assert list(meta["cameras"]) == list(VIEWS)
    for pose, camera in zip(views.poses(), meta["cameras"].values(), strict=True):
        expected = torch.tensor(camera["camera_to_world_opengl"], dtype=torch.float64)[:3]
        torch.testing.assert_close(pose, expected, atol=1e-6, rtol=0)


def test_overwriting_spares_everything_but_an_earlier_toy(tmp_path: Path) -> None:
    out = tmp_path / "toy"
    write_sequence(out, size=8, frames=3, samples_per_side=1)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"toy is not empty: .*--overwrite"):
        write_sequence(out, size=8, frames=2, samples_per_side=1)
    shutil.rmtree(out / "eval_0")
    (out / "eval_0").symlink_to(tmp_path)  # a link goes, what it leads to stays
    write_sequence(out, size=8, frames=2, samples_per_side=1, overwrite=True)
    assert not (out / "eval_0").is_symlink()
    assert sorted(path.name for path in (out / "input").iterdir()) == ["0.png", "1.png"]
    assert (out / "notes.txt").read_text() == "mine"


def test_a_toy_that_is_half_replaced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "toy"
    write_sequence(out, size=8, frames=3, samples_per_side=1)
    replace, names = sequence._replace, iter(("meta.json", "input", "eval_0"))

    def killed(source: Path, target: Path) -> None:
        if next(names, None) is None:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(sequence, "_replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_sequence(out, size=16, frames=3, samples_per_side=1, overwrite=True)
    with pytest.raises(InputError, match=r"meta\.json is broken"):
        read_cameras(out / "meta.json")
    write_sequence(out, size=16, frames=3, samples_per_side=1, overwrite=True)
    assert len(read_cameras(out / "meta.json")) == len(VIEWS)


@pytest.mark.parametrize("meta", [None, "{", "[]", '{"name": "Fox"}'])
def test_a_folder_of_the_user_is_never_overwritten(tmp_path: Path, meta: str | None) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "0.png").write_bytes(b"precious")
    if meta is not None:
        (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(InputError, match="files that are not an earlier toy"):
        write_sequence(tmp_path, size=8, frames=2, overwrite=True)
    assert (tmp_path / "input" / "0.png").read_bytes() == b"precious"


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size 0: give a number of pixels from 8 to 4096"):
        write_sequence(tmp_path / "toy", size=0)
    with pytest.raises(InputError, match="frames 1: a moving object needs at least 2"):
        write_sequence(tmp_path / "toy", frames=1)
    with pytest.raises(InputError, match="frames 100000000000: give at most 10000"):
        write_sequence(tmp_path / "toy", frames=10**11)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file: give a folder"):
        write_sequence(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot write .*toy: .*file is a file; give another place"):
        write_sequence(tmp_path / "file" / "toy")
    for target in ("nowhere", "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(InputError, match=f"link is a link to {target}, which does not exist: give another folder"):
            write_sequence(tmp_path / "link")
    with pytest.raises(InputError, match=r"cannot write .*: File name too long; "):
        write_sequence(tmp_path / ("x" * 300))
    assert not (tmp_path / "toy").exists()


def test_command_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy(tmp_path / "toy", size=8, frames=2)
    assert f"ns-train consistent4d-mini --data {tmp_path / 'toy'}" in capsys.readouterr().out
