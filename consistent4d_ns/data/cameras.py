"""Cameras on a sphere around the object: pure maths (method.md section 2.1).

The world is right-handed with z up. Azimuth runs from +x towards +y, elevation from the xy plane towards +z; every
camera looks at the origin. Camera axes are OpenGL's: x right, y up, looking along -z. Angles are in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.errors import InputError

DEFAULT_CAMERA = {"elevation": 0.0, "azimuth": 0.0, "distance": 2.0, "fovy": 49.1}
"""Default input camera (method.md section 2): degrees, degrees, world units, degrees."""
CAMERA_RANGES = {
    "elevation": (-90.0, 90.0),
    "azimuth": (-math.inf, math.inf),
    "distance": (1.0, 100.0),
    "fovy": (1.0, 179.0),
}
"""Accepted values. The object fits in the unit ball, so from a distance of 1 on a camera is outside of it. Up to
sqrt(3), which the corners of the box [-1, 1]^3 reach, a camera can still be inside the box; rays then begin there.
Azimuths are taken modulo 360."""


@dataclass(frozen=True)
class OrbitViews:
    """Cameras on spheres around the object that look at its centre."""

    elevation: Float[Tensor, " views"]
    """Degrees above the xy plane."""
    azimuth: Float[Tensor, " views"]
    """Degrees from +x towards +y."""
    distance: Float[Tensor, " views"]
    """World units from the origin (the object's box is [-1, 1]^3)."""
    fovy: Float[Tensor, " views"]
    """Vertical field of view in degrees."""

    def __len__(self) -> int:
        return self.elevation.shape[0]

    def __getitem__(self, chosen: Int64[Tensor, " chosen"] | slice) -> OrbitViews:
        """Some of the views; one may be chosen several times."""
        return OrbitViews(*self.stacked()[:, chosen])

    def stacked(self) -> Float[Tensor, "4 views"]:
        """All values in one tensor, in the order of the fields."""
        return torch.stack((self.elevation, self.azimuth, self.distance, self.fovy))

    def to(self, device: torch.device | str) -> OrbitViews:
        """The same views on another device; copies to a GPU do not wait for the work queued there."""
        return OrbitViews(*self.stacked().to(device, non_blocking=torch.device(device).type == "cuda"))

    def poses(self) -> Float[Tensor, "views 3 4"]:
        """Camera-to-world matrices."""
        return orbit_poses(self.elevation, self.azimuth, self.distance)


def orbit_views(elevation: float, azimuth: float, distance: float, fovy: float, count: int = 1) -> OrbitViews:
    """The same view `count` times."""
    return OrbitViews(*(torch.full((count,), float(value)) for value in (elevation, azimuth, distance, fovy)))


def orbit_camera(where: str, camera: Mapping[str, float]) -> OrbitViews:
    """One camera from its elevation, azimuth, distance and fovy.

    Raises:
        InputError: A number is not finite or outside `CAMERA_RANGES`.
    """
    for name, (low, high) in CAMERA_RANGES.items():
        if not (math.isfinite(camera[name]) and low <= camera[name] <= high):
            raise InputError(f"{name} of {where} is {camera[name]}: use a value from {low:g} to {high:g}")
    return orbit_views(camera["elevation"], turned(camera["azimuth"]), camera["distance"], camera["fovy"])


def turned(azimuth: float) -> float:
    """The same azimuth in degrees between -360 and 360: float32 has no place for the degrees of a large number."""
    return math.fmod(azimuth, 360.0)


def orbit_positions(
    elevation: Float[Tensor, "*views"], azimuth: Float[Tensor, "*views"], distance: Float[Tensor, "*views"]
) -> Float[Tensor, "*views 3"]:
    """Camera centres d (cos e cos a, cos e sin a, sin e)."""
    e, a = torch.deg2rad(elevation), torch.deg2rad(azimuth)
    unit = torch.stack((torch.cos(e) * torch.cos(a), torch.cos(e) * torch.sin(a), torch.sin(e)), dim=-1)
    return distance[..., None] * unit


def orbit_poses(
    elevation: Float[Tensor, "*views"], azimuth: Float[Tensor, "*views"], distance: Float[Tensor, "*views"]
) -> Float[Tensor, "*views 3 4"]:
    """Camera-to-world matrices with columns right, up, backward, position.

    The up vector is +z; straight above or below the object, where that is undefined, it follows from the azimuth.
    """
    position = orbit_positions(elevation, azimuth, distance)
    backward = F.normalize(position, dim=-1)
    # right = look x z, expressed by the azimuth so that it is exact at the poles too.
    a = torch.deg2rad(azimuth)
    right = torch.stack((-torch.sin(a), torch.cos(a), torch.zeros_like(a)), dim=-1)
    up = torch.linalg.cross(backward, right, dim=-1)
    return torch.stack((right, up, backward, position), dim=-1)


def view_from(position: Float[Tensor, "3"], fovy: float) -> OrbitViews:
    """The view from a position in world units (not the origin); `fovy` in degrees."""
    x, y, z = position
    elevation, azimuth = torch.atan2(z, torch.hypot(x, y)), torch.atan2(y, x)
    return orbit_views(math.degrees(elevation), math.degrees(azimuth), float(position.norm()), fovy)


def relative_pose(views: OrbitViews, condition: OrbitViews) -> Float[Tensor, "views 4"]:
    """Zero123's camera vector (rad(e_c - e), sin(a - a_c), cos(a - a_c), d - d_c) (method.md section 5.2).

    Args:
        views: The novel views.
        condition: View(s) of the conditioning image(s); one, or as many as `views`.
    """
    azimuth = torch.deg2rad(views.azimuth - condition.azimuth)
    elevation = torch.deg2rad(condition.elevation - views.elevation)
    parts = (elevation, torch.sin(azimuth), torch.cos(azimuth), views.distance - condition.distance)
    return torch.stack(torch.broadcast_tensors(*parts), dim=-1)


def absolute_view(
    poses: Float[Tensor, "views 4"], condition: OrbitViews
) -> tuple[Float[Tensor, " views"], Float[Tensor, " views"], Float[Tensor, " views"]]:
    """Elevation and azimuth in degrees and distance of views given relative to `condition`: undoes `relative_pose`."""
    elevation, sine, cosine, distance = poses.unbind(-1)
    base = condition.to(poses.device)
    azimuth = base.azimuth + torch.rad2deg(torch.atan2(sine, cosine))
    return base.elevation - torch.rad2deg(elevation), azimuth, base.distance + distance


def full_circle(count: int) -> list[float]:
    """`count` evenly spaced azimuths in degrees, from 0."""
    return [360.0 * i / count for i in range(count)]
