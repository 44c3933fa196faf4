"""Frames come out exact, in order, on time; what cannot be used is named in one line (method.md section 2)."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.images import composite_white, premultiply, resize_area, square_pad
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.data.stills import read_still
from consistent4d_ns.errors import InputError
from tests.conftest import golden_path

LOSSLESS = ("gif", "apng", "png", "webp")


def square(shift: int = 0, height: int = 32, width: int = 32) -> UInt8[np.ndarray, "h w 4"]:
    """A red square, half transparent on its left side, on transparent black; it moves right with `shift`."""
    image = np.zeros((height, width, 4), np.uint8)
    image[8:24, 4 + shift : 20 + shift] = (200, 40, 20, 255)
    image[8:24, 4 + shift : 8 + shift, 3] = 128
    return image


def clip(count: int = 4) -> UInt8[np.ndarray, "frames h w 4"]:
    return np.stack([square(2 * i) for i in range(count)])


def write(folder: Path, count: int = 4, name: str = "{}.png") -> Path:
    """A folder of frames."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(square(i)).save(folder / name.format(i))
    return folder


def write_animation(path: Path, images: UInt8[np.ndarray, "frames h w 4"]) -> Path:
    first, *rest = [Image.fromarray(image) for image in images]
    options = {"lossless": True, "exact": True} if path.suffix == ".webp" else {"disposal": 2}
    kind = {".apng": "PNG"}.get(path.suffix)
    first.save(path, kind, save_all=True, append_images=rest, duration=100, loop=0, **options)
    return path


def write_video(path: Path, images: UInt8[np.ndarray, "frames h w 4"], *encoder: str) -> Path:
    import imageio_ffmpeg

    _, height, width, _ = images.shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{width}x{height}", "-r", "10", "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *encoder, str(path)]
    subprocess.run(command, input=images.tobytes(), check=True)
    return path


def message(path: Path | str, size: int = 32, **options: int) -> str:
    """The one line that is said about an input."""
    with pytest.raises(InputError) as raised:
        decode_frames(list_frames(path, **options), size)
    text = str(raised.value)
    assert "\n" not in text
    assert ":" in text  # What is wrong, then the remedy.
    return text


# Listing


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


def test_stride_then_count(tmp_path: Path) -> None:
    frames = list_frames(write(tmp_path, 10), stride=3, count=3)
    assert frames.names == ("0.png", "3.png", "6.png")
    assert frames.available == 10
    assert frames.paths[1] == tmp_path / "3.png"


# Pixels


def test_golden_images_by_the_original_rule(golden) -> None:
    """Squashed, straight alpha, rounded to 8 bits, hard mask: method.md section 2."""
    expected = golden("data_images.safetensors")
    folders = {"small": golden_path("frames32"), "big": golden_path("frames_big")}
    for key, rgb in expected.items():
        if ".rgb." not in key:
            continue
        kind, _, index = key.split(".")
        straight = np.asarray(Image.open(folders[kind[:-2].rstrip("2")] / f"{index}.png"))
        resized = resize_area(straight.astype(np.float32), rgb.shape[1]).round() / 255
        ours = resized[..., :3] * resized[..., 3:] + 1 - resized[..., 3:]
        torch.testing.assert_close(torch.from_numpy(ours), rgb[0], atol=1.001 / 255, rtol=0)
        mask = expected[key.replace("rgb", "mask")][0]
        clear = np.abs(resized[..., 3:] - 0.5) > 1 / 255
        assert np.array_equal((resized[..., 3:] > 0.5)[clear], mask.numpy().astype(bool)[clear])


