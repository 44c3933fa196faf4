"""Plain videos, animations and pictures as people have them: right frames, right colours, the right way up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.data.videos import read_plain_video
from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.clip import Clip, open_clip
from consistent4d_ns.preparing.options import SelectionOptions
from tests.data.media import write_animation
from tests.preparing.clips import discs, over, pictures, plain_video, texture, with_alpha

HEVC = ("-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p10le", "-crf", "8")


def opened(source: Path, frames: int = 32, ending: str = "") -> Clip:
    return open_clip(source, SelectionOptions(frames=frames), ending)


def ffmpeg(*words: str, data: bytes | None = None) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *words], input=data, check=True)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("h264.mp4", ("-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p")),
        ("hevc.mov", HEVC),
        ("prores.mov", ("-c:v", "prores_ks", "-profile:v", "3", "-pix_fmt", "yuv422p10le")),
        ("vp9.webm", ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-pix_fmt", "yuv420p")),
        ("h264.mkv", ("-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p")),
    ],
)
def test_plain_videos(tmp_path: Path, name: str, encoder: tuple[str, ...]) -> None:
    rgb = over(discs(5), texture())
    clip = opened(plain_video(tmp_path / name, rgb, *encoder), frames=3)
    assert (clip.alpha, clip.size, clip.indices) == (False, (96, 128), (0, 2, 4))
    assert clip.seconds == pytest.approx((0, 0.2, 0.4))
    for image, expected in zip(clip.images(), rgb[[0, 2, 4]], strict=True):
        assert np.abs(image.astype(int) - expected).mean() < 6


def test_skipping_gives_the_frames_that_decoding_all_gives(tmp_path: Path) -> None:
    source = plain_video(
        tmp_path / "a.mp4", over(discs(40, step=1), texture()), "-c:v", "libx264", "-g", "7", "-bf", "2"
    )
    every = list(read_plain_video(source, range(40)))
    some = (1, 2, 13, 14, 33, 39)
    for index, image in zip(some, read_plain_video(source, some), strict=True):
        assert np.array_equal(image, every[index])


def test_rotation_is_applied(tmp_path: Path) -> None:
    rgb = over(discs(2), texture())
    source = plain_video(tmp_path / "flat.mp4", rgb)
    ffmpeg("-display_rotation", "90", "-i", str(source), "-c", "copy", str(tmp_path / "turned.mp4"))
    (image, _) = opened(tmp_path / "turned.mp4").images()
    assert np.abs(image.astype(int) - np.rot90(rgb[0])).mean() < 6


@pytest.mark.parametrize(("transfer", "signal"), [("smpte2084", 0.38), ("arib-std-b67", 0.38)])
def test_high_dynamic_range_becomes_ordinary_tones(tmp_path: Path, transfer: str, signal: float) -> None:
    """Mid grey stays mid grey (26 and 27 cd/m^2 of 203), and the brightest highlight becomes white."""
    patch = np.full((2, 64, 64, 3), round(signal * 65535), np.uint16)
    patch[:, :, 32:] = 65535
    tags = f"log-level=error:lossless=1:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    form = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "64x64", "-r", "5", "-i", "-"]
    convert = ["-vf", "scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le"]
    target = tmp_path / "hdr.mp4"
    ffmpeg(*form, *convert, "-c:v", "libx265", "-x265-params", tags, str(target), data=patch.tobytes())
    image = next(opened(target).images())
    assert np.abs(image[:, :24].astype(int) - 100).max() <= 4
    assert image[:, 40:].min() >= 250


@pytest.mark.parametrize("name", ["a.gif", "a.apng", "a.webp"])
def test_animations_with_their_own_times(tmp_path: Path, name: str) -> None:
    images = with_alpha(over(discs(4), texture()), discs(4))
    clip = opened(write_animation(tmp_path / name, images, [100, 300, 100, 100]))
    assert clip.alpha
    assert clip.seconds == pytest.approx((0, 0.1, 0.4, 0.5))
    assert next(clip.images()).shape == (96, 128, 4)


def test_photos_of_a_phone(tmp_path: Path) -> None:
    """JPEG files that EXIF turns upright."""
    rgb = over(discs(2), texture())
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(rgb):
        Image.fromarray(image).save(tmp_path / "photos" / f"IMG_{i:04d}.JPG", quality=95, exif=exif, format="JPEG")
    image = next(opened(tmp_path / "photos").images())
    assert np.abs(image.astype(int) - np.rot90(rgb[0], -1)).mean() < 6


def test_opaque_alpha_is_none(tmp_path: Path) -> None:
    clip = opened(pictures(tmp_path / "frames", with_alpha(over(discs(2), texture()))))
    assert not clip.alpha
    assert next(clip.images()).shape[2] == 3


def test_frames_of_different_sizes(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "frames", over(discs(3), texture()))
    Image.new("RGB", (20, 20)).save(folder / "00001.png")
    with pytest.raises(InputError, match=r"frame 1 of .* is 20x20 but the first chosen one is 128x96"):
        list(opened(folder).images())


def test_an_end_that_is_missing(tmp_path: Path) -> None:
    source = plain_video(tmp_path / "a.mkv", over(discs(30, step=1), texture()))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a\.mkv"):
        list(opened(source).images())
