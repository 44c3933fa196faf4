"""Cameras, times, splits and options of the frame sequence, and what is said about bad ones (method.md section 2)."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image

from consistent4d_ns.data.dataparser import FrameSequence, FrameSequenceDataParserConfig, frame_sequence
from consistent4d_ns.errors import InputError
from tests.data.media import write


def write_frames(folder: Path, count: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image = np.zeros((16, 16, 4), np.uint8)
    image[4:12, 4:12] = 255
    for i in range(count):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def write_ground_truth(folder: Path, count: int = 5) -> Path:
    """Three views; the input camera stands at azimuth 30."""
    cameras = {"input": (10, 30, 2.5, 40.0), "eval_0": (0, 120, 2.0, 49.1), "eval_10": (20, -30, 2.2, 45.0)}
    keys = ("elevation_deg", "azimuth_deg", "distance", "fov_y_deg")
    for name in cameras:
        write_frames(folder / name, count)
    meta = {"cameras": {name: dict(zip(keys, values, strict=True)) for name, values in cameras.items()}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def parse(data: Path, split: str = "train", **options: Any) -> DataparserOutputs:
    parser = FrameSequenceDataParserConfig(data=data, **options).setup()
    return parser.get_dataparser_outputs(split)


def message(data: Path, **options: Any) -> str:
    with pytest.raises(InputError) as raised:
        parse(data, **options)
    assert "\n" not in str(raised.value)
    assert ":" in str(raised.value)  # What is wrong, then the remedy.
    return str(raised.value)


def edit_meta(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta["cameras"])
    (folder / "meta.json").write_text(json.dumps(meta))


# Cameras and times


def test_frames_a_second(tmp_path: Path) -> None:
    """Skipped frames leave the duration as it was."""
    data = write_frames(tmp_path)
    assert parse(data).metadata["frame_times"].fps == 16.0
    assert parse(data, fps=30.0, frame_stride=2).metadata["frame_times"].fps == 15.0
    for fps in (0.0, -1.0, math.nan, math.inf):
        assert "fps is" in message(data, fps=fps)


def test_default_camera(tmp_path: Path) -> None:
    """method.md section 2: elevation 0, azimuth 0, distance 2, fovy 49.1 degrees."""
    outputs = parse(write_frames(tmp_path))
    cameras = outputs.cameras
    expected = torch.tensor([[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(cameras.camera_to_worlds, expected.expand(5, 3, 4), atol=1e-6, rtol=0)
    focal = 128 / math.tan(math.radians(49.1) / 2)
    torch.testing.assert_close(cameras.fx, torch.full((5, 1), focal))
    torch.testing.assert_close(cameras.fy, cameras.fx)
    assert (cameras.cx == 128).all()
    assert (cameras.cy == 128).all()
    assert (cameras.width == 256).all()
    assert (cameras.height == 256).all()
    assert cameras.times is not None
    assert cameras.times.tolist() == [[0.0], [0.25], [0.5], [0.75], [1.0]]
    assert outputs.scene_box.aabb.tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert outputs.dataparser_scale == 1
    assert torch.equal(outputs.dataparser_transform, torch.eye(4)[:3])
    assert outputs.alpha_color is None


def test_central_ray_hits_the_origin(tmp_path: Path) -> None:
    outputs = parse(write_frames(tmp_path, 1), elevation=25.0, distance=3.0)
    rays = outputs.cameras.generate_rays(camera_indices=0, coords=torch.tensor([[128.0, 128.0]]))
    torch.testing.assert_close(rays.origins + 3 * rays.directions, torch.zeros(1, 3), atol=1e-6, rtol=0)
    assert rays.times is not None
    assert rays.times.tolist() == [[0.0]]


def test_options_reach_the_camera(tmp_path: Path) -> None:
    outputs = parse(write_frames(tmp_path), elevation=30.0, distance=1.5, fovy=90.0, image_size=64)
    position = torch.tensor([1.5 * math.cos(math.pi / 6), 0.0, 0.75])
    torch.testing.assert_close(outputs.cameras.camera_to_worlds[0, :, 3], position)
    torch.testing.assert_close(outputs.cameras.fx[0], torch.tensor([32.0]))
    assert outputs.cameras.width[0] == 64
    view = outputs.metadata["input_view"]
    assert [float(x) for x in (view.elevation, view.azimuth, view.distance, view.fovy)] == [30.0, 0.0, 1.5, 90.0]


def test_stride_and_count(tmp_path: Path) -> None:
    outputs = parse(write_frames(tmp_path, 10), frame_stride=4, frame_count=2)
    assert [path.name for path in outputs.image_filenames] == ["0.png", "4.png"]
    assert outputs.cameras.times is not None
    assert outputs.cameras.times.tolist() == [[0.0], [1.0]]


def test_without_ground_truth_the_input_view_is_evaluated(tmp_path: Path) -> None:
    parser = FrameSequenceDataParserConfig(data=write_frames(tmp_path)).setup()
    train, *others = (parser.get_dataparser_outputs(split) for split in ("train", "val", "test"))
    for outputs in others:
        assert outputs.image_filenames == train.image_filenames
        assert torch.equal(outputs.cameras.camera_to_worlds, train.cameras.camera_to_worlds)
        assert not outputs.metadata["ground_truth"]


def test_parser_includes_time(tmp_path: Path) -> None:
    """Nerfstudio's data manager copies it from the parser; the viewer's time slider depends on it."""
    frames = write_frames(tmp_path, 3)
    assert FrameSequenceDataParserConfig(data=frames).setup().includes_time
    assert not FrameSequenceDataParserConfig(data=frames, frame_count=1).setup().includes_time


def test_frames_of_an_animated_file_have_unique_names(tmp_path: Path) -> None:
    frames = [Image.open(write_frames(tmp_path / "frames", 3) / f"{i}.png") for i in range(3)]
    for i, frame in enumerate(frames):
        frame.putpixel((4 + i, 4), (255, 0, 0, 255))
    frames[0].save(tmp_path / "clip.webp", save_all=True, append_images=frames[1:], lossless=True)
    outputs = parse(tmp_path / "clip.webp")
    assert [str(path.relative_to(tmp_path)) for path in outputs.image_filenames] == [
        "clip.webp/00000.png",
        "clip.webp/00001.png",
        "clip.webp/00002.png",
    ]


def test_frames_are_not_decoded_by_the_parser(tmp_path: Path) -> None:
    write_frames(tmp_path)
    (tmp_path / "3.png").write_bytes(b"")
    assert len(parse(tmp_path).image_filenames) == 5


def test_other_files_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    parse(tmp_path)
    assert "notes.txt" in capsys.readouterr().out


def test_names_in_brackets_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are markup to rich, and long lines are wrapped."""
    folder = write_frames(tmp_path / "[red]" / ("long" * 40))
    for i in range(12):
        (folder / f"n{i}[bold].txt").write_text("x")
    parse(folder)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder}: ignoring what is not a frame of the series: n0[bold].txt, n1[bold].txt")
    assert line.endswith("and 2 more")


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves the tilde of --data=~/frames alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_frames(tmp_path / "frames")
    assert parse(Path("~/frames")).image_filenames[0] == tmp_path / "frames" / "0.png"
    assert "~nobody-at-all/frames names an unknown user" in message(Path("~nobody-at-all/frames"))


