"""Procedural solid textures: functions from points in a part's own frame to colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Vector: TypeAlias = tuple[float, float, float]
Texture: TypeAlias = Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]
"""Colours in [0, 1] of points given in the frame of the part."""


def plain(colour: Vector) -> Texture:
    """One colour."""
    return lambda points: points.new_tensor(colour).expand_as(points)


def gradient(axis: int, low: float, high: float, at_low: Vector, at_high: Vector) -> Texture:
    """A linear gradient along an axis, from one colour at coordinate `low` to another at `high`."""

    def texture(points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        share = ((points[:, axis, None] - low) / (high - low)).clamp(0, 1)
        return torch.lerp(points.new_tensor(at_low), points.new_tensor(at_high), share)

    return texture


def stripes(axis: int, period: float, first: Texture, second: Texture, share: float = 0.5) -> Texture:
    """Stripes across an axis; the first texture fills the fraction `share` of each period, centred on its multiples."""
    return choose(lambda points: (points[:, axis] / period + share / 2).remainder(1.0) < share, first, second)


def sectors(count: int, first: Texture, second: Texture, share: float = 0.5) -> Texture:
    """`count` pairs of sectors around the z axis; the first texture fills the fraction `share` of each pair."""
    around = count / (2 * math.pi)
    return choose(
        lambda points: (torch.atan2(points[:, 1], points[:, 0]) * around).remainder(1.0) < share, first, second
    )


def checks(edge: float, first: Texture, second: Texture) -> Texture:
    """A 3D checkerboard of two textures with cells of side `edge`."""
    return choose(lambda points: (points / edge).floor().sum(-1).remainder(2.0) < 1.0, first, second)


def spots(centres: list[Vector], radius: float, spot: Texture, ground: Texture) -> Texture:
    """Round spots: one texture within `radius` of any of the centres, the other elsewhere."""

    def inside(points: Float[Tensor, "points 3"]) -> Tensor:
        return torch.stack([(points - points.new_tensor(c)).square().sum(-1) for c in centres]).amin(0) < radius**2

    return choose(inside, spot, ground)


def above(axis: int, level: float, over: Texture, under: Texture) -> Texture:
    """One texture where a coordinate exceeds `level`, the other elsewhere."""
    return choose(lambda points: points[:, axis] > level, over, under)


def choose(rule: Callable[[Tensor], Tensor], where_true: Texture, where_false: Texture) -> Texture:
    """One of two textures, by a boolean rule on the points."""
    return lambda points: torch.where(rule(points)[:, None], where_true(points), where_false(points))
