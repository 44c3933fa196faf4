"""Packed glTF models, small enough to work out by hand: poses, colours, the file, and what is refused."""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from consistent4d_ns.errors import InputError
from training import meshes
from training.meshes import MeshLibrary, load_meshes, pack, read_models

BEND = 90.0
"""Degrees by which the strip's second joint turns around x in one second."""
TYPES = {"f": 5126, "B": 5121, "H": 5123}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Builder:
    """Collects binary data and writes a glTF file."""

    def __init__(self, **parts: Any) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], **parts}
        self.binary = b""

    def add(self, rows: Any, dtype: str = "f") -> int:
        """Index of a new accessor with these rows."""
        values = np.array(rows, dtype).reshape(len(rows), -1)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": values.nbytes}
        self.json["bufferViews"].append(view)
        accessor = {"bufferView": len(self.json["bufferViews"]) - 1, "componentType": TYPES[dtype]}
        self.json["accessors"].append({**accessor, "count": len(rows), "type": KINDS[values.shape[1]]})
        self.binary += values.tobytes() + bytes(-values.nbytes % 4)
        return len(self.json["accessors"]) - 1

    def save(self, path: Path) -> None:
        """Write .glb, or .gltf with the binary data in a URI."""
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer: dict[str, Any] = {"byteLength": len(self.binary)}
        if path.suffix == ".gltf":
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
            path.write_text(json.dumps({**self.json, "buffers": [buffer]}))
            return
        text = json.dumps({**self.json, "buffers": [buffer]}).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def strip(path: Path, weight: float = 1.0) -> None:
    """A strip of 1 x 2 units in the xy plane: a lower square on the first joint, an upper one on the second, which
    bends around the line y = 1. A palette of red and blue; the texture coordinates lie on the patches' borders."""
    builder = Builder()
    corners = [(x, y, 0) for y in (0, 1, 1, 2) for x in (0, 1)]
    attributes = {
        "POSITION": builder.add(corners),
        "TEXCOORD_0": builder.add([(u, v) for u0 in (0.0, 0.5) for v in (0.0, 1.0) for u in (u0, u0 + 0.5)]),
        # The lower square's upper corners follow both joints: on the axis of the bend that changes nothing.
        "JOINTS_0": builder.add([(0, 0, 0, 0)] * 2 + [(0, 1, 0, 0)] * 2 + [(1, 0, 0, 0)] * 4, "B"),
        "WEIGHTS_0": builder.add([(1, 0, 0, 0)] * 2 + [(0.5, 0.5, 0, 0)] * 2 + [(weight, 0, 0, 0)] * 4),
    }
    indices = builder.add([0, 1, 2, 2, 1, 3, 4, 5, 6, 6, 5, 7], "H")
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[1, 3, 1] = -1  # Column-major: one down in y.
    half = math.radians(BEND) / 2
    samplers = [
        {
            "input": builder.add([0.0, 1.0]),
            "output": builder.add([(0, 0, 0, 1), (math.sin(half), 0, 0, math.cos(half))]),
        }
    ]
    builder.json |= {
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 1, 1, 1], "baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"uri": "palette.png"}],
        "nodes": [
            # A skinned mesh takes no notice of its own node.
            {"mesh": 0, "skin": 0, "translation": [5, 6, 7]},
            {"children": [2], "scale": [3, 3, 3]},
            {"translation": [0, 1, 0]},
        ],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": builder.add(inverse)}],
        "animations": [
            {"channels": [{"sampler": 0, "target": {"node": 2, "path": "rotation"}}], "samplers": samplers},
            {"channels": [], "samplers": [{"input": builder.add([0.0]), "output": 0}]},
        ],
    }
    builder.save(path)
    Image.fromarray(np.array([[(255, 0, 0), (0, 0, 255)]], np.uint8)).save(path.parent / "palette.png")


def tetrahedron(path: Path, height: float = 2.0) -> None:
    """Corners at the origin and on the axes, the one on y at `height`, in vertex colours; interleaved, without
    normals, with a triangle that has no area, under a node that turns y towards z and one that shifts."""
    builder = Builder()
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, height, 0), (0, 0, 1)], float)
    colours = [(0, 0, 0, 1), (1, 0, 0, 1), (0, 0.5, 0, 1), (0, 0, 1, 1)]
    builder.add(np.concatenate((corners, colours), 1).ravel())
    builder.json["bufferViews"][0]["byteStride"] = 28
    whole = {"bufferView": 0, "componentType": TYPES["f"], "count": 4}
    builder.json["accessors"] = [{**whole, "type": "VEC3"}, {**whole, "type": "VEC4", "byteOffset": 12}]
    indices = builder.add([0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3, 1, 1, 2], "B")
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": indices}
    builder.json |= {
        "meshes": [{"primitives": [primitive]}],
        "nodes": [
            {"children": [1], "translation": [10, 0, 0]},
            {"mesh": 0, "rotation": [math.sqrt(0.5), 0, 0, math.sqrt(0.5)]},
        ],
    }
    builder.save(path)


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
    assert skipped["name like an evaluation character"] == 2
    monkeypatch.setattr(meshes, "MAX_TRIANGLES", 3)
    with pytest.raises(InputError, match="no usable"):
        read_models([tmp_path])


def test_cubic_splines_and_steps() -> None:
    builder = Builder()
    times = builder.add([0.0, 1.0])
    cubic = {
        "input": times,
        "output": builder.add([(9.0,), (1.0,), (9.0,), (9.0,), (3.0,), (9.0,)]),
        "interpolation": "CUBICSPLINE",
    }
    step = {"input": times, "output": builder.add([(1.0,), (3.0,)]), "interpolation": "STEP"}
    gltf = meshes.Gltf({**builder.json, "buffers": [{}]}, Path(), builder.binary)
    when = np.array([-1.0, 0.25, 1.0, 2.0])
    assert meshes.sample(gltf, cubic, when, rotation=False)[:, 0].tolist() == [1.0, 1.5, 3.0, 3.0]
    assert meshes.sample(gltf, step, when, rotation=False)[:, 0].tolist() == [1.0, 1.0, 3.0, 3.0]


def test_mirrored_bones_keep_normals_outward() -> None:
    point, normal = torch.tensor([[1.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    mirror = torch.diag(torch.tensor([-2.0, 1, 1]))
    matrices = torch.cat((mirror, torch.zeros(3, 1)), 1)[None, None]
    points, normals = meshes.skin(point, normal, torch.zeros(1, 4, dtype=torch.int64), torch.eye(1, 4), matrices)
    assert points.tolist() == [[[-2, 0, 0]]]
    assert normals.tolist() == [[[-1, 0, 0]]]


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
