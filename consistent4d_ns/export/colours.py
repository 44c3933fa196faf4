"""Colours of a surface in a density field: rendered along rays perpendicular to the surface."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from consistent4d_ns.model import Consistent4DModel

OUTSIDE = 0.12
"""Distance from the surface at which rays start, in world units: fog in front of it is seen too."""
INSIDE = 0.1
"""Distance behind the surface at which they end, in world units."""
VISIBLE = 0.01
"""Opacity below which a ray counts as empty, and the field's colour at the surface is taken instead."""
CHUNK = 1 << 16
"""Rays at a time."""


@torch.no_grad()
def seen_colours(
    model: Consistent4DModel,
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    time: float,
) -> Float[Tensor, "points 3"]:
    """Colours in [0, 1] of the finest level at points of a surface.

    Args:
        model: The trained field.
        points: Positions in world units.
        normals: Unit vectors that point outwards.
        time: In [0, 1].
    """
    chunks = zip(points.split(CHUNK), normals.split(CHUNK), strict=True)
    return torch.cat([_look(model, p, n, time) for p, n in chunks])


def _look(
    model: Consistent4DModel, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], time: float
) -> Float[Tensor, "points 3"]:
    one = torch.ones_like(points[:, :1])
    rays = RayBundle(
        origins=points + OUTSIDE * normals,
        directions=-normals,
        pixel_area=one,
        nears=0.0 * one,
        fars=(OUTSIDE + INSIDE) * one,
        times=time * one,
    )
    rendering = model.render(rays, None, with_normals=False)
    rgb, opacity = rendering.rgb[-1], rendering.accumulation[-1][:, None]
    seen = (rgb - (1.0 - opacity)) / opacity.clamp(min=VISIBLE)
    empty = (opacity < VISIBLE)[:, 0]
    if empty.any():
        _, features = model.field(points[empty], torch.full_like(points[empty, 0], time * 2.0 - 1.0))
        seen[empty] = torch.sigmoid(features[-1])
    return seen.clamp(0.0, 1.0)
