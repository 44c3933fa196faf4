"""`consistent4d prepare` from end to end: sources of the foreground, what is written, and that training reads it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.cli.main import main
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig
from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.preparing.refining import refine
from consistent4d_ns.targets import elevation
from consistent4d_ns.targets.elevation import ElevationEstimate
from tests.data.media import WEBM, write_video
from tests.preparing.clips import (
    RED,
    discs,
    needs_matting,
    needs_network,
    over,
    pictures,
    plain_video,
    texture,
    with_alpha,
)


def prepare(source: Path, out: Path, *options: str) -> dict[str, Any]:
    """Run the command; the contents of prepare.json."""
    main(["prepare", str(source), str(out), *options])
    return json.loads((out / "prepare.json").read_text())


def refusal(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *options: str) -> str:
    """The one line that is said about input that cannot be used; nothing is written."""
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", str(source), str(out), *options])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert not list(out.parent.glob(f".{out.name}-*"))
    return line


def put_back(out: Path, record: dict[str, Any]) -> np.ndarray:
    """Alpha of the frames in the pixels of the source, where its pixels were neither shrunk nor enlarged."""
    width, height = record["source"]["size"]
    result = np.zeros((len(record["frames"]), height, width), np.float32)
    for i, frame in enumerate(record["frames"]):
        alpha = np.array(Image.open(out / frame["name"]))[..., 3] / 255
        left, top, side = (round(value) for value in frame["crop"])
        assert alpha.shape == (side, side)
        rows = slice(max(top, 0), min(top + side, height))
        columns = slice(max(left, 0), min(left + side, width))
        result[i, rows, columns] = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return result


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return ((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum()


def test_alpha_is_kept_and_training_reads_the_result(tmp_path: Path) -> None:
    alpha = discs()
    source = write_video(tmp_path / "clip.webm", with_alpha(over(alpha, texture()), alpha), *WEBM, "-lossless", "1")
    record = prepare(source, tmp_path / "out", "--elevation", "12.5", "--frames", "3")
    assert [frame["source_frame"] for frame in record["frames"]] == [0, 2, 5]
    assert np.abs(put_back(tmp_path / "out", record) - alpha[[0, 2, 5]]).max() < 0.02
    outputs = FrameSequenceDataParserConfig(data=tmp_path / "out").setup().get_dataparser_outputs()
    assert outputs.metadata["frame_times"].times == pytest.approx((0, 0.4, 1), abs=1e-3)
    assert outputs.metadata["frame_times"].fps == pytest.approx(4)
    assert outputs.metadata["input_view"].elevation.item() == 12.5
    (frames,) = outputs.metadata["frames"]
    assert frames.ignored == ()
    assert decode_frames(frames, 32).shape == (3, 4, 32, 32)
    given = FrameSequenceDataParserConfig(data=tmp_path / "out", elevation=3.0).setup().get_dataparser_outputs()
    assert given.metadata["input_view"].elevation.item() == 3


@needs_matting
def test_one_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It becomes one frame, for the presets for one image."""
    source, alpha = tmp_path / "photo.jpg", discs(radius=20, step=1)[:1]
    Image.fromarray(over(alpha, np.full_like(texture()[:1], (20, 230, 30)))[0]).save(source, quality=95)
    record = prepare(source, tmp_path / "out", "--key", "#14e61e")
    assert overlap(put_back(tmp_path / "out", record), alpha) > 0.95
    assert f"ns-train consistent4d-image-mini --data {tmp_path / 'out'}\n" in capsys.readouterr().out
    outputs = FrameSequenceDataParserConfig(data=tmp_path / "out").setup().get_dataparser_outputs()
    assert len(outputs.metadata["frame_times"]) == 1


