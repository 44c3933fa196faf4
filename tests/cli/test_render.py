"""`consistent4d render` on a small run: what its pictures show, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from jaxtyping import UInt8
from nerfstudio.engine.trainer import TrainerConfig
from PIL import Image

from consistent4d_ns.cli.render import render
from consistent4d_ns.data.cameras import orbit_views
from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.errors import InputError
from consistent4d_ns.media import pictures
from consistent4d_ns.media.camera_paths import InputVideo, PathOptions, camera_path, path_json
from consistent4d_ns.media.pictures import render_image
from consistent4d_ns.runs import load_run
from tests.support.tiny import FRAMES, SIZE, tiny_run

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"frames": 3, "size": 24}
Picture = UInt8[np.ndarray, "height width 4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of a few steps."""
    return tiny_run(tmp_path_factory.mktemp("runs"), 60)


def frames_of(run: Path, out: Path, options: dict[str, Any] = SMALL, **named: Any) -> list[Picture]:
    """What the command renders, as PNG frames."""
    render(run, out, options=PathOptions(**options), **named)
    return [np.asarray(Image.open(file)) for file in sorted(out.glob("*.png"))]


def refusal(run: Path, out: Path, options: dict[str, Any] = SMALL, **named: Any) -> str:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(InputError) as raised:
        render(run, out, options=PathOptions(**options), **named)
    assert "\n" not in str(raised.value)
    assert sorted(out.parent.rglob("*")) == before
    return str(raised.value)


def test_frames_side_by_side_pass_through_time(run: Path, tmp_path: Path):
    """Each panel against what the model and the frames say of that view and moment."""
    outputs = ("input", "rgb", "rgb@90", "accumulation", "rgb_0", "depth", "normals")
    pictures = frames_of(run, tmp_path / "out", path="fixed-view", outputs=outputs)
    assert [picture.shape for picture in pictures] == [(24, 24 * len(outputs), 4)] * 3
    pipeline = load_run(run).pipeline
    for picture, time in zip(pictures, (0.0, 0.5, 1.0), strict=True):
        filmed, rgb, beside, grey, coarse, depth, normals = np.split(picture / 255.0, len(outputs), axis=1)
        frame = pipeline.datamanager.frames[round(time * (FRAMES - 1))].float()
        expected = torch.nn.functional.interpolate(frame[None], (24, 24), mode="area")[0].movedim(0, -1).numpy()
        assert np.abs(filmed[..., :3] * filmed[..., 3:] - expected[..., :3]).max() < 0.01
        assert np.abs(filmed[..., 3] - expected[..., 3]).max() < 0.01
        for azimuth, shown in ((0.0, rgb), (90.0, beside)):
            truth = render_image(pipeline.model, orbit_views(0.0, azimuth, 2.0, 49.1), time, 24)
            white = shown[..., :3] * shown[..., 3:] + 1.0 - shown[..., 3:]
            assert np.abs(white - truth["rgb"].numpy()).max() < 0.01
            assert np.abs(shown[..., 3:] - truth["accumulation"].numpy()).max() < 0.01
        truth = render_image(pipeline.model, orbit_views(0.0, 0.0, 2.0, 49.1), time, 24)
        assert np.abs(grey[..., :3] - truth["accumulation"].numpy()).max() < 0.01
        assert (grey[..., 3] == 1).all()
        assert np.abs(coarse[..., 3:] - truth["accumulation_0"].numpy()).max() < 0.01
        assert np.abs(normals[..., :3] * normals[..., 3:] - truth["normals"].numpy()).max() < 0.01
        assert (depth[..., 3] == rgb[..., 3]).all()
    assert np.abs(pictures[0].astype(int) - pictures[2]).max() > 20