def test_colours_of_transparent_pixels_do_not_bleed(tmp_path: Path) -> None:
    """Quirk 4: a red half beside a green transparent half; the pixel across the border stays purely red."""
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, :33] = (255, 0, 0, 255)
    image[:, 33:] = (0, 255, 0, 0)
    Image.fromarray(image).save(tmp_path / "0.png")
    rgba = decode_frames(list_frames(tmp_path), 32)[0].float()
    assert rgba[3, 0, 16] == 0.5
    assert rgba[0, 0, 16] == 0.5
    assert rgba[1].abs().max() == 0
    torch.testing.assert_close(composite_white(rgba)[:, 0, 16], torch.tensor([1.0, 0.5, 0.5]))


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 32)])
def test_aspect_ratio_is_kept(tmp_path: Path, height: int, width: int) -> None:
    """Quirk 3: a 16 x 16 square stays one, in the middle."""
    image = np.zeros((height, width, 4), np.uint8)
    image[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = 255
    Image.fromarray(image).save(tmp_path / "0.png")
    expected = torch.zeros(32, 32)
    expected[12:20, 12:20] = 1
    assert torch.equal(decode_frames(list_frames(tmp_path), 32)[0, 3].float(), expected)


def test_square_pad_centres_odd_sizes() -> None:
    padded = square_pad(np.ones((3, 6, 4), np.float32))
    assert padded.shape == (6, 6, 4)
    assert padded[..., 0].sum(axis=1).tolist() == [0, 6, 6, 6, 0, 0]


def test_white_composite_reproduces_8_bit_sources(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
    image[:8, :, 3], image[8:16, :, 3] = 0, 255
    Image.fromarray(image).save(tmp_path / "0.png")
    white = composite_white(decode_frames(list_frames(tmp_path), 32)[0].float()).permute(1, 2, 0)
    alpha = image[..., 3:] / 255.0
    expected = image[..., :3] / 255.0 * alpha + 1 - alpha
    assert np.abs(white.numpy() - expected).max() < 2**-11
    assert white.max() <= 1
    assert np.array_equal((white[8:16] * 255).round().byte().numpy(), image[8:16, :, :3])


def test_resized_composite_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (57, 57, 4), dtype=np.uint8)
    rgba[..., 0] = 255
    for size in (16, 57, 100):
        half = torch.from_numpy(resize_area(premultiply(rgba), size)).permute(2, 0, 1).half()
        white = composite_white(half.float())
        assert 0 <= white.min() <= white.max() <= 1


def test_16_bit_png_is_read_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2**16, (16, 16, 4), dtype=np.uint16)
    image[0, 0, 3] = 0
    cv2.imwrite(str(tmp_path / "0.png"), cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))
    assert np.array_equal(read_still(tmp_path / "0.png"), image)
    rgba = decode_frames(list_frames(tmp_path), 16)[0].float().permute(1, 2, 0).numpy()
    exact = image / 65535.0
    exact[..., :3] *= exact[..., 3:]
    assert np.abs(rgba - exact).max() <= 2**-12


def test_16_bit_grey_png_with_alpha(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 2**16, (8, 8, 2), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 4, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.array_equal(read_still(tmp_path / "0.png"), pixels[..., [0, 0, 0, 1]])


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = square()
    image[..., 3] = np.where(image[..., 3] > 0, 255, 0)
    Image.fromarray(image).quantize(16).save(tmp_path / "0.png")
    assert Image.open(tmp_path / "0.png").mode == "P"
    rgba = decode_frames(list_frames(tmp_path), 32)[0].float()
    assert torch.equal(rgba[3], torch.from_numpy(image[..., 3] / 255).float())


def test_real_sequence(shared_data: Path) -> None:
    frames = list_frames(shared_data / "sequences" / "blooming_rose", stride=8)
    rgba = decode_frames(frames, 256)
    assert rgba.shape == (4, 4, 256, 256)
    assert rgba.dtype == torch.float16
    source = premultiply(np.asarray(Image.open(frames.paths[2])))
    assert np.abs(rgba[2].permute(1, 2, 0).float().numpy() - source).max() <= 2**-12


# Animated files


@pytest.mark.parametrize("kind", LOSSLESS)
def test_animated_images(tmp_path: Path, kind: str) -> None:
    images = clip()
    if kind == "gif":
        images[..., 3] = np.where(images[..., 3] > 0, 255, 0)
    frames = list_frames(write_animation(tmp_path / f"clip.{kind}", images), stride=2)
    assert frames.names == ("00000.png", "00002.png")
    assert frames.paths[1] == tmp_path / f"clip.{kind}" / "00002.png"
    expected = np.stack([premultiply(image) for image in images[::2]])
    assert np.abs(decode_frames(frames, 32).permute(0, 2, 3, 1).float().numpy() - expected).max() <= 2**-12


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


def test_single_image_file_is_a_static_object(tmp_path: Path) -> None:
    write(tmp_path, 1)
    frames = list_frames(tmp_path / "0.png")
    assert len(frames) == 1
    assert torch.equal(decode_frames(frames, 32), decode_frames(list_frames(tmp_path), 32))


# Bad input


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    assert "nowhere does not exist" in message(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    assert f"{tmp_path} holds no frames" in message(tmp_path)


def test_unsupported_type(tmp_path: Path) -> None:
    (tmp_path / "clip.avi").write_bytes(b"x")
    text = message(tmp_path / "clip.avi")
    assert "clip.avi is of an unsupported type" in text
    assert "webm" in text


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
        ({"stride": 0}, "frame_stride is 0"),
        ({"stride": -2}, "frame_stride is -2"),
        ({"count": 0}, "frame_count is 0"),
        ({"count": 5}, "at most 4"),
        ({"count": 3, "stride": 2}, "at most 2"),
    ],
)
def test_stride_and_count_out_of_range(tmp_path: Path, options: dict[str, int], expected: str) -> None:
    assert expected in message(write(tmp_path), **options)