def test_the_object_is_centred_with_a_margin(tmp_path: Path) -> None:
    alpha = discs(radius=20, step=1)
    source = pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha))
    record = prepare(source, tmp_path / "out")
    assert len({tuple(frame["crop"]) for frame in record["frames"]}) == 1  # It hardly moves: nor does the crop.
    union = np.max([np.array(Image.open(tmp_path / "out" / f"{i}.png"))[..., 3] for i in range(6)], axis=0) > 127
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    side = len(union)
    assert (columns[-1] - columns[0] + 1) / side == pytest.approx(0.8, abs=0.03)
    for lines in (rows, columns):
        assert (lines[0] + lines[-1] + 1) / 2 == pytest.approx(side / 2, abs=1.5)


def test_a_crop_follows_an_object_that_wanders(tmp_path: Path) -> None:
    alpha = discs(12, width=256, radius=16, step=14, left=40)
    source = pictures(tmp_path / "frames", with_alpha(over(alpha, texture(width=256)), alpha))
    record = prepare(source, tmp_path / "out")
    lefts, _, sides = np.array([frame["crop"] for frame in record["frames"]]).T
    assert len(set(sides)) == 1
    assert (np.diff(lefts) > 0).all()
    assert lefts[-1] - lefts[0] > 80
    assert overlap(put_back(tmp_path / "out", record), alpha) > 0.98
    fixed = prepare(source, tmp_path / "fixed", "--crop", "fixed")
    assert len({tuple(frame["crop"]) for frame in fixed["frames"]}) == 1


@needs_matting
def test_masks_beside_the_frames(tmp_path: Path) -> None:
    """As Cutie and SAM 2 leave them: JPEG frames, and masks that number the objects by a palette."""
    alpha, other = discs(), discs(left=15, step=0, radius=8)
    pictures(tmp_path / "job" / "images", over(alpha, over(other, texture(), (20, 40, 220))), "{:05d}.jpg")
    (tmp_path / "job" / "masks").mkdir()
    for i in range(6):
        mask = Image.fromarray((np.where(alpha[i] > 0.5, 1, np.where(other[i] > 0.5, 2, 0))).astype(np.uint8), "P")
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        mask.save(tmp_path / "job" / "masks" / f"{i:05d}.png")
    record = prepare(tmp_path / "job", tmp_path / "largest")
    assert record["foreground"]["kind"] == "masks"
    assert overlap(put_back(tmp_path / "largest", record), alpha) > 0.95
    second = prepare(tmp_path / "job", tmp_path / "second", "--object", "2")
    assert overlap(put_back(tmp_path / "second", second), other) > 0.85


@needs_matting
def test_no_fringe_of_the_background_is_left(tmp_path: Path) -> None:
    """A red disc before a green screen: on white, its border is between red and white, never green."""
    alpha = discs(2, radius=24)
    source = plain_video(tmp_path / "clip.mp4", over(alpha, np.full((96, 128, 3), (20, 230, 30), np.uint8)))
    record = prepare(source, tmp_path / "out", "--key", "#14e61e")
    assert record["foreground"]["kind"] == "key"
    assert overlap(put_back(tmp_path / "out", record), alpha) > 0.95
    rgba = np.array(Image.open(tmp_path / "out" / "0.png")).astype(float)
    border = rgba[(rgba[..., 3] > 20) & (rgba[..., 3] < 240)]
    assert len(border) > 50
    assert np.abs(border[:, :3] - RED).mean() < 25


@needs_matting
@needs_network
@pytest.mark.slow
def test_a_network_finds_the_object(tmp_path: Path) -> None:
    alpha = discs(5, 160, 200, radius=36, step=4, left=80)
    source = plain_video(tmp_path / "clip.mp4", over(alpha, texture(160, 200)))
    record = prepare(source, tmp_path / "out")
    assert record["foreground"]["kind"] == "network"
    assert overlap(put_back(tmp_path / "out", record), alpha) > 0.95
    assert Image.open(tmp_path / "out" / "preview.png").width > 600


