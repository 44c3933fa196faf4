"""Packed glTF models, small enough to work out by hand: poses, colours, the file, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from consistent4d_ns.errors import InputError
from tests.support.gltf_files import BEND, Builder, strip, tetrahedron
from training import meshes
from training.meshes import MeshLibrary, load_meshes, pack, read_models


def library(folder: Path) -> MeshLibrary:
    """The models below a folder after packing and loading."""
    path = folder / "packed.xz"
    path.write_bytes(pack(read_models([folder])[0]))
    return load_meshes(path, "cpu")


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_skinned_strip_bends_as_worked_out_by_hand(tmp_path: Path, suffix: str) -> None:
    strip(tmp_path / f"pack/strip{suffix}")
    result = library(tmp_path)
    angles = np.radians(BEND * (np.arange(6) + 0.5) / 6)
    assert len(result.soups) == 6
    # The strip in the world's axes, (x, -z, y) of the file's; the clip that takes no time has no pose.
    poses = [
        [
            (0, 0, 0),
            (1, 0, 0),
            (0, 0, 1),
            (1, 0, 1),
            (0, -math.sin(a), 1 + math.cos(a)),
            (1, -math.sin(a), 1 + math.cos(a)),
        ]
        for a in angles
    ]
    points = np.array(poses)
    points -= (points.min((0, 1)) + points.max((0, 1))) / 2
    points *= 0.5 / np.linalg.norm(points, axis=-1).max()
    corners = points[:, [0, 1, 2, 2, 1, 3, 2, 3, 4, 4, 3, 5]].reshape(-1, 3, 3)
    np.testing.assert_allclose(result.soups.positions.numpy(), corners, atol=3e-4)
    upper = result.soups.normals.view(6, 4, 3, 3)[:, 2:]
    expected = torch.tensor(np.stack((0 * angles, -np.cos(angles), -np.sin(angles)), -1), dtype=torch.float32)
    torch.testing.assert_close(upper, expected[:, None, None].expand_as(upper), atol=1e-2, rtol=0)


def test_palette_colours_do_not_bleed_and_the_factor_is_linear(tmp_path: Path) -> None:
    strip(tmp_path / "pack/strip.glb")
    colours = (library(tmp_path).soups.colours * 255).view(6, 2, 6, 3)
    # Half the light of red is 188 of 255 in display values.
    for square, colour in ((0, (188.0, 0.0, 0.0)), (1, (0.0, 0.0, 255.0))):
        torch.testing.assert_close(colours[:, square], torch.tensor(colour).expand(6, 6, 3))


def test_static_model_is_turned_centred_and_shaded_flat(tmp_path: Path) -> None:
    tetrahedron(tmp_path / "pack/thing.v2.gltf")
    result = library(tmp_path)
    assert result.names == ["pack/thing"]
    assert not result.animated.any()
    # The node turns (x, y, z) to (x, -z, y), and so do the world's axes: y and z are negated.
    corners = torch.tensor([(0, 0, 0), (1, 0, 0), (0, -2, 0), (0, 0, -1)], dtype=torch.float32)
    corners = (corners - torch.tensor([0.5, -1.0, -0.5])) / (2 * math.sqrt(1.5))
    faces = torch.tensor([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)])
    torch.testing.assert_close(result.soups.positions, corners[faces], atol=3e-4, rtol=0)
    outward = torch.tensor([(0, 0, 1), (0, 1, 0), (-1, 0, 0), (2 / 3, -1 / 3, -2 / 3)])
    torch.testing.assert_close(result.soups.normals, outward[:, None].expand(4, 3, 3).float(), atol=1e-2, rtol=0)
    light = torch.tensor([(0, 0, 0), (1, 0, 0), (0, 188 / 255, 0), (0, 0, 1)])
    torch.testing.assert_close(result.soups.colours, light[faces])


def test_poses_are_grouped_by_model(tmp_path: Path) -> None:
    strip(tmp_path / "b/strip.glb")
    tetrahedron(tmp_path / "a/thing.glb")
    tetrahedron(tmp_path / "c/thing.glb")
    result = library(tmp_path)
    assert result.names == ["a/thing", "b/strip", "c/thing"]
    assert result.models.tolist() == [0, 1, 1, 1, 1, 1, 1, 2]
    assert result.animated.tolist() == [False, True, False]
    assert result.soups.counts.tolist() == [4] * 8
    first, last = (result.soups.select(torch.tensor([i])) for i in (0, 7))
    assert torch.equal(first.positions, last.positions)
    assert torch.equal(first.colours, last.colours)


def test_held_out_models_are_few_and_always_the_same() -> None:
    held_out = [i for i in range(3000) if meshes.is_held_out(f"pack/model_{i}")]
    assert 0.045 < len(held_out) / 3000 < 0.075
    assert [i for i in held_out if i < 40] == [25, 31]


def test_unsuitable_models_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tetrahedron(tmp_path / "pack/thing.glb")
    tetrahedron(tmp_path / "pack/Fox_2.glb")
    tetrahedron(tmp_path / "pack/T-Rex.glb")
    tetrahedron(tmp_path / "pack/tile.glb", height=0.02)
    strip(tmp_path / "pack/strip.glb", weight=math.nan)
    Builder(extensionsRequired=["KHR_draco_mesh_compression"]).save(tmp_path / "pack/draco.gltf")
    models, skipped = read_models([tmp_path])
    assert list(models) == ["pack/thing"]
    assert sorted(skipped.values()) == [1, 1, 1, 2]
    assert skipped["named like an evaluation character"] == 2
    monkeypatch.setattr(meshes, "MAX_TRIANGLES", 3)
    with pytest.raises(InputError, match="no usable"):
        read_models([tmp_path])


def test_mirrored_bones_keep_normals_outward() -> None:
    point, normal = torch.tensor([[1.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    mirror = torch.diag(torch.tensor([-2.0, 1, 1]))
    points, normals = meshes.skin(point, normal, torch.cat((mirror, torch.zeros(3, 1)), 1)[None, None])
    assert points.tolist() == [[[-2, 0, 0]]]
    assert normals.tolist() == [[[-1, 0, 0]]]


def test_skinning_in_pieces_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strip(tmp_path / "b/strip.glb")
    tetrahedron(tmp_path / "a/thing.glb")
    whole = library(tmp_path)
    monkeypatch.setattr(meshes, "VERTICES_AT_ONCE", 5)
    pieces = load_meshes(tmp_path / "packed.xz", "cpu")
    assert torch.equal(pieces.soups.positions, whole.soups.positions)
    assert torch.equal(pieces.soups.normals, whole.soups.normals)


def assert_one_line(error: pytest.ExceptionInfo[InputError], name: Path) -> None:
    """The message names the input."""
    assert str(name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_packed_file_is_refused(tmp_path: Path, share: float) -> None:
    tetrahedron(tmp_path / "pack/thing.glb")
    content = pack(read_models([tmp_path])[0])
    path = tmp_path / "packed.xz"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError) as error:
        load_meshes(path, "cpu")
    assert_one_line(error, path)


def test_damaged_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pack/thing.glb"
    tetrahedron(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError) as error:
        read_models([tmp_path])
    assert_one_line(error, path)


def test_folder_without_models_and_equal_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_models([tmp_path])
    assert_one_line(error, tmp_path)
    tetrahedron(tmp_path / "pack/thing.glb")
    tetrahedron(tmp_path / "pack/thing.gltf")
    with pytest.raises(InputError) as error:
        read_models([tmp_path])
    assert_one_line(error, tmp_path / "pack/thing.gltf")


def test_command_writes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    tetrahedron(tmp_path / "pack/thing.glb")
    out = tmp_path / "library.xz"
    monkeypatch.setattr("sys.argv", ["meshes", str(tmp_path / "pack"), str(out)])
    meshes.main()
    assert "1 models, 1 poses" in capsys.readouterr().out
    before = out.read_bytes()
    with pytest.raises(InputError) as error:
        meshes.main()
    assert_one_line(error, out)
    assert out.read_bytes() == before
