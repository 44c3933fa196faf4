"""Features of a K-planes level at points in space and time, and their spatial derivatives (method.md section 3.1).

On CUDA one Triton kernel interpolates all planes (see `planes_kernel`); elsewhere torch does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from consistent4d_ns.device import kernels
from consistent4d_ns.field.types import TIME_AXIS, PlaneReduction, Planes, axes_of


def plane_features(
    planes: Planes, coordinates: Float[Tensor, "points 4"], reduction: PlaneReduction
) -> Float[Tensor, "points channels"]:
    """Combined bilinear values of the planes at (x, y, z, t) in [-1, 1]; the border value outside."""
    if runs_fused(planes, coordinates):
        from consistent4d_ns.field.planes_kernel import fused_features

        return fused_features(planes, coordinates, reduction)
    parts = in_parts(coordinates)
    # Slices are views; indexing with a list would gather, and on a GPU copy the indices there each time.
    pairs = (parts[..., a : b + 1 : b - a] for a, b in axes_of(planes))
    values = [sample_plane(plane, pair) for plane, pair in zip(planes, pairs, strict=True)]
    return combine(values, reduction).transpose(1, 2).flatten(0, 1)[: len(coordinates)]


def plane_features_and_jacobian(
    planes: Planes, coordinates: Float[Tensor, "points 4"], reduction: PlaneReduction
) -> tuple[Float[Tensor, "points channels"], Float[Tensor, "points 3 channels"]]:
    """`plane_features` and their derivatives along x, y and z.

    Inside a cell the derivative is exact. On the line between two cells it is that of the higher one, on the box's
    border that of the cell inside, and 0 where the coordinate lies outside.
    """
    if runs_fused(planes, coordinates):
        from consistent4d_ns.field.planes_kernel import fused_features_and_jacobian

        return fused_features_and_jacobian(planes, coordinates, reduction)
    parts = in_parts(coordinates)
    pairs = axes_of(planes)
    values = [sample_plane(plane, parts[..., list(axes)]) for plane, axes in zip(planes, pairs, strict=True)]
    derivatives: list[list[Tensor]] = [[], [], []]
    for plane, axes, factor in zip(planes, pairs, cofactors(values, reduction), strict=True):
        for axis in axes:
            if axis != TIME_AXIS:
                derivatives[axis].append(plane_slope(plane, parts, axes, axis) * factor)
    results = combine(values, reduction), *(reduce(torch.add, terms) for terms in derivatives)
    features, *jacobian = (result.transpose(1, 2).flatten(0, 1)[: len(coordinates)] for result in results)
    return features, torch.stack(jacobian, dim=1)


def runs_fused(planes: Planes, coordinates: Tensor) -> bool:
    """Whether the kernel can be used: float32 on CUDA, Triton installed, no gradient for the coordinates."""
    return kernels.usable(planes[0]) and kernels.usable(coordinates) and not coordinates.requires_grad


def combine(values: Sequence[Tensor], reduction: PlaneReduction) -> Tensor:
    """Combine the values of the planes into one feature."""
    if reduction == "product":
        return reduce(torch.mul, values)
    space, time = in_space_and_time(values)
    return reduce(torch.mul, [reduce(torch.add, space), *time])


def cofactors(values: Sequence[Tensor], reduction: PlaneReduction) -> list[Tensor]:
    """Derivatives of `combine` with respect to each of the values."""
    if reduction == "product":
        return [reduce(torch.mul, [other for other in values if other is not value]) for value in values]
    space, time = in_space_and_time(values)
    total = reduce(torch.add, space)
    of_space = reduce(torch.mul, time) if time else torch.ones_like(total)
    return [
        reduce(torch.mul, [total, *(other for other in time if other is not value)]) if TIME_AXIS in axes else of_space
        for value, axes in zip(values, axes_of(values), strict=True)
    ]


def in_space_and_time(values: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The values of xy, xz, yz, and those of xt, yt, zt, of which there are none in a level without time."""
    pairs = list(zip(values, axes_of(values), strict=True))
    return [v for v, axes in pairs if TIME_AXIS not in axes], [v for v, axes in pairs if TIME_AXIS in axes]


def in_parts(coordinates: Float[Tensor, "points 4"]) -> Float[Tensor, "parts some 4"]:
    """The points as a batch of equal parts, the last padded with zeros.

    On the CPU there is one part per thread, because `grid_sample` parallelises over the batch only.
    """
    parts = torch.get_num_threads() if coordinates.device.type == "cpu" else 1
    some = -(-len(coordinates) // parts)
    missing = parts * some - len(coordinates)
    return (F.pad(coordinates, (0, 0, 0, missing)) if missing else coordinates).view(parts, some, 4)


def sample_plane(
    plane: Float[Tensor, "1 channels rows columns"], coordinates: Float[Tensor, "parts points 2"]
) -> Float[Tensor, "parts channels points"]:
    """Bilinear values of a plane at (column, row) coordinates in [-1, 1]; the border value outside."""
    planes = plane.expand(len(coordinates), -1, -1, -1)
    # Points along the last axis, which torch vectorises on the CPU.
    grid = coordinates[:, None]
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True).squeeze(2)


def plane_slope(
    plane: Float[Tensor, "1 channels rows columns"],
    coordinates: Float[Tensor, "parts points 4"],
    axes: tuple[int, int],
    axis: int,
) -> Float[Tensor, "parts channels points"]:
    """Derivative of a plane's bilinear values along one of its two axes: the difference across the cell."""
    size = plane.shape[3 - axes.index(axis)]
    place = ((coordinates[..., axis].detach() + 1.0) / 2.0 * (size - 1)).clamp(0, size - 1)
    before = place.floor().clamp(max=max(size - 2, 0))
    ends = []
    for index in (before, (before + 1.0).clamp(max=size - 1)):
        at_end = coordinates[..., list(axes)]
        at_end[..., axes.index(axis)] = index * (2.0 / max(size - 1, 1)) - 1.0
        ends.append(sample_plane(plane, at_end))
    inside = coordinates[..., axis].abs() <= 1.0
    return (ends[1] - ends[0]) * torch.where(inside, 0.5 * (size - 1), 0.0).to(plane.dtype)[:, None]