def test_an_object_that_leaves_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alpha = discs(6, left=70, step=13)
    prepare(pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha)), tmp_path / "out")
    assert "touches the border of the picture in 3 of 6 frames" in " ".join(capsys.readouterr().out.split())


@needs_matting
def test_a_matte_ends_where_the_picture_ends(tmp_path: Path) -> None:
    alpha = discs(2, left=110, radius=24)
    source = plain_video(tmp_path / "clip.mp4", over(alpha, np.full((96, 128, 3), (20, 230, 30), np.uint8)))
    record = prepare(source, tmp_path / "out", "--key", "#14e61e")
    left, _, side = record["frames"][0]["crop"]
    rgba = np.array(Image.open(tmp_path / "out" / "0.png"))
    assert len(rgba) == side
    edge = round(128 - left)
    middle = rgba[len(rgba) // 2, :, 3]
    assert (middle[edge - 8 : edge] > 250).all()
    assert not rgba[:, edge:, 3].any()


def test_frames_without_the_object_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alpha = discs(5)
    alpha[1] = 0
    source = pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha))
    record = prepare(source, tmp_path / "out")
    assert [frame["source_frame"] for frame in record["frames"]] == [0, 2, 3, 4]
    assert "1 of 5 frames show no object and are left out" in capsys.readouterr().out
    times = FrameSequenceDataParserConfig(data=tmp_path / "out").setup().frame_times.times
    assert times == pytest.approx((0, 0.5, 0.75, 1))


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alpha = discs(4)
    source = pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha))
    prepare(source, tmp_path / "out")
    assert "is not empty" in refusal(capsys, source, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    prepare(source, tmp_path / "out", "--overwrite", "--frames", "2")
    assert sorted(path.name for path in (tmp_path / "out").glob("?.png")) == ["0.png", "1.png"]
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--frames", "0"), "--frames is 0"),
        (("--fps", "1e308"), "--fps is 1e+308: use a number from 0.001 to 1000."),
        (("--fps", "0"), "--fps is 0: use a number"),
        (("--start", "2", "--end", "1"), "--end is 1"),
        (("--start", "90"), "no frame between 90 and"),
        (("--size", "9000"), "--size is 9000"),
        (("--key", "no-colour"), "'no-colour'"),
        (("--elevation", "100"), "--elevation is 100"),
        (("--masks", "nowhere"), "nowhere does not exist"),
        (("--object", "2"), "there are none: give --masks"),
        (("--box", "9", "0", "3", "8"), "--box is left, top"),
        (("--point", "1", "1"), "no object was found at --point"),
        (("--point", "nan", "1"), "--point lies outside of the frames, which are 128 x 96 pixels"),
        (("--point", "128", "1"), "--point lies outside"),
        (("--box", "-9", "0", "-1", "inf"), "--box lies outside"),
        (("--box", "1", "1", "9", "inf"), "no object was found in --box"),
        (("--box", "1", "1", "9", "9", "--object", "1"), "--box and --object say which object is meant"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str) -> None:
    alpha = discs(3)
    source = pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha))
    if "--key" in options:
        pytest.importorskip("pymatting")
    assert words in refusal(capsys, source, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_frames_that_are_faint_throughout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No network is asked, so that its threshold is no remedy."""
    alpha = discs(3) * 0.25
    said = refusal(capsys, pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha)), tmp_path / "out")
    assert "shows no object in the chosen frames" in said
    assert "or frames in which it is opaque" in said
    assert "--threshold" not in said


@needs_matting
def test_a_colour_that_nothing_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "frames", over(discs(2), texture()))
    assert "no pixel has the colour of --key" in refusal(capsys, source, tmp_path / "out", "--key", "yellow")


@pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 700)])
def test_masks_of_tiny_and_of_long_pictures_are_refined(height: int, width: int) -> None:
    alpha = discs(3, height, width, radius=3, step=1, left=4)
    refined = refine(list(over(alpha, texture(height + 8, width + 8)[:height, :width])), list(alpha))
    assert all(one.shape == (height, width) for one in refined)


def test_the_next_command_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alpha = discs(1)
    prepare(pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha)), tmp_path / "my cat")
    printed = capsys.readouterr().out
    assert f"--data '{tmp_path / 'my cat'}'" in printed
    assert "1 frame of" in printed
    assert "seconds" not in printed


def test_bad_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 99)
    assert "broken.mp4 is damaged" in refusal(capsys, tmp_path / "broken.mp4", tmp_path / "out")
    assert "does not exist" in refusal(capsys, tmp_path / "nowhere.mp4", tmp_path / "out")
    first, *others = [Image.fromarray(picture) for picture in over(discs(4), texture())]
    first.save(tmp_path / "whole.gif", save_all=True, append_images=others)
    (tmp_path / "cut.gif").write_bytes((tmp_path / "whole.gif").read_bytes()[:200])
    assert "cut.gif is damaged" in refusal(capsys, tmp_path / "cut.gif", tmp_path / "out")
    first.save(tmp_path / "exif.webp", exif=b"junk")
    assert "exif.webp is damaged" in refusal(capsys, tmp_path / "exif.webp", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("text")
    assert "unsupported type" in refusal(capsys, tmp_path / "notes.txt", tmp_path / "out")
    assert "neither a folder nor a file" in refusal(capsys, Path(os.devnull), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "holds no frames" in refusal(capsys, tmp_path / "empty", tmp_path / "out")


def test_missing_extra_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    source = plain_video(tmp_path / "clip.mp4", over(discs(3), texture()))
    monkeypatch.setattr("consistent4d_ns.preparing.matting.find_spec", lambda name: None)
    assert 'pip install "consistent4d_ns[prepare]"' in refusal(capsys, source, tmp_path / "out")
    monkeypatch.setattr("consistent4d_ns.preparing.matting.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "pymatting", None)
    assert "pymatting cannot be imported" in refusal(capsys, source, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("consistent4d_ns.preparing.steps.check_matting", lambda: None)
    monkeypatch.setattr("consistent4d_ns.preparing.segmentation.find_spec", lambda name: None)
    assert 'pip install "consistent4d_ns[prepare]"' in refusal(capsys, source, tmp_path / "out")


def test_training_says_what_to_do_with_a_plain_video(tmp_path: Path) -> None:
    from consistent4d_ns.data.listing import list_frames
    from consistent4d_ns.errors import InputError

    source = plain_video(tmp_path / "clip.mp4", over(discs(3), texture()))
    with pytest.raises(
        InputError, match=r"has no alpha channel: cut the object out with `consistent4d prepare .*clip.mp4"
    ):
        decode_frames(list_frames(source), 32)
    photos = pictures(tmp_path / "photos", over(discs(3), texture()), "{}.jpg")
    with pytest.raises(InputError, match="consistent4d prepare"):
        list_frames(photos)


def test_elevation_by_the_prior(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """It sees what was cut out, its colours multiplied by alpha, and an estimate that is not clear is said to be."""
    given: list[Any] = []

    def estimate(rgba: Any, progress: Any) -> ElevationEstimate:
        given.append(rgba)
        return ElevationEstimate(17.04, 6.0, (), ())

    monkeypatch.setattr(elevation, "estimate_from_frames", estimate)
    alpha = discs()
    source = pictures(tmp_path / "frames", with_alpha(over(alpha, texture()), alpha))
    record = prepare(source, tmp_path / "out", "--elevation", "auto")
    assert record["elevation_deg"] == 17.0
    assert record["options"]["picture"]["elevation"] == "auto"
    (rgba,) = given
    assert rgba.shape[:2] == (len(record["frames"]), 4)
    assert (rgba[:, :3] <= rgba[:, 3:]).all()
    assert "--elevation DEGREES" in capsys.readouterr().out
