"""Cameras against the recorded ones, and where those fail: three views at once, straight above."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from consistent4d_ns.data.cameras import (
    OrbitViews,
    full_circle,
    orbit_poses,
    orbit_positions,
    orbit_views,
    relative_pose,
)
from consistent4d_ns.data.rays import box_exit, focal_length, pixel_rays, scattered_rays, view_rays
from tests.support.agreement import assert_agrees

TOLERANCE = 1.1e-6
"""The float32 rounding of the recorded positions alone reaches 1.01e-6."""


@pytest.fixture(scope="module")
def cameras(golden) -> dict[str, Tensor]:
    """In float64, so that only the recorded numbers are rounded."""
    recorded = golden("cameras.npz")
    return {name: value.double() if value.is_floating_point() else value for name, value in recorded.items()}


def rays(poses: Tensor, fovy: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return pixel_rays(poses, focal_length(fovy, size).expand(len(poses)), size, size)


@pytest.mark.parametrize("case", range(7))
def test_evaluation_cameras(cameras: dict[str, Tensor], golden_json, case: int) -> None:
    recorded = {key.split(".")[1]: value for key, value in cameras.items() if key.startswith(f"eval{case}.")}
    elevation, azimuth, distance = (recorded[key] for key in ("elevation_deg", "azimuth_deg", "distance"))
    stride = 16 if "16th" in golden_json("cameras.json")["cases"][case]["rays_d_views"] else 1

    poses = orbit_poses(elevation, azimuth, distance)
    origins, directions = rays(poses, recorded["fovy_deg"], int(recorded["hw"]))

    assert_agrees("position", orbit_positions(elevation, azimuth, distance), recorded["position"], TOLERANCE)
    assert_agrees("camera-to-world", poses, recorded["c2w"][:, :3], TOLERANCE)
    assert_agrees("ray origins", origins[:, 0, 0], recorded["rays_o"], TOLERANCE)
    assert_agrees("ray directions", directions[::stride], recorded["rays_d"], TOLERANCE)


@pytest.mark.parametrize("size", [64, 256])
def test_rays_of_full_images(cameras: dict[str, Tensor], size: int) -> None:
    poses, (rows, columns) = cameras[f"full{size}.c2w"][:, :3], cameras[f"full{size}.pixels_row_col"].T
    _, directions = rays(poses, torch.tensor(49.1), size)
    assert_agrees("ray directions", directions[:, rows, columns], cameras[f"full{size}.rays_d"], TOLERANCE)


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_training_cameras(cameras: dict[str, Tensor], mode: int) -> None:
    recorded = {key.split(".")[1]: value for key, value in cameras.items() if key.startswith(f"train_mode{mode}.")}
    rows, columns = cameras["train.pixels_row_col"].T

    poses = orbit_poses(recorded["elevation"], recorded["azimuth"], recorded["camera_distances"])
    origins, directions = rays(poses.flatten(0, 1), torch.tensor(49.1), 64)

    assert_agrees("camera-to-world", poses, recorded["c2w"][..., :3, :], TOLERANCE)
    assert_agrees("ray origins", origins[:, 0, 0].view(-1, 4, 3), recorded["rays_o"], TOLERANCE)
    directions = directions[:, rows, columns].view(recorded["rays_d"].shape)
    assert_agrees("ray directions", directions, recorded["rays_d"], TOLERANCE)


def test_cameras_of_different_field_of_view(cameras: dict[str, Tensor]) -> None:
    recorded = {key.split(".")[1]: value for key, value in cameras.items() if key.startswith("train_vary.")}
    views = OrbitViews(*(recorded[key] for key in ("elevation", "azimuth", "camera_distances", "fovy_deg")))

    origins, directions = rays(views.poses(), views.fovy, 6)

    assert_agrees("camera-to-world", views.poses(), recorded["c2w"][:, :3], TOLERANCE)
    assert_agrees("ray origins", origins, recorded["rays_o"], TOLERANCE)
    assert_agrees("ray directions", directions, recorded["rays_d"], TOLERANCE)


@pytest.mark.parametrize("case", range(5))
def test_input_camera(cameras: dict[str, Tensor], case: int) -> None:
    """Upstream adds one constant offset to origins and un-normalised directions (quirk 13); it is added here too."""
    recorded = {key.split(".")[1]: value for key, value in cameras.items() if key.startswith(f"ref{case}.")}
    elevation, azimuth, distance, fovy, size, noise = recorded["params_el_az_dist_fovy_hw_noise"].tolist()
    views, size, stride = orbit_views(elevation, azimuth, distance, fovy), int(size), int(recorded["pixel_stride"])

    origins, directions = rays(views.poses(), views.fovy, size)
    still = torch.zeros(3)
    origins = origins + noise * recorded.get("noise_o_unit", still)
    # Undo the normalisation: before it, the part along the viewing axis is 1.
    axial = -(directions * views.poses()[:, None, None, :, 2]).sum(dim=-1, keepdim=True)
    directions = directions / axial + noise * recorded.get("noise_d_unit", still)
    directions = directions / directions.norm(dim=-1, keepdim=True)

    assert_agrees("camera-to-world", views.poses(), recorded["c2w_3x4"], TOLERANCE)
    assert_agrees("ray origins", origins[:, ::stride, ::stride], recorded["rays_o"], TOLERANCE)
    assert_agrees("ray directions", directions[:, ::stride, ::stride], recorded["rays_d"], TOLERANCE)


def test_full_circle_is_the_recorded_validation_circle(cameras: dict[str, Tensor]) -> None:
    assert_agrees("azimuth", torch.tensor(full_circle(32)), cameras["eval0.azimuth_deg"], 1e-4)


def test_three_views_are_those_of_one_at_a_time() -> None:
    """Upstream turns the cameras of exactly three views wrongly (quirk 15)."""
    elevation, azimuth, distance = torch.tensor([[-10.0, 20.0, 55.0], [10.0, 130.0, -70.0], [2.0, 1.5, 3.0]])
    together = orbit_poses(elevation, azimuth, distance)
    apart = torch.cat([orbit_poses(elevation[i : i + 1], azimuth[i : i + 1], distance[i : i + 1]) for i in range(3)])
    assert torch.equal(together, apart)


@pytest.mark.parametrize("elevation", [-90.0, -89.99, -30.0, 0.0, 60.0, 89.99, 90.0])
@pytest.mark.parametrize("azimuth", [-180.0, 0.0, 37.0, 225.0])
def test_cameras_are_rotations_that_look_at_the_origin(elevation: float, azimuth: float) -> None:
    """Also straight above and below the object, where the up direction and the viewing axis coincide."""
    views = orbit_views(elevation, azimuth, 2.0, 49.1)
    rotation, position = views.poses()[0].double().split([3, 1], dim=1)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3).double(), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation) > 0
    torch.testing.assert_close(position - 2.0 * rotation[:, 2:], torch.zeros(3, 1).double(), atol=1e-6, rtol=0)
    assert rotation[2, 0] == 0, "the horizon is level"
    assert rotation[2, 1] >= -1e-6, "up is up"


def test_poles_continue_the_meridian() -> None:
    at, near = (orbit_views(elevation, 37.0, 2.0, 49.1).poses() for elevation in (90.0, 89.999))
    torch.testing.assert_close(at, near, atol=1e-4, rtol=0)


def test_centre_ray_and_corner_ray() -> None:
    """An odd image's middle pixel looks along the axis; its edge is half the field of view away."""
    poses = orbit_views(0.0, 0.0, 2.0, 90.0).poses().double()
    origins, directions = rays(poses, torch.tensor(90.0).double(), 3)
    assert directions.dtype == origins.dtype == torch.float64
    torch.testing.assert_close(directions[0, 1, 1], torch.tensor([-1.0, 0.0, 0.0]).double(), atol=1e-7, rtol=0)
    # The top row's centre is 2/3 of the half height up: tan(45 degrees) * 2/3.
    top = torch.tensor([-1.0, 0.0, 2 / 3]).double()
    torch.testing.assert_close(directions[0, 0, 1], top / top.norm(), atol=1e-7, rtol=0)


