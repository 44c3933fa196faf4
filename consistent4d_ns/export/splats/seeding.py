"""Turns a density field into Gaussians: one in each cell of a lattice that any view around the object sees.

The fog of a cell becomes a round Gaussian of as much optical depth: where h is the spacing, sigma the density in the
middle of the cell and s the standard deviation, a line through the centre sees sigma h^3 / (2 pi s^2). Their sum
approximates the density, so that haze stays haze, and where the object is solid, what is seen is its surface.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.data.cameras import OrbitViews
from consistent4d_ns.export.solid import CHUNK, finest_density, occupied_lattice
from consistent4d_ns.export.splats.gaussians import Gaussians
from consistent4d_ns.export.splats.raster import alphas, as_samples, project, seen_parts
from consistent4d_ns.model import Consistent4DModel
from consistent4d_ns.rendering.compositing import render_weights

WIDTH = 0.45
"""Standard deviation in units of the spacing: smaller ones leave gaps when seen from close by, larger ones blur."""
FAINTEST = 0.01
"""Opacity at the centre below which a Gaussian is left out."""
UNSEEN = 0.01
"""A Gaussian that contributes less than this to every pixel is left out."""


def seed(model: Consistent4DModel, cells: int, views: OrbitViews, time: float) -> Gaussians:
    """Gaussians of the finest level at a time in [0, 1], as many as are seen from `views`; there may be none."""
    # In images with as many pixels a side as there are cells, a Gaussian covers a few of them.
    return seen_from(converted(model, cells, time), views, size=cells)


@torch.no_grad()
def converted(model: Consistent4DModel, cells: int, time: float) -> Gaussians:
    """A Gaussian in the middle of every cell that is not empty, with `cells` of them along each side of the box.

    Raises:
        InputError: the occupancy grid is empty.
    """
    lattice = occupied_lattice(model.occupancy, cells)
    depth = finest_density(model.field, lattice.points, time) * lattice.spacing / (2.0 * math.pi * WIDTH**2)
    opacity = -torch.expm1(-depth)
    kept = opacity > FAINTEST
    points, opacity = lattice.points[kept], opacity[kept]
    times = torch.full_like(opacity, time * 2.0 - 1.0)
    chunks = zip(points.split(CHUNK), times.split(CHUNK), strict=True)
    return Gaussians(
        means=points,
        quaternions=torch.tensor((1.0, 0.0, 0.0, 0.0), device=points.device).repeat(len(points), 1),
        log_scales=torch.full_like(points, math.log(WIDTH * lattice.spacing)),
        opacity_logits=torch.logit(opacity, eps=1e-4),
        colour_logits=torch.cat([model.field(*chunk)[1][-1] for chunk in chunks]),
    )


@torch.no_grad()
def seen_from(gaussians: Gaussians, views: OrbitViews, size: int) -> Gaussians:
    """The Gaussians that contribute to an image of any of the views at `size` x `size` pixels."""
    most = torch.zeros_like(gaussians.opacity_logits)
    for view in each(views):
        most = torch.maximum(most, greatest_weights(gaussians, view, size))
    return gaussians[most > UNSEEN]


def greatest_weights(gaussians: Gaussians, view: OrbitViews, size: int) -> Float[Tensor, " gaussians"]:
    """Largest share that each Gaussian has in any pixel of an image."""
    projected = project(gaussians, view, size)
    parts = seen_parts(gaussians, projected, size)
    alpha = alphas(gaussians, projected, parts, size)
    weights = render_weights(-torch.log1p(-alpha)[None], as_samples(parts.pixel, size * size))[0]
    most = torch.zeros_like(gaussians.opacity_logits)
    return most.scatter_reduce(0, projected.order[parts.place], weights, reduce="amax")


def each(views: OrbitViews) -> Iterable[OrbitViews]:
    """The views one by one."""
    return (views[i : i + 1] for i in range(len(views)))


def views_around(view: OrbitViews, count: int) -> OrbitViews:
    """Views from all sides, with the distance and the field of view of `view`: evenly spread over a sphere.

    Neighbours in the list look from different sides.
    """
    place = torch.arange(count, dtype=torch.float32)
    # Heights in an order that leaps (the golden ratio's multiples), so that every part of the list covers all heights.
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    height = (place * golden + 0.5).frac() * 2.0 - 1.0
    azimuth = view.azimuth.cpu() + 360.0 * (place + 0.5) / count
    elevation = torch.rad2deg(torch.asin(height))
    return OrbitViews(elevation, azimuth, view.distance.cpu().expand(count), view.fovy.cpu().expand(count))
