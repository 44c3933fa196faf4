"""Frames to files and back: what each format keeps, and what is left when one cannot be written."""

from __future__ import annotations

import base64
import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.errors import InputError
from consistent4d_ns.media import encoding
from consistent4d_ns.media.encoding import (
    FORMATS,
    Format,
    Frame,
    check_encodable,
    check_free,
    format_of,
    offer_ffmpeg,
    write_frames,
)
from tests.export.programs import chromium
from tests.support.disks import file_limit

COUNT, HEIGHT, WIDTH = 10, 48, 64


def ball(index: int) -> Frame:
    """A soft orange ball on transparency that moves to the right."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(y - HEIGHT / 2, x - 16 - 3 * index)
    frame = np.full((HEIGHT, WIDTH, 4), (230, 120, 30, 0), np.uint8)
    frame[..., 3] = np.clip((14 - distance) / 6, 0, 1) * 255
    return frame


PATCHES = ((220, 40, 30), (20, 140, 120), (230, 60, 30), (40, 60, 200), (250, 250, 250), (10, 10, 10))
"""Flat colours that BT.601 and BT.709 show up to 17 levels apart."""
SIZES = ((48, 96), (256, 1024), (480, 640), (720, 1280))
"""Height and width on both sides of the heights at which players change their guess of the matrix."""

FRAMES = [ball(index) for index in range(COUNT)]
WHITE = [encoding.on_white(frame) for frame in FRAMES]


def written(out: Path, fps: float = 8.0) -> Path:
    write_frames(out, format_of(out), iter(FRAMES), fps)
    return out


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_on_white():
    expected = FRAMES[0][..., :3] * (FRAMES[0][..., 3:] / 255.0) + 255.0 - FRAMES[0][..., 3:]
    assert np.abs(WHITE[0] - expected).max() <= 0.5
    assert (WHITE[0][0, -1] == 255).all()


def test_mp4_is_what_ordinary_players_show(tmp_path: Path):
    with av.open(str(written(tmp_path / "a.mp4"))) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 8
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    assert len(frames) == COUNT
    assert max(map(mean_difference, frames, WHITE)) < 3


def patches(height: int, width: int) -> Frame:
    """The flat colours in two rows, opaque."""
    colours = np.array(PATCHES, np.uint8).reshape(2, 3, 3)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 3 // width
    return np.dstack((colours[rows][:, columns], np.full((height, width), 255, np.uint8)))


def at_patches(picture: np.ndarray) -> np.ndarray:
    """Colours in the middle of the patches, in their order."""
    height, width = picture.shape[:2]
    return np.array([picture[height * row // 4, width * column // 6, :3] for row in (1, 3) for column in (1, 3, 5)])


def by_the_tags(frame: av.VideoFrame) -> np.ndarray:
    """RGB of a frame of BT.709 YUV with limited range, written out after the standard."""
    planar = frame.reformat(format="yuv444p").to_ndarray().astype(float)
    luma, blue, red = (planar[0] - 16) / 219, (planar[1] - 128) / 224, (planar[2] - 128) / 224
    green = luma - (0.2126 * 1.5748 * red + 0.0722 * 1.8556 * blue) / 0.7152
    rgb = np.stack((luma + 1.5748 * red, green, luma + 1.8556 * blue), axis=-1)
    return (rgb * 255).round().clip(0, 255)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_colours_are_those_that_the_tags_declare(tmp_path: Path, kind: Format, height: int, width: int):
    write_frames(tmp_path / "a", kind, [patches(height, width)] * 2, 8.0)
    with av.open(str(tmp_path / "a")) as video:
        context = video.streams.video[0].codec_context
        for frame in video.decode(video=0):
            assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
            assert (frame.colorspace, frame.color_range) == (1, 1)
            assert np.abs(at_patches(by_the_tags(frame)) - PATCHES).max() <= 2


@pytest.mark.slow
def test_a_browser_shows_the_colours(tmp_path: Path):
    sync_playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright").sync_playwright
    read = """async ([kind, data]) => {
        const video = document.createElement("video");
        video.muted = true;
        const shown = new Promise((done, failed) => {
            video.requestVideoFrameCallback(done);
            video.onerror = () => failed(video.error.message);
        });
        video.src = `data:video/${kind};base64,${data}`;
        await video.play();
        await shown;
        const canvas = document.createElement("canvas");
        canvas.width = video.videoWidth;
        canvas.height = video.videoHeight;
        const drawing = canvas.getContext("2d");
        drawing.drawImage(video, 0, 0);
        const at = (x, y) => Array.from(drawing.getImageData(x, y, 1, 1).data.slice(0, 3));
        const [w, h] = [canvas.width, canvas.height];
        return [1, 3].flatMap(y => [1, 3, 5].map(x => at(Math.floor(w * x / 6), Math.floor(h * y / 4))));
    }"""
    with sync_playwright() as play:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
        browser = play.chromium.launch(executable_path=chromium(), args=options)
        page = browser.new_page()
        for kind in ("mp4", "webm"):
            for height, width in SIZES:
                file = tmp_path / f"{height}.{kind}"
                write_frames(file, kind, [patches(height, width)] * 4, 8.0)
                shown = page.evaluate(read, [kind, base64.b64encode(file.read_bytes()).decode()])
                differences = np.abs(np.array(shown) - PATCHES)
                assert differences[:2].max() <= 2, (kind, height)
                # On x86, libyuv (in Chromium) clamps BT.709's blue coefficient from 2.11 to 2: saturated blues are off.
                assert (differences <= (2, 2, 8)).all(), (kind, height)
        browser.close()


def test_an_mp4_plays_while_it_loads(tmp_path: Path):
    contents = written(tmp_path / "a.mp4").read_bytes()
    assert 0 < contents.index(b"moov") < contents.index(b"mdat")


def test_webm_has_true_alpha(tmp_path: Path):
    """Read back by the reader that training uses for such files."""
    path = written(tmp_path / "a.webm", fps=12.5)
    assert list_frames(path).spacing.rate == pytest.approx(12.5)
    decoded = decode_frames(list_frames(path), WIDTH).float()
    assert decoded.shape == (COUNT, 4, WIDTH, WIDTH)
    edge = (WIDTH - HEIGHT) // 2
    for rgba, frame in zip(decoded.numpy(), FRAMES, strict=True):
        alpha = rgba[3, edge:-edge]
        assert np.abs(alpha - frame[..., 3] / 255).max() < 0.1
        inside = frame[..., 3] == 255
        assert mean_difference(rgba[:3, edge:-edge].transpose(1, 2, 0)[inside] * 255, frame[inside][:, :3]) < 4
        # Premultiplied: nothing but the object has any colour.
        assert rgba[:3, edge:-edge][:, frame[..., 3] == 0].max() < 0.1


@pytest.mark.parametrize("fps", [16.0, 30.0, 50.0])
def test_gif_plays_over_and_over_at_the_right_speed(tmp_path: Path, fps: float):
    with Image.open(written(tmp_path / "a.gif", fps)) as image:
        assert image.info["loop"] == 0
        assert getattr(image, "n_frames", 1) == COUNT
        pauses, frames = [], []
        for index in range(COUNT):
            image.seek(index)
            pauses.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
    assert sum(pauses) == pytest.approx(1000 * COUNT / fps, abs=10)
    assert max(pauses) - min(pauses) <= 10
    assert max(map(mean_difference, frames, WHITE)) < 6
    assert all((frame[0, -1] == 255).all() for frame in frames)


def test_a_gif_keeps_few_of_its_frames_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No more than those that its palette is computed from, whether frames come or are encoded."""
    few, alive = encoding.PALETTE_SAMPLES, list[int]()

    def look(index: int) -> None:
        if index % few == few - 1:  # It takes a while.
            alive.append(sum(isinstance(thing, Image.Image) for thing in gc.get_objects()))

    def frames() -> Iterator[Frame]:
        for index in range(4 * few):
            look(index)
            yield FRAMES[index % COUNT]

    calls, palette_of = count(), encoding._argb
    monkeypatch.setattr(encoding, "_argb", lambda image: (look(next(calls)), palette_of(image))[1])
    look(few - 1)
    write_frames(tmp_path / "frames", "gif", frames(), 8.0)
    assert len(alive) == 9
    assert max(alive) - alive[0] <= few + 4
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_png_frames_are_exact(tmp_path: Path):
    folder = written(tmp_path / "frames")
    assert sorted(file.name for file in folder.glob("*.png")) == [f"{index:05d}.png" for index in range(COUNT)]
    assert all((np.asarray(Image.open(folder / f"{i:05d}.png")) == FRAMES[i]).all() for i in range(COUNT))
    assert len(list_frames(folder)) == COUNT


