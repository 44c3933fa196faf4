"""Images and animations: exact, the right way up, at their own times; what cannot be used is named in one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.images import premultiply
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.data.stills import EXIF_ORIENTATION, read_plain, read_still
from consistent4d_ns.errors import InputError
from tests.data.media import CASES, clip, message, square, write, write_animation

LOSSLESS = ("gif", "apng", "png", "webp")


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


def test_single_image_file_is_a_static_object(tmp_path: Path) -> None:
    write(tmp_path, 1)
    frames = list_frames(tmp_path / "0.png")
    assert len(frames) == 1
    assert torch.equal(decode_frames(frames, 32), decode_frames(list_frames(tmp_path), 32))


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


def test_the_first_bytes_of_an_animation(tmp_path: Path) -> None:
    """Pillow has to read on to know how many frames there are."""
    images = [Image.fromarray(square(2 * i, 48, 48)) for i in range(4)]
    images[0].save(tmp_path / "whole.gif", save_all=True, append_images=images[1:], disposal=2)
    for path in (tmp_path / "0.gif", tmp_path / "frames" / "0.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / "whole.gif").read_bytes()[:200])
    assert "0.gif is damaged or cut short" in message(tmp_path / "0.gif")
    assert "0.png is damaged or cut short" in message(tmp_path / "frames")
    with pytest.raises(InputError, match=r"0\.png is damaged or cut short"):
        read_plain(tmp_path / "frames" / "0.png")


@pytest.mark.parametrize("exif", [b"MM\x00*\x00\x00", b"junk"])
@pytest.mark.parametrize("kind", ["webp", "png"])
def test_damaged_exif_data(tmp_path: Path, kind: str, exif: bytes) -> None:
    path = tmp_path / f"0.{kind}"
    Image.fromarray(square()).save(path, exif=exif)
    assert f"{path} is damaged or cut short" in message(tmp_path)
    with pytest.raises(InputError, match="is damaged or cut short"):
        read_plain(path)


def test_a_jpeg_of_damaged_exif_data_is_upright(tmp_path: Path) -> None:
    """Pillow has looked for its resolution there, and given up."""
    Image.fromarray(square()).convert("RGB").save(tmp_path / "0.jpg", exif=b"Exif\0\0junk")
    assert read_plain(tmp_path / "0.jpg").shape == (32, 32, 3)


def test_frame_of_an_animation_is_named_by_its_index(tmp_path: Path) -> None:
    images = clip()
    images[2, ..., 3] = 0
    path = write_animation(tmp_path / "clip.webp", images)
    assert f"{path} (frame 2) is fully transparent" in message(path)


def test_no_alpha_channel(tmp_path: Path) -> None:
    write(tmp_path)
    Image.fromarray(square()).convert("RGB").save(tmp_path / "2.png")
    assert "2.png has no alpha channel" in message(tmp_path)


# Orientation


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (5, 7, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / f"0.{kind}"
    Image.fromarray(pixels).save(path, exif=exif, lossless=True, exact=True)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_still(path), expected)


def test_exif_orientation_of_16_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (5, 7, 4), dtype=np.uint16)
    path = tmp_path / "0.png"
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])  # After the header.
    assert np.array_equal(read_still(path), np.rot90(pixels, -1))


def test_frames_turned_by_a_phone() -> None:
    frames = decode_frames(list_frames(CASES / "exif_png"), 96)
    assert frames.shape == (2, 4, 96, 96)
    assert frames[:, 3, :, :16].max() == 0  # 64 x 96 as shown: the borders are left and right.
    assert frames[:, 3, :, -16:].max() == 0


def test_animation_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    first, *rest = [Image.fromarray(image) for image in clip(3)]
    first.save(tmp_path / "a.webp", save_all=True, append_images=rest, lossless=True, exact=True, exif=exif)
    turned = decode_frames(list_frames(tmp_path / "a.webp"), 32)
    expected = np.stack([premultiply(np.rot90(image, -1)) for image in clip(3)])
    assert np.abs(turned.permute(0, 2, 3, 1).float().numpy() - expected).max() <= 2**-12


# Times


@pytest.mark.parametrize("kind", ["gif", "apng", "webp"])
def test_unequal_delays(tmp_path: Path, kind: str) -> None:
    """The last delay says how long the last frame stays; it has no part in when frames begin."""
    path = write_animation(tmp_path / f"clip.{kind}", clip(4), [100, 300, 100, 700])
    spacing = list_frames(path).spacing
    assert spacing.positions == pytest.approx((0.0, 0.6, 2.4, 3.0))
    assert spacing.rate == pytest.approx(6.0)


def test_a_delay_of_zero_is_a_tenth_of_a_second(tmp_path: Path) -> None:
    """As in browsers; where all are zero, nothing is known."""
    mixed = list_frames(write_animation(tmp_path / "mixed.gif", clip(3), [100, 0, 100])).spacing
    assert (mixed.positions, mixed.rate) == ((0.0, 1.0, 2.0), 10.0)
    assert list_frames(write_animation(tmp_path / "zero.gif", clip(3), [0, 0, 0])).spacing.rate is None


def test_picture_in_front_of_an_animation(tmp_path: Path) -> None:
    """An APNG's image for programs that play none is no frame."""
    poster, *rest = [Image.fromarray(image) for image in (square(11), *clip(3))]
    poster.save(
        tmp_path / "a.apng", "PNG", save_all=True, append_images=rest, default_image=True, duration=100, disposal=1
    )
    frames = list_frames(tmp_path / "a.apng")
    assert len(frames) == 3
    expected = np.stack([premultiply(image) for image in clip(3)])
    assert np.abs(decode_frames(frames, 32).permute(0, 2, 3, 1).float().numpy() - expected).max() <= 2**-12


# Formats


@pytest.mark.parametrize("kind", ["EPS", "BMP", "TIFF", "JPEG"])
def test_other_formats_are_not_tried(tmp_path: Path, kind: str) -> None:
    """Whatever the name says: Pillow would start Ghostscript for EPS."""
    Image.fromarray(square()[..., :3]).save(tmp_path / "0.png", kind)
    assert "0.png is damaged or cut short (not a PNG, WebP or GIF image)" in message(tmp_path)
