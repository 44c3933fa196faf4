"""Chroma key: the matte of an object in front of a background of one colour."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from consistent4d_ns.errors import InputError

CLEAR, SOLID = 18.0, 42.0
"""Distances from the key colour, in units of CIELAB, up to which a pixel is background and from which it is object."""
LIGHTNESS = 0.25
"""Weight of differences in lightness: shadows on the backdrop are background. 1 for a grey backdrop."""
GREY = 20.0
"""Chroma below which a key colour counts as grey."""


def parse_colour(text: str) -> tuple[int, int, int]:
    """A colour by its name or code.

    Raises:
        InputError: There is no such colour.
    """
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise InputError(f"--key is {text!r}: give a colour such as '#00ff00' or 'lime'.") from None


def key_matte(rgb: UInt8[np.ndarray, "h w 3"], colour: tuple[int, int, int]) -> UInt8[np.ndarray, "h w"]:
    """How far each pixel belongs to the object, 0 to 255: by its distance from the key colour."""
    key = _lab(np.array([[colour]], np.uint8))[0, 0]
    difference = _lab(rgb) - key
    if np.hypot(key[1], key[2]) > GREY:
        difference[..., 0] *= LIGHTNESS
    distance = np.sqrt(np.square(difference).sum(axis=-1))
    return (((distance - CLEAR) / (SOLID - CLEAR)).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _lab(rgb: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """CIELAB as float32."""
    import cv2

    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
