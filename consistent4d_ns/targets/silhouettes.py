"""What is the object in a picture of it, and how its outline is cleaned: pure functions of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from consistent4d_ns.data.images import straight_colour
from consistent4d_ns.data.parts import large_parts, reaching_the_border

SKIRT = 2
"""Pixels around the parts that are kept in which a soft edge may fade out."""


def background(images: Float[Tensor, "images 3 h w"], tolerance: float) -> Bool[Tensor, "images h w"]:
    """Pixels that are white and connected, across sides of white pixels, with the border of their image.

    Args:
        images: In [0, 1], on white.
        tolerance: How far below 1 each channel of white may be.
    """
    white = (images.amin(dim=1) > 1.0 - tolerance).cpu().numpy()
    return _each(white, reaching_the_border).to(images.device)


def cleaned(
    rgb: Float[Tensor, "images 3 h w"],
    accumulation: Float[Tensor, "images h w"],
    opacity_range: tuple[float, float],
    min_part: float,
) -> tuple[Float[Tensor, "images 3 h w"], Float[Tensor, "images h w"]]:
    """Renderings with clear edges and without small parts: the object's own colour on white, and its opacity.

    Args:
        rgb: Colour on white, in [0, 1].
        accumulation: Opacity in [0, 1].
        opacity_range: Opacities up to the first become 0, from the second on 1, with a smooth step between them; equal
            values give a hard edge.
        min_part: Parts smaller than this share of the largest part of their image are removed.
    """
    low, high = opacity_range
    solid = (accumulation > 0.5 * (low + high)).cpu().numpy()
    kept = _each(solid, lambda mask: large_parts(mask, min_part)).to(accumulation)
    opacity = kept if low == high else dilated(kept, SKIRT) * smooth_step(accumulation, low, high)
    foreground = rgb - (1.0 - accumulation[:, None])
    straight = straight_colour(foreground, accumulation[:, None])
    return straight * opacity[:, None] + (1.0 - opacity[:, None]), opacity


def smooth_step(values: Float[Tensor, "*batch"], low: float, high: float) -> Float[Tensor, "*batch"]:
    """0 up to `low`, 1 from `high` on, and 3 x^2 - 2 x^3 between them."""
    x = ((values - low) / (high - low)).clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def dilated(masks: Float[Tensor, "images h w"], radius: int) -> Float[Tensor, "images h w"]:
    """Masks that reach `radius` pixels further, corners included."""
    return F.max_pool2d(masks[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]


def _each(
    masks: Bool[np.ndarray, "images h w"], function: Callable[[Bool[np.ndarray, "h w"]], Bool[np.ndarray, "h w"]]
) -> Bool[Tensor, "images h w"]:
    return torch.from_numpy(np.stack([function(mask) for mask in masks]))
