"""Image operations: premultiply, pad, resize, composite (method.md section 2)."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

MAX_SIDE = 8192
"""Largest accepted width or height in pixels."""


def composite_white(rgba: Float[Tensor, "*batch 4 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """Premultiplied RGBA over white."""
    return rgba[..., :3, :, :] + (1 - rgba[..., 3:, :, :])


def straight_colour(colour: Float[Tensor, "*image"], alpha: Float[Tensor, "*#image"]) -> Float[Tensor, "*image"]:
    """Premultiplied to straight colour, in [0, 1]; 0 where alpha is 0."""
    return (colour / alpha.clamp(min=1e-6)).clamp(0.0, 1.0)


def resized(images: Float[Tensor, "images c size size"], side: int) -> Float[Tensor, "images c side side"]:
    """Resize square images: area averaging to shrink them, bilinear interpolation to enlarge them."""
    mode = "area" if side <= images.shape[-1] else "bilinear"
    return F.interpolate(images, (side, side), mode=mode)


def locate_pixels(
    pixels: Int64[Tensor, " rays"], side: int
) -> tuple[Int64[Tensor, " rays"], Int64[Tensor, " rays"], Int64[Tensor, " rays"]]:
    """Image, row and column of pixels of square images, counted image after image and row after row.

    Args:
        pixels: Numbers from 0 to images * side^2 - 1.
        side: Side of the images in pixels.
    """
    rows = pixels // side
    return rows // side, rows % side, pixels % side


def unit_range(rgba: Shaped[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
    """8- or 16-bit values to [0, 1]."""
    image = rgba.astype(np.float32)
    image /= np.iinfo(rgba.dtype).max
    return image


def premultiply(rgba: Shaped[np.ndarray, "h w 4"]) -> Float32[np.ndarray, "h w 4"]:
    """Straight 8- or 16-bit RGBA to premultiplied RGBA in [0, 1]."""
    image = unit_range(rgba)
    for channel in range(3):  # One by one: several times faster than broadcasting over the last axis.
        image[..., channel] *= image[..., 3]
    return image


def square_pad(image: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "side side c"]:
    """Centre the image in the smallest square that contains it; the border is transparent black."""
    height, width = image.shape[:2]
    if height == width:
        return image
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, image.shape[2]), image.dtype)
    square[top : top + height, left : left + width] = image
    return square


def resize_area(image: Shaped[np.ndarray, "h w c"], size: int) -> Shaped[np.ndarray, "size size c"]:
    """Resize to `size` x `size` with OpenCV's INTER_AREA: shrinking averages the area that a pixel covers."""
    import cv2

    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
