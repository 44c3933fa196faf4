"""Procedural textures: functions from points of a part's own frame to colours."""

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
    """Runs linearly from one colour at coordinate `low` of an axis to another at `high`."""

    def texture(points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        share = ((points[:, axis, None] - low) / (high - low)).clamp(0, 1)
        return torch.lerp(points.new_tensor(at_low), points.new_tensor(at_high), share)

    return texture


def stripes(axis: int, period: float, first: Texture, second: Texture, share: float = 0.5) -> Texture:
    """Stripes across an axis; `share` of every period, centred on multiples of it, belongs to the first texture."""
    return choose(lambda points: (points[:, axis] / period + share / 2).remainder(1.0) < share, first, second)


def sectors(count: int, first: Texture, second: Texture, share: float = 0.5) -> Texture:
    """`count` pairs of sectors around the z axis; `share` of every pair belongs to the first texture."""
    around = count / (2 * math.pi)
    return choose(
        lambda points: (torch.atan2(points[:, 1], points[:, 0]) * around).remainder(1.0) < share, first, second
    )


def checks(edge: float, first: Texture, second: Texture) -> Texture:
    """Cubes of edge length `edge`, by turns of the one and the other texture."""
    return choose(lambda points: (points / edge).floor().sum(-1).remainder(2.0) < 1.0, first, second)


def spots(centres: list[Vector], radius: float, spot: Texture, ground: Texture) -> Texture:
    """Round spots where the surface comes closer than `radius` to one of the centres."""

    def inside(points: Float[Tensor, "points 3"]) -> Tensor:
        return torch.stack([(points - points.new_tensor(c)).square().sum(-1) for c in centres]).amin(0) < radius**2

    return choose(inside, spot, ground)


def above(axis: int, level: float, over: Texture, under: Texture) -> Texture:
    """One texture where a coordinate is greater than `level`, the other elsewhere."""
    return choose(lambda points: points[:, axis] > level, over, under)


def choose(rule: Callable[[Tensor], Tensor], where_true: Texture, where_false: Texture) -> Texture:
    """One of two textures, by a boolean rule on the points."""
    return lambda points: torch.where(rule(points)[:, None], where_true(points), where_false(points))
