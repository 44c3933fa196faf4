"""Which objects training and validation views show, and how an interrupted rendering goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from consistent4d_ns.data.cameras import OrbitViews, relative_pose
from consistent4d_ns.errors import InputError
from tests.support.spheres import sphere
from training import views
from training.meshes import MeshLibrary
from training.scenes import FOVY
from training.soup import Soups, join, members
from training.viewset import HELD_OUT, VIEWS, ViewSet, load_views, save_views, training_files

POSES = (1, 4, 1, 3, 2)
"""Poses of each of the library's models."""
HELD_OUT_MODELS = (2, 3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def balls(count: int, generator: torch.Generator | None = None) -> Soups:
    """Stands for procedural objects: simple ones, of different sizes."""
    return join([sphere(radius=0.1 + 0.3 * i / count, columns=8) for i in range(count)])


@pytest.fixture
def library() -> MeshLibrary:
    poses = torch.tensor(POSES)
    held_out = torch.zeros(len(poses), dtype=torch.bool)
    held_out[list(HELD_OUT_MODELS)] = True
    names = [f"pack/model_{i}" for i in range(len(poses))]
    return MeshLibrary(balls(sum(POSES)), torch.repeat_interleave(poses), names, held_out, poses > 1)


def test_members_are_the_rows_of_the_chosen_groups() -> None:
    rows, starts = members(torch.tensor([2, 0, 3]), torch.tensor([2, 1, 0, 2]))
    assert rows.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert starts.tolist() == [0, 3, 3, 5, 8]


def test_held_out_models_are_never_drawn_for_training(library: MeshLibrary) -> None:
    drawn = torch.bincount(views.draw_mesh_objects(library, 8000, seeded(0)), minlength=sum(POSES)) / 8000
    models = torch.zeros(len(POSES)).index_add(0, library.models, drawn)
    assert (models[list(HELD_OUT_MODELS)] == 0).all()
    # Model 0 is the only static one left; models 1 and 4 share what is for animated ones, and so do their poses.
    expected = torch.tensor([1 - views.ANIMATED_SHARE, views.ANIMATED_SHARE / 2, 0, 0, views.ANIMATED_SHARE / 2])
    torch.testing.assert_close(models, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn, (expected / torch.tensor(POSES))[library.models], atol=0.02, rtol=0)


def test_half_the_training_objects_are_procedural(library: MeshLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "procedural_objects", balls)
    soups, objects = views.draw_objects(library, 101, seeded(0))
    assert len(soups) == 50 + sum(POSES)
    assert sorted(objects[objects < 50].tolist()) == list(range(50))
    assert not library.held_out[library.models[objects[objects >= 50] - 50]].any()
    # Shuffled, so that the files' scenes are alike from the first to the last.
    assert (objects[:50] < 50).float().mean() < 0.8


def test_validation_shows_one_pose_of_each_held_out_model(
    library: MeshLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "procedural_objects", balls)
    seen = set()
    for seed in range(40):
        soups, objects = views.held_out_objects(library, seeded(seed))
        count = len(HELD_OUT_MODELS)
        assert len(soups) == count + sum(POSES)
        assert objects[:count].tolist() == list(range(count))
        meshes = objects[count:] - count
        assert library.models[meshes].tolist() == list(HELD_OUT_MODELS)
        seen |= set(meshes.tolist())
    assert seen == {5, 6, 7, 8}


def test_images_are_put_on_white() -> None:
    rgba = torch.tensor([(0.0, 0, 0, 0), (0.5, 0.25, 0, 0.5), (0.2, 1, 0, 1)]).T[:, None]
    expected = [(255, 255, 255, 0), (255, 191, 128, 128), (51, 255, 0, 255)]
    found = views.on_white(rgba)
    assert found.dtype == torch.uint8
    assert found[:, 0].T.tolist() == [list(row) for row in expected]


def render(out: Path, **options: int | bool) -> None:
    views.main(out, meshes=out / "library.xz", device="cpu", **options)  # pyright: ignore[reportArgumentType]


def test_interrupted_rendering_goes_on(
    library: MeshLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(views, "load_meshes", lambda path, device: library)
    monkeypatch.setattr(views, "procedural_objects", balls)
    monkeypatch.setattr(views, "SHARD", 3)
    render(tmp_path, scenes=5)
    first, second = (tmp_path / f"train-0-00{i}.safetensors" for i in (0, 1))
    before = second.read_bytes()
    tensors = load_file(second)
    assert tensors["images"].shape == (2, VIEWS, 4, 64, 64)
    assert tensors["cameras"].shape == (3, 2, VIEWS)
    second.unlink()
    first.write_bytes(b"as it is")
    capsys.readouterr()
    render(tmp_path, scenes=5)
    assert capsys.readouterr().out.split() == [str(second)]
    assert first.read_bytes() == b"as it is"
    assert second.read_bytes() == before
    render(tmp_path, held_out=True)
    assert len(load_file(tmp_path / HELD_OUT)["images"]) == 2 * len(HELD_OUT_MODELS)
    (tmp_path / HELD_OUT).write_bytes(b"as it is")
    render(tmp_path, held_out=True)
    assert (tmp_path / HELD_OUT).read_bytes() == b"as it is"
    assert not list(tmp_path.glob("*.part"))


def test_other_seeds_show_other_scenes(library: MeshLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "load_meshes", lambda path, device: library)
    monkeypatch.setattr(views, "procedural_objects", balls)
    for seed in (0, 1):
        render(tmp_path, scenes=2, seed=seed)
    first, second = (load_file(tmp_path / f"train-{seed}-000.safetensors")["cameras"] for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 1 << 20}, {"scenes": 2001}], ids=str)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=str(*options.values())):
        render(tmp_path, **options)


