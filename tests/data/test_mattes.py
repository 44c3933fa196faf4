"""Alpha channels that cannot be meant are said; real ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32
from PIL import Image

from consistent4d_ns.data.frames import decode_frames
from consistent4d_ns.data.listing import list_frames
from consistent4d_ns.data.mattes import Defect, alpha_defects
from tests.data.media import square


def disc(radius: float, size: int = 64) -> Float32[np.ndarray, "h w"]:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return (x**2 + y**2 < radius**2).astype(np.float32)


def test_an_object_on_transparent_ground_is_fine() -> None:
    assert alpha_defects(disc(20)) == frozenset()
    assert alpha_defects(0.3 * disc(20)) == frozenset()  # Glass.
    close_up = np.ones((64, 64), np.float32)
    close_up[:20] = close_up[:, :20] = 0
    assert alpha_defects(close_up) == frozenset()


@pytest.mark.parametrize("ground", [0.03, 0.2, 0.45])
def test_haze(ground: float) -> None:
    assert alpha_defects(np.maximum(disc(20), np.float32(ground))) == {Defect.HAZE}


def test_inverted() -> None:
    assert alpha_defects(1 - disc(20)) == {Defect.INVERTED}


def test_small() -> None:
    assert alpha_defects(disc(1.5)) == {Defect.SMALL}
    assert alpha_defects(disc(4)) == frozenset()


def write_frames(folder: Path, change: Float32[np.ndarray, "h w"] | None = None, count: int = 4) -> Path:
    for i in range(count):
        image = square(i)
        if change is not None and i > 0:
            image[..., 3] = 255 * change
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def warnings(folder: Path, **options: Any) -> list[str]:
    lines: list[str] = []
    decode_frames(list_frames(folder, **options), 32, lines.append)
    return lines


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (np.maximum(disc(8, 32), np.float32(0.1)), "faint all over: raise the black point"),
        (1 - disc(8, 32), "inverted: invert the alpha channel"),
        (disc(0.8, 32) * 0.4, "a few pixels: crop the video"),
    ],
)
def test_each_defect_is_said_once(tmp_path: Path, alpha: Float32[np.ndarray, "h w"], expected: str) -> None:
    (line,) = warnings(write_frames(tmp_path, alpha))
    assert "\n" not in line
    assert line.startswith(str(tmp_path / "1.png"))
    assert expected in line
    assert line.endswith("(3 of 4 frames)")


def test_good_frames_are_not_commented(tmp_path: Path) -> None:
    assert warnings(write_frames(tmp_path)) == []


def test_straight_colours_said_to_be_premultiplied(tmp_path: Path) -> None:
    (line,) = warnings(write_frames(tmp_path), premultiplied=True)
    assert "not premultiplied: set the data parser's alpha to straight" in line


def test_premultiplied_colours(tmp_path: Path) -> None:
    """Stored multiplied by alpha, they come out as the same picture stored straight."""
    straight, multiplied = tmp_path / "straight", tmp_path / "multiplied"
    straight.mkdir()
    multiplied.mkdir()
    write_frames(straight)
    for i in range(4):
        image = square(i).astype(np.float64)
        image[..., :3] *= image[..., 3:] / 255
        Image.fromarray(image.round().astype(np.uint8)).save(multiplied / f"{i}.png")
    expected = decode_frames(list_frames(straight), 32)
    assert warnings(multiplied, premultiplied=True) == []
    found = decode_frames(list_frames(multiplied, premultiplied=True), 32)
    assert (found - expected).abs().max() <= 0.5 / 255 + 2**-11
