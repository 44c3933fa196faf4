"""Reads single images and animations the right way up: as straight RGBA, or as RGB where they have no alpha."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, UnidentifiedImageError

from consistent4d_ns.data.files import UPRIGHT, Orientation, check_not_empty, check_side, oriented, reading
from consistent4d_ns.data.images import MAX_SIDE
from consistent4d_ns.data.times import Spacing
from consistent4d_ns.errors import InputError

STILL_TYPES = (".png", ".webp")
"""Files that can be frames of a folder."""
PLAIN_TYPES = (*STILL_TYPES, ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Files that can be frames of a folder whose background is still to be removed, or masks."""
ANIMATION_TYPES = (".gif", ".apng", ".png", ".webp")
"""Images that can be animated, with alpha."""
FORMATS = ("PNG", "WEBP", "GIF")
"""Formats that Pillow may detect, whatever the file name says; others are unsafe: EPS, for one, starts Ghostscript."""
PLAIN_FORMATS = (*FORMATS, "JPEG", "BMP", "TIFF")
"""The same where an image need not have alpha."""
EXIF_ORIENTATION = 0x0112
"""The EXIF tag."""
ORIENTATIONS: dict[int, Orientation] = {
    1: UPRIGHT,
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""By the value of the EXIF tag."""
PICTURES_IN_PICTURES = ("MPO", "TIFF")
"""Formats whose further images are previews, depth maps or pages; the first one is the picture."""
BROWSER_DELAY = 100.0
"""Milliseconds that browsers show a frame of an animation whose delay is 0."""


def read_still(path: Path) -> Shaped[np.ndarray, "h w 4"]:
    """One image file as straight RGBA of its own depth (8 or 16 bit).

    Raises:
        InputError: It is damaged, too large, animated, or has no alpha channel.
    """
    with _open_image(path) as image:
        if _frames(image, path) > 1:
            raise InputError(f"{path} is an animation inside a folder of frames: give the file itself with --data")
        rgba = _to_rgba(image, path, str(path))  # Also finds damage, which OpenCV does not report.
        orientation = _orientation(image, path)
    return oriented(_read_16_bit(path) if _is_16_bit(path) else rgba, orientation)


def read_plain(path: Path) -> UInt8[np.ndarray, "h w c"]:
    """One image file in 8 bit: straight RGBA where it has alpha, else RGB.

    Raises:
        InputError: It is damaged, too large or animated.
    """
    with _open_image(path, PLAIN_FORMATS) as image:
        if image.format not in PICTURES_IN_PICTURES and _frames(image, path) > 1:
            raise InputError(f"{path} is an animation inside a folder of frames: give the file itself")
        return oriented(_to_8_bit(image, path), _orientation(image, path))


def read_index(path: Path) -> UInt8[np.ndarray, "h w"]:
    """One mask file: the numbers of a palette where it has one, else its brightness, or its alpha where that varies.

    Raises:
        InputError: It is damaged, too large or animated.
    """
    with _open_image(path, PLAIN_FORMATS) as image:
        if image.mode == "P":
            with reading(path):
                return oriented(np.array(image)[..., None], _orientation(image, path))[..., 0]
    plain = read_plain(path)
    if plain.shape[2] == 4 and plain[..., 3].min() < 255:
        return plain[..., 3]
    return plain[..., :3].max(axis=-1)


def still_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as stored, from its header.

    Raises:
        InputError: It is damaged or too large.
    """
    with _open_image(path) as image:
        return image.height, image.width


def read_animation(path: Path, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    """The chosen frames of an animated image as straight RGBA.

    Raises:
        InputError: It is damaged, too large, or has no alpha channel.
    """
    with _open_image(path) as image:
        first = _first_frame(image, path)
        for index in indices:
            with reading(path):
                image.seek(first + index)
            yield oriented(_to_rgba(image, path, f"{path} (frame {index})"), _orientation(image, path))


def read_plain_animation(path: Path, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """The chosen frames of an animated image: straight RGBA where a frame has alpha, else RGB.

    Raises:
        InputError: It is damaged or too large.
    """
    with _open_image(path, PLAIN_FORMATS) as image:
        first = _first_frame(image, path)
        for index in indices:
            with reading(path):
                image.seek(first + index)
            yield oriented(_to_8_bit(image, path), _orientation(image, path))


def animation_spacing(path: Path) -> Spacing:
    """When the frames of an image are shown, by their delays; a still image has one frame and no rate.

    Raises:
        InputError: It is damaged or too large.
    """
    delays = []
    with _open_image(path) as image:
        for index in range(_first_frame(image, path), _frames(image, path)):
            with reading(path):
                image.seek(index)
                image.load()  # WebP knows the delay only then.
            delays.append(float(image.info.get("duration", 0)))
    if not any(delays):
        return Spacing.even(len(delays))
    delays = [delay or BROWSER_DELAY for delay in delays]
    spacing = Spacing.from_stamps([0.0, *accumulate(delays[:-1])])
    even = spacing == Spacing.even(len(delays))
    shown = sum(delays) / len(delays) if even else sum(delays[:-1]) / (len(delays) - 1)
    return Spacing(spacing.positions, 1000.0 / shown)


@contextmanager
def _open_image(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open an image of acceptable size; its pixels are not decoded yet."""
    check_not_empty(path)
    with reading(path):
        image = _identify(path, formats)
    with image:
        check_side(path, image.height, image.width)
        yield image


def _identify(path: Path, formats: tuple[str, ...]) -> Image.Image:
    """Read the header of an image of one of the formats."""
    try:
        return Image.open(path, formats=formats)
    except UnidentifiedImageError:
        raise ValueError(f"not a {', '.join(formats[:-1])} or {formats[-1]} image".replace("WEBP", "WebP")) from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} is far too large: scale it down to at most {MAX_SIDE} pixels a side") from None


def _frames(image: Image.Image, path: Path) -> int:
    """How many frames an open image has; Pillow may have to read all of it for that."""
    with reading(path):
        return getattr(image, "n_frames", 1)


def _first_frame(image: Image.Image, path: Path) -> int:
    """Index of the first frame of an animation: an APNG may begin with an image for programs that play none."""
    return 1 if image.info.get("default_image") and _frames(image, path) > 1 else 0


def _to_rgba(image: Image.Image, path: Path, where: str) -> UInt8[np.ndarray, "h w 4"]:
    """The current frame of an open image as straight 8-bit RGBA."""
    with reading(path):
        image.load()
    if not image.has_transparency_data:
        raise InputError(f"{where} has no alpha channel: cut the object out with `consistent4d prepare`, or save RGBA")
    return np.asarray(image if image.mode == "RGBA" else image.convert("RGBA"))


def _to_8_bit(image: Image.Image, path: Path) -> UInt8[np.ndarray, "h w c"]:
    """The current frame of an open image in 8 bit: straight RGBA where it has alpha, else RGB."""
    with reading(path):
        image.load()
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scaling it.
            grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _orientation(image: Image.Image, path: Path) -> Orientation:
    """Display orientation from the EXIF data of a loaded image."""
    with reading(path):
        return ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1), UPRIGHT)


def _is_16_bit(path: Path) -> bool:
    """Whether this is a 16-bit PNG with alpha, of which Pillow keeps 8 bits only."""
    with path.open("rb") as file:
        header = file.read(26)
    # Bit depth and colour type are bytes 24 and 25; types 4 and 6 are grey and RGB with alpha.
    return header.startswith(b"\x89PNG") and header[24] == 16 and header[25] in (4, 6)


def _read_16_bit(path: Path) -> Shaped[np.ndarray, "h w 4"]:
    """A 16-bit PNG with alpha as straight RGBA."""
    import cv2

    return cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
