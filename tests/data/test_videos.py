"""Videos with alpha: exact frames at their own times, the right way up; what cannot be used is named in one line."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.images import premultiply
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.data.videos import read_video
from tests.data.media import CASES, MOV, WEBM, clip, message, write_video


@pytest.mark.parametrize(
    ("name", "encoder", "tolerance"),
    [
        ("vp9.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-lossless", "1"), 0.01),
        ("vp8.webm", ("-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "4M"), 0.02),
        ("qtrle.mov", ("-c:v", "qtrle", "-pix_fmt", "argb"), 2**-12),
        ("prores.mov", ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"), 0.01),
    ],
)
def test_videos_keep_alpha(tmp_path: Path, name: str, encoder: tuple[str, ...], tolerance: float) -> None:
    images = clip(6)
    frames = list_frames(write_video(tmp_path / name, images, *encoder), stride=2)
    assert frames.available == 6
    rgba = decode_frames(frames, 32).permute(0, 2, 3, 1).float().numpy()
    expected = np.stack([premultiply(image) for image in images[::2]])
    assert np.abs(rgba - expected)[..., 3].max() <= tolerance
    # Chroma is stored at half size in WebM, and colours under alpha 0 are black here: compare the inner pixels.
    inner = np.zeros(expected.shape[:3], bool)
    for i in range(3):
        inner[i, 10:22, 10 + 4 * i : 18 + 4 * i] = True
    assert np.abs(rgba - expected)[inner].max() <= 2 * tolerance


@pytest.mark.parametrize("name", ["clip.webm", "clip.mov"])
def test_corrupted_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert f"{path} is an empty file" in message(path)
    path.write_bytes(b"no video at all" * 100)
    assert f"{path} is damaged or cut short" in message(path)


def test_truncated_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.webm", clip(8), "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")
    assert len(list_frames(path)) == 8
    whole = path.read_bytes()
    for part in range(1, 9):
        path.write_bytes(whole[: part * len(whole) // 10])
        assert str(path) in message(path)


def test_garbled_video_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.webm", clip(8), "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start : start + 300] = bytes(b ^ 0xFF for b in data[start : start + 300])
    path.write_bytes(bytes(data))
    assert str(path) in message(path)


def test_video_without_alpha(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.webm", clip(), "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p")
    assert f"{path} has no alpha channel" in message(path)


# Times


def write_at(path: Path, times: list[int], codec: str, pixel_format: str, last: int = 1) -> Path:
    """A video whose frames begin at some milliseconds; the last one stays for `last` of them."""
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 32, 32, pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, begin in zip(clip(len(times)), times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = begin, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        packets = stream.encode(None)
        for packet in packets:
            packet.duration = last
        out.mux(packets)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"), [("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "qtrle", "argb")]
)
def test_variable_frame_rate(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    frames = list_frames(write_at(tmp_path / name, [0, 100, 150, 400, 450, 1000], codec, pixel_format))
    assert frames.spacing.positions == pytest.approx((0.0, 0.5, 0.75, 2.0, 2.25, 5.0))
    assert frames.spacing.rate == pytest.approx(5.0)
    assert decode_frames(frames, 32).shape[0] == 6


def test_a_last_frame_that_stays_is_not_cut_short(tmp_path: Path) -> None:
    path = write_at(tmp_path / "a.webm", [0, 100, 200, 300], "libvpx-vp9", "yuva420p", last=2000)
    assert list_frames(path).spacing.positions == (0.0, 1.0, 2.0, 3.0)


def test_even_frames_have_the_nominal_rate(tmp_path: Path) -> None:
    """WebM rounds the times of 30 frames per second to milliseconds."""
    times = [round(1000 * i / 30) for i in range(8)]
    spacing = list_frames(write_at(tmp_path / "a.webm", times, "libvpx-vp9", "yuva420p")).spacing
    assert spacing.positions == tuple(range(8))
    assert spacing.rate == pytest.approx(30.0, rel=2e-3)


# Orientation


def ffmpeg_version() -> int:
    """Major version of the installed FFmpeg."""
    import imageio_ffmpeg

    version = re.search(r"\d+", imageio_ffmpeg.get_ffmpeg_version())
    assert version is not None
    return int(version.group())


def turned(path: Path, *options: str) -> Path:
    """The same video with a display matrix."""
    import imageio_ffmpeg

    if ffmpeg_version() < 6:
        pytest.skip("FFmpeg writes display matrices from version 6 on")
    out = path.with_name(f"turned{path.suffix}")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *options, "-i", str(path), "-c", "copy", str(out)]
    subprocess.run(command, check=True)
    return out


@pytest.mark.parametrize("suffix", [".mov", ".webm", ".mp4"])
@pytest.mark.parametrize("angle", [90, 180, 270])
def test_display_matrix(tmp_path: Path, suffix: str, angle: int) -> None:
    """A wide video that is shown upright."""
    encoders = {".mov": MOV, ".webm": WEBM, ".mp4": ("-c:v", "png", "-pix_fmt", "rgba")}
    images = clip(3)[:, 6:26]
    path = write_video(tmp_path / f"a{suffix}", images, *encoders[suffix])
    plain = np.stack(list(read_video(path, range(3))))
    shown = np.stack(list(read_video(turned(path, "-display_rotation", str(angle)), range(3))))
    assert np.array_equal(shown, np.rot90(plain, angle // 90, axes=(1, 2)))


def test_mirrored_display_matrix(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", clip(3), *MOV)
    plain = np.stack(list(read_video(path, range(3))))
    shown = np.stack(list(read_video(turned(path, "-display_hflip"), range(3))))
    assert np.array_equal(shown, plain[:, :, ::-1])


def test_an_odd_angle_is_refused(tmp_path: Path) -> None:
    path = turned(write_video(tmp_path / "a.mov", clip(3), *MOV), "-display_rotation", "30")
    assert "turned by an odd angle: export it upright" in message(path)


def test_video_from_a_turned_phone() -> None:
    """As FFmpeg turns it itself."""
    import imageio_ffmpeg

    path = CASES / "rotated_mov" / "rot90.mov"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-pix_fmt",
        "rgba",
        "-f",
        "rawvideo",
        "-",
    ]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(-1, 96, 96, 4)
    found = np.stack(list(read_video(path, range(len(expected)))))
    assert np.abs(found.astype(int) - expected).max() <= 1


# HEVC


def test_hevc_with_alpha() -> None:
    """A disc of 2500 pixels on transparent ground; an FFmpeg that cannot decode it says so."""
    path = CASES / "hevc_alpha" / "hevc_alpha.mov"
    if ffmpeg_version() < 8:
        assert "hevc_alpha.mov is HEVC, in which the installed FFmpeg finds no alpha channel" in message(path)
        return
    frames = list_frames(path, stride=2)
    rgba = decode_frames(frames, 96)
    assert frames.spacing.rate == 12.0
    assert rgba.shape == (3, 4, 96, 96)
    assert rgba[:, 3].float().sum((1, 2)).tolist() == pytest.approx([2511] * 3, rel=0.02)


def test_hevc_without_alpha(tmp_path: Path) -> None:
    encoder = ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=none")
    path = write_video(tmp_path / "a.mov", np.tile(clip(3), (1, 2, 2, 1)), *encoder)
    text = message(path)
    assert "a.mov is HEVC, in which the installed FFmpeg finds no alpha channel" in text
    assert "export ProRes 4444" in text


def test_garbled_hevc(tmp_path: Path) -> None:
    data = bytearray((CASES / "hevc_alpha" / "hevc_alpha.mov").read_bytes())
    path = tmp_path / "a.mov"
    path.write_bytes(data[: len(data) // 2])
    assert "a.mov is damaged or cut short" in message(path)


# Formats


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile other.webm\n", "#EXTM3U\nother.webm\n", "<MPD></MPD>"])
def test_playlists_are_not_followed(tmp_path: Path, text: str) -> None:
    write_video(tmp_path / "other.webm", clip(), *WEBM)
    (tmp_path / "a.webm").write_text(text)
    assert "a.webm is damaged or cut short" in message(tmp_path / "a.webm")


def test_a_name_that_looks_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would open two files for it."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.webm", clip(), *WEBM).rename("concat:a.webm|b.webm")
    assert len(list_frames("concat:a.webm|b.webm")) == 4


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", clip(), *MOV)
    path.write_bytes(path.read_bytes().replace(b"rle ", b"zzzz"))
    assert "a.mov is in a format that FFmpeg cannot decode" in message(path)


def test_what_counts_is_the_content_not_the_name(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", clip(), *WEBM).rename(tmp_path / "a.mov")
    assert len(list_frames(path)) == 4