def test_images_need_not_be_square() -> None:
    _, directions = pixel_rays(orbit_views(0.0, 0.0, 2.0, 90.0).poses(), torch.tensor([2.0]), 4, 2)
    _, square = pixel_rays(orbit_views(0.0, 0.0, 2.0, 90.0).poses(), torch.tensor([2.0]), 4, 4)
    torch.testing.assert_close(directions, square[:, :, 1:3])


def test_relative_pose() -> None:
    views = OrbitViews(*torch.tensor([[30.0, -10.0], [100.0, -80.0], [2.0, 2.5], [49.1, 49.1]]))
    pose = relative_pose(views, orbit_views(10.0, 10.0, 2.0, 49.1))
    expected = torch.tensor([[-math.pi / 9, 1.0, 0.0, 0.0], [math.pi / 9, -1.0, 0.0, 0.5]])
    assert_agrees("camera vector", pose, expected, TOLERANCE)


def test_relative_pose_ignores_full_turns_and_vanishes_for_the_same_view() -> None:
    view = orbit_views(20.0, 225.0, 2.0, 49.1)
    assert_agrees("camera vector", relative_pose(view, view), torch.tensor([[0.0, 0.0, 1.0, 0.0]]), TOLERANCE)
    turned = orbit_views(20.0, 225.0 - 360.0, 2.0, 49.1)
    assert_agrees("camera vector", relative_pose(turned, view), relative_pose(view, view), TOLERANCE)


def test_views_repeat_and_keep_their_values_when_moved() -> None:
    views = orbit_views(5.0, 10.0, 2.0, 49.1, count=3).to("cpu")
    assert len(views) == 3
    assert views.poses().shape == (3, 3, 4)
    assert views.fovy.tolist() == pytest.approx([49.1] * 3)


def test_rays_have_left_the_box_by_the_box_exit() -> None:
    origins, directions = rays(orbit_views(35.0, 45.0, 2.0, 100.0).poses(), torch.tensor(100.0), 32)
    assert ((origins + box_exit(torch.tensor(2.0)) * directions).abs().amax(dim=-1) >= 1.0 - 1e-6).all()


def test_scattered_rays_are_some_of_those_of_whole_views():
    views = OrbitViews(*(torch.tensor(values) for values in ([10.0, -40.0], [30.0, 200.0], [2.0, 3.0], [49.1, 70.0])))
    times = torch.tensor([0.25, 0.75])
    whole = view_rays(views, times, 5)
    pixels = torch.tensor([0, 49, 24, 25, 7, 7, 31])
    some, expected = scattered_rays(views, times, 5, pixels), whole[pixels]
    for name in ("origins", "directions", "pixel_area", "camera_indices", "times"):
        torch.testing.assert_close(getattr(some, name), getattr(expected, name), msg=name)


def test_views_can_be_chosen():
    views = OrbitViews(*torch.arange(12.0).view(4, 3))
    some = views[torch.tensor([2, 0, 2])]
    assert len(some) == 3
    assert torch.equal(some.elevation, torch.tensor([2.0, 0.0, 2.0]))
    assert torch.equal(some.fovy, torch.tensor([11.0, 9.0, 11.0]))
    assert torch.equal(views[1:].stacked(), views.stacked()[:, 1:])
