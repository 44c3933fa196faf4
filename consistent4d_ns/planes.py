"""What a K-planes level holds at points in space and time, and how it changes in space (method.md section 3.1).

On CUDA one Triton kernel looks up all six planes (see `planes_kernel`); elsewhere torch does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from importlib.util import find_spec
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

AXIS_PAIRS = tuple(combinations(range(4), 2))
"""Axes (x, y, z, t = 0..3) of the six planes: xy, xz, xt, yz, yt, zt."""
TIME_AXIS = 3

PlaneReduction = Literal["product", "hybrid"]
"""`product` multiplies all six planes; `hybrid` is (xy + xz + yz) * xt * yt * zt."""
Planes = Sequence[Float[Tensor, "1 channels rows columns"]]
"""Six planes in the order of `AXIS_PAIRS`: columns run along the first axis of a pair, rows along the second."""


def plane_features(
    planes: Planes, coordinates: Float[Tensor, "points 4"], reduction: PlaneReduction
) -> Float[Tensor, "points channels"]:
    """Combined bilinear values of the planes at (x, y, z, t) in [-1, 1]; the border value outside."""
    if runs_fused(planes, coordinates):
        from consistent4d_ns.planes_kernel import fused_features

        return fused_features(planes, coordinates, reduction)
    parts = in_parts(coordinates)
    # Slices, because a list of columns would be gathered, and on a GPU copied there each time.
    pairs = (parts[..., a : b + 1 : b - a] for a, b in AXIS_PAIRS)
    values = [sample_plane(plane, pair) for plane, pair in zip(planes, pairs)]
    return combine(values, reduction).transpose(1, 2).flatten(0, 1)[: len(coordinates)]


def plane_features_and_jacobian(
    planes: Planes, coordinates: Float[Tensor, "points 4"], reduction: PlaneReduction
) -> tuple[Float[Tensor, "points channels"], Float[Tensor, "points 3 channels"]]:
    """`plane_features` and their derivatives along x, y and z.

    Inside a cell the derivative is exact. On the line between two cells it is that of the higher one, on the box's
    border that of the cell inside, and 0 where the coordinate lies outside.
    """
    if runs_fused(planes, coordinates):
        from consistent4d_ns.planes_kernel import fused_features_and_jacobian

        return fused_features_and_jacobian(planes, coordinates, reduction)
    looks = [sample_plane_and_slopes(plane, coordinates, axes) for plane, axes in zip(planes, AXIS_PAIRS)]
    values = [value for value, _ in looks]
    jacobian = [torch.zeros_like(values[0]) for _ in range(TIME_AXIS)]
    for axes, (_, slopes), factor in zip(AXIS_PAIRS, looks, cofactors(values, reduction)):
        for axis, slope in zip(axes, slopes):
            if axis != TIME_AXIS:
                jacobian[axis] = jacobian[axis] + slope * factor
    return combine(values, reduction), torch.stack(jacobian, dim=1)


def runs_fused(planes: Planes, coordinates: Tensor) -> bool:
    """Whether the kernel takes these: float32 on CUDA, with Triton, and no gradient for the coordinates."""
    wanted = all(tensor.is_cuda and tensor.dtype == torch.float32 for tensor in (planes[0], coordinates))
    return wanted and not coordinates.requires_grad and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def combine(values: Sequence[Tensor], reduction: PlaneReduction) -> Tensor:
    """One feature of the values of six planes."""
    if reduction == "hybrid":
        xy, xz, xt, yz, yt, zt = values
        return (xy + xz + yz) * xt * yt * zt
    return reduce(torch.mul, values)


def cofactors(values: Sequence[Tensor], reduction: PlaneReduction) -> list[Tensor]:
    """Derivatives of `combine` in each of the six values."""
    if reduction == "hybrid":
        xy, xz, xt, yz, yt, zt = values
        space, time = xy + xz + yz, xt * yt * zt
        return [time, time, space * yt * zt, time, space * xt * zt, space * xt * yt]
    return [reduce(torch.mul, [other for other in values if other is not value]) for value in values]


def in_parts(coordinates: Float[Tensor, "points 4"]) -> Float[Tensor, "parts some 4"]:
    """The points as a batch of equal parts, the last filled up with zeros.

    On the CPU there is a part for each thread, because torch looks up each of a batch in one thread.
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


def sample_plane_and_slopes(
    plane: Float[Tensor, "1 channels rows columns"], coordinates: Float[Tensor, "points 4"], axes: tuple[int, int]
) -> tuple[Float[Tensor, "points channels"], tuple[Float[Tensor, "points channels"], Float[Tensor, "points channels"]]]:
    """Bilinear values of the plane along two axes, and their derivatives along both."""
    _, channels, rows, columns = plane.shape
    left, right, across, across_slope = locate(coordinates[:, axes[0]], columns)
    top, bottom, down, down_slope = locate(coordinates[:, axes[1]], rows)
    table = plane[0].permute(1, 2, 0).reshape(-1, channels)
    corners = [F.embedding(row * columns + column, table) for row in (top, bottom) for column in (left, right)]
    above, above_difference = torch.lerp(corners[0], corners[1], across), corners[1] - corners[0]
    below, below_difference = torch.lerp(corners[2], corners[3], across), corners[3] - corners[2]
    slopes = across_slope * torch.lerp(above_difference, below_difference, down), down_slope * (below - above)
    return torch.lerp(above, below, down), slopes


def locate(
    coordinate: Float[Tensor, "points"], size: int
) -> tuple[Tensor, Tensor, Float[Tensor, "points 1"], Float[Tensor, "points 1"]]:
    """The grid values before and after a coordinate, how far it is between them, and their number per unit.

    The latter is 0 outside [-1, 1], where nothing changes any more.
    """
    place = ((coordinate + 1.0) / 2.0 * (size - 1)).clamp(0, size - 1)
    before = place.detach().long().clamp(max=max(size - 2, 0))
    slope = torch.where(coordinate.detach().abs() <= 1.0, 0.5 * (size - 1), 0.0).to(place.dtype)
    return before, (before + 1).clamp(max=size - 1), (place - before)[:, None], slope[:, None]