def test_no_alpha_channel(tmp_path: Path) -> None:
    write(tmp_path)
    Image.fromarray(square()).convert("RGB").save(tmp_path / "2.png")
    assert "2.png has no alpha channel" in message(tmp_path)


def test_transparent_and_opaque_frames(tmp_path: Path) -> None:
    image = Image.fromarray(square())
    write(tmp_path)
    image.putalpha(0)
    image.save(tmp_path / "1.png")
    assert "1.png is fully transparent" in message(tmp_path)
    image.putalpha(255)
    image.save(tmp_path / "1.png")
    text = message(tmp_path)
    assert "1.png is fully opaque" in text
    assert "background was not removed" in text


def test_mixed_sizes(tmp_path: Path) -> None:
    write(tmp_path)
    Image.fromarray(square(height=40, width=48)).save(tmp_path / "3.png")
    assert "3.png is 48x40 but 0.png is 32x32" in message(tmp_path)


@pytest.mark.parametrize("name", ["{}.png", "{}.webp"])
def test_truncated_empty_and_garbled_images(tmp_path: Path, name: str) -> None:
    write(tmp_path, 4, name)
    broken = tmp_path / name.format(1)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) * 2 // 3])
    assert f"{broken} is damaged or cut short" in message(tmp_path)
    broken.write_bytes(b"")
    assert f"{broken} is an empty file" in message(tmp_path)
    broken.write_bytes(b"<html>404</html>")
    assert f"{broken} is damaged or cut short" in message(tmp_path)


def test_truncated_16_bit_image(tmp_path: Path) -> None:
    """OpenCV would return the part it could read."""
    image = np.random.default_rng(0).integers(0, 2**16, (64, 64, 4), dtype=np.uint16)
    path = tmp_path / "0.png"
    cv2.imwrite(str(path), image)
    path.write_bytes(path.read_bytes()[:-9000])
    assert "0.png is damaged or cut short" in message(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(9000, 2), (60000, 60000)])
def test_huge_images_are_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "0.png").write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    text = message(tmp_path)
    assert "0.png" in text
    assert "at most 8192 pixels" in text


def test_animation_inside_a_folder(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write_animation(tmp_path / "1.png", clip())
    assert "1.png is an animation inside a folder" in message(tmp_path)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_corrupted_animation(tmp_path: Path, kind: str) -> None:
    path = write_animation(tmp_path / f"clip.{kind}", clip())
    whole = path.read_bytes()
    for part in (0.2, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        assert f"{path} is damaged or cut short" in message(path)
    path.write_bytes(b"")
    assert f"{path} is an empty file" in message(path)


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


def test_frame_of_an_animation_is_named_by_its_index(tmp_path: Path) -> None:
    images = clip()
    images[2, ..., 3] = 0
    path = write_animation(tmp_path / "clip.webp", images)
    assert f"{path} (frame 2) is fully transparent" in message(path)
