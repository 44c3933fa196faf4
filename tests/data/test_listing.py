"""Which files are frames, in which order and at which times (method.md section 11, quirk 10)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consistent4d_ns.data.listing import list_frames
from tests.data.media import CASES, clip, message, write, write_animation, write_video


def test_names_sort_by_number_whatever_their_padding(tmp_path: Path) -> None:
    write(tmp_path, 12)
    assert list_frames(tmp_path).names[:3] == ("0.png", "1.png", "2.png")
    assert list_frames(tmp_path).names[-1] == "11.png"


@pytest.mark.parametrize("name", ["{:04d}.png", "rose_{:02d}.PNG", "v2-{}_rgba.webp", "frame{:05d}.webp"])
def test_naming_schemes(tmp_path: Path, name: str) -> None:
    write(tmp_path, 11, name)
    assert list_frames(tmp_path).names == tuple(name.format(i) for i in range(11))


def test_other_files_are_ignored_and_named(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("notes.txt", ".DS_Store", "._0.png"):
        (tmp_path / name).write_text("x")
    frames = list_frames(tmp_path)
    assert len(frames) == 4
    assert set(frames.ignored) == {"notes.txt", ".DS_Store", "._0.png"}


def test_frames_of_which_some_were_replaced_are_refused(tmp_path: Path) -> None:
    manifest = {"written_by": "consistent4d prepare", "files": [], "unfinished": True}
    write(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "is not whole: `consistent4d prepare` was cut off" in message(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "written_by": "another program"}))
    assert len(list_frames(tmp_path)) == 4


def test_stride_then_count(tmp_path: Path) -> None:
    frames = list_frames(write(tmp_path, 10), stride=3, count=3)
    assert frames.names == ("0.png", "3.png", "6.png")
    assert frames.available == 10
    assert frames.paths[1] == tmp_path / "3.png"


def test_a_single_frame_anywhere(tmp_path: Path) -> None:
    frames = list_frames(write(tmp_path, 10), start=7, count=1)
    assert (frames.names, frames.indices, frames.available) == (("7.png",), (7,), 10)
    assert list_frames(tmp_path, start=4, stride=3).names == ("4.png", "7.png")
    alone = list_frames(tmp_path / "7.png")
    assert (alone.available, alone.source) == (1, tmp_path / "7.png")
    assert "frame-start is 1, but" in message(tmp_path / "7.png", start=1)


@pytest.mark.parametrize("name", ["clip.gif", "clip.apng", "clip.webp", "clip.webm", "clip.mov"])
def test_animated_files_say_how_fast_they_are(tmp_path: Path, name: str) -> None:
    encoder = {"webm": ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"), "mov": ("-c:v", "qtrle", "-pix_fmt", "argb")}
    kind = name.partition(".")[2]
    path = tmp_path / name
    path = write_video(path, clip(), *encoder[kind]) if kind in encoder else write_animation(path, clip())
    assert list_frames(path).spacing.rate == pytest.approx(10.0)


def test_folders_and_still_images_do_not(tmp_path: Path) -> None:
    write(tmp_path, 2)
    assert list_frames(tmp_path).spacing.rate is None
    assert list_frames(tmp_path / "0.png").spacing.rate is None


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    assert "nowhere does not exist" in message(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    assert f"{tmp_path} holds no frames" in message(tmp_path)


def test_unsupported_type(tmp_path: Path) -> None:
    (tmp_path / "clip.avi").write_bytes(b"x")
    text = message(tmp_path / "clip.avi")
    assert "clip.avi is of an unsupported type" in text
    assert "webm" in text


def test_a_photo_is_to_be_prepared(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    assert f"`consistent4d prepare {tmp_path}/photo.jpg OUT`" in message(tmp_path / "photo.jpg")


def test_gap_names_the_missing_number(tmp_path: Path) -> None:
    write(tmp_path, 12, "f_{:03d}.png")
    (tmp_path / "f_007.png").unlink()
    assert "lacks frame 7 (between f_006.png and f_008.png)" in message(tmp_path)


def test_a_number_used_twice(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "2.png").rename(tmp_path / "01.png")
    assert "frame 1 twice (01.png, 1.png)" in message(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stride": 0}, "frame-stride is 0"),
        ({"stride": -2}, "frame-stride is -2"),
        ({"count": 0}, "frame-count is 0"),
        ({"count": 5}, "at most 4"),
        ({"count": 3, "stride": 2}, "at most 2"),
        ({"start": -1}, "frame-start is -1"),
        ({"start": 4}, "holds 4 frames, counted from 0: use 0 to 3"),
        ({"start": 2, "count": 3}, "from frame 2 on: give at most 2"),
    ],
)
def test_stride_and_count_out_of_range(tmp_path: Path, options: dict[str, int], expected: str) -> None:
    assert expected in message(write(tmp_path), **options)


@pytest.mark.parametrize(
    ("case", "first", "count", "ignored"),
    [
        ("stray_frame", "0.png", 6, ("preview.png",)),
        ("duplicate_download", "0.png", 6, ("0 (1).png",)),
        ("dg4d_flat", "anya_rgba_000.png", 5, ("anya_rgba.png",)),
        ("timestamps", "1698765432.000000.png", 6, ()),
    ],
)
def test_folders_as_people_have_them(case: str, first: str, count: int, ignored: tuple[str, ...]) -> None:
    frames = list_frames(CASES / case)
    assert frames.names[0] == first
    assert len(frames) == count
    assert frames.ignored == ignored
    assert frames.positions == tuple(range(count))


def test_a_stray_image_does_not_hide_a_gap(tmp_path: Path) -> None:
    write(tmp_path, 6)
    (tmp_path / "0.png").rename(tmp_path / "preview.png")
    (tmp_path / "3.png").unlink()
    assert "lacks frame 3 (between 2.png and 4.png)" in message(tmp_path)


def test_a_folder_that_loops(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    assert f"{tmp_path / 'a.png'} is damaged or cut short" in message(tmp_path)


def test_folders_named_like_frames_are_ignored_and_named(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "3.png").mkdir()
    (tmp_path / "4.png").symlink_to(tmp_path / "3.png")
    frames = list_frames(tmp_path)
    assert frames.names == ("0.png", "1.png", "2.png")
    assert frames.ignored == ("3.png", "4.png")


def test_links_to_files_are_frames(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "3.png").symlink_to(tmp_path / "0.png")
    assert len(list_frames(tmp_path)) == 4
