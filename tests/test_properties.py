"""Properties that hold for all inputs, tried on hundreds that hypothesis chooses."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consistent4d_ns.data.cameras import orbit_poses, orbit_views, relative_pose, view_from
from consistent4d_ns.data.dataparser import META_KEYS, read_cameras
from consistent4d_ns.data.numbering import find_series
from consistent4d_ns.data.times import FrameTimes, Spacing
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.gltf import glb
from consistent4d_ns.export.sequence import Mesh
from consistent4d_ns.export.surface import Surface
from consistent4d_ns.media.camera_paths import read_path
from consistent4d_ns.viewer.access import is_local, is_served, refusal_of

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
DEGREES = st.floats(-720, 720)
ELEVATIONS = st.floats(-90, 90)
DISTANCES = st.floats(1, 100)
often = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def refused_or(read, content: Any) -> Any:
    """What a reader makes of a JSON file; None if it is refused in one line."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "file.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        try:
            return read(file)
        except InputError:
            return None


# Files


def changed(content: Any, places: list[int], value: Any) -> Any:
    """A copy with one value replaced, which is found by going down as the numbers say."""
    if not places or not isinstance(content, (dict, list)) or not content:
        return value
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key = keys[places[0] % len(keys)]
    inner = changed(content[key], places[1:], value)
    return {**content, key: inner} if isinstance(content, dict) else [*content[:key], inner, *content[key + 1 :]]


CAMERA = dict.fromkeys(META_KEYS.values(), 10.0)
META = {"cameras": {"input": CAMERA, "eval_0": CAMERA}}
POSE = [1, 0, 0, 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
FRAME = {"camera_to_world": POSE, "fov": 50, "aspect": 1, "render_time": 0}
COLOUR = {"r": 0, "g": 0, "b": 0}
CROP = {"crop_center": [0, 0, 0], "crop_scale": [1, 1, 1], "crop_rot": [0, 0, 0], "crop_bg_color": COLOUR}
PATH = {"render_width": 64, "render_height": 48, "seconds": 1.0, "crop": CROP, "camera_path": [FRAME, FRAME]}
PLACES = st.lists(st.integers(0, 20), min_size=1, max_size=5)


@often
@given(JSON)
def test_whatever_meta_json_holds(content: Any):
    refused_or(read_cameras, content)


@often
@given(PLACES, JSON)
def test_meta_json_with_one_value_changed(places: list[int], value: Any):
    read = refused_or(read_cameras, changed(META, places, value))
    for camera in (read or {}).values():
        assert camera.keys() == META_KEYS.keys()
        assert all(type(number) is float and math.isfinite(number) for number in camera.values())


@often
@given(PLACES, JSON)
def test_camera_paths_with_one_value_changed(places: list[int], value: Any):
    read = refused_or(read_path, changed(PATH, places, value))
    if read is not None:
        assert all(math.isfinite(number) for frame in read["camera_path"] for number in frame["camera_to_world"])
        assert all(0 < frame["fov"] < 180 and frame.get("aspect", 1) > 0 for frame in read["camera_path"])
        assert min(read["render_width"], read["render_height"]) >= 16
        assert 0 < read["seconds"] < math.inf


# Names and times


@often
@given(st.lists(st.text(min_size=1, max_size=30).map(lambda name: f"{name}.png"), min_size=1, max_size=12, unique=True))
def test_any_names_are_a_series_or_refused(names: list[str]):
    with suppress(InputError):
        series = find_series("folder", names)
        assert set(series.names) <= set(names)
        positions = series.spacing.positions
        assert len(positions) == len(series.names)
        assert all(a < b for a, b in pairwise(positions))


@often
@given(st.integers(-50, 10**6), st.integers(1, 1000), st.integers(2, 40), st.integers(0, 8), st.randoms())
def test_a_constant_step_is_found_in_any_order(first: int, step: int, count: int, width: int, random: Any):
    numbers = [first + step * index for index in range(count)]
    names = [f"frame_{number:0{width}d}.png" if width else f"frame_{number}.png" for number in numbers]
    shuffled = random.sample(names, len(names))
    assert find_series("folder", shuffled).names == tuple(names)


@often
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30, unique=True))
def test_times_run_from_0_to_1(stamps: list[float]):
    stamps = sorted(stamps)
    spacing = Spacing.from_stamps(stamps)
    times = FrameTimes.at(spacing.positions, 10.0).times
    assert (times[0], times[-1]) == (0.0, 1.0)
    assert all(a <= b for a, b in pairwise(times))


# Cameras


