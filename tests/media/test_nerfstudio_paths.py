"""Paths that Nerfstudio's render command makes have times, whatever it drops."""

from __future__ import annotations

import nerfstudio.scripts.render as script
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from consistent4d_ns.data.cameras import orbit_poses
from consistent4d_ns.media.nerfstudio_paths import MAKERS, sweep_time_along_untimed_paths, with_times


def cameras(count: int, times: torch.Tensor | None = None) -> Cameras:
    """A path around the object."""
    poses = orbit_poses(torch.zeros(count), torch.linspace(0.0, 90.0, count), torch.full((count,), 2.0))
    return Cameras(poses, 26.0, 26.0, 8.0, 8.0, 16, 16, times=times)


def times(path: Cameras) -> list[float]:
    """Its times as numbers."""
    assert path.times is not None
    return path.times.flatten().tolist()


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's functions, changed for this test alone."""
    for name in MAKERS:
        monkeypatch.setattr(script, name, getattr(script, name))
    sweep_time_along_untimed_paths()


@pytest.mark.usefixtures("patched")
def test_interpolation_between_cameras_sweeps_time():
    path = script.get_interpolated_camera_path(cameras(3, torch.zeros(3, 1)), steps=3, order_poses=False)
    assert times(path) == pytest.approx(torch.linspace(0.0, 1.0, len(path)).tolist())
    assert times(path[len(path) - 1 :]) == [1.0]


@pytest.mark.usefixtures("patched")
def test_files_sweep_time_unless_they_have_times():
    frame = {"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 50.0}
    path = {"render_height": 16, "render_width": 16, "camera_path": [frame] * 3}
    assert times(script.get_path_from_json(path)) == [0.0, 0.5, 1.0]
    path["camera_path"] = [{**frame, "render_time": time} for time in (0.5, 0.25)]
    assert times(script.get_path_from_json(path)) == [0.5, 0.25]


@pytest.mark.usefixtures("patched")
def test_spirals_keep_their_times_and_nothing_is_wrapped_twice():
    made = script.get_spiral_path
    sweep_time_along_untimed_paths()
    assert script.get_spiral_path is made
    assert times(script.get_spiral_path(cameras(1, torch.zeros(1, 1)), steps=3, radius=0.1)) == [0.0, 0.5, 1.0]


def test_one_camera_shows_the_first_frame():
    assert times(with_times(cameras(1))) == [0.0]
