"""Geometry beside the rendering."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from consistent4d_ns.data.cameras import OrbitViews, orbit_views, view_from
from consistent4d_ns.data.rays import pixel_rays
from consistent4d_ns.viewer.camera import fitting_fov
from consistent4d_ns.viewer.objects import InputFrame, straight_alpha, surface


def enclosed(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    """Volume inside a closed mesh, negative if it is inside out."""
    a, b, c = vertices[faces].unbind(dim=1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6.0)


@pytest.mark.parametrize("cells", [[(0, 0, 0)], [(1, 2, 3), (1, 2, 2)], [(0, 1, 2), (2, 1, 0), (3, 3, 3), (3, 3, 2)]])
def test_the_surface_encloses_the_occupied_cells(cells: list[tuple[int, int, int]]):
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[tuple(torch.tensor(cells).T)] = True
    vertices, faces = surface(occupied)
    assert enclosed(vertices, faces) == pytest.approx(len(cells) * 0.5**3)
    low, high = torch.tensor(cells).amin(0), torch.tensor(cells).amax(0) + 1
    assert torch.equal(vertices.amin(0), low * 0.5 - 1.0)
    assert torch.equal(vertices.amax(0), high * 0.5 - 1.0)


def test_hidden_sides_are_left_out():
    _, faces = surface(torch.ones(5, 5, 5, dtype=torch.bool))
    assert len(faces) == 6 * 25 * 2
    assert len(surface(torch.zeros(5, 5, 5, dtype=torch.bool))[1]) == 0


def test_the_input_frame_fills_the_input_view():
    """The image plane's corners lie on the rays through the corners of the picture."""
    view = orbit_views(20.0, 35.0, 2.5, 40.0)
    frame = InputFrame(torch.zeros(1, 4, 8, 8, dtype=torch.float16), view)
    poses = view.poses()
    focal = torch.tensor([0.5 / math.tan(math.radians(20.0))])
    offset = torch.stack(frame._corners) - poses[0, :, 3]
    local = offset @ poses[0, :, :3]
    assert torch.allclose((local[:, :2] / -local[:, 2:]).abs(), 0.5 / focal.expand(4, 2), atol=1e-5)
    _, middle = pixel_rays(poses, focal, 1, 1)
    assert torch.allclose(torch.nn.functional.normalize(frame._middle - poses[0, :, 3], dim=0), middle[0, 0, 0])


def test_straight_alpha():
    frame = torch.zeros(4, 1, 2, dtype=torch.float16)
    frame[:, 0, 0] = torch.tensor([0.25, 0.5, 0.0, 0.5])
    assert np.array_equal(straight_alpha(frame, 0.5), [[[128, 255, 0, 64], [0, 0, 0, 0]]])


def test_the_image_fits_a_window_of_any_shape():
    assert fitting_fov(0.8, 1.6) == 0.8
    upright = fitting_fov(0.8, 0.5)
    assert math.tan(upright / 2.0) * 0.5 == pytest.approx(math.tan(0.4))


def test_a_view_from_its_place():
    views = OrbitViews(*(torch.tensor([value]) for value in (-35.0, 140.0, 1.7, 49.1)))
    found = view_from(views.poses()[0, :, 3], 49.1)
    for name, value in vars(views).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-4), name