@often
@given(ELEVATIONS, DEGREES, DISTANCES)
def test_cameras_stand_at_their_distance_and_look_at_the_origin(elevation: float, azimuth: float, distance: float):
    pose = orbit_poses(*(torch.tensor(value, dtype=torch.float64) for value in (elevation, azimuth, distance)))
    rotation, position = pose[:, :3], pose[:, 3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert math.isclose(torch.linalg.det(rotation), 1.0, abs_tol=1e-9)
    torch.testing.assert_close(position, rotation[:, 2] * distance, atol=1e-9 * distance, rtol=0)
    assert rotation[2, 1] >= -1e-9  # Up is never down.


@often
@given(st.floats(-89, 89), DEGREES, DISTANCES)
def test_a_view_comes_back_from_its_position(elevation: float, azimuth: float, distance: float):
    view = orbit_views(elevation, azimuth, distance, 49.1)
    back = view_from(view.poses()[0, :, 3], 49.1)
    torch.testing.assert_close(back.poses(), view.poses(), atol=2e-4 * distance, rtol=0)


@often
@given(ELEVATIONS, DEGREES, DISTANCES, DEGREES)
def test_the_camera_vector_depends_on_the_turn_alone(elevation: float, azimuth: float, distance: float, turn: float):
    views = [orbit_views(elevation, azimuth + around + turn, distance, 49.1) for around in (0.0, 360.0)]
    origin = orbit_views(elevation, azimuth, distance, 49.1)
    first, second = (relative_pose(view, origin) for view in views)
    expected = torch.tensor([[0.0, math.sin(math.radians(turn)), math.cos(math.radians(turn)), 0.0]])
    torch.testing.assert_close(first, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(second, expected, atol=2e-4, rtol=0)


# glTF


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    count, triangles = draw(st.integers(3, 20)), draw(st.integers(1, 12))
    within = st.floats(-1.5, 1.5, width=32)
    vertices = draw(arrays(np.float32, (count, 3), elements=within))
    faces = draw(arrays(np.int32, (triangles, 3), elements=st.integers(0, count - 1)))
    normals = np.tile(np.array([[0.0, 0.0, 1.0]], np.float32), (count, 1))
    colours = draw(arrays(np.float32, (count, 3), elements=st.floats(0, 1, width=32)))
    return Mesh(Surface(vertices, faces, normals), colours=colours)


@settings(often, max_examples=30)
@given(st.lists(meshes(), min_size=1, max_size=3), st.booleans(), st.booleans(), st.floats(0.1, 1000))
def test_any_mesh_is_a_file_of_the_format(shown: list[Mesh], lit: bool, compress: bool, fps: float):
    contents = glb(shown, fps, lit, compress)
    magic, version, length = struct.unpack("<4sII", contents[:12])
    assert (magic, version, length) == (b"glTF", 2, len(contents))
    size = struct.unpack("<I", contents[12:16])[0]
    document = json.loads(contents[20 : 20 + size])
    binary = contents[28 + size :]
    assert len(document["meshes"]) == len(shown)
    for view in document["bufferViews"]:
        assert view["byteOffset"] + view["byteLength"] <= len(binary)
        assert view["byteOffset"] % 4 == 0
    for index, mesh in enumerate(shown):
        primitive = document["meshes"][index]["primitives"][0]
        position, indices = (
            document["accessors"][i] for i in (primitive["attributes"]["POSITION"], primitive["indices"])
        )
        assert (position["count"], indices["count"]) == (len(mesh.surface.vertices), mesh.surface.faces.size)
        assert all(low <= high for low, high in zip(position["min"], position["max"], strict=True))


@settings(often, max_examples=20)
@given(meshes())
def test_a_mesh_comes_back(mesh: Mesh):
    loaded = trimesh.load(trimesh.util.wrap_as_stream(glb([mesh], compress=False)), file_type="glb", process=False)
    vertices = np.concatenate([part.vertices for part in loaded.geometry.values()])  # type: ignore[union-attr]
    np.testing.assert_allclose(vertices, mesh.surface.vertices[:, [1, 2, 0]], atol=1e-6)


# The viewer


@often
@given(st.text(max_size=40), st.text(max_size=40))
def test_only_this_machine_s_own_pages_are_answered(host: str, origin: str):
    refused = refusal_of({"Host": host, "Origin": origin}, local=True)
    if refused is None:
        assert is_local(origin.partition("//")[2].rpartition(":")[0].strip("[]") or origin.partition("//")[2])


@often
@given(st.text(alphabet=st.sampled_from("./%2e\\ab\0"), max_size=30))
def test_no_path_leads_out_of_the_page(path: str):
    with TemporaryDirectory() as folder:
        root = Path(folder) / "page"
        root.mkdir()
        (Path(folder) / "a").write_text("secret")
        assert not is_served(path, root)
