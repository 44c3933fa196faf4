"""Frames, animations and videos for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.errors import InputError

CASES = Path(__file__).parent / "cases"
"""Small folders and files as users have them."""
WEBM = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")
"""Encoder of a WebM file with alpha."""
MOV = ("-c:v", "qtrle", "-pix_fmt", "argb")
"""Encoder of a lossless MOV file with alpha."""


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


def write_animation(path: Path, images: UInt8[np.ndarray, "frames h w 4"], delays: int | list[int] = 100) -> Path:
    """Losslessly; delays in milliseconds."""
    first, *rest = [Image.fromarray(image) for image in images]
    options = {"lossless": True, "exact": True} if path.suffix == ".webp" else {"disposal": 2}
    kind = {".apng": "PNG"}.get(path.suffix)
    first.save(path, kind, save_all=True, append_images=rest, duration=delays, loop=0, **options)
    return path


def write_video(path: Path, images: UInt8[np.ndarray, "frames h w 4"], *encoder: str) -> Path:
    import imageio_ffmpeg

    _, height, width, _ = images.shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{width}x{height}", "-r", "10", "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *encoder, str(path)]
    subprocess.run(command, input=images.tobytes(), check=True)
    return path


def message(path: Path | str, size: int = 32, **options: Any) -> str:
    """The one line that is said about an input."""
    with pytest.raises(InputError) as raised:
        decode_frames(list_frames(path, **options), size)
    text = str(raised.value)
    assert "\n" not in text
    assert ":" in text  # What is wrong, then the remedy.
    return text
