"""GLB files: what the standard asks for, and frames that come one after the other."""

from __future__ import annotations

import io
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.export.gltf import glb, glb_moving, morph_weights, to_linear, visibility, y_up
from consistent4d_ns.export.moving import MovingMesh, originals_first
from consistent4d_ns.export.options import MeshOptions, SolidOptions, TimeOptions
from consistent4d_ns.export.sequence import Mesh, exporter
from consistent4d_ns.export.surface import Surface
from consistent4d_ns.export.texture import Atlas
from consistent4d_ns.runs import Run
from tests.export.programs import node_modules

FPS = 12.5


def triangle(height: float) -> Surface:
    vertices = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, height]], np.float32)
    normals = np.repeat(np.array([[0.0, -1.0, 0.0]], np.float32), 3, axis=0)
    return Surface(vertices, np.array([[0, 1, 2]], np.int32), normals)


def coloured(height: float = 1.0) -> Mesh:
    return Mesh(triangle(height), colours=np.array([[1.0, 0.5, 0.0], [0.1, 0.1, 0.1], [0.0, 0.0, 1.0]], np.float32))


def textured(height: float = 1.0) -> Mesh:
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return Mesh(triangle(height), uvs=np.array([[0, 0], [1, 0], [0, 1]], np.float32), texture=texture)


