"""Masks of other tools: layouts, numbers of objects, matching to frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistent4d_ns.errors import InputError
from consistent4d_ns.preparing.clip import open_clip
from consistent4d_ns.preparing.foreground import Foreground, find_foreground
from consistent4d_ns.preparing.layouts import find_layout
from consistent4d_ns.preparing.options import ObjectOptions, SelectionOptions
from tests.preparing.clips import discs, over, pictures, plain_video, texture, with_alpha

ALPHA = discs(5)
NUMBERS = np.where(ALPHA > 0.5, 2, np.where(discs(5, left=14, radius=9, step=0) > 0.5, 1, 0)).astype(np.uint8)
"""The disc is object 2, and a smaller one is object 1."""


def opened(source: Path, options: ObjectOptions | None = None, frames: int = 3) -> Foreground:
    layout = find_layout(source)
    clip = open_clip(layout.frames, SelectionOptions(frames=frames), layout.ending)
    return find_foreground(clip, layout, options or ObjectOptions())


def masks_of(foreground: Foreground) -> list[np.ndarray]:
    return [mask > 127 for _, mask in foreground.layers() if mask is not None]


def is_disc(masks: list[np.ndarray]) -> bool:
    return len(masks) == 3 and all(np.array_equal(a, b > 0.5) for a, b in zip(masks, ALPHA[::2], strict=True))


@pytest.mark.parametrize(
    ("frames", "masks"),
    [("images", "masks"), ("JPEGImages/cat", "Annotations/cat"), ("rgb", "mask"), ("frames", "masks")],
)
def test_layouts_are_found(tmp_path: Path, frames: str, masks: str) -> None:
    pictures(tmp_path / frames, over(ALPHA, texture()), "{:05d}.jpg")
    pictures(tmp_path / masks, NUMBERS)
    assert is_disc(masks_of(opened(tmp_path)))


def test_arrays_of_track_anything(tmp_path: Path) -> None:
    pictures(tmp_path / "images", over(ALPHA, texture()))
    (tmp_path / "masks").mkdir()
    for i, mask in enumerate(NUMBERS):
        np.save(tmp_path / "masks" / f"{i:05d}.npy", mask.astype(np.int64))
    assert is_disc(masks_of(opened(tmp_path)))
    np.save(tmp_path / "masks" / "00000.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"00000\.npy"):
        masks_of(opened(tmp_path))


def test_cut_outs_beside_the_frames(tmp_path: Path) -> None:
    rgb = over(ALPHA, texture())
    pictures(tmp_path / "set", rgb, "{}.png")
    for i, image in enumerate(with_alpha(rgb, (ALPHA > 0.5).astype(np.float32))):
        Image.fromarray(image).save(tmp_path / "set" / f"{i}_rgba.png")
    foreground = opened(tmp_path / "set")
    assert foreground.kind == "alpha"
    assert is_disc(masks_of(foreground))


def test_masks_for_a_video(tmp_path: Path) -> None:
    """In the order of the frames, whatever their names; as a folder or as a video."""
    source = plain_video(tmp_path / "clip.mp4", over(ALPHA, texture()))
    masks = pictures(tmp_path / "cat", (ALPHA > 0.5).astype(np.uint8) * 255, "mask_{}.png")
    assert is_disc(masks_of(opened(source, ObjectOptions(masks=masks))))
    white = np.repeat((ALPHA > 0.5)[..., None], 3, axis=3).astype(np.uint8) * 255
    film = plain_video(tmp_path / "masks.mp4", white, "-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p")
    assert is_disc(masks_of(opened(source, ObjectOptions(masks=film))))


def test_the_object_that_is_meant(tmp_path: Path) -> None:
    source = pictures(tmp_path / "frames", over(ALPHA, texture()))
    masks = pictures(tmp_path / "numbers", NUMBERS)
    assert opened(source, ObjectOptions(masks=masks)).number == 2
    assert opened(source, ObjectOptions(masks=masks, object=1)).number == 1
    assert opened(source, ObjectOptions(masks=masks, point=(14, 48))).number == 1
    assert opened(source, ObjectOptions(masks=masks, box=(0, 30, 30, 70))).number == 1
    for options, words in (
        (ObjectOptions(masks=masks, object=7), r"has no object 7 \(there are 1, 2\)"),
        (ObjectOptions(masks=masks, point=(1, 1)), "no object at --point"),
        (ObjectOptions(masks=masks, box=(0, 0, 9, 9)), "no object in --box"),
    ):
        with pytest.raises(InputError, match=words):
            opened(source, options)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    source = pictures(tmp_path / "frames", over(ALPHA, texture()))
    few = pictures(tmp_path / "few", NUMBERS[:3], "m{}.png")
    with pytest.raises(InputError, match=r"holds 3 masks but .* 5 frames"):
        opened(source, ObjectOptions(masks=few))
    wide = pictures(tmp_path / "wide", NUMBERS[:, :, :60])
    with pytest.raises(InputError, match="masks of 60x96 but frames are 128x96"):
        masks_of(opened(source, ObjectOptions(masks=wide)))
    grey = pictures(tmp_path / "grey", (ALPHA * 255).astype(np.uint8))
    with pytest.raises(InputError, match="leave out --object"):
        opened(source, ObjectOptions(masks=grey, object=1))
    for name in ("a", "b"):
        pictures(tmp_path / "two" / "JPEGImages" / name, over(ALPHA, texture()))
    with pytest.raises(InputError, match=r"several sequences \(a, b\)"):
        opened(tmp_path / "two")
