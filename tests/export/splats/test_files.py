"""Files of Gaussians: the layout, axes and values that other programs expect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.splats import AXES, read_back
from consistent4d_ns.export.rotations import rotation_matrices
from consistent4d_ns.export.splats.files import PROPERTIES, Y_DOWN, Y_UP, encode, ply
from consistent4d_ns.export.splats.options import SplatFormat
from tests.export.splats.objects import some_gaussians

TOLERANCE = {"ply": 1e-5, "spz": 0.05, "compressed.ply": 0.05}


def test_the_layout_is_that_of_the_original(tmp_path: Path):
    plyfile = pytest.importorskip("plyfile", reason="needs plyfile")
    gaussians = some_gaussians()
    (tmp_path / "some.ply").write_bytes(ply(gaussians))
    data = plyfile.PlyData.read(str(tmp_path / "some.ply"))
    assert [element.name for element in data.elements] == ["vertex"]
    vertex = data["vertex"]
    assert tuple(p.name for p in vertex.properties) == PROPERTIES
    assert {vertex[name].dtype for name in PROPERTIES} == {np.dtype("<f4")}
    assert len(vertex) == len(gaussians)
    # What the original's reader does with them.
    np.testing.assert_allclose(1 / (1 + np.exp(-vertex["opacity"])), gaussians.opacities, rtol=1e-5)
    np.testing.assert_allclose(np.exp(vertex["scale_1"]), gaussians.log_scales.exp()[:, 1], rtol=1e-5)
    np.testing.assert_allclose(0.5 + 0.28209479177387814 * vertex["f_dc_2"], gaussians.colours[:, 2], rtol=1e-5)


@pytest.mark.parametrize("format", ["ply", "spz", "compressed.ply"])
def test_files_hold_the_same_gaussians_in_their_own_axes(format: SplatFormat):
    if format != "ply":
        pytest.importorskip("gaussforge", reason="needs gaussforge")
    gaussians = some_gaussians()
    found = read_back(encode(gaussians, format), format)
    axes = torch.tensor(AXES[format], dtype=torch.float32)
    # Compression may change the order.
    expected = gaussians.means @ axes.T
    nearest = torch.cdist(expected, found.means).argmin(dim=1)
    assert len(set(nearest.tolist())) == len(gaussians)
    tolerance = TOLERANCE[format]
    torch.testing.assert_close(found.means[nearest], expected, atol=min(tolerance, 2e-3), rtol=0)
    torch.testing.assert_close(found.colours[nearest], gaussians.colours, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.opacities[nearest], gaussians.opacities, atol=tolerance, rtol=0)
    spread = rotation_matrices(found.quaternions[nearest]) * found.scales[nearest, None, :]
    covariances = axes @ gaussians.covariances() @ axes.T
    error = (spread @ spread.mT - covariances).flatten(1).norm(dim=1) / covariances.flatten(1).norm(dim=1)
    assert error.max() < max(3 * tolerance, 1e-4)


@pytest.mark.parametrize(("axes", "up", "front"), [(Y_DOWN, (0, -1, 0), (0, 0, -1)), (Y_UP, (0, 1, 0), (0, 0, 1))])
def test_up_front_and_right_are_where_the_formats_have_them(axes, up, front):
    # In the world: up, towards the input camera, and to its right.
    means = torch.tensor([[0.0, 0.0, 0.5], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    found = read_back(ply(replace(some_gaussians(3), means=means), axes), "ply").means
    torch.testing.assert_close(2.0 * found, torch.tensor([up, front, (1, 0, 0)], dtype=torch.float32))


def test_quaternions_do_not_change_sides_from_frame_to_frame():
    before = some_gaussians()
    after = replace(before, quaternions=before.quaternions + 1e-3)
    first, second = (read_back(ply(gaussians), "ply").quaternions for gaussians in (before, after))
    assert ((first * second).sum(dim=1) > 0.99).all()