def test_premultiplied_frames(tmp_path: Path) -> None:
    folder = write_frames(tmp_path)
    assert not parse(folder).metadata["frames"][0].premultiplied
    assert parse(folder, alpha="premultiplied").metadata["frames"][0].premultiplied


def test_uneven_frames_keep_their_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stamps of 0, 1/8, 1/2 and 1 s; said in one line."""
    write_frames(tmp_path, 4)
    for i, stamp in enumerate(("7.000", "7.125", "7.500", "8.000")):
        (tmp_path / f"{i}.png").rename(tmp_path / f"{stamp}.png")
    outputs = parse(tmp_path)
    assert outputs.cameras.times is not None
    assert outputs.cameras.times.flatten().tolist() == [0.0, 0.125, 0.5, 1.0]
    assert outputs.metadata["frame_times"].fps == 3.0
    assert parse(tmp_path, fps=30.0).metadata["frame_times"].fps == 30.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path}: the frames are unevenly spaced in time")
    assert len(lines) == 2  # Once per parser.


def test_even_frames_are_not_commented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parse(write_frames(tmp_path))
    assert capsys.readouterr().out == ""


# Ground truth


def test_ground_truth_views_are_evaluated(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    train, val = parse(folder), parse(folder, "val")
    assert len(train.image_filenames) == 5
    assert train.image_filenames[0] == folder / "input" / "0.png"
    assert [path.parent.name for path in val.image_filenames] == ["eval_0"] * 5 + ["eval_10"] * 5
    assert train.metadata["ground_truth"]
    assert val.metadata["ground_truth"]
    assert val.cameras.times is not None
    assert val.cameras.times.flatten().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0] * 2


def test_ground_truth_azimuths_are_relative_to_the_input_view(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    train, val = parse(folder), parse(folder, "test")
    e, d = math.radians(10), 2.5
    position = torch.tensor([d * math.cos(e), 0.0, d * math.sin(e)])
    torch.testing.assert_close(train.cameras.camera_to_worlds[0, :, 3], position)
    torch.testing.assert_close(val.cameras.camera_to_worlds[0, :, 3], torch.tensor([0.0, 2.0, 0.0]))
    assert float(val.metadata["input_view"].fovy) == 40
    focal = 128 / math.tan(math.radians(45.0) / 2)
    torch.testing.assert_close(val.cameras.fx[5:], torch.full((5, 1), focal))


def test_azimuths_of_many_turns(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    edit_meta(
        folder, lambda cameras: cameras["eval_0"].update(azimuth_deg=cameras["input"]["azimuth_deg"] + 90 + 3.6e9)
    )
    many = parse(folder, "val").cameras.camera_to_worlds[0]
    edit_meta(folder, lambda cameras: cameras["eval_0"].update(azimuth_deg=cameras["input"]["azimuth_deg"] + 90))
    torch.testing.assert_close(many, parse(folder, "val").cameras.camera_to_worlds[0])
    for view in ("eval_0", "input"):
        edit_meta(folder, lambda cameras, view=view: cameras[view].update(azimuth_deg=1e308))
        for split in ("train", "val"):
            assert parse(folder, split).cameras.camera_to_worlds.isfinite().all()


def test_options_win_over_meta(tmp_path: Path) -> None:
    outputs = parse(write_ground_truth(tmp_path), elevation=0.0)
    view = outputs.metadata["input_view"]
    assert [float(view.elevation), float(view.distance), float(view.fovy)] == [0.0, 2.5, 40.0]


def test_stride_and_count_hold_for_all_views(tmp_path: Path) -> None:
    val = parse(write_ground_truth(tmp_path), "val", frame_stride=2, frame_count=2)
    assert [f"{p.parent.name}/{p.name}" for p in val.image_filenames] == [
        "eval_0/0.png",
        "eval_0/2.png",
        "eval_10/0.png",
        "eval_10/2.png",
    ]


def test_real_ground_truth_cameras(shared_data: Path) -> None:
    folder = shared_data / "gt4d" / "Barbarian"
    cameras = json.loads((folder / "meta.json").read_text())["cameras"]
    outputs = {"input": parse(folder), "eval": parse(folder, "val")}
    assert len(outputs["input"].image_filenames) == 32
    assert len(outputs["eval"].image_filenames) == 6 * 32
    for part in outputs.values():
        for path, pose in zip(part.image_filenames, part.cameras.camera_to_worlds, strict=True):
            expected = torch.tensor(cameras[path.parent.name]["camera_to_world_opengl"])[:3]
            torch.testing.assert_close(pose, expected, atol=1e-5, rtol=0)


# Bad input


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("elevation", 91.0),
        ("elevation", math.nan),
        ("distance", 0.5),
        ("distance", -2.0),
        ("distance", math.inf),
        ("fovy", 0.0),
        ("fovy", 180.0),
        ("fovy", math.nan),
        ("image_size", 0),
        ("image_size", 100000),
        ("frame_stride", 0),
        ("frame_count", 0),
        ("frame_count", 6),
        ("fps", 0.0),
        ("fps", 1e308),
        ("fps", math.nan),
    ],
)
def test_options_out_of_range(tmp_path: Path, option: str, value: float) -> None:
    text = message(write_frames(tmp_path), **{option: value})
    assert option.replace("_", "-") in text
    assert str(value) in text


def test_missing_folder(tmp_path: Path) -> None:
    assert "nowhere.png does not exist" in (text := message(tmp_path / "nowhere.png"))
    assert "for consistent4d-image and consistent4d-image-mini, one image with --data" in text


def test_gap_in_the_numbering(tmp_path: Path) -> None:
    write_frames(tmp_path)
    (tmp_path / "2.png").unlink()
    assert "lacks frame 2" in message(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"cameras": 3}', '{"cameras": {"input": {}}}', '{"cameras": {"input": null}}']
)
def test_broken_meta(tmp_path: Path, text: str) -> None:
    folder = write_ground_truth(tmp_path)
    (folder / "meta.json").write_text(text)
    said = message(folder)
    assert f"{folder / 'meta.json'} is broken" in said
    assert "fov_y_deg" in said


def test_meta_without_input_camera(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    edit_meta(folder, lambda cameras: cameras.pop("input"))
    assert "meta.json is broken (KeyError: 'input')" in message(folder)


@pytest.mark.parametrize("value", [math.nan, 0.2, None, "far"])
def test_meta_with_a_bad_number(tmp_path: Path, value: object) -> None:
    folder = write_ground_truth(tmp_path)
    edit_meta(folder, lambda cameras: cameras["eval_0"].update(distance=value))
    assert str(folder) in message(folder)


def test_missing_meta(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    (folder / "meta.json").unlink()
    assert "has input/ but no meta.json" in message(folder)


def test_missing_view_folder(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    shutil.rmtree(folder / "eval_10")
    assert f"{folder / 'eval_10'} is missing" in message(folder)


def test_view_folder_without_camera(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    write_frames(folder / "eval_3")
    assert f"{folder / 'eval_3'} has no camera" in message(folder)


def test_different_number_of_frames_per_view(tmp_path: Path) -> None:
    folder = write_ground_truth(tmp_path)
    (folder / "eval_0" / "4.png").unlink()
    text = message(folder)
    assert f"{folder / 'eval_0'} holds 4 frames" in text
    assert "holds 5" in text


# As nerfstudio sees it


def test_specification() -> None:
    assert frame_sequence.config._target is FrameSequence
    assert frame_sequence.description


@pytest.mark.slow
def test_import_is_light_and_errors_are_one_line(tmp_path: Path) -> None:
    """Nerfstudio imports the parser while it imports its own data managers: those must not be needed here."""
    code = (
        "import sys; from pathlib import Path; from consistent4d_ns.data.dataparser import frame_sequence as f;"
        "heavy = ('av', 'diffusers', 'transformers', 'matplotlib', 'nerfstudio.data.datamanagers',"
        " 'nerfstudio.configs.method_configs');"
        "assert not [m for m in heavy if m in sys.modules];"
        f"f.config.data = Path({str(tmp_path / 'nowhere')!r}); f.config.setup().get_dataparser_outputs()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert "nowhere does not exist" in run.stderr
    assert run.stderr.count("\n") == 1


def test_prepared_frames_tell_times_and_elevation(tmp_path: Path) -> None:
    """prepare.json of `consistent4d prepare`: true times, and the elevation; that of other programs is left alone."""
    folder = write(tmp_path / "frames", 4)
    seconds = (0.0, 0.1, 0.4, 0.5)
    frames = [{"name": f"{i}.png", "seconds": second} for i, second in enumerate(seconds)]
    record = {"written_by": "consistent4d prepare", "elevation_deg": 20, "frames": frames}
    (folder / "prepare.json").write_text(json.dumps(record))
    (folder / "preview.png").write_bytes((folder / "0.png").read_bytes())
    parser = FrameSequenceDataParserConfig(data=folder).setup()
    assert parser.frame_times.times == pytest.approx((0, 0.2, 0.8, 1))
    assert parser.frame_times.fps == pytest.approx(6)
    assert parser.input_view.camera.elevation.item() == 20
    assert parser.input_view.frames.ignored == ()
    (folder / "3.png").unlink()  # A person may leave out what comes last.
    assert FrameSequenceDataParserConfig(data=folder).setup().frame_times.times == pytest.approx((0, 0.25, 1))
    for broken in ({**record, "frames": frames[:1]}, {**record, "frames": frames[::-1]}, {**record, "frames": 3}):
        (folder / "prepare.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match=r"prepare\.json.*prepare the video again"):
            _ = FrameSequenceDataParserConfig(data=folder).setup().input_view
    (folder / "prepare.json").write_text(json.dumps({"frames": 3}))
    assert FrameSequenceDataParserConfig(data=folder).setup().frame_times.is_even
