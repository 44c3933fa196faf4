"""Parts of the glTF reader whose results can be worked out by hand; whole files are in test_training_meshes.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.support.gltf_files import Builder, tetrahedron
from training.gltf import (
    REST,
    Gltf,
    UnsuitableError,
    compose,
    nearest_texel,
    read_gltf,
    sample,
    slerp,
    to_display,
    to_linear,
    world_matrices,
)


def test_cubic_splines_and_steps() -> None:
    builder = Builder()
    times = builder.add([0.0, 1.0])
    cubic = {
        "input": times,
        "output": builder.add([(9.0,), (1.0,), (9.0,), (9.0,), (3.0,), (9.0,)]),
        "interpolation": "CUBICSPLINE",
    }
    step = {"input": times, "output": builder.add([(1.0,), (3.0,)]), "interpolation": "STEP"}
    gltf = Gltf({**builder.json, "buffers": [{}]}, Path(), builder.binary)
    when = np.array([-1.0, 0.25, 1.0, 2.0])
    assert sample(gltf, cubic, when, rotation=False)[:, 0].tolist() == [1.0, 1.5, 3.0, 3.0]
    assert sample(gltf, step, when, rotation=False)[:, 0].tolist() == [1.0, 1.0, 3.0, 3.0]


def test_rotations_take_the_shorter_arc_at_constant_speed() -> None:
    def about_z(degrees: float) -> np.ndarray:
        half = math.radians(degrees) / 2
        return np.array([[0, 0, math.sin(half), math.cos(half)]])

    # -q turns like q: the arc from 10 to 70 degrees does not go around the back.
    between = slerp(about_z(10), -about_z(70), np.full((1, 1), 0.25))
    np.testing.assert_allclose(between, about_z(25), atol=1e-12)
    np.testing.assert_allclose(slerp(about_z(10), about_z(10), np.full((1, 1), 0.5)), about_z(10), atol=1e-12)


def test_matrices_scale_then_rotate_then_translate() -> None:
    quarter = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))
    matrix = compose(*(np.array(values) for values in ((1.0, 2.0, 3.0), quarter, (2.0, 3.0, 4.0))))
    np.testing.assert_allclose(matrix @ (1, 1, 1, 1), (1 - 3, 2 + 2, 3 + 4, 1), atol=1e-12)


def test_parents_move_their_children(tmp_path: Path) -> None:
    tetrahedron(tmp_path / "thing.glb")
    world = world_matrices(read_gltf(tmp_path / "thing.glb"), REST, np.zeros(2))
    assert world.shape == (2, 2, 4, 4)
    # The child turns y towards z, its parent shifts by 10 along x.
    np.testing.assert_allclose(world[:, 1] @ (1, 2, 3, 1), np.tile((11, -3, 2, 1), (2, 1)), atol=1e-12)


def test_display_values_and_light_are_inverse() -> None:
    display = np.linspace(0, 1, 256)
    np.testing.assert_allclose(to_display(to_linear(display)), display, atol=1e-12)
    assert to_linear(np.array(0.5)) == pytest.approx(0.21404, abs=1e-5)
    assert to_display(np.array(3.0)) == pytest.approx(1)


def test_textures_begin_at_the_top_left_and_repeat() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)
    uv = np.array([(0.01, 0.01), (0.99, 0.01), (0.01, 0.99), (1.4, -0.1), (1.0, 1.0)])
    assert nearest_texel(image, uv)[:, 0].tolist() == [0, 2, 3, 4, 0]


def test_normalised_integers_become_shares() -> None:
    builder = Builder()
    builder.json["accessors"][builder.add([(0, 51, 255)], "B")]["normalized"] = True
    gltf = Gltf({**builder.json, "buffers": [{}]}, Path(), builder.binary)
    np.testing.assert_allclose(gltf.accessor(0), [(0, 0.2, 1)], rtol=1e-6)


def test_sparse_data_and_compression_are_not_for_us(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableError, match="sparse"):
        Gltf({"accessors": [{"sparse": {}, "bufferView": 0}]}, tmp_path, b"").accessor(0)
    Builder(extensionsRequired=["KHR_draco_mesh_compression"]).save(tmp_path / "draco.glb")
    with pytest.raises(UnsuitableError, match="KHR_draco"):
        read_gltf(tmp_path / "draco.glb")
