"""Rays through the pixels of cameras (method.md section 2.1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.data.images import locate_pixels

if TYPE_CHECKING:
    from nerfstudio.cameras.rays import RayBundle


def focal_length(fovy: Float[Tensor, "*views"], height: int) -> Float[Tensor, "*views"]:
    """Focal length in pixels of an image `height` pixels high."""
    return 0.5 * height / torch.tan(0.5 * torch.deg2rad(fovy))


def pixel_rays(
    poses: Float[Tensor, "views 3 4"], focal: Float[Tensor, " views"], height: int, width: int
) -> tuple[Float[Tensor, "views height width 3"], Float[Tensor, "views height width 3"]]:
    """Origins and unit directions of the rays through all pixel centres; row 0 is the top row."""
    like = {"dtype": poses.dtype, "device": poses.device}
    x = torch.arange(width, **like) + 0.5 - width / 2
    y = torch.arange(height, **like) + 0.5 - height / 2
    y, x = torch.meshgrid(y, x, indexing="ij")
    local = camera_directions(x, y, focal[:, None, None])
    directions = F.normalize(torch.einsum("vij,vhwj->vhwi", poses[:, :, :3], local), dim=-1)
    origins = poses[:, None, None, :, 3].expand_as(directions)
    return origins, directions


def camera_directions(
    x: Float[Tensor, "*#rays"], y: Float[Tensor, "*#rays"], focal: Float[Tensor, "*#rays"]
) -> Float[Tensor, "*rays 3"]:
    """Directions in camera axes, not normalised, from pixels to the right of and below the image's centre."""
    right, down = x / focal, y / focal
    return torch.stack((right, -down, -torch.ones_like(right)), dim=-1)


def box_exit(distance: Float[Tensor, "*rays"]) -> Float[Tensor, "*rays"]:
    """Distance after which rays have left the box [-1, 1]^3, from the distance of their origins to its centre."""
    return distance + math.sqrt(3.0)


def view_rays(views: OrbitViews, times: Float[Tensor, " views"], image_size: int) -> RayBundle:
    """Rays through all pixels of square images, flattened to views * rows * columns."""
    # Imported here: everything else in this module does without Nerfstudio.
    from nerfstudio.cameras.rays import RayBundle

    focal = focal_length(views.fovy, image_size)
    origins, directions = pixel_rays(views.poses(), focal, image_size, image_size)
    per_view = image_size * image_size
    camera = torch.arange(len(views), device=origins.device).repeat_interleave(per_view)
    return RayBundle(
        origins=origins.reshape(-1, 3),
        directions=directions.reshape(-1, 3),
        pixel_area=focal.square().reciprocal()[camera, None],
        camera_indices=camera[:, None],
        times=times[camera, None],
    )


def scattered_rays(
    views: OrbitViews, times: Float[Tensor, " views"], image_size: int, pixels: Int64[Tensor, " rays"]
) -> RayBundle:
    """Some of the rays of `view_rays`: those through `pixels`, counted view after view and row after row."""
    from nerfstudio.cameras.rays import RayBundle

    view, row, column = locate_pixels(pixels, image_size)
    poses, focal = views.poses()[view], focal_length(views.fovy, image_size)[view]
    middle = 0.5 - image_size / 2
    local = camera_directions(column + middle, row + middle, focal)
    directions = F.normalize((poses[:, :, :3] @ local[..., None]).squeeze(-1), dim=-1)
    return RayBundle(
        origins=poses[:, :, 3],
        directions=directions,
        pixel_area=focal.square().reciprocal()[:, None],
        camera_indices=view[:, None],
        times=times[view, None],
    )
