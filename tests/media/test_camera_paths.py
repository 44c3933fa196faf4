"""Camera paths: what each kind shows, what Nerfstudio and its viewer make of the files, what is refused.

After a deliberate change: `python -m tests.media.test_camera_paths` writes the ready-made files anew.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import viser
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.viewer.control_panel import ControlPanel
from nerfstudio.viewer.render_panel import populate_render_tab

from consistent4d_ns.cli.camera_path import camera_path_command
from consistent4d_ns.data.rays import focal_length
from consistent4d_ns.errors import InputError
from consistent4d_ns.media.camera_paths import KINDS, InputVideo, Kind, PathOptions, camera_path, path_json, read_path

CASES = Path(__file__).parent / "cases"
READY_MADE = Path(__file__).parents[2] / "configs" / "camera_paths"
VIDEO = InputVideo(
    frames=8, fps=4.0, camera={"elevation": 10.0, "azimuth": 0.0, "distance": 2.5, "fovy": 40.0}, size=64
)


def azimuths_and_times(kind: Kind, **options: Any) -> tuple[list[float], list[float]]:
    path = camera_path(kind, PathOptions(**options), VIDEO)
    return path.views.azimuth.tolist(), path.times.tolist()


def refusal(kind: Any, **options: Any) -> str:
    with pytest.raises(InputError) as raised:
        camera_path(kind, PathOptions(**options), VIDEO)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_orbit_goes_round_at_one_moment():
    assert azimuths_and_times("orbit", frames=4, times=(0.5,)) == ([0, 90, 180, 270], [0.5] * 4)
    assert azimuths_and_times("orbit", frames=2, azimuth=30.0) == ([30, 210], [0, 0])


@pytest.mark.parametrize("kind", ["orbit", "frozen-orbits", "orbit-in-time", "fixed-view"])
def test_azimuths_are_taken_modulo_full_turns(kind: Kind):
    poses = {
        azimuth: camera_path(kind, PathOptions(frames=3, azimuth=azimuth), VIDEO).views.poses()
        for azimuth in (1e10, -1e10, 280.0, -280.0, 1e308)
    }
    assert torch.equal(poses[1e10], poses[280.0])
    assert torch.equal(poses[-1e10], poses[-280.0])
    assert poses[1e308].isfinite().all()


def test_frozen_orbits_go_round_at_each_moment():
    azimuths, times = azimuths_and_times("frozen-orbits", frames=2, times=(0.0, 1.0))
    assert azimuths == [0, 180, 0, 180]
    assert times == [0, 0, 1, 1]
    assert sorted(set(azimuths_and_times("frozen-orbits")[1])) == [0, 0.25, 0.5, 0.75, 1]


def test_a_fixed_view_passes_through_time():
    assert azimuths_and_times("fixed-view", frames=3, azimuth=-20.0) == ([-20] * 3, [0, 0.5, 1])


def test_an_orbit_in_time_does_both():
    assert azimuths_and_times("orbit-in-time", frames=3) == ([0, 120, 240], [0, 0.5, 1])


def test_no_time_passes_around_a_single_frame():
    still = InputVideo(frames=1)
    for kind in ("orbit-in-time", "orbit", "frozen-orbits"):
        path = camera_path(kind, PathOptions(), still)
        assert len(path.times) == len(set(path.views.azimuth.tolist())) == 64
        assert not path.times.any()
    assert len(camera_path("fixed-view", PathOptions(), still).times) == 1
    assert len(camera_path("evaluation-views", PathOptions(), still).times) == 4
    assert not camera_path("orbit-in-time", PathOptions(frames=5), still).times.any()
    with pytest.raises(InputError, match="trained on a single frame, whose time is 0: leave out --times"):
        camera_path("frozen-orbits", PathOptions(times=(0.0, 0.5)), still)


def test_evaluation_views_are_the_paper_s(shared_data: Path):
    """The ground truth beside this checkout was rendered from the same four cameras."""
    meta = json.loads((shared_data / "gt4d" / "Fox" / "meta.json").read_text())["cameras"]
    path = camera_path("evaluation-views", PathOptions(), VIDEO)
    assert len(path.views) == 4 * VIDEO.frames
    for view in range(4):
        known, rows = meta[f"eval_{view}"], slice(view * VIDEO.frames, (view + 1) * VIDEO.frames)
        assert set(path.views.azimuth[rows].tolist()) == {known["azimuth_deg"]}
        assert set(path.views.elevation[rows].tolist()) == {known["elevation_deg"]}
        assert path.times[rows].tolist() == pytest.approx([i / 7 for i in range(8)])


def test_what_is_left_out_comes_from_the_video():
    path = camera_path("fixed-view", PathOptions(), VIDEO)
    assert (len(path.views), path.fps, path.width, path.height) == (8, 4.0, 64, 64)
    assert path.views.elevation[0] == 10
    assert path.views.distance[0] == 2.5
    # Faster playing needs more frames to take as long.
    assert len(camera_path("fixed-view", PathOptions(fps=12.0), VIDEO).views) == 24
    assert camera_path("orbit", PathOptions(elevation=-5.0, size=(32, 48)), VIDEO).views.elevation[0] == -5


@pytest.mark.parametrize("kind", KINDS)
def test_nerfstudio_reads_the_same_cameras(kind: Kind):
    path = camera_path(kind, PathOptions(frames=5, size=(60, 40), elevation=20.0), VIDEO)
    content = json.loads(json.dumps(path_json(path)))
    cameras = get_path_from_json(content)
    assert cameras.times is not None
    torch.testing.assert_close(cameras.times[:, 0], path.times, atol=1e-6, rtol=0)
    torch.testing.assert_close(cameras.camera_to_worlds, path.views.poses(), atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras.fy[:, 0].float(), focal_length(path.views.fovy, 40), atol=1e-3, rtol=0)
    assert (int(cameras.width[0]), int(cameras.height[0])) == (60, 40)
    assert all("render_time" in frame for frame in content["camera_path"])
    assert content["seconds"] == len(cameras) / 4.0


class Gui:
    """Viser's elements, with buttons that a test can press; modals open in nobody's browser."""

    def __init__(self, server: viser.ViserServer) -> None:
        self.gui = server.gui
        self.buttons: dict[str, viser.GuiButtonHandle] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gui, name)

    def add_button(self, label: str, *options: Any, **named: Any) -> viser.GuiButtonHandle:
        self.buttons[label] = self.gui.add_button(label, *options, **named)
        return self.buttons[label]

    def press(self, label: str) -> None:
        event = SimpleNamespace(client=SimpleNamespace(gui=self))
        for callback in self.buttons[label]._impl.update_cb:
            callback(cast(Any, event))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_the_viewer_s_render_tab_loads_a_path(tmp_path: Path):
    """Loaded and written again by the viewer, a path has the same course, moments and duration."""
    path = camera_path("orbit-in-time", PathOptions(frames=16, fps=8.0), VIDEO)
    (tmp_path / "camera_paths").mkdir()
    (tmp_path / "camera_paths" / "a.json").write_text(json.dumps(path_json(path)))
    server = viser.ViserServer("127.0.0.1", free_port(), verbose=False)
    try:
        gui = Gui(server)
        control = cast(ControlPanel, SimpleNamespace(_time_enabled=True, crop_viewport=False))
        populate_render_tab(
            cast(Any, SimpleNamespace(gui=gui, scene=server.scene, get_clients=dict)), tmp_path, tmp_path, control
        )
        gui.press("Load Path")
        gui.press("Load")
        gui.press("Generate Command")
    finally:
        server.stop()
    # It is named after the path that was loaded.
    written = read_path(tmp_path / "camera_paths" / "a.json")
    poses = torch.tensor([frame["camera_to_world"] for frame in written["camera_path"]]).view(-1, 4, 4)
    times = [frame["render_time"] for frame in written["camera_path"]]
    assert len(written["keyframes"]) == 16
    assert len(written["camera_path"]) > 16
    assert written["seconds"] == pytest.approx(15 / 8)
    assert times == sorted(times)
    assert times[0] == 0
    assert 0.9 < times[-1] <= 1
    assert {round(frame["fov"], 2) for frame in written["camera_path"]} == {40.0}
    torch.testing.assert_close(poses[0, :3], path.views.poses()[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(poses[:, :3, 3].norm(dim=1), torch.full((len(poses),), 2.5), atol=0.02, rtol=0)


def ready_made() -> dict[str, str]:
    """The files of `configs/camera_paths` by name."""
    return {kind: json.dumps(path_json(camera_path(kind, PathOptions(), InputVideo()))) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_ready_made_paths_are_what_the_code_makes(kind: Kind):
    kept = json.loads((READY_MADE / f"{kind}.json").read_text())
    made = json.loads(ready_made()[kind])
    for frames in ("camera_path", "keyframes"):
        for ours, theirs in zip(made.pop(frames), kept.pop(frames), strict=True):
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                assert theirs[name] == pytest.approx(value, abs=2e-6)
    assert made == kept


def test_the_command_writes_a_file_and_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "new" / "path.json"
    camera_path_command("orbit", out, options=PathOptions(frames=3, size=32))
    assert len(read_path(out)["camera_path"]) == 3
    assert "ns-render camera-path" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists: give another name, or --overwrite"):
        camera_path_command("orbit", out, options=PathOptions(frames=4))
    assert len(read_path(out)["camera_path"]) == 3
    camera_path_command("orbit", out, options=PathOptions(frames=4), overwrite=True)
    assert len(read_path(out)["camera_path"]) == 4


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("orbit", {"times": (1.5,)}, "time 1.5 of --times is outside 0..1"),
        ("frozen-orbits", {"times": (0.5, -0.1)}, "time -0.1 of --times is outside 0..1"),
        ("frozen-orbits", {"times": (float("nan"),)}, "is outside 0..1"),
        ("orbit", {"times": (0.0, 1.0)}, "orbit has one time, but --times names 2: use frozen-orbits"),
        ("fixed-view", {"times": (0.5,)}, "--times applies to orbit and frozen-orbits"),
        ("evaluation-views", {"azimuth": 5.0}, "--azimuth does not apply to evaluation-views"),
        ("orbit", {"azimuth": float("inf")}, "--azimuth is inf"),
        ("orbit", {"frames": 0}, "--frames is 0: use a number from 1"),
        ("orbit", {"fps": 0.0}, "--fps is 0"),
        ("orbit", {"fps": float("nan")}, "--fps is nan"),
        ("orbit", {"size": 0}, "--size is 0 x 0: use sides from 16"),
        ("orbit", {"size": (64, 100_000)}, "--size is 64 x 100000"),
        ("orbit", {"elevation": 91.0}, "elevation of the camera path is 91.0: use a value from -90 to 90"),
        ("orbit", {"distance": 0.5}, "distance of the camera path is 0.5"),
        ("orbit", {"fovy": 180.0}, "fovy of the camera path is 180.0"),
        ("spiral", {}, "there is no camera path spiral: choose from orbit, "),
    ],
)
def test_options_out_of_range(kind: str, options: dict[str, Any], words: str):
    assert words in refusal(kind, **options)


def change_first(**changes: Any) -> Any:
    """A change of a path's first frame; None takes a value away."""

    def change(content: dict[str, Any]) -> None:
        frame = content["camera_path"][0]
        frame.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del frame[name]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_first(render_time=1.5), "time 1.5 of .*path.json is outside 0..1"),
        (change_first(render_time=None), "has a render_time in 2 of 3 frames: give it in all, or none"),
        (change_first(fov=None), "is no camera path .KeyError: 'fov'.: give a camera path as the viewer"),
        (change_first(camera_to_world=[1.0]), "is no camera path"),
        (change_first(camera_to_world=[float("nan")] * 16), "is no camera path .no frames, or numbers out of range"),
        (lambda content: content.update(camera_path=[]), "is no camera path .no frames"),
        (lambda content: content.update(crop={"crop_center": 1}), "is no camera path .KeyError: .crop_scale"),
        (lambda content: content.update(crop=[1]), "is no camera path .AttributeError"),
        (lambda content: content.update(seconds=0), "is no camera path"),
        (lambda content: content.update(seconds=float("inf")), "is no camera path"),
        (change_first(fov=180), "is no camera path .no frames, or numbers out of range"),
        (change_first(camera_to_world=["a"] * 16), "is no camera path"),
        (lambda content: content.update(render_width=4), "--size is 4 x 64"),
        (lambda content: content.update(camera_type="vr180"), "has the camera_type vr180: use perspective"),
    ],
)
def test_files_that_are_no_path(tmp_path: Path, change: Any, words: str):
    content = path_json(camera_path("orbit-in-time", PathOptions(frames=3), VIDEO))
    change(content)
    (tmp_path / "path.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words) as raised:
        read_path(tmp_path / "path.json")
    assert "\n" not in str(raised.value)


def test_whole_numbers_become_floats(tmp_path: Path):
    """A path written by hand or by a program that leaves out `.0`; Nerfstudio would make integer tensors of it."""
    (tmp_path / "path.json").write_text((CASES / "camera_path_integers.json").read_text())
    cameras = get_path_from_json(read_path(tmp_path / "path.json"))
    assert cameras.times is not None
    assert (cameras.camera_to_worlds.dtype, cameras.times.dtype) == (torch.float32, torch.float32)
    assert cameras.times.flatten().tolist() == [0, 1]
    rays = cameras.generate_rays(camera_indices=0)
    assert rays.origins.dtype == torch.float32


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"camera_path": 3}'])
def test_files_that_are_something_else(tmp_path: Path, text: str):
    (tmp_path / "path.json").write_text(text)
    with pytest.raises(InputError, match="is no camera path"):
        read_path(tmp_path / "path.json")
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read_path(tmp_path / "missing.json")


def test_the_viewer_s_splines_may_overshoot(tmp_path: Path):
    content = path_json(camera_path("orbit-in-time", PathOptions(frames=3), VIDEO))
    content["camera_path"][2]["render_time"] = 1.04
    (tmp_path / "path.json").write_text(json.dumps(content))
    assert read_path(tmp_path / "path.json")["camera_path"][2]["render_time"] == 1.04


if __name__ == "__main__":
    READY_MADE.mkdir(parents=True, exist_ok=True)
    for name, text in ready_made().items():
        (READY_MADE / f"{name}.json").write_text(text + "\n")
