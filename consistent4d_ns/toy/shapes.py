"""Closed-form intersections of rays with solids.

Every solid is centred on the origin of its own frame. A ray is given by any point on it and a unit direction; the
result is the signed distance from that point to the entry into the solid, infinity for a miss. Points close to the
solid keep float32 accurate enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Shape(Protocol):
    """A solid centred on the origin."""

    @property
    def radius(self) -> float:
        """Radius of a ball around the origin that contains the solid."""
        ...

    def enter(self, points: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, " rays"]:
        """Signed distance from `points` along the unit `directions` to the entry; inf for a miss."""
        ...

    def normals(self, points: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 3"]:
        """Outward unit normals at points of the surface."""
        ...


def smaller_root(
    a: Float[Tensor, " rays"], b: Float[Tensor, " rays"], c: Float[Tensor, " rays"]
) -> Float[Tensor, " rays"]:
    """Smaller solution t of a t^2 + 2 b t + c = 0 with a > 0; inf where there is none."""
    discriminant = b * b - a * c
    root = (-b - discriminant.clamp_min(0).sqrt()) / a
    return torch.where(discriminant > 0, root, math.inf)


def enter_sphere(
    points: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], radius: float
) -> Float[Tensor, " rays"]:
    """Where lines (directions of any length) enter the sphere around the origin; inf for a miss."""
    a = directions.square().sum(-1)
    b = (points * directions).sum(-1)
    return smaller_root(a, b, points.square().sum(-1) - radius**2)


@dataclass(frozen=True)
class Ellipsoid:
    """An axis-aligned ellipsoid."""

    x: float
    """Semi-axis along x."""
    y: float
    """Semi-axis along y."""
    z: float
    """Semi-axis along z."""

    @property
    def radius(self) -> float:
        return max(self.x, self.y, self.z)

    def enter(self, points: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, " rays"]:
        axes = points.new_tensor((self.x, self.y, self.z))
        return enter_sphere(points / axes, directions / axes, 1.0)

    def normals(self, points: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 3"]:
        return F.normalize(points / points.new_tensor((self.x, self.y, self.z)).square(), dim=-1)


@dataclass(frozen=True)
class Capsule:
    """A cylinder along z with hemispherical caps."""

    half_length: float
    """Half the length of the cylinder, without the caps."""
    thickness: float
    """Radius of the cylinder and of the caps."""

    @property
    def radius(self) -> float:
        return self.half_length + self.thickness

    def enter(self, points: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, " rays"]:
        across, along = directions[:, :2], directions[:, 2]
        # A ray along the axis hits the infinite cylinder far away, on the side it comes from, so that the cap decides.
        a = across.square().sum(-1).clamp_min(1e-9)
        b = (points[:, :2] * across).sum(-1)
        wall = smaller_root(a, b, points[:, :2].square().sum(-1) - self.thickness**2)
        height = points[:, 2] + wall * along
        end = torch.zeros_like(points)
        end[:, 2] = torch.copysign(torch.full_like(height, self.half_length), height)
        cap = enter_sphere(points - end, directions, self.thickness)
        # A miss of the infinite cylinder is inf (or NaN after a product with zero) and misses the caps as well.
        return torch.where(height.abs() <= self.half_length, wall, torch.where(wall.isfinite(), cap, math.inf))

    def normals(self, points: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 3"]:
        axis = torch.zeros_like(points)
        axis[:, 2] = points[:, 2].clamp(-self.half_length, self.half_length)
        return F.normalize(points - axis, dim=-1)


@dataclass(frozen=True)
class Box:
    """An axis-aligned box."""

    x: float
    """Half the edge length along x."""
    y: float
    """Half the edge length along y."""
    z: float
    """Half the edge length along z."""

    @property
    def radius(self) -> float:
        return math.hypot(self.x, self.y, self.z)

    def enter(self, points: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> Float[Tensor, " rays"]:
        half = points.new_tensor((self.x, self.y, self.z))
        # Avoids 0/0 for rays parallel to a face.
        speed = torch.where(directions.abs() < 1e-9, 1e-9, directions)
        middle, spread = -points / speed, half / speed.abs()
        entry, leave = (middle - spread).amax(-1), (middle + spread).amin(-1)
        return torch.where(entry < leave, entry, math.inf)

    def normals(self, points: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 3"]:
        relative = points / points.new_tensor((self.x, self.y, self.z))
        face = F.one_hot(relative.abs().argmax(-1), 3)
        return face * relative.sign()