def document(contents: bytes) -> dict[str, Any]:
    """The JSON part of a GLB file."""
    magic, version, length = struct.unpack("<4sII", contents[:12])
    assert (magic, version, length) == (b"glTF", 2, len(contents))
    size, kind = struct.unpack("<I4s", contents[12:20])
    assert kind == b"JSON"
    return json.loads(contents[20 : 20 + size])


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("make", [coloured, textured])
@pytest.mark.parametrize("lit", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_the_validator_finds_nothing(tmp_path: Path, make, count: int, lit: bool, compress: bool):
    file = tmp_path / "model.glb"
    file.write_bytes(glb([make(1.0 + i / 5) for i in range(count)], FPS, lit, compress))
    report = validated(file)

    assert report["issues"]["messages"] == []
    assert report["info"]["totalTriangleCount"] == count
    assert report["info"]["animationCount"] == int(count > 1)


def validated(file: Path) -> dict[str, Any]:
    """What Khronos' validator says."""
    modules = node_modules("gltf-validator")
    command = ["node", str(Path(__file__).with_name("validate.mjs")), str(modules), str(file)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def array(contents: bytes, found: dict[str, Any], index: int) -> np.ndarray:
    """An accessor's rows as numbers: fractions where it is normalised."""
    accessor = found["accessors"][index]
    view = found["bufferViews"][accessor["bufferView"]]
    kind = np.dtype({5120: "i1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}[accessor["componentType"]])
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    (length,) = struct.unpack("<I", contents[12:16])
    start = 28 + length + view["byteOffset"]
    row = view.get("byteStride", width * kind.itemsize)
    rows = np.frombuffer(contents, np.uint8, row * accessor["count"], start).reshape(-1, row)
    values = np.ascontiguousarray(rows[:, : width * kind.itemsize]).view(kind)
    return values / np.iinfo(kind).max if accessor.get("normalized") else values


def test_a_compressed_file_holds_the_same_mesh():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(50, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    surface = Surface(rng.uniform(-1.02, 1.02, (50, 3)).astype(np.float32), np.array([[0, 1, 2]], np.int32), normals)
    texture = np.asarray(Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64)))
    uvs = rng.random((50, 2), np.float32)
    mesh = Mesh(surface, uvs=uvs, texture=texture)
    contents = glb([mesh], FPS, compress=True)
    found = document(contents)
    assert found["extensionsRequired"] == ["KHR_mesh_quantization", "EXT_texture_webp"]
    accessors = found["meshes"][0]["primitives"][0]["attributes"]
    stored = {name: array(contents, found, index) for name, index in accessors.items()}
    scale = found["nodes"][0]["scale"][0]
    np.testing.assert_allclose(stored["POSITION"] * scale, y_up(surface.vertices), atol=4e-5)
    np.testing.assert_allclose(stored["NORMAL"], y_up(normals), atol=5e-3)
    np.testing.assert_allclose(stored["TEXCOORD_0"], uvs, atol=1e-5)
    view = found["bufferViews"][found["images"][0]["bufferView"]]
    (length,) = struct.unpack("<I", contents[12:16])
    picture = contents[28 + length + view["byteOffset"] :][: view["byteLength"]]
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "WEBP"
        assert np.abs(np.asarray(image).astype(int) - texture).mean() < 2
    assert found["textures"][0] == {"sampler": 0, "extensions": {"EXT_texture_webp": {"source": 0}}}


@pytest.mark.slow
def test_compression_makes_a_file_several_times_smaller(ball: Run):
    source = exporter(ball, SolidOptions(resolution=64), TimeOptions(frames=1))
    meshes = list(source.meshes(MeshOptions(faces=3000, texture_size=512), "texture"))
    plain, small = (len(glb(meshes, FPS, compress=compress)) for compress in (False, True))
    assert small < plain / 2.5


@pytest.mark.parametrize("count", [2, 3, 7])
def test_exactly_one_frame_is_visible_at_any_time(count: int):
    tracks = [visibility(frame, count, FPS) for frame in range(count)]
    for time in np.linspace(0.0, count / FPS, 50):
        shown = [scales[np.searchsorted(times, np.float32(time), side="right") - 1, 0] for times, scales in tracks]
        expected = min(int(np.float32(time) * FPS + 1e-4), count - 1)
        assert np.flatnonzero(shown).tolist() == [expected]
    assert all(times[0] == 0.0 and (np.diff(times) > 0).all() for times, _ in tracks)


def test_without_animation_the_first_frame_is_shown():
    nodes = document(glb([coloured(), coloured()], FPS))["nodes"]
    frames = [node for node in nodes if "mesh" in node]
    assert "scale" not in frames[0]
    assert frames[1]["scale"] == [0.0, 0.0, 0.0]


def test_axes_and_colours_are_those_of_the_standard():
    """The input camera looks from +x, so x is glTF's forward +z; up is z here and y there."""
    np.testing.assert_array_equal(y_up(np.eye(3)), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert np.linalg.det(y_up(np.eye(3))) == pytest.approx(1.0)
    assert to_linear(np.array([0.0, 0.5, 1.0])) == pytest.approx([0.0, 0.21404, 1.0], abs=1e-4)
    found = document(glb([coloured(3.0)], FPS, compress=False))
    position = found["accessors"][found["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert position["max"] == [0.0, 3.0, 1.0]


def moving(count: int, textured: bool) -> MovingMesh:
    """A square that grows out of its plane; the texture has a seam along its diagonal."""
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32) - 0.5
    positions = np.stack([square * (1.0, 1.0, 1.0 + i) for i in range(count)]).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    if not textured:
        return MovingMesh(positions, faces, colours=np.full((4, 3), 0.5, np.float32))
    cut = Atlas(
        np.array([0, 1, 2, 2, 0, 3]), np.array([[0, 1, 2], [4, 3, 5]], np.int32), np.eye(6, 2, dtype=np.float32)
    )
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return MovingMesh(positions, faces, atlas=originals_first(cut, 4), texture=texture)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("textured", [False, True])
@pytest.mark.parametrize("lit", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_the_validator_finds_nothing_in_a_mesh_that_moves(
    tmp_path: Path, count: int, textured: bool, lit: bool, compress: bool
):
    file = tmp_path / "model.glb"
    file.write_bytes(glb_moving(moving(count, textured), FPS, lit, compress))
    report = validated(file)
    assert report["issues"]["messages"] == []
    assert report["info"]["totalTriangleCount"] == 2
    assert report["info"]["hasMorphTargets"] == (count > 1)
    assert report["info"]["animationCount"] == int(count > 1)


@pytest.mark.parametrize("compress", [False, True])
def test_morph_targets_give_the_shape_of_every_frame(compress: bool):
    mesh = moving(4, textured=True)
    contents = glb_moving(mesh, FPS, compress=compress)
    found = document(contents)
    (primitive,) = found["meshes"][0]["primitives"]
    base = array(contents, found, primitive["attributes"]["POSITION"])
    scale = found["nodes"][0].get("scale", [1.0])[0]
    targets = [array(contents, found, target["POSITION"]) for target in primitive["targets"]]
    times, weights = morph_weights(len(mesh), FPS)
    np.testing.assert_allclose(times, np.arange(5) / FPS)
    for frame, row in enumerate(weights):
        shape = base + sum(weight * target for weight, target in zip(row, targets, strict=True))
        expected = y_up(mesh.frame(min(frame, 3)).surface.vertices)
        np.testing.assert_allclose(shape * scale, expected, atol=1e-6 if not compress else 4e-5)


def test_copies_along_seams_come_after_all_vertices():
    mesh = moving(1, textured=True)
    assert mesh.vertex.tolist() == [0, 1, 2, 3, 2, 0] or mesh.vertex.tolist() == [0, 1, 2, 3, 0, 2]
    np.testing.assert_array_equal(mesh.vertex[mesh.written_faces], mesh.faces)
    assert mesh.atlas is not None
    corners = {tuple(uv) for uv in mesh.atlas.uvs[mesh.written_faces[0]]}
    assert corners == {(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)}