def random_views(scenes: int, seed: int) -> ViewSet:
    images = torch.randint(256, (scenes, VIEWS, 4, 8, 8), generator=seeded(seed), dtype=torch.uint8)
    return ViewSet(images, 100 * torch.rand(3, scenes, VIEWS, generator=seeded(seed)))


def test_files_are_read_one_after_another_and_shared_among_processes(tmp_path: Path) -> None:
    sets = [random_views(1 + i, i) for i in range(3)]
    for i, some in enumerate(sets):
        save_views(some, tmp_path / f"train-{i}-000.safetensors")
    both = load_views(training_files(tmp_path, 0, 2), "cpu")
    assert torch.equal(both.images, torch.cat((sets[0].images, sets[2].images)))
    assert torch.equal(both.cameras, torch.cat((sets[0].cameras, sets[2].cameras), 1))
    assert len(load_views(training_files(tmp_path, 1, 2), "cpu")) == 2
    with pytest.raises(InputError, match="3 files of training views for 4 processes"):
        training_files(tmp_path, 0, 4)


def test_poses_are_those_of_the_guidance() -> None:
    some = random_views(3, 0)
    scenes, inputs, targets = torch.tensor([2, 0]), torch.tensor([1, 3]), torch.tensor([9, 0])

    def orbit(index: torch.Tensor) -> OrbitViews:
        elevation, azimuth, distance = some.cameras[:, scenes, index]
        return OrbitViews(elevation, azimuth, distance, torch.full((2,), FOVY))

    torch.testing.assert_close(some.poses(scenes, inputs, targets), relative_pose(orbit(targets), orbit(inputs)))


@pytest.mark.parametrize("content", ["missing", "damaged", "other"])
def test_unreadable_files_of_views_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "train-0-000.safetensors"
    if content == "damaged":
        path.write_bytes(b"not tensors")
    elif content == "other":
        save_file({"weights": torch.zeros(1)}, path)
    with pytest.raises(InputError) as error:
        load_views([path], "cpu")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