def test_formats_by_name():
    names = {"a.mp4": "mp4", "b.WEBM": "webm", "c.gif": "gif", "folder": "png"}
    assert {name: format_of(Path(name)) for name in names} == names
    assert format_of(Path("a.mp4"), "png") == "png"
    with pytest.raises(InputError, match=r"a.gif ends in .gif, and --format is mp4"):
        format_of(Path("a.gif"), "mp4")
    for name in ("a.avi", "a.png", "a.b"):
        with pytest.raises(InputError, match=r"ends in \..*: use .mp4, .webm or .gif, a name without suffix"):
            format_of(Path(name))


def test_sizes_and_speeds_that_a_format_cannot_have():
    with pytest.raises(InputError, match="mp4 needs even sides, not 63 x 48: give --size"):
        check_encodable("mp4", 63, 48, 16)
    with pytest.raises(InputError, match="webm needs even sides, not 64 x 49"):
        check_encodable("webm", 64, 49, 16)
    with pytest.raises(InputError, match="a GIF plays at most 50 frames a second, not 60"):
        check_encodable("gif", 64, 48, 60)
    check_encodable("gif", 63, 47, 50)
    check_encodable("png", 63, 47, 1000)


def test_broken_rates_survive(tmp_path: Path):
    with av.open(str(written(tmp_path / "a.mp4", fps=30000 / 1001))) as video:
        assert video.streams.video[0].average_rate == Fraction(30000, 1001)