def test_a_video_takes_as_long_as_the_source(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    render(run / "config.yml", tmp_path / "a.mp4", options=PathOptions())
    with av.open(str(tmp_path / "a.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.average_rate, stream.frames) == (16, FRAMES)
        assert (stream.width, stream.height) == (3 * SIZE, SIZE)
    printed = capsys.readouterr()
    assert f"{FRAMES} frames" in printed.out
    assert "Rendering: 9/9" in printed.err
    render(run, tmp_path / "b.mp4", options=PathOptions(fps=32.0, size=16), outputs=("rgb",))
    with av.open(str(tmp_path / "b.mp4")) as video:
        assert (video.streams.video[0].average_rate, video.streams.video[0].frames) == (32, 2 * FRAMES)


def test_webm_has_the_alpha_of_the_object(run: Path, tmp_path: Path):
    pictures = frames_of(run, tmp_path / "png", outputs=("rgb",))
    render(run, tmp_path / "a.webm", options=PathOptions(**SMALL), outputs=("rgb",))
    decoded = decode_frames(list_frames(tmp_path / "a.webm"), 24).float().numpy()
    for rgba, picture in zip(decoded, pictures, strict=True):
        assert np.abs(rgba[3] - picture[..., 3] / 255).mean() < 0.02
    assert decoded[:, 3].min() == 0


def test_a_format_other_than_the_name_s(run: Path, tmp_path: Path):
    render(run, tmp_path / "a.b", options=PathOptions(**SMALL), format="gif", outputs=("rgb", "depth"))
    with Image.open(tmp_path / "a.b") as image:
        assert (image.format, image.size) == ("GIF", (48, 24))


def write_path(file: Path, **changes: Any) -> Path:
    path = path_json(camera_path("orbit-in-time", PathOptions(frames=4, size=24), InputVideo()))
    file.write_text(json.dumps(path | changes))
    return file


def test_a_path_of_one_s_own(run: Path, tmp_path: Path):
    own = write_path(tmp_path / "own.json", fps=2.0, seconds=2.0)
    ready = frames_of(run, tmp_path / "ready", {"frames": 4, "size": 24}, outputs=("rgb",))
    assert all(map(np.array_equal, frames_of(run, tmp_path / "own", {"fps": 3.0}, path=own, outputs=("rgb",)), ready))
    render(run, tmp_path / "a.mp4", options=PathOptions(size=(32, 16)), path=own, outputs=("rgb",))
    with av.open(str(tmp_path / "a.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.average_rate, stream.width, stream.height) == (2, 32, 16)


def test_a_path_without_times_sweeps_them(run: Path, tmp_path: Path):
    cameras = json.loads(write_path(tmp_path / "own.json").read_text())["camera_path"]
    for camera in cameras:
        del camera["render_time"]
    own = write_path(tmp_path / "own.json", camera_path=cameras)
    ready = frames_of(run, tmp_path / "ready", {"frames": 4, "size": 24})
    # Files hold times of six decimals, so depths and with them the range of the colour map differ a little.
    for shown, expected in zip(frames_of(run, tmp_path / "own", {"fps": 3.0}, path=own), ready, strict=True):
        np.testing.assert_allclose(shown.astype(int), expected, atol=1)


def test_a_path_s_crop_box_cuts(run: Path, tmp_path: Path):
    background = {"r": 255, "g": 255, "b": 255}
    crop = {"crop_center": [0, 0, 0.5], "crop_scale": [2, 2, 1], "crop_rot": [0, 0, 0], "crop_bg_color": background}
    path = write_path(tmp_path / "own.json", crop=crop)
    for picture in frames_of(run, tmp_path / "out", {"fps": 3.0}, path=path, outputs=("rgb",)):
        assert picture[:10, :, 3].max() > 100
        assert picture[-10:, :, 3].max() == 0


def test_the_command_needs_no_program_on_the_path(run: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    command = [str(Path(sys.executable).with_name("consistent4d")), "render", str(run), "a.mp4", "--frames", "2"]
    env = os.environ | {"PATH": str(tmp_path / "empty"), "CUDA_VISIBLE_DEVICES": ""}
    options = ["--size", "24", "--outputs", "rgb", "--path", "orbit", "--times", "0.5"]
    done = subprocess.run([*command, *options], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.mp4").stat().st_size > 0
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("name", "options", "named", "words"),
    [
        ("a.avi", {}, {}, "a.avi ends in .avi: use .mp4, .webm or .gif"),
        ("a.mp4", {}, {"outputs": ("rgb", "colour")}, "there is no output colour: choose from input, rgb, depth"),
        ("a.mp4", {}, {"outputs": ("rgb_2",)}, "there is no output rgb_2: this run's cascade levels are 0 to 1"),
        ("a.mp4", {}, {"outputs": ("rgb@left",)}, "output rgb@left: write degrees after the @"),
        ("a.mp4", {}, {"outputs": ("rgb@nan",)}, "output rgb@nan: write degrees after the @"),
        ("a.mp4", {}, {"outputs": ("input@90",)}, "output input@90: the input was filmed from one side only"),
        ("a.mp4", {}, {"outputs": ()}, "--outputs names nothing"),
        ("a.mp4", {"size": 25}, {"outputs": ("rgb",)}, "mp4 needs even sides, not 25 x 25: give --size"),
        ("a.gif", {"fps": 60.0}, {}, "a GIF plays from 0.01 to 50 frames a second"),
        ("a.mp4", {"times": (2.0,)}, {"path": "orbit"}, "time 2 of --times is outside 0..1"),
        ("a.mp4", {"fps": -1.0}, {}, "--fps is -1"),
        ("a.mp4", {}, {"path": Path("round")}, "there is no camera path round: choose from orbit, "),
        ("a.mp4", {}, {"path": Path("missing.json")}, "cannot read missing.json: No such file"),
        ("a.mp4", {"frames": 3}, {"path": Path("own.json")}, "--frames would change the trajectory of own.json"),
        ("a.mp4", {}, {"step": 7}, "holds no checkpoint of step 7: choose from 59"),
        ("a.mp4", {}, {"data": Path("nowhere")}, "nowhere does not exist"),
    ],
)
def test_what_cannot_be_rendered(
    run: Path, tmp_path: Path, name: str, options: dict[str, Any], named: dict[str, Any], words: str
):
    size = {} if isinstance(named.get("path"), Path) else {"size": 24}
    assert words in refusal(run, tmp_path / name, size | options, **named)


@pytest.mark.parametrize(
    ("name", "options", "named", "words"),
    [
        ("a.mp4", {"size": 25}, {"outputs": ("rgb",)}, "mp4 needs even sides, not 25 x 25"),
        ("a.webm", {"size": (25, 24)}, {}, "webm needs even sides, not 75 x 24"),
        ("a.gif", {"fps": 60.0}, {}, "a GIF plays from 0.01 to 50 frames a second"),
        ("a.mp4", {"elevation": 91.0}, {}, "elevation of the camera path is 91"),
        ("a.mp4", {"frames": 0}, {}, "--frames is 0"),
        ("a.mp4", {}, {"outputs": ("colour",)}, "there is no output colour"),
        ("there.mp4", {}, {}, "there.mp4 exists: give another name, or --overwrite"),
        ("there", {}, {}, "there is not empty: give another folder, or --overwrite"),
    ],
)
def test_checked_before_anything_is_loaded(
    tmp_path: Path, name: str, options: dict[str, Any], named: dict[str, Any], words: str
):
    """The file given as the run's would be refused as soon as it is read."""
    (tmp_path / "config.yml").write_text("nothing")
    (tmp_path / "there.mp4").write_text("theirs")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "00000.png").write_text("theirs")
    assert words in refusal(tmp_path, tmp_path / name, options, **named)


def test_frames_of_an_odd_size_become_a_video(run: Path, tmp_path: Path):
    config = tmp_path / "odd" / "config.yml"
    shutil.copytree(run, config.parent)
    config.write_text(config.read_text().replace(f"image_size: {SIZE}", f"image_size: {SIZE - 1}"))
    render(config, tmp_path / "a.mp4", options=PathOptions(frames=1), outputs=("rgb",))
    with av.open(str(tmp_path / "a.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (SIZE, SIZE)


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_an_interruption_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Ctrl-C while the second frame is rendered."""
    original, calls = pictures.unfilled_image, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(pictures, "unfilled_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render(run, tmp_path / name, options=PathOptions(**SMALL), outputs=("rgb",))
    assert list(tmp_path.iterdir()) == []


def test_times_of_a_file_are_checked(run: Path, tmp_path: Path):
    cameras = json.loads(write_path(tmp_path / "own.json").read_text())["camera_path"]
    cameras[1]["render_time"] = -2.0
    own = write_path(tmp_path / "own.json", camera_path=cameras)
    assert "time -2 of " in refusal(run, tmp_path / "a.mp4", {"fps": 3.0}, path=own)


def test_other_runs(run: Path, tmp_path: Path):
    other = tmp_path / "other.yml"
    other.write_text(yaml.dump(TrainerConfig(method_name="nerfacto")))
    assert "is a configuration of nerfacto, not of consistent4d" in refusal(other, tmp_path / "a.mp4")
    shutil.copytree(run / "nerfstudio_models", tmp_path / "nerfstudio_models")
    (checkpoint,) = (tmp_path / "nerfstudio_models").iterdir()
    assert "is a checkpoint: give a run's folder" in refusal(checkpoint, tmp_path / "a.mp4")
    assert "config.yml does not exist" in refusal(tmp_path, tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_places_that_cannot_be_written(run: Path, tmp_path: Path, name: str):
    (tmp_path / "file").write_text("theirs")
    assert "cannot write" in refusal(run, tmp_path / "file" / name)
    if name == "a.mp4":
        (tmp_path / name).write_text("theirs")
        assert "exists: give another name, or --overwrite" in refusal(run, tmp_path / name)
        assert (tmp_path / name).read_text() == "theirs"
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000.png").write_text("theirs")
        assert "is not empty: give another folder, or --overwrite" in refusal(run, tmp_path / name)
        assert "files that are not an earlier output" in refusal(run, tmp_path / name, overwrite=True)


def test_a_run_is_not_replaced_by_its_own_video(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    for file in (tmp_path / "run" / "config.yml", *(tmp_path / "run" / "nerfstudio_models").iterdir()):
        before = file.read_bytes()
        words = refusal(tmp_path / "run", file, overwrite=True, format="gif")
        assert "is where a run has its configuration or a checkpoint" in words
        assert file.read_bytes() == before


def test_an_earlier_output_is_replaced_when_asked(run: Path, tmp_path: Path):
    assert len(frames_of(run, tmp_path / "out", {"frames": 3, "size": 16}, outputs=("rgb",))) == 3
    assert len(frames_of(run, tmp_path / "out", {"frames": 2, "size": 16}, outputs=("rgb",), overwrite=True)) == 2
