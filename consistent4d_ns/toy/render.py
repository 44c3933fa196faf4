"""Ray-cast images of the toy."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.rays import focal_length, pixel_rays
from consistent4d_ns.toy.creature import RADIUS, Part, creature

LIGHT = (0.45, -0.35, 0.82)
"""Unit direction towards the light. The light is fixed and surfaces are diffuse: colours do not depend on the view."""
AMBIENT = 0.68
"""Brightness of a surface that faces away from the light; one that faces it has 1."""
CHUNK = 1 << 18
"""Rays cast at once."""


def render(
    poses: Float[Tensor, "views 3 4"],
    fovy: Float[Tensor, " views"] | float,
    size: int,
    times: Float[Tensor, " views"],
    samples_per_side: int = 3,
) -> Float[Tensor, "views 4 size size"]:
    """Images of the toy with premultiplied alpha, all values in [0, 1].

    Args:
        poses: Camera-to-world matrices (OpenGL axes) of cameras outside the toy; they set dtype and device.
        fovy: Vertical field of view in degrees.
        size: Width and height in pixels.
        times: Times in [0, 1].
        samples_per_side: Rays per pixel and axis; a pixel is their mean, which antialiases edges.
    """
    fine = size * samples_per_side
    focal = focal_length(torch.as_tensor(fovy).to(poses).expand(len(poses)), fine)
    images = []
    for pose, f, time in zip(poses, focal, times.tolist(), strict=True):
        directions = pixel_rays(pose[None], f[None], fine, fine)[1].view(-1, 3)
        rgba = torch.cat([_cast(creature(time), pose[:, 3], some) for some in directions.split(CHUNK)])
        images.append(F.avg_pool2d(rgba.view(fine, fine, 4).permute(2, 0, 1), samples_per_side))
    return torch.stack(images)


def _cast(
    parts: tuple[Part, ...], origin: Float[Tensor, "3"], directions: Float[Tensor, "rays 3"]
) -> Float[Tensor, "rays 4"]:
    """Colour and opacity (0 or 1) along rays, most of which miss the toy."""
    near = directions @ -origin > (origin.square().sum() - RADIUS**2).sqrt()
    distance, colour = trace(parts, origin, directions[near])
    rgba = torch.zeros_like(directions[:, :1]).repeat(1, 4)
    rgba[near] = torch.cat((colour, distance.isfinite()[:, None].to(colour)), dim=-1)
    return rgba


def trace(
    parts: tuple[Part, ...], origin: Float[Tensor, "3"], directions: Float[Tensor, "rays 3"]
) -> tuple[Float[Tensor, " rays"], Float[Tensor, "rays 3"]]:
    """First intersections with the toy of rays from one point outside of it.

    Returns:
        Distances along the unit directions (inf for a miss) and colours (0 for a miss).
    """
    rotations = torch.stack([part.frame.rotation for part in parts]).to(directions)
    to_centres = torch.stack([part.frame.position for part in parts]).to(directions) - origin
    radii = directions.new_tensor([part.shape.radius for part in parts])
    along = to_centres @ directions.T
    # A ray passes through the ball around a part when its angle to the centre is small enough.
    passes = along > (to_centres.square().sum(-1, keepdim=True) - radii[:, None] ** 2).sqrt()
    distance = torch.full_like(directions[:, 0], math.inf)
    colour = torch.zeros_like(directions)
    for part, rotation, to_centre, reach, near in zip(parts, rotations, to_centres, along, passes, strict=True):
        rays = near.nonzero()[:, 0]
        # Start at the point closest to the part's centre, in the frame of the part.
        start = (reach[rays, None] * directions[rays] - to_centre) @ rotation
        heading = directions[rays] @ rotation
        entry = part.shape.enter(start, heading)
        nearer = reach[rays] + entry < distance[rays]
        rays, entry = rays[nearer], entry[nearer]
        points = start[nearer] + entry[:, None] * heading[nearer]
        distance[rays] = reach[rays] + entry
        colour[rays] = part.texture(points) * shade(part.shape.normals(points) @ rotation.T)
    return distance, colour


def shade(normals: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 1"]:
    """Brightness of a diffuse surface by half-Lambert shading, from `AMBIENT` to 1."""
    facing = normals @ F.normalize(normals.new_tensor(LIGHT), dim=0)
    return (AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * facing))[:, None]