def noise() -> Iterator[Frame]:
    """Frames that no codec makes small."""
    for index in range(COUNT):
        yield np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)


def refused(out: Path, kind: Format) -> str:
    with pytest.raises(InputError) as raised:
        write_frames(out, kind, noise(), 8.0)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_cannot_be_written_whole_is_not_kept(tmp_path: Path, kind: Format):
    out = tmp_path / ("frames" if kind == "png" else f"a.{kind}")
    with file_limit(4096):
        message = refused(out, kind)
    assert message == f"cannot write {out}: File too large; make room, or give another place."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_keeps_nothing(tmp_path: Path, kind: Format):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        out = disk / ("frames" if kind == "png" else f"a.{kind}")
        assert f"cannot write {out}: No space left on device" in refused(out, kind)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_place_that_is_no_folder(tmp_path: Path, kind: Format):
    (tmp_path / "file").write_text("theirs")
    assert "cannot write" in refused(tmp_path / "file" / f"a.{kind}", kind)
    assert (tmp_path / "file").read_text() == "theirs"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", FORMATS)
def test_failures_of_the_renderer_and_interruptions_leave_nothing(tmp_path: Path, kind: Format, failure):
    def frames() -> Iterator[Frame]:
        yield from FRAMES[:3]
        raise failure

    with pytest.raises(failure):
        write_frames(tmp_path / f"a.{kind}", kind, frames(), 8.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_an_existing_output_is_refused_before_anything_is_rendered(tmp_path: Path, kind: Format):
    out = tmp_path / "a"
    check_free(out, kind)
    write_frames(out, kind, FRAMES[:2], 8.0)
    with pytest.raises(InputError, match=r"give another .*, or --overwrite to replace"):
        check_free(out, kind)
    check_free(out, kind, overwrite=True)


def test_ffmpeg_is_offered_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    offer_ffmpeg()
    found = shutil.which("ffmpeg")
    assert found is not None
    version = subprocess.run([found, "-version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("ffmpeg version")
    path = os.environ["PATH"]
    offer_ffmpeg()
    assert os.environ["PATH"] == path


def test_another_ffmpeg_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    offer_ffmpeg()
    assert os.environ["PATH"] == str(tmp_path)
