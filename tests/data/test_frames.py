"""Frames are fitted to a square without losing what they show (method.md section 2)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from PIL import Image

from consistent4d_ns.data import frames as frames_module
from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.images import composite_white, premultiply, resize_area, square_pad
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.data.stills import read_still
from tests.conftest import golden_path
from tests.data.media import message, square, write


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


def test_real_sequence(shared_data: Path) -> None:
    frames = list_frames(shared_data / "sequences" / "blooming_rose", stride=8)
    rgba = decode_frames(frames, 256)
    assert rgba.shape == (4, 4, 256, 256)
    assert rgba.dtype == torch.float16
    source = premultiply(np.asarray(Image.open(frames.paths[2])))
    assert np.abs(rgba[2].permute(1, 2, 0).float().numpy() - source).max() <= 2**-12


def test_transparent_and_opaque_frames(tmp_path: Path) -> None:
    image = Image.fromarray(square())
    write(tmp_path)
    image.putalpha(0)
    image.save(tmp_path / "1.png")
    assert "1.png is fully transparent" in message(tmp_path)
    image.putalpha(255)
    image.save(tmp_path / "1.png")
    text = message(tmp_path)
    assert "1.png is fully opaque, as" in text
    assert f"`consistent4d prepare {tmp_path} OUT`" in text
    assert "background was not removed" in text


def test_mixed_sizes(tmp_path: Path) -> None:
    write(tmp_path)
    Image.fromarray(square(height=40, width=48)).save(tmp_path / "3.png")
    assert "3.png is 48x40 but 0.png is 32x32" in message(tmp_path)


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of 8192 x 8192 pixels at a time would take 8 GB."""
    busy, most = 0, 0

    def read(path: Path) -> UInt8[np.ndarray, "h w 4"]:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.02)
        busy -= 1
        return read_still(path)

    monkeypatch.setattr(frames_module, "read_still", read)
    decode_frames(list_frames(write(tmp_path, 6)), 32)
    assert most > 1
    monkeypatch.setattr(frames_module, "LARGE", 32 * 32 - 1)
    most = 0
    decode_frames(list_frames(tmp_path), 32)
    assert most == 1


def test_few_frames_are_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of thousands, those that wait would fill the memory."""
    write(tmp_path, 24)
    decoded, most_ahead = [], 0
    read = frames_module.read_still
    monkeypatch.setattr(frames_module, "read_still", lambda path: decoded.append(path) or read(path))
    for number, _ in enumerate(frames_module._fitted_frames(list_frames(tmp_path), 32)):
        time.sleep(0.005)  # The one who takes them is slow.
        most_ahead = max(most_ahead, len(decoded) - number - 1)
    assert len(decoded) == 24
    assert most_ahead <= frames_module.AHEAD
